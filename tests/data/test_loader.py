"""An endless stream of permutations, cut into batches that depend on (seed, k) alone."""

import threading
import time
from itertools import chain

import pytest
import torch

from genlab.data.loader import SequentialLoader, TrainLoader, select
from genlab.data.source import Batch
from genlab.errors import GenlabError

N = 10
DATA = Batch(torch.arange(N, dtype=torch.uint8).reshape(N, 1, 1, 1), torch.arange(N) + 100)


def images(batches):
    return [batch.x.flatten().tolist() for batch in batches]


def load(start=0, stop=20, batch=4, seed=0, **rank):
    return images(TrainLoader(DATA, batch, seed, start, stop, **rank))


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 7, 10])
def test_every_epoch_is_a_permutation(batch):
    """Also where batches straddle two epochs; and no two epochs have the same order."""
    stream = list(chain(*load(stop=3 * N, batch=batch)))[: 3 * N]
    epochs = [stream[i : i + N] for i in range(0, 3 * N, N)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_batches_are_full():
    assert {len(batch) for batch in load()} == {4}
    assert len(TrainLoader(DATA, 4, 0, 3, 20)) == 17
    assert len(TrainLoader(DATA, 4, 0, 20, 20)) == len(load(20, 20)) == 0
    assert len(TrainLoader(DATA, 4, 0, 21, 20)) == len(load(21, 20)) == 0


@pytest.mark.parametrize("start", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("batch", [3, 4, 10])
def test_a_resumed_loader_goes_on_with_what_comes_next(start, batch):
    assert load(start, batch=batch) == load(batch=batch)[start:]


def test_order_depends_on_the_seed():
    assert load(seed=0) == load(seed=0)
    assert load(seed=0) != load(seed=1)


@pytest.mark.parametrize(("world", "batch"), [(1, 3), (2, 4), (4, 4), (3, 3), (3, 6), (3, 9), (2, 10)])
def test_ranks_part_every_batch(world, batch):
    """Without overlap and without rows to fill up, also where a batch straddles epochs: n = 10 is no multiple of most."""
    parts = [load(batch=batch, rank=rank, world=world) for rank in range(world)]
    for whole, *shares in zip(load(batch=batch), *parts, strict=True):
        assert {len(share) for share in shares} == {batch // world}
        assert sorted(chain(*shares)) == sorted(whole)
    stream = list(chain(*(sorted(chain(*shares)) for shares in zip(*parts, strict=True))))
    epochs = len(stream) // N
    counts = [stream.count(i) for i in range(N)]
    assert {epochs, epochs + 1} >= set(counts), "in every epoch each row once, in all ranks together"


@pytest.mark.parametrize("start", [0, 3, 7])
@pytest.mark.parametrize("world", [1, 3])
def test_every_rank_goes_on_with_what_comes_next(start, world):
    for rank in range(world):
        assert load(start, batch=6, rank=rank, world=world) == load(batch=6, rank=rank, world=world)[start:]


@pytest.mark.parametrize("ahead", [1, 2, 5, 50])
@pytest.mark.parametrize(("start", "stop"), [(0, 20), (3, 20), (4, 5), (4, 4), (5, 4)])
def test_reading_ahead_changes_nothing(ahead, start, stop):
    assert load(start, stop, ahead=ahead) == load(start, stop)
    assert load(start, stop, ahead=ahead, rank=1, world=2) == load(start, stop, rank=1, world=2)


class Slow(torch.Tensor):
    """Data that count how many rows were asked for, and take longer for some than for others."""

    asked = 0

    def index_select(self, dim, index):
        Slow.asked += len(index)
        time.sleep(0.01 * (int(index[0]) % 3))
        return self.as_subclass(torch.Tensor).index_select(dim, index)


def test_batches_read_ahead_come_in_their_order_and_not_all_at_once():
    Slow.asked = 0
    loader = TrainLoader(DATA._replace(x=DATA.x.as_subclass(Slow)), 4, 0, 0, 20, ahead=3)
    stream = iter(loader)
    first = [next(stream) for _ in range(2)]
    assert Slow.asked <= 4 * (2 + 3)
    assert images([*first, *stream]) == load()


def test_who_stops_early_leaves_no_thread_behind():
    before = threading.active_count()
    stream = iter(TrainLoader(DATA, 4, 0, 0, 20, ahead=3))
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_what_cannot_be_read_ahead_is_an_error_and_not_an_end():
    class Broken(Slow):
        def index_select(self, dim, index):
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(TrainLoader(DATA._replace(x=DATA.x.as_subclass(Broken)), 4, 0, 0, 20, ahead=3))


@pytest.mark.parametrize(
    "y",
    [torch.randn(N, 11), torch.arange(3 * N).view(N, 3), torch.rand(N, 2, 2) > 0.5],
    ids=["factors", "tokens", "masks"],
)
@pytest.mark.parametrize("ahead", [0, 2])
def test_conditions_of_any_kind_stay_with_their_images(y, ahead):
    for x, rows in TrainLoader(Batch(DATA.x, y), 4, 0, 0, 20, ahead=ahead):
        assert rows.dtype == y.dtype
        assert torch.equal(rows, y[x.flatten().long()])


def test_labels_stay_with_their_images():
    for x, y in TrainLoader(DATA, 4, 0, 0, 20):
        assert torch.equal(x.flatten() + 100, y)


def test_data_without_labels():
    batch = next(iter(TrainLoader(Batch(DATA.x, None), 4, 0, 0, 1)))
    assert batch.y is None
    assert images([batch]) == load(stop=1)
    assert select(Batch(DATA.x, None), torch.tensor([2])).y is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"batch": 11}, r"batch=11 is larger than the data \(10 samples\)"), ({"batch": 4, "world": 3}, "divisible by 3")],
    ids=["larger-than-data", "indivisible"],
)
def test_batches_that_cannot_be_made(arguments, message):
    with pytest.raises(GenlabError, match=message):
        load(**arguments)


@pytest.mark.parametrize("batch", [3, 5, 10, 20])
def test_a_split_is_read_once_in_its_order(batch):
    batches = list(SequentialLoader(DATA, batch))
    assert {len(x) for x in images(batches[:-1])} <= {batch}
    assert list(chain(*images(batches))) == list(range(N))
    assert torch.equal(torch.cat([batch.y for batch in batches]), DATA.y)
    assert next(iter(SequentialLoader(Batch(DATA.x, None), batch))).y is None
