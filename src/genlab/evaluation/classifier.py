"""A small classifier trained on a data set's train split: the offline feature extractor, never called Inception."""

import fcntl
import hashlib
import io
import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.data.loader import TrainLoader
from genlab.data.source import Source
from genlab.errors import GenlabError


class Network(nn.Module):
    """Two 3x3 convolutions, pooling, and a hidden layer whose activations are the features."""

    def __init__(self, channels: int, size: int, features: int, classes: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (size // 2) ** 2, features),
            nn.ReLU(),
        )
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x.float() / 127.5 - 1)
        return h, self.head(F.dropout(h, 0.3, self.training))


class Classifier:
    """Penultimate features (B, features) and logits (B, classes) of uint8 images, in float32 whatever the context.

    Trained once, deterministically, on the train split alone; kept in `cache` under what it was trained from and verified
    by sha256 on loading. Raises GenlabError for images of another shape.
    """

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
        self.name = f"{source.name}-classifier"
        self.shape = tuple(shape)
        recipe = {"data": source.name, "shape": shape, "features": features, "images": images, "lr": lr, "seed": seed}
        self.network = Network(shape[0], shape[1], features, classes)
        folder = Path(cache).expanduser() / hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two jobs of a sweep want it at once
            weights = _read(folder)
            if weights is None:
                self._train(source, images, lr, seed)
                weights = _write(folder, self.network, recipe)
        self.fingerprint = hashlib.sha256(weights).hexdigest()
        self.network.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
        self.network.eval().requires_grad_(False)

    def to(self, device: torch.device) -> "Classifier":
        self.network.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[1:] != self.shape:
            raise GenlabError(f"{self.name} sees images of {self.shape}, not {tuple(x.shape[1:])}")
        with torch.autocast(x.device.type, enabled=False):
            return self.network(x)

    def _train(self, source: Source, images: int, lr: float, seed: int) -> None:
        data, batch = source.split("train"), 64
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
        return (self(x)[1].argmax(1) == y).float().mean().item()


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
    manifest = {**recipe, "sha256": hashlib.sha256(weights).hexdigest()}
    for name, content in (("weights.pt", weights), ("manifest.json", json.dumps(manifest).encode())):
        temporary = folder / f".{name}.{os.getpid()}"
        temporary.write_bytes(content)
        os.replace(temporary, folder / name)
    return weights
