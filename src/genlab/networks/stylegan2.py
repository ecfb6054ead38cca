"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958) as ADA configures it (arXiv:2006.06676), in plain torch.

Weights are N(0, 1) and scaled where they are used, so that Adam moves all of them alike (equalized learning rate).
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.distributed import total, world
from genlab.errors import GenlabError
from genlab.networks.layers import Down, Up, kernel2d, one_hot
from genlab.networks.minibatch import MinibatchStd
from genlab.precision import wide

ROOT_HALF = math.sqrt(0.5)


def widths(size: int, width: int, base: int) -> list[int]:
    """min(base / r, width) channels at r = 4, 8, ..., size; raises GenlabError unless size is such an r above 4."""
    levels = int(math.log2(max(size, 4))) - 1
    if levels < 2 or 2 << levels != size:
        raise GenlabError(f"StyleGAN2 draws images of size 8, 16, 32, ..., not {size}")
    return [min(base // (4 << i), width) for i in range(levels)]


def activate(x: Tensor) -> Tensor:
    """√2 · LeakyReLU of slope 0.2, which keeps a variance nearly as it is."""
    return math.sqrt(2) * F.leaky_relu(x, 0.2)


def normalized(x: Tensor) -> Tensor:
    """(B, D) with rows of mean square 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def filtered(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """Each channel convolved with the kernel (1, 1, n, n)."""
    return F.conv2d(x, kernel.to(x.dtype).repeat(x.shape[1], 1, 1, 1), padding=padding, groups=x.shape[1])


def modulated(x: Tensor, weight: Tensor, style: Tensor, kernel: Tensor | None = None) -> Tensor:
    """x convolved with d_o s_i w_oi, d_o = 1/√(Σ (s_i w_oi)²) (eq. 1 and 3), by scaling x before and the result after.

    weight (O, I, 3, 3), style (B, I). With a `kernel` x is first upsampled: zeros between the pixels, filtered by four
    times it; here the filter comes last, where the convolution has a quarter of the work. d undoes any scale of w_o and
    of s, which are therefore taken at mean squares of 1 and, as d, in float32: float16 could not hold Σ (s_i w_oi)².
    """
    with torch.autocast(x.device.type, enabled=False):
        weight, style = wide(weight), normalized(wide(style))
        weight = weight * (weight.square().mean((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        d = (style.square() @ weight.square().sum((2, 3)).T + 1e-8).rsqrt()  # (B, O)
    x = x * style.to(x.dtype)[:, :, None, None]
    if kernel is None:
        x = F.conv2d(x, weight, padding=1)
    else:
        x = F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), stride=2)  # (B, O, 2H + 1, 2W + 1)
        x = filtered(x, 4 * kernel, kernel.shape[-1] // 2 - 1)
    return x * d.to(x.dtype)[:, :, None, None]


class Dense(nn.Module):
    """r W x/√I + r b, W ~ N(0, 1/r²): `rate` r scales the learning rate of a layer of I inputs."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.scale * self.weight, self.rate * self.bias)


class Conv(nn.Module):
    """W ∗ x/√(I k²) + b, W ~ N(0, 1), of the size of x; with `taps` filtered by them and halved."""

    kernel: Tensor | None

    def __init__(self, inputs: int, outputs: int, kernel: int, taps: Sequence[float] | None = None, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.register_buffer("kernel", None if taps is None else kernel2d(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.scale * self.weight
        if self.kernel is None:
            return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)
        # the padding of the filter, less one, and of the convolution: once, before both
        x = filtered(x, self.kernel, self.kernel.shape[-1] // 2 + weight.shape[-1] // 2 - 1)
        return F.conv2d(x, weight, self.bias, stride=2)


class Mapping(nn.Module):
    """z, y -> w (B, outputs): `depth` layers that learn at a hundredth of the rate, of the normalized z and label."""

    def __init__(self, latent: int, outputs: int, depth: int, classes: int):
        super().__init__()
        self.classes = classes
        self.label = Dense(classes, outputs) if classes else None
        inputs = [latent + (outputs if classes else 0)] + [outputs] * (depth - 1)
        self.layers = nn.ModuleList(Dense(i, outputs, rate=0.01) for i in inputs)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        w = normalized(z) if z.shape[1] else z
        if self.label is not None:
            w = torch.cat([w, normalized(self.label(one_hot(y, self.classes, z)))], dim=1)
        for layer in self.layers:
            w = activate(layer(w))
        return w


class StyledConv(nn.Module):
    """activate(modulated(x, W, A w) + strength · noise + b) with a learned strength, 0 at first; upsampled with `taps`."""

    kernel: Tensor | None

    def __init__(self, inputs: int, outputs: int, style: int, taps: Sequence[float] | None = None):
        super().__init__()
        self.style = Dense(style, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias, self.strength = nn.Parameter(torch.zeros(outputs)), nn.Parameter(torch.zeros(()))
        self.register_buffer("kernel", None if taps is None else kernel2d(taps), persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        x = modulated(x, self.weight, self.style(w), self.kernel)
        return activate(x + self.strength * noise.reshape(-1, 1, *x.shape[2:]) + self.bias[:, None, None])


class ToImage(nn.Module):
    """(B, I, H, W), w -> (B, C, H, W): a modulated 1 × 1 convolution, not demodulated."""

    def __init__(self, inputs: int, channels: int, style: int):
        super().__init__()
        self.style, self.conv = Dense(style, inputs, bias=1.0), Conv(inputs, channels, 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return self.conv(x * self.style(w)[:, :, None, None])


class Generator(nn.Module):
    """z (B, latent), y -> (B, C, size, size): images of all resolutions, each upsampled and added to the next.

    `noise` (B, `noises`) is what the layers add, of a sample's own as in the published code's metrics; without it they draw
    it in training, and in evaluation add numbers that are fixed with the initial weights, as that code does when it draws
    single images, so that what becomes of a latent is a function of z and y. With a `truncation` w̄ + truncation · (w - w̄)
    stands for w, w̄ the running mean of training.
    """

    mean: Tensor
    fixed: Tensor

    def __init__(
        self,
        latent: int,
        channels: int,
        size: int,
        width: int,
        base: int,
        style: int,
        depth: int,
        taps: Sequence[float],
        classes: int,
    ):
        super().__init__()
        sizes = widths(size, width, base)
        self.mapping = Mapping(latent, style, depth, classes)
        self.start = nn.Parameter(torch.randn(1, sizes[0], 4, 4))
        self.convs = nn.ModuleList(StyledConv(c, c, style) for c in sizes)
        self.ups = nn.ModuleList(StyledConv(i, o, style, taps) for i, o in pairwise(sizes))
        self.images = nn.ModuleList(ToImage(c, channels, style) for c in sizes)
        self.grow = Up(taps)
        self.areas = [16] + [area for i in range(1, len(sizes)) for area in 2 * [(4 << i) ** 2]]
        self.noises = sum(self.areas)
        self.register_buffer("mean", torch.zeros(style))
        self.register_buffer("fixed", torch.randn(1, self.noises))

    def style(self, z: Tensor, y: Tensor | None, truncation: float) -> Tensor:
        """(B, style): w, truncated; in training it moves the running mean, which is of all ranks."""
        w = self.mapping(z, y)
        if self.training:
            mean = total(w.detach().mean(0)) / world()
            self.mean.lerp_(mean.to(self.mean.dtype), 0.005)
        return w if truncation == 1 else torch.lerp(self.mean.to(w.dtype), w, truncation)

    def forward(
        self, z: Tensor, y: Tensor | None = None, noise: Tensor | None = None, truncation: float = 1.0
    ) -> Tensor:
        w = self.style(z, y, truncation)
        if noise is None:
            noise = z.new_empty(len(z), self.noises).normal_() if self.training else self.fixed.expand(len(z), -1)
        first, *rest = noise.split(self.areas, dim=1)
        x = self.convs[0](self.start.expand(len(z), -1, -1, -1), w, first)
        image = wide(self.images[0](x, w))  # summed in float32, as in its code
        layers = zip(self.ups, list(self.convs)[1:], list(self.images)[1:], rest[::2], rest[1::2], strict=True)
        for up, conv, to_image, one, other in layers:
            x = conv(up(x, w, one), w, other)
            image = self.grow(image) + wide(to_image(x, w))
        return image


class Block(nn.Module):
    """activate(conv2(activate(conv1(x)))) at half the size; `residual`: (skip(x) + that)/√2."""

    def __init__(self, inputs: int, outputs: int, taps: Sequence[float], residual: bool):
        super().__init__()
        self.conv1, self.conv2 = Conv(inputs, inputs, 3), Conv(inputs, outputs, 3, taps)
        self.skip = nn.Sequential(Down(taps), Conv(inputs, outputs, 1, bias=False)) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        h = activate(self.conv2(activate(self.conv1(x))))
        return h if self.skip is None else ROOT_HALF * (self.skip(x) + h)


class Discriminator(nn.Module):
    """x (B, C, size, size), y -> (B,) critic values; with labels φ(x)·m(y)/√D, m a mapping network of `depth` layers.

    `residual` is StyleGAN2's critic, without it the blocks stand one after the other, as on CIFAR-10. The standard
    deviation of each `group` of a batch joins the features at 4 × 4.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        width: int,
        base: int,
        depth: int,
        taps: Sequence[float],
        residual: bool,
        group: int,
        classes: int,
    ):
        super().__init__()
        sizes = widths(size, width, base)[::-1]
        last = sizes[-1]
        self.first = Conv(channels, sizes[0], 1)
        self.blocks = nn.Sequential(*(Block(i, o, taps, residual) for i, o in pairwise(sizes)))
        self.batch = MinibatchStd(group)
        self.conv, self.dense = Conv(last + 1, last, 3), Dense(16 * last, last)
        self.value = Dense(last, last if classes else 1)
        self.mapping = Mapping(0, last, depth, classes) if classes else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.blocks(activate(self.first(x)))
        h = activate(self.dense(activate(self.conv(self.batch(h))).flatten(1)))
        h = self.value(h)
        if self.mapping is None:
            return h[:, 0]
        return (h * self.mapping(h[:, :0], y)).sum(1) / math.sqrt(h.shape[1])
