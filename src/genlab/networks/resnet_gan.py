"""The residual pair of SNGAN (Miyato et al. 2018, arXiv:1802.05957, appendix B), whose settings cover that of WGAN-GP.

With labels: conditional batch norm in the generator, projection in the critic (Miyato & Koyama 2018, arXiv:1802.05637).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from genlab.errors import GenlabError
from genlab.networks.layers import conv, dense, one_hot

Make = Callable[..., nn.Module]


def widths(size: int, width: int, multipliers: Sequence[int]) -> list[int]:
    """Channels at 4 × 4, 8 × 8, ..., size × size; the first of `multipliers` where the images are smaller.

    Raises GenlabError unless size is 4 · 2^k with k = 1, 2, ... and less than the number of multipliers.
    """
    stages = int(math.log2(max(size, 4) / 4))
    if stages < 1 or 4 << stages != size or stages >= len(multipliers):
        sizes = ", ".join(str(4 << k) for k in range(1, len(multipliers)))
        raise GenlabError(
            f"{len(multipliers)} multipliers of this network draw images of size {sizes}, not {size}: "
            "choose another network, or give network.generator.multipliers one entry for each of 4, 8, ... pixels"
        )
    return [width * m for m in multipliers[: stages + 1]]


def check_halvings(size: int, halvings: int) -> None:
    """Raise GenlabError unless size can be halved so often."""
    if size % 2**halvings:
        raise GenlabError(
            f"a critic that halves {halvings} times needs a size divisible by {2**halvings}, not {size}: "
            "give network.discriminator.multipliers fewer entries"
        )


def plain(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """A convolution with Glorot's uniform weights, those of 3 × 3 times √2, as in the published code of SNGAN."""
    return conv(inputs, outputs, kernel, 2.0 if kernel > 1 else 1.0)


def spectral(make: Make) -> Make:
    """`make` with every weight divided by its largest singular value, of one power iteration a pass (eq. 8-10)."""
    return lambda *arguments, **more: spectral_norm(make(*arguments, **more))


def embedding(classes: int, features: int) -> nn.Embedding:
    """(B,) -> (B, features), Glorot's uniform weights."""
    layer = nn.Embedding(classes, features)
    nn.init.xavier_uniform_(layer.weight)
    return layer


class ConditionalBatchNorm(nn.Module):
    """(1 + W c) (x - μ)/√(σ² + eps) + V c for a condition c (B, D), μ and σ² of the batch; W and V are `gain` and `bias`.

    Of a one-hot c each class has a gain and a bias of its own (Dumoulin et al. 2017, arXiv:1610.07629), and of the
    constant 1 it is batch norm.
    """

    def __init__(self, channels: int, gain: nn.Module, bias: nn.Module, eps: float = 1e-5):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps, affine=False)
        self.gain, self.bias = gain, bias

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return (1 + self.gain(c)[:, :, None, None]) * self.norm(x) + self.bias(c)[:, :, None, None]


class UpBlock(nn.Module):
    """skip(up(x)) + conv2(ReLU(norm2(conv1(up(ReLU(norm1(x, c)))), c))), up repeating each pixel 2 × 2."""

    def __init__(self, inputs: int, outputs: int, make: Make, norm: Make):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs), make(inputs, outputs, 3)
        self.norm2, self.conv2 = norm(outputs), make(outputs, outputs, 3)
        self.skip = make(inputs, outputs, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, c)), scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, c)))
        return h + F.interpolate(self.skip(x), scale_factor=2)  # a 1 × 1 convolution and up commute


class DownBlock(nn.Module):
    """skip(x) + conv2(ReLU(conv1(ReLU(x)))), both halved by the mean of 2 × 2 where `down`; the `first` has no ReLU on x.

    The skip is the identity where neither size nor channels change.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, make: Make, down: bool, first: bool = False):
        super().__init__()
        self.conv1, self.conv2 = make(inputs, hidden, 3), make(hidden, outputs, 3)
        self.skip = make(inputs, outputs, 1) if down or inputs != outputs else nn.Identity()
        self.pool = nn.AvgPool2d(2) if down else nn.Identity()
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        return self.pool(h) + self.skip(self.pool(x))  # a 1 × 1 convolution and the mean commute


class Generator(nn.Module):
    """z (B, latent), y -> (B, C, size, size) in (-1, 1); width · multipliers channels at 4 × 4, 8 × 8, ..."""

    bound = 1.0
    """The largest number that it draws."""

    def __init__(self, latent: int, channels: int, size: int, width: int, multipliers: Sequence[int], classes: int):
        super().__init__()
        self.classes = classes
        sizes = widths(size, width, multipliers)
        self.project = dense(latent, 16 * sizes[0])

        def norm(channels: int) -> ConditionalBatchNorm:
            gain, bias = (nn.Linear(max(classes, 1), channels, bias=False) for _ in range(2))
            for layer in (gain, bias):
                nn.init.zeros_(layer.weight)
            return ConditionalBatchNorm(channels, gain, bias)

        self.blocks = nn.ModuleList(UpBlock(i, o, plain, norm) for i, o in pairwise(sizes))
        self.norm, self.last = nn.BatchNorm2d(sizes[-1]), conv(sizes[-1], channels, 3)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        c = z.new_ones(len(z), 1)
        if self.classes:
            c = one_hot(y, self.classes, z)
        x = self.project(z).unflatten(1, (-1, 4, 4))  # (B, width, 4, 4)
        for block in self.blocks:
            x = block(x, c)
        return self.last(F.relu(self.norm(x))).tanh()


class Discriminator(nn.Module):
    """x (B, C, size, size), y -> (B,) critic values w·φ(x) + b + e_y·φ(x), φ the sum or the `mean` over positions, b if `bias`.

    A block that halves the size for each of `multipliers`, then `flat` ones that keep it.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        multipliers: Sequence[int],
        flat: int,
        classes: int,
        spectral_norm: bool,
        mean: bool,
        bias: bool = True,
    ):
        super().__init__()
        check_halvings(size, len(multipliers))
        makers: list[Make] = [plain, dense, embedding]
        make, linear, embed = [spectral(m) for m in makers] if spectral_norm else makers
        sizes = [channels] + [width * m for m in multipliers]
        last = sizes[-1]
        blocks = [DownBlock(channels, sizes[1], sizes[1], make, True, first=True)]
        blocks += [DownBlock(i, i, o, make, True) for i, o in pairwise(sizes[1:])]
        blocks += [DownBlock(last, last, last, make, False) for _ in range(flat)]
        self.blocks = nn.Sequential(*blocks, nn.ReLU())
        self.pool = torch.mean if mean else torch.sum
        self.value = linear(last, 1, bias=bias)
        self.label = embed(classes, last) if classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.pool(self.blocks(x), dim=(2, 3))  # (B, last)
        value = self.value(h)[:, 0]
        return value if self.label is None else value + (self.label(y) * h).sum(1)
