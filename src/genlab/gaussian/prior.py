"""Where a path ends and sampling begins."""

from typing import Protocol

import torch
from torch import Tensor

from genlab.codec import Codec
from genlab.data.source import Source
from genlab.errors import GenlabError
from genlab.noise import NoiseStream


class Prior(Protocol):
    """The law of ε in x_t = α x + σ ε."""

    gaussian: bool
    """Whether it is N(0, 1), as the reverse SDE and every likelihood assume."""

    def like(self, x: Tensor) -> Tensor:
        """ε for a training batch x, by torch's own random numbers."""
        ...

    def sample(self, noise: NoiseStream, shape: tuple[int, ...]) -> Tensor:
        """ε of the given shape (n, ...), row i a function of the stream's row i."""
        ...

    def draw(self, noise: NoiseStream, shape: tuple[int, ...]) -> Tensor:
        """As `sample`, but what another model may learn from: nothing that scores are taken of."""
        ...


class Normal:
    """ε ~ N(0, 1)."""

    gaussian = True

    def like(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)

    def sample(self, noise: NoiseStream, shape: tuple[int, ...]) -> Tensor:
        return noise.normal(shape)

    def draw(self, noise: NoiseStream, shape: tuple[int, ...]) -> Tensor:
        return noise.normal(shape)


class Empirical:
    """ε is a row of another data set, for transport between two: of its train split in training, any row by chance.

    Sample i begins at row i of the test split, whatever the seed. Raises GenlabError for more samples than it has rows,
    and where its rows have another shape than x.
    """

    gaussian = False

    def __init__(self, source: Source, codec: Codec):
        self.name = source.name
        self.train, self.test = (codec.encode(source.split(name).x) for name in ("train", "test"))

    def like(self, x: Tensor) -> Tensor:
        self._fits(x.shape[1:])
        index = torch.randint(len(self.train), (len(x),), device=x.device)
        return self.train[index.cpu()].to(x.device, x.dtype)

    def sample(self, noise: NoiseStream, shape: tuple[int, ...]) -> Tensor:
        self._fits(shape[1:])
        stop = noise.start + shape[0]
        if stop > len(self.test):
            raise GenlabError(f"the prior {self.name} has {len(self.test)} test rows, and sample {stop} needs one more")
        return self.test[noise.start : stop].to(noise.device)

    def draw(self, noise: NoiseStream, shape: tuple[int, ...]) -> Tensor:
        """Train rows, any by chance."""
        self._fits(shape[1:])
        index = (noise.uniform((shape[0], 1))[:, 0] * len(self.train)).long()
        return self.train[index.cpu()].to(noise.device)

    def _fits(self, shape: tuple[int, ...]) -> None:
        if self.train.shape[1:] != tuple(shape):
            raise GenlabError(f"the prior {self.name} has rows {tuple(self.train.shape[1:])}, the data {tuple(shape)}")
