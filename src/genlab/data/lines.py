"""Any text file as rows of bytes."""

from pathlib import Path

import numpy as np
import torch

from genlab.data.source import Batch, digest
from genlab.errors import GenlabError


class TextLines:
    """Rows (N, length) uint8 of the bytes of a file, without labels; its last lines, a share `held_out`, are the test split.

    Rows of the train split begin every `stride` bytes, those of the test split do not overlap; what is left over at an end
    is left out. Raises GenlabError for a file that cannot be read, or is too short for a row of each split.
    """

    transform = "bytes, as they are"

    def __init__(self, name: str, length: int, stride: int, held_out: float, path: str | None = None):
        if length < 2 or stride < 1 or not 0 < held_out < 1:
            raise GenlabError(
                f"data.source: length={length} must be at least 2, stride={stride} at least 1, and held_out={held_out} "
                "between 0 and 1"
            )
        if path is None:
            raise GenlabError(f"{name} lies nowhere yet: set data.source.path to a text file")
        self.called, self.length, self.stride, self.held_out = name, length, stride, held_out
        self.path = Path(path).expanduser().absolute()

    @property
    def name(self) -> str:
        """Its own and what it holds, since a path may hold anything."""
        return f"{self.called}-{self.sha256('train')[:8]}"

    def split(self, name: str) -> Batch:
        """The whole split "train" or "test"; raises GenlabError for any other name."""
        try:
            text = self.path.read_bytes()
        except OSError as error:
            raise GenlabError(f"cannot read {self.path}: {error.strerror}; data.source.path is a text file") from None
        share = int(len(text) * (1 - self.held_out))
        cut = text.find(b"\n", share) + 1 or share  # where a line begins, if there is more than one
        parts = {"train": (text[:cut], self.stride), "test": (text[cut:], self.length)}
        if name not in parts:
            raise GenlabError(f"{self.called} has the splits train and test, and no {name!r}")
        part, stride = parts[name]
        if len(part) < self.length:
            raise GenlabError(
                f"{self.path} has {len(text)} bytes, {len(part)} of them in its {name} split: too few for a row of "
                f"{self.length} (data.source.length)"
            )
        rows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(part, np.uint8), self.length)[::stride]
        return Batch(torch.from_numpy(rows.copy()), None)

    def sha256(self, split: str) -> str:
        return digest(self.split(split))
