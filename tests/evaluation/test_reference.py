import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.data.digits import Digits
from genlab.errors import GenlabError
from genlab.evaluation.features import Activations
from genlab.evaluation.frechet import frechet_distance
from genlab.evaluation.moments import Gaussian
from genlab.evaluation.reference import References, imported

CPU = torch.device("cpu")


class Counting:
    """An extractor that counts what it sees."""

    name, layer, resize = "counting", "all", "none"

    def __init__(self, fingerprint: str = "0"):
        self.fingerprint, self.seen = fingerprint, 0

    def __call__(self, x: torch.Tensor) -> Activations:
        self.seen += len(x)
        f = x.flatten(1).float()[:, 10:20]
        return Activations(f, f[:, :3])


def references(cache: Path, fingerprint: str = "0") -> References:
    return References(Digits(), Counting(fingerprint), str(cache), 100, CPU)


def test_statistics_are_computed_once_and_are_those_of_the_data(tmp_path: Path) -> None:
    first, second = references(tmp_path), references(tmp_path)
    made = first.bank("test", ("moments", "features", "x"))
    assert first.extractor.seen == 360
    assert first.bank("test", ("moments",)) is made, "in memory"
    read = second.bank("test", ("moments", "features", "y"))
    assert second.extractor.seen == 0, "from the cache"
    x = Digits().split("test").x.flatten(1)[:, 10:20].double()
    torch.testing.assert_close(read.moments.gaussian.covariance, x.T.cov())
    assert torch.equal(read.features.double(), x)
    torch.testing.assert_close(read.moments.gaussian.factor, made.moments.gaussian.factor)
    assert read.x is None
    assert torch.equal(read.y, Digits().split("test").y)


class Wide(Counting):
    """More features than there are samples, and than a panel of a product has."""

    def __call__(self, x: torch.Tensor) -> Activations:
        weight = torch.randn(64, 500, generator=torch.Generator().manual_seed(0))
        return Activations((x.flatten(1).float() @ weight).relu())


def test_a_distance_from_few_samples_is_the_same_from_the_cache(tmp_path: Path) -> None:
    """The factor of fewer samples than features is not triangular."""
    fake, found = Wide()(Digits().split("train").x).features.double(), []
    for _ in range(2):
        bank = References(Digits(), Wide(), str(tmp_path), 100, CPU).bank("test", ("moments",))
        found.append(frechet_distance(bank.moments.gaussian, Gaussian(fake.mean(0), fake.T.cov(), len(fake))))
    assert found[0] > 0
    assert found[1] == pytest.approx(found[0], rel=1e-9)


def test_another_extractor_split_or_need_is_another_computation(tmp_path: Path) -> None:
    references(tmp_path).bank("test", ("moments",))
    for split, needs, fingerprint in (
        ("train", ["moments"], "0"),
        ("test", ["moments"], "1"),
        ("test", ["logits"], "0"),
    ):
        other = references(tmp_path, fingerprint)
        other.bank(split, needs)
        assert other.extractor.seen > 0, (split, needs, fingerprint)


def test_what_one_protocol_computed_another_adds_to(tmp_path: Path) -> None:
    for needs in (["moments"], ["features"]):
        references(tmp_path).bank("test", needs)
    for needs in (["moments"], ["features"], ["moments", "features"]):
        other = references(tmp_path)
        other.bank("test", needs)
        assert other.extractor.seen == 0, needs


def test_a_damaged_or_half_written_cache_is_not_used(tmp_path: Path) -> None:
    first = references(tmp_path)
    expected = first.bank("test", ("moments",)).moments.gaussian.mean
    folder = first.folder("test")
    for damage in ("moments.npz", "manifest.json"):
        path = folder / damage
        path.write_bytes(path.read_bytes()[:-7])
        again = references(tmp_path)
        assert torch.equal(again.bank("test", ("moments",)).moments.gaussian.mean, expected)
        assert again.extractor.seen == 360, damage
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["n"], manifest["split"], manifest["extractor_sha256"]) == (360, "test", "0")


def test_statistics_of_others_are_read(tmp_path: Path) -> None:
    x = torch.randn(500, 4).double()
    np.savez(tmp_path / "theirs.npz", mu=x.mean(0).numpy(), sigma=x.T.cov().numpy())
    theirs = imported(tmp_path / "theirs.npz", 500)
    assert frechet_distance(theirs.moments.gaussian, theirs.moments.gaussian) == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(theirs.moments.gaussian.covariance, x.T.cov())
    assert theirs.spatial is None


def test_files_that_hold_no_statistics_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:40])
    with pytest.raises(GenlabError, match="mu and sigma"):
        imported(tmp_path / "other.npz", None)
    for name in ("cut.npz", "missing.npz"):
        with pytest.raises(GenlabError, match=name):
            imported(tmp_path / name, None)
