"""Between data space and model space; nothing else converts."""

import abc
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genlab.errors import GenlabError


class Codec(nn.Module, abc.ABC):
    """A map z = encode(x) from the data's own format to what a model trains on."""

    log_volume: float | None
    """log |dz/dx| per dimension, so that log p(x) = log p(z) + D log_volume; None where the map is no bijection."""
    unbounded: bool = False
    """Whether data are known to have no bounds in model space to which x̂ could be clipped."""

    whole: bool = False
    """Whether model space is of whole numbers."""
    overhang: float = 0.0
    """By how much `spread` goes beyond ±1 in model space."""

    def dequantize(self, x: Tensor) -> Tensor:
        """x in model space as a continuous density needs it: uniform in its cell where data is discrete."""
        return self.spread(self.encode(x))

    def spread(self, z: Tensor) -> Tensor:
        """The same of data that are in model space already."""
        return z

    def of_data(self, shape: Sequence[int]) -> tuple["Codec", Sequence[int]]:
        """The codec of the data themselves and the shape of its model space, `shape` being that of this one."""
        return self, shape

    def grey(self, z: Tensor) -> Tensor:
        """Images (B, C, H, W) of 0 to 255 as `decode` has them before it rounds; raises GenlabError for other data."""
        raise GenlabError(f"{type(self).__name__} decodes to no images")

    @abc.abstractmethod
    def encode(self, x: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def decode(self, z: Tensor) -> Tensor: ...


class Pixels(Codec):
    """Images of `levels` grey levels, stored as uint8 over 0..255, as a lattice in [-1, 1]: z = x / 127.5 - 1.

    Decoding clamps and rounds to the nearest level. A likelihood head gives the levels of the lattice probabilities; a
    density p(z) gives the level of x, whose cell is 2/(levels - 1) wide, log P(x) >= E_u log p(z + u) + D log_volume with
    u uniform in the cell (Theis et al. 2016, arXiv:1511.01844, section 3.1).
    """

    def __init__(self, levels: int = 256):
        super().__init__()
        self.steps = levels - 1
        self.log_volume, self.overhang = math.log(2 / self.steps), 1 / self.steps

    def spread(self, z: Tensor) -> Tensor:
        return z + (torch.rand_like(z) - 0.5) * (2 / self.steps)

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) uint8 -> float32, exactly on the lattice {2k / (levels - 1) - 1}."""
        level = (x.float() * (self.steps / 255)).round()
        return level * (2 / self.steps) - 1

    def grey(self, z: Tensor) -> Tensor:
        return ((z + 1) * 127.5).clamp(0, 255)

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, H, W) float -> uint8, nan as black and what overshoots as black or white, so that a broken model still draws."""
        level = ((z.float().nan_to_num(-1.0) + 1) * (self.steps / 2)).round().clamp(0, self.steps)
        return (level * (255 / self.steps)).round().to(torch.uint8)


class Latents(Codec):
    """Latents of a frozen autoencoder, multiplied by a constant to unit variance: z = scale · x (Rombach et al. 2022,
    arXiv:2112.10752, appendix G).

    The autoencoder is no bijection, so that there are no bits per dimension; decoding gives its latents, not images.
    """

    log_volume, unbounded = None, True

    def __init__(self, scale: float):
        super().__init__()
        self.scale = scale

    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) of any float -> float32."""
        return x.float() * self.scale

    def decode(self, z: Tensor) -> Tensor:
        return z.float() / self.scale


class Vectors(Codec):
    """Points of the plane, divided by a constant: z = x / scale."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale
        self.log_volume = -math.log(scale)

    def encode(self, x: Tensor) -> Tensor:
        return x / self.scale

    def decode(self, z: Tensor) -> Tensor:
        return z.float() * self.scale


class Tokens(Codec):
    """Rows of `levels` levels, stored as uint8 over 0..255, as whole numbers from 0 to levels - 1: images and bytes of text.

    A bijection of the lattice, on which probabilities stay as they are.
    """

    log_volume, whole = 0.0, True

    def __init__(self, levels: int | None = 256):
        super().__init__()
        if levels is None:
            raise GenlabError("these data are of no levels: tokens are of grey images and of text")
        self.steps = levels - 1

    def of_data(self, shape: Sequence[int]) -> tuple[Codec, Sequence[int]]:
        return Pixels(self.steps + 1), shape  # in which noise is an image

    def encode(self, x: Tensor) -> Tensor:
        """(B, ...) uint8 -> int64."""
        return (x.float() * (self.steps / 255)).round().long()

    def decode(self, z: Tensor) -> Tensor:
        """(B, ...) int64 -> uint8."""
        return (z.clamp(0, self.steps).float() * (255 / self.steps)).round().to(torch.uint8)
