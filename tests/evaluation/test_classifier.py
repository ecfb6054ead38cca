"""The offline extractor: what it learns, that it is kept, and for what data there can be none."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from genlab.data.digits import Digits
from genlab.data.source import Batch, digest
from genlab.errors import GenlabError
from genlab.evaluation.classifier import Classifier, Network


class Stripes:
    """Noisy stripes of any size, upright or lying: two classes that anything can tell apart."""

    name = "stripes"

    def __init__(self, shape: tuple[int, int, int], seed: int = 0, labels: bool = True):
        self.shape, self.seed, self.labels = shape, seed, labels

    def split(self, name: str) -> Batch:
        generator = torch.Generator().manual_seed(self.seed + (name == "test"))
        y = torch.randint(0, 2, (256,), generator=generator)
        line = 128 + 80 * torch.sign(torch.sin(torch.arange(self.shape[1]) * 0.8))
        lying = line[:, None].expand(self.shape[1:])
        x = torch.where(y.view(-1, 1, 1, 1) == 1, lying, lying.T).expand(256, *self.shape)
        x = (x + 20 * torch.randn(256, *self.shape, generator=generator)).clamp(0, 255).byte()
        return Batch(x, y if self.labels else None)

    def sha256(self, split: str) -> str:
        return digest(self.split(split))


def make(source: Stripes | Digits, cache: Path, images: int = 640, classes: int = 2, seed: int = 0) -> Classifier:
    shape = list(source.split("train").x.shape[1:])
    return Classifier(source, shape, classes, 64, images, 1e-3, seed, str(cache))


def test_digits_are_recognized_and_told_apart_in_its_features(tmp_path: Path) -> None:
    digits = Digits()
    extractor = make(digits, tmp_path, images=9600, classes=10)
    assert extractor.accuracy(digits, "test") > 0.93
    x, y = digits.split("test")
    features, logits, spatial = extractor(x)
    assert logits is not None
    assert spatial is None
    assert (features.shape, logits.shape) == ((360, 64), (360, 10))
    assert (extractor.name, extractor.layer, extractor.resize) == ("digits-classifier", "hidden", "none")
    distance = torch.cdist(features, features).fill_diagonal_(torch.inf)
    assert y is not None
    assert (y[distance.argmin(1)] == y).float().mean() > 0.9  # a neighbour is of the same class


def test_a_few_images_are_a_batch(tmp_path: Path) -> None:
    class Few(Stripes):
        def split(self, name: str) -> Batch:
            x, y = super().split(name)
            return Batch(x[:36], None if y is None else y[:36])

    source = Few((1, 8, 8))
    assert make(source, tmp_path).accuracy(source, "train") > 0.9


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_images_of_any_size_become_4x4_or_3x3_before_the_hidden_layer(shape: tuple[int, int, int]) -> None:
    network = Network(shape, 64, 10)
    features, logits = network(torch.zeros(2, *shape, dtype=torch.uint8))
    assert (features.shape, logits.shape) == ((2, 64), (2, 10))
    assert network.body[-2].in_features in (64 * 16, 64 * 9)
    assert sum(p.numel() for p in network.parameters()) < 120_000


def test_the_network_of_8x8_images() -> None:
    """Its layers are those that trained the published digits figures."""
    assert [tuple(p.shape) for p in Network((1, 8, 8), 64, 10).parameters()] == [
        *((32, 1, 3, 3), (32,), (64, 32, 3, 3), (64,)),
        *((64, 1024), (64,), (10, 64), (10,)),
    ]


def test_larger_images_are_learned_too(tmp_path: Path) -> None:
    source = Stripes((3, 32, 32))
    assert make(source, tmp_path).accuracy(source, "test") > 0.98


def test_it_is_trained_once_and_deterministically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Stripes((1, 8, 8))
    first = make(source, tmp_path / "a", images=128)
    again = make(source, tmp_path / "b", images=128)
    assert first.fingerprint == again.fingerprint
    others = (Stripes((1, 8, 8), seed=5), source)  # other data of the same name, and another seed
    assert (
        len({first.fingerprint, *(make(s, tmp_path / "a", 128, seed=i).fingerprint for i, s in enumerate(others))}) == 3
    )

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Classifier, "_train", refuse)
    kept = make(source, tmp_path / "a", images=128)
    assert kept.fingerprint == first.fingerprint
    x = source.split("test").x
    assert torch.equal(kept(x).features, first(x).features)
    weights = next(p for p in (tmp_path / "b").rglob("weights.pt"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(AssertionError, match="trained again"):  # what is damaged is not used
        make(source, tmp_path / "b", images=128)


def test_float32_whatever_the_context(tmp_path: Path) -> None:
    source = Stripes((1, 8, 8))
    extractor, x = make(source, tmp_path, images=64), source.split("test").x
    with torch.autocast("cpu", torch.bfloat16):
        inside: Tensor = extractor(x).features
    assert inside.dtype == torch.float32
    assert torch.equal(inside, extractor(x).features)


def test_data_without_classes_and_images_of_another_shape(tmp_path: Path) -> None:
    unlabelled = Stripes((1, 8, 8), labels=False)
    told = r"has no classes to train a classifier on: set data.classes=K .*evaluation\.n=0 .*evaluation=clean"
    with pytest.raises(GenlabError, match=f"stripes {told}"):
        make(unlabelled, tmp_path, classes=0)
    with pytest.raises(GenlabError, match="one class label of each image, which the train split does not have"):
        make(unlabelled, tmp_path)
    assert not list(tmp_path.rglob("weights.pt"))
    extractor = make(Stripes((1, 8, 8)), tmp_path, images=64)
    with pytest.raises(GenlabError, match=r"sees images of \(1, 8, 8\), not \(3, 8, 8\)"):
        extractor(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
