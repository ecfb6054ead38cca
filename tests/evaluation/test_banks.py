from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from genlab.data.source import Batch
from genlab.distributed import everywhere, mine, summed
from genlab.errors import GenlabError
from genlab.evaluation.banks import chunks, fill
from genlab.evaluation.features import Activations, FeatureBank
from genlab.evaluation.frechet import frechet_distance

NEEDS = ("moments", "spatial", "features", "logits", "nearest", "x", "y")
CPU = torch.device("cpu")


class Linear:
    """An extractor whose features are a fixed linear map of the pixels."""

    name, fingerprint, layer, resize = "linear", "0", "all", "none"

    def __init__(self, width: int = 6):
        self.weight = torch.randn(12, width, generator=torch.Generator().manual_seed(1))

    def to(self, device: torch.device) -> "Linear":
        return self

    def __call__(self, x: torch.Tensor) -> Activations:
        f = x.flatten(1).double() @ self.weight.double()  # exact, whatever the batch
        return Activations(f, f[:, :3], f[:, :2] ** 2)


def data(n: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, 2, 2), generator=generator, dtype=torch.uint8)
    return Batch(x, torch.arange(n))


def bank(n: int, batch: int, width: int = 6) -> FeatureBank:
    return fill(chunks(data(n), batch), n, Linear(width), NEEDS, CPU, lambda f: f.norm(dim=1, keepdim=True))


def test_what_is_not_needed_is_not_kept() -> None:
    kept = fill(chunks(data(50), 8), 50, Linear(), ("moments",), CPU)
    assert kept.moments is not None
    assert [kept.spatial, kept.features, kept.logits, kept.nearest, kept.x, kept.y] == [None] * 6


@pytest.mark.parametrize("width", [6, 200])  # fewer and more features than samples
def test_batches_change_nothing(width: int) -> None:
    whole, parts = bank(101, 101, width), bank(101, 7, width)
    for name in ("logits", "nearest", "x", "y"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), msg=name)
    assert torch.equal(parts.y, torch.arange(101))
    other = fill(chunks(data(300), 64), 300, Linear(width), ("moments",), CPU).moments.gaussian
    distances = [frechet_distance(other, b.moments.gaussian) for b in (whole, parts)]
    assert distances[1] == pytest.approx(distances[0], rel=1e-9)
    assert (whole.moments.gaussian.narrow is None) == (width < 101)


def test_the_wrong_number_of_samples_is_refused() -> None:
    with pytest.raises(GenlabError, match="not 60 samples"):
        fill(chunks(data(50), 8), 60, Linear(), ("moments",), CPU)


def _rank(rank: int, world: int, folder: Path, n: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.save(list(mine(n, 5)), folder / f"mine{rank}.pt")
    assert not everywhere(rank > 0)
    assert summed(rank + 1.0) == world * (world + 1) / 2
    made = bank(n, 5)
    torch.save([made.moments.gaussian.mean, made.moments.gaussian.covariance, *made.rows(torch.arange(n)).__dict__.values()], folder / f"{rank}.pt")  # fmt: skip
    dist.destroy_process_group()


SLOW = pytest.mark.slow


# of twelve in batches of five, the third rank has two samples, of nine none
@pytest.mark.parametrize(
    ("n", "world"), [(33, 2), *(pytest.param(n, world, marks=SLOW) for n, world in ((33, 3), (12, 2), (12, 3)))]
)
def test_any_number_of_ranks_make_the_same_bank(world: int, n: int, tmp_path: Path) -> None:
    n = 9 if (world, n) == (3, 12) else n
    alone = bank(n, 5)
    expected = [alone.moments.gaussian.mean, alone.moments.gaussian.covariance, *alone.rows(torch.arange(n)).__dict__.values()]  # fmt: skip
    mp.spawn(_rank, (world, tmp_path, n), nprocs=world)
    shares = [torch.load(tmp_path / f"mine{rank}.pt") for rank in range(world)]
    rows = sorted(i for share in shares for first, count in share for i in range(first, first + count))
    assert rows == list(range(n)), "every sample is of exactly one rank"
    for rank in range(world):
        for ours, theirs in zip(torch.load(tmp_path / f"{rank}.pt"), expected, strict=True):
            if isinstance(theirs, torch.Tensor):
                torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
            else:
                assert ours == theirs
