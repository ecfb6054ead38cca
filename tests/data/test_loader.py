"""An endless stream of permutations, cut into batches that depend on (seed, k) alone."""

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


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_part_every_batch(world):
    parts = [load(rank=rank, world=world) for rank in range(world)]
    for whole, *shares in zip(load(), *parts, strict=True):
        assert {len(share) for share in shares} == {4 // world}
        assert sorted(chain(*shares)) == sorted(whole)


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
