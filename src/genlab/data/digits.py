"""The 1,797 real 8x8 handwritten digits that scikit-learn carries: data without a download.

Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits (UCI): the test part of the original set.
"""

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from genlab.data.source import Batch, digest
from genlab.errors import GenlabError


class Digits:
    """1,437 training and 360 test images (N, 1, 8, 8) of 17 grey levels over 0..255, in 10 classes; the split is fixed."""

    name = "digits"
    transform = "16 levels to 0..255, rounded"

    def split(self, name: str) -> Batch:
        """The whole split "train" or "test"; raises GenlabError for any other name."""
        bunch: Any = load_digits()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # (1797, 1, 8, 8)
        labels = bunch.target.astype(np.int64)
        rows = train_test_split(np.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
        splits = dict(zip(("train", "test"), rows, strict=True))
        if name not in splits:
            raise GenlabError(f"digits has no split {name!r}: use train or test")
        index = np.sort(splits[name])
        return Batch(torch.from_numpy(images[index]), torch.from_numpy(labels[index]))

    def sha256(self, split: str) -> str:
        return digest(self.split(split))
