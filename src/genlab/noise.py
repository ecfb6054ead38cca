"""Random numbers of sample i from (seed, i) alone, whatever the batch, the device and the number of ranks."""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _mulhilo(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
    product = constant * x  # int64 wraps modulo 2^64, which leaves all 64 bits right
    return (product >> 32) & _MASK, product & _MASK


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four 32-bit counters (int64 tensors of one shape) -> four uniform 32-bit words.

    Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3, section 3.3.
    """
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        hi0, lo0 = _mulhilo(0xD2511F53, a)
        hi1, lo1 = _mulhilo(0xCD9E8D57, c)
        a, b, c, d = hi1 ^ b ^ k0, lo1, hi0 ^ d ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return a, b, c, d


class NoiseStream:
    """The noise of samples start, start + 1, ...: row i of every draw is a function of (seed, start + i, draw) only."""

    def __init__(self, seed: int, start: int = 0, device: torch.device | str = "cpu"):
        self.key = (seed & _MASK, (seed >> 32) & _MASK)
        self.start = start
        self.device = device
        self.draws = 0

    def _words(self, shape: Sequence[int]) -> Tensor:
        """(n, 4, ceil(D / 4)) words of 32 bits for a draw of shape (n, ...) with D numbers a row."""
        n, blocks = shape[0], math.ceil(math.prod(shape[1:]) / 4)
        block = torch.arange(blocks, device=self.device).expand(n, -1)
        index = torch.arange(self.start, self.start + n, device=self.device)[:, None].expand(-1, blocks)
        draw = torch.full_like(block, self.draws)
        self.draws += 1
        return torch.stack(philox((block, draw, index & _MASK, index >> 32), self.key), dim=1)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """U(0, 1), open at both ends, of the given shape (n, ...) in float32."""
        words = self._words(shape)
        u = ((words >> 9) + 0.5) * 2.0**-23  # 23 bits, so that float32 holds each number and never 0 or 1
        return u.flatten(1)[:, : math.prod(shape[1:])].reshape(tuple(shape))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """N(0, 1) of the given shape (n, ...) in float32, by Box and Muller: √(-2 ln u₁) (cos, sin)(2π u₂)."""
        words = self._words(shape)
        u1 = ((words[:, :2] + 1) * 2.0**-32).float()  # (0, 1]: its logarithm is finite
        angle = words[:, 2:] * (2 * math.pi * 2.0**-32)
        radius = (-2 * u1.log()).sqrt()
        z = torch.cat([radius * angle.float().cos(), radius * angle.float().sin()], dim=1)
        return z.flatten(1)[:, : math.prod(shape[1:])].reshape(tuple(shape))


def key(*parts: object) -> int:
    """A 63-bit seed of anything that prints: the same on every machine and in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
