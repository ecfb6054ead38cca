"""The digits as scikit-learn ships them, split once and for all."""

import pytest
import torch
from sklearn.datasets import load_digits

from genlab.codec import Pixels
from genlab.data.digits import Digits
from genlab.errors import GenlabError

TRAIN, TEST = (Digits().split(name) for name in ("train", "test"))


def rows(x, y):
    return sorted(zip(map(tuple, x.flatten(1).tolist()), y.tolist(), strict=True))


def test_the_splits_part_the_whole():
    """1,437 + 360 images, each with its own label: together exactly the 1,797 of scikit-learn."""
    bunch = load_digits()
    assert (len(TRAIN.x), len(TEST.x)) == (1437, 360)
    whole = torch.from_numpy(bunch.images * 255 / 16).round()
    both = torch.cat([TRAIN.x, TEST.x]), torch.cat([TRAIN.y, TEST.y])
    assert rows(*both) == rows(whole, torch.from_numpy(bunch.target))


def test_images_and_labels_have_the_types_of_a_batch():
    for x, y in (TRAIN, TEST):
        assert (x.dtype, x.shape[1:]) == (torch.uint8, (1, 8, 8))
        assert y.dtype == torch.int64


def test_splits_are_stratified():
    """Each class has its share of the test split up to rounding."""
    train, test = TRAIN.y.bincount(), TEST.y.bincount()
    assert len(test) == 10
    assert ((train + test) * 360 / 1797 - test).abs().max() < 1


def test_there_are_17_levels_over_the_whole_range():
    levels = torch.cat([TRAIN.x, TEST.x]).unique()
    assert (len(levels), levels[0], levels[-1]) == (17, 0, 255)
    assert torch.equal(Pixels(17).decode(Pixels(17).encode(TRAIN.x)), TRAIN.x)


def test_the_split_never_changes():
    """Published numbers are of this one."""
    assert TEST.y[:20].tolist() == [1, 4, 8, 6, 5, 9, 9, 1, 3, 2, 2, 2, 0, 7, 4, 8, 1, 5, 3, 9]
    assert torch.equal(Digits().split("test").x, TEST.x)


def test_other_splits_are_refused():
    with pytest.raises(GenlabError, match="train or test"):
        Digits().split("validation")
