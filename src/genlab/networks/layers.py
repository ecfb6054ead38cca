"""What networks of the Gaussian paths share: initial weights, norms, attention, embeddings, changes of resolution."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.precision import wide

ZERO = 1e-10  # where Ho et al. write a scale of 0 their code has this one


def check_size(size: int, levels: int) -> None:
    """GenlabError unless size can be halved levels - 1 times."""
    if size % 2 ** (levels - 1):
        raise GenlabError(
            f"{levels} resolutions need a size divisible by {2 ** (levels - 1)}, and {size} is not: "
            "give network.multipliers fewer entries"
        )


def halvings(size: int, factor: int) -> int:
    """log₂ factor; GenlabError unless factor is a power of two, 2 or more, that divides size."""
    if factor < 2 or factor & (factor - 1) or size % factor:
        raise GenlabError(f"network.factor={factor}: a power of two, 2 or more, that divides images of size {size}")
    return factor.bit_length() - 1


def scaled(layer: nn.Conv2d | nn.Linear, scale: float = 1.0) -> None:
    """Weights U(-√(3v), √(3v)), v = scale · 2/(fan_in + fan_out), biases 0: `variance_scaling` of Ho et al. 2020."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def conv(inputs: int, outputs: int, kernel: int, scale: float = 1.0, stride: int = 1, padding: int | None = None):
    """A convolution that keeps the size by default, with the initial weights of `scaled`."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 if padding is None else padding)
    scaled(layer, scale)
    return layer


def dense(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer with the initial weights of `scaled`."""
    layer = nn.Linear(inputs, outputs, bias)
    scaled(layer)
    return layer


class Conditioning(nn.Linear):
    """A linear layer that autocast leaves in float32, as published code keeps all on the way from a noise number to a
    block: rounded to bfloat16 on it, ln σ would be known to about 0.03."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(wide(input))


def conditioning(inputs: int, outputs: int, bias: bool = True) -> Conditioning:
    """A `Conditioning` with the initial weights of `scaled`."""
    layer = Conditioning(inputs, outputs, bias)
    scaled(layer)
    return layer


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with its weights and biases at 0, so that a residual block starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def norm(channels: int, eps: float = 1e-6) -> nn.GroupNorm:
    """GroupNorm of min(32, channels/4) groups, or of the next smaller number of them that divides the channels."""
    largest = max(1, min(32, channels // 4))
    return nn.GroupNorm(next(g for g in range(largest, 0, -1) if channels % g == 0), channels, eps)


def attend(qkv: Tensor, heads: int) -> Tensor:
    """softmax(q kᵀ/√d) v over positions, by heads of d channels: (B, 3C, H, W) -> (B, C, H, W)."""
    # the fused kernels want the channels of a position side by side
    q, k, v = qkv.flatten(2).unflatten(1, (3, heads, -1)).transpose(3, 4).contiguous().unbind(1)  # (B, heads, H W, d)
    h = F.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5)
    return h.transpose(2, 3).reshape(len(qkv), -1, *qkv.shape[2:])


def labels(y: Tensor | None, classes: int, x: Tensor) -> Tensor:
    """y, or where there is none the label `classes`, which is "no label", for every row of x: (B,)."""
    return torch.full((len(x),), classes, device=x.device) if y is None else y


def one_hot(y: Tensor | None, classes: int, x: Tensor) -> Tensor:
    """(B, classes): the indicator of y, all 0 where there is no label."""
    return F.one_hot(labels(y, classes, x), classes + 1)[:, :classes].to(x.dtype)


def _half(dim: int) -> int:
    if dim % 2:
        raise GenlabError(f"sines and cosines of a time make an even number, not {dim}: change network.width")
    return dim // 2


class Sinusoidal(nn.Module):
    """(B,) -> (B, dim): sines, then cosines, at frequencies 10000^(-i/(dim/2 - 1)), as the code of Ho et al."""

    frequencies: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.dim, half = dim, _half(dim)
        frequencies = torch.exp(-math.log(1e4) * torch.arange(half) / (half - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        angle = c[:, None] * self.frequencies  # (B, dim / 2)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class Cosinusoidal(nn.Module):
    """(B,) -> (B, dim): cosines, then sines, at frequencies 10000^(-i/(dim/2)), as the code of Nichol & Dhariwal."""

    frequencies: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.dim, half = dim, _half(dim)
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * torch.arange(half) / half), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        angle = c[:, None] * self.frequencies  # (B, dim / 2)
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class Fourier(nn.Module):
    """(B,) -> (B, dim): random Fourier features of N(0, scale²) frequencies (Tancik et al. 2020, arXiv:2006.10739)."""

    frequencies: Tensor

    def __init__(self, dim: int, scale: float):
        super().__init__()
        self.dim = dim
        self.register_buffer("frequencies", torch.randn(dim // 2) * scale)

    def forward(self, c: Tensor) -> Tensor:
        angle = 2 * math.pi * c[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=1)


def kernel2d(taps: Sequence[float]) -> Tensor:
    """(1, 1, n, n): the separable filter of these taps, of sum 1; n must be even, so that pixels stay centred."""
    if len(taps) % 2:
        raise GenlabError(f"a filter that halves a picture has an even number of taps, as [1, 1] has, not {len(taps)}")
    one = torch.tensor(taps, dtype=torch.get_default_dtype())
    return (torch.outer(one, one) / one.sum() ** 2)[None, None]


class Down(nn.Module):
    """Half the size: filtered by `taps`, every second pixel kept; [1, 1] is the mean of 2 × 2.

    Zhang 2019, arXiv:1904.11486, with the padding of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958).
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float]):
        super().__init__()
        self.padding = len(taps) // 2 - 1
        self.register_buffer("kernel", kernel2d(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[1]
        return F.conv2d(x, self.kernel.to(x.dtype).repeat(c, 1, 1, 1), stride=2, padding=self.padding, groups=c)


class Up(nn.Module):
    """Twice the size: zeros between the pixels, filtered by 4 · `taps`; [1, 1] repeats each pixel 2 × 2."""

    kernel: Tensor

    def __init__(self, taps: Sequence[float]):
        super().__init__()
        self.padding = len(taps) // 2 - 1
        self.register_buffer("kernel", 4 * kernel2d(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[1]
        kernel = self.kernel.to(x.dtype).repeat(c, 1, 1, 1)
        return F.conv_transpose2d(x, kernel, stride=2, padding=self.padding, groups=c)
