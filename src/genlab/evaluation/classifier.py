"""A small classifier trained on a data set's train split: the offline feature extractor, never called Inception."""

import hashlib
import io
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.data.loader import TrainLoader
from genlab.data.source import Batch, Source
from genlab.errors import GenlabError
from genlab.evaluation.features import Activations
from genlab.evaluation.precision import exact
from genlab.files import locked, place

SIDE = 8  # pixels from which the last two convolutions see the whole image; larger ones are halved until they are not


class Network(nn.Module):
    """Two 3x3 convolutions, pooling, and a hidden layer whose activations are the features; one convolution more for each
    time that images larger than 8x8 are halved before."""

    def __init__(self, shape: tuple[int, ...], features: int, classes: int):
        super().__init__()
        width, height, across = shape
        layers: list[nn.Module] = []
        while max(height, across) > SIDE:
            layers += [nn.Conv2d(width, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            width, height, across = 32, height // 2, across // 2
        self.body = nn.Sequential(
            *layers,
            nn.Conv2d(width, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 2) * (across // 2), features),
            nn.ReLU(),
        )
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x.float() / 127.5 - 1)
        return h, self.head(F.dropout(h, 0.3, self.training))


class Classifier:
    """Penultimate features (B, features) and logits (B, classes) of uint8 images, in float32 whatever the context.

    Trained once, deterministically, on the train split alone; kept in `cache` under what it was trained from and verified
    by sha256 on loading. Raises GenlabError for data without classes, and for images of another shape.
    """

    layer = "hidden"
    resize = "none"

    def __init__(
        self,
        source: Source,
        shape: list[int],
        classes: int,
        features: int,
        images: int,
        lr: float,
        seed: int,
        cache: str,
    ):
        if not classes:
            raise GenlabError(
                f"{source.name} has no classes to train a classifier on: set data.classes=K if its subfolders or labels are "
                "classes, evaluation.n=0 for no score, or take features that are known already, as evaluation=clean does"
            )
        self.name = f"{source.name}-classifier"
        self.shape = tuple(shape)
        recipe = {"data": source.name, "data_sha256": source.sha256("train"), "shape": shape, "classes": classes}
        recipe |= {"features": features, "images": images, "lr": lr, "seed": seed}
        self.network = Network(self.shape, features, classes)
        folder = Path(cache).expanduser() / hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
        with locked(folder):  # two jobs of a sweep want it at once
            weights = _read(folder)
            if weights is None:
                self._train(source.split("train"), images, lr, seed)
                weights = _write(folder, self.network, recipe)
        self.fingerprint = hashlib.sha256(weights).hexdigest()
        self.network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
        self.network.eval().requires_grad_(False)

    def to(self, device: torch.device) -> "Classifier":
        self.network.to(device)
        return self

    def __call__(self, x: Tensor) -> Activations:
        if x.shape[1:] != self.shape:
            raise GenlabError(f"{self.name} sees images of {self.shape}, not {tuple(x.shape[1:])}")
        with exact(x.device):
            return Activations(*self.network(x))

    def _train(self, data: Batch, images: int, lr: float, seed: int) -> None:
        if data.y is None or data.y.ndim != 1 or data.y.is_floating_point():
            raise GenlabError(
                f"{self.name} learns one class label of each image, which the train split does not have: give it labels "
                "(shapes: data.source.condition=label), or take features that are known already, as evaluation=clean does"
            )
        batch = min(64, len(data.x))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.reset_parameters()
            optimizer = torch.optim.Adam(self.network.parameters(), lr=lr)
            for x, y in TrainLoader(data, batch, seed, 0, images // batch):
                assert y is not None
                optimizer.zero_grad()
                F.cross_entropy(self.network(x)[1], y).backward()
                optimizer.step()

    def accuracy(self, source: Source, split: str) -> float:
        """The share of a split that it classifies rightly."""
        x, y = source.split(split)
        assert y is not None
        logits = torch.cat([self.network(part)[1] for part in x.split(1024)])
        return (logits.argmax(1) == y).float().mean().item()


def _read(folder: Path) -> bytes | None:
    """The cached weights, or None if there are none or they are not what was written."""
    try:
        weights, manifest = (folder / "weights.pt").read_bytes(), json.loads((folder / "manifest.json").read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return weights if hashlib.sha256(weights).hexdigest() == manifest.get("sha256") else None


def _write(folder: Path, network: nn.Module, recipe: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    weights = buffer.getvalue()
    manifest = {**recipe, "sha256": place(folder / "weights.pt", lambda file: file.write(weights))}
    place(folder / "manifest.json", lambda file: file.write(json.dumps(manifest).encode()))
    return weights
