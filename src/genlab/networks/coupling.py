"""Networks between the parts of a coupling layer: what is kept, and the label, to the parameters of what is moved."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from genlab.distributed import total

SPEED = 3.0  # Kingma & Dhariwal learn logarithms of scales as 3 s, so that these move faster than other weights


class DataNorm(nn.Module):
    """e^{3 s} (x + b) for each channel, s and b such that the first batch of training has mean 0 and variance 1.

    Kingma & Dhariwal 2018, arXiv:1807.03039, section 3.1. That it has happened is a buffer, and so is in a checkpoint;
    several ranks agree on the moments of what all of them have.
    """

    done: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.s = nn.Parameter(torch.zeros(channels))
        self.register_buffer("done", torch.zeros((), dtype=torch.bool))
        self._known = False  # that it is done, without asking the device

    @property
    def log_scale(self) -> Tensor:
        """(C,)."""
        return SPEED * self.s

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self._known:
            if not self.done:
                self._begin(x.detach())
            self._known = bool(self.done)
        bias, log_scale = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (self.bias, self.log_scale))
        return (x + bias) * log_scale.exp()

    def inverse(self, z: Tensor) -> Tensor:
        """The x whose image is z."""
        bias, log_scale = (v.reshape(-1, *[1] * (z.ndim - 2)) for v in (self.bias, self.log_scale))
        return z * (-log_scale).exp() - bias

    @torch.no_grad()
    def _begin(self, x: Tensor) -> None:
        flat = x.transpose(0, 1).flatten(1).double()  # (C, B H W)
        n, first, second = total(torch.stack([torch.ones_like(flat).sum(1), flat.sum(1), flat.square().sum(1)]))
        mean = first / n
        deviation = (second / n - mean.square()).clamp(min=0).sqrt() + 1e-6
        if torch.isfinite(mean + deviation).all():  # else the next batch begins it
            self.bias.copy_(-mean)
            self.s.copy_(-deviation.log() / SPEED)
            self.done.fill_(True)


class GlowNet(nn.Module):
    """Two hidden layers of `width`, 3x3 and 1x1, each normalized by its data, and a last of 3x3 that begins at 0.

    Kingma & Dhariwal 2018, arXiv:1807.03039, section 3.3 and published code. The label is added to the first layer.
    """

    def __init__(self, inputs: int, outputs: int, width: int, classes: int):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False), DataNorm(width)
        self.second, self.norm2 = nn.Conv2d(width, width, 1, bias=False), DataNorm(width)
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=0.05)
        self.last = ZeroConv(width, outputs)
        self.label = label(classes, width)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.norm1(self.first(x))
        h = h if self.label is None else h + self.label(y)[:, :, None, None]
        return self.last(F.relu(self.norm2(self.second(F.relu(h)))))


class ZeroConv(nn.Module):
    """e^{3 s} (3x3 convolution), all of it 0 at first."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.s = nn.Parameter(torch.zeros(outputs))
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * (SPEED * self.s).exp()[:, None, None]


class SplineNet(nn.Module):
    """A residual network of `blocks` blocks between 1x1 convolutions, the second layer of each block nearly 0 at first.

    Durkan et al. 2019, arXiv:1906.04032, appendix B, and published code. The label is added to the first layer.
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int, dropout: float, classes: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, width, 1)
        self.blocks = nn.ModuleList(_spline_block(width, dropout) for _ in range(blocks))
        self.last = nn.Conv2d(width, outputs, 1)
        self.label = label(classes, width)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.first(x)
        h = h if self.label is None else h + self.label(y)[:, :, None, None]
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


def _spline_block(width: int, dropout: float) -> nn.Sequential:
    last = nn.Conv2d(width, width, 3, padding=1)
    nn.init.uniform_(last.weight, -1e-3, 1e-3)
    nn.init.uniform_(last.bias, -1e-3, 1e-3)  # pyright: ignore
    first = nn.Conv2d(width, width, 3, padding=1)
    norm1, norm2 = nn.BatchNorm2d(width, eps=1e-3), nn.BatchNorm2d(width, eps=1e-3)
    return nn.Sequential(norm1, nn.ReLU(), first, norm2, nn.ReLU(), nn.Dropout(dropout), last)


class RealNVPNet(nn.Module):
    """A residual network with skip connections, batch norm and weight norm; (x, -x) goes in through a ReLU.

    Dinh et al. 2017, arXiv:1605.08803, section 3.7 and published code. The label is added to the first layer.
    """

    def __init__(self, inputs: int, outputs: int, width: int, blocks: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs, eps=1e-4, affine=False)
        self.first = _normed(2 * inputs, width, 3)
        self.blocks = nn.ModuleList(_realnvp_block(width) for _ in range(blocks))
        self.skips = nn.ModuleList(_normed(width, width, 1) for _ in range(blocks + 1))
        self.out = nn.BatchNorm2d(width, eps=1e-4, affine=False)
        self.last = _normed(width, outputs, 1)
        self.label = label(classes, width)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.norm(x)
        h = self.first(F.relu(torch.cat([h, -h], dim=1)))
        h = h if self.label is None else h + self.label(y)[:, :, None, None]
        out = self.skips[0](h)
        for block, skip in zip(self.blocks, self.skips[1:], strict=True):
            h = h + block(h)
            out = out + skip(h)
        return self.last(F.relu(self.out(out)))


def _realnvp_block(width: int) -> nn.Sequential:
    norm1, norm2 = (nn.BatchNorm2d(width, eps=1e-4, affine=False) for _ in range(2))
    return nn.Sequential(norm1, nn.ReLU(), _normed(width, width, 3), norm2, nn.ReLU(), _normed(width, width, 3))


def _normed(inputs: int, outputs: int, kernel: int) -> nn.Module:
    """A convolution whose weight is g v/‖v‖: Salimans & Kingma 2016, arXiv:1602.07868, eq. 2."""
    return weight_norm(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))


def label(classes: int, width: int) -> nn.Embedding | None:
    """What each label adds to a hidden layer, where there are labels."""
    return nn.Embedding(classes, width) if classes else None


class ContextNet(nn.Module):
    """(x, c) -> a 3x3 SiLU network of the two side by side, whose last layer begins at 0."""

    def __init__(self, inputs: int, context: int, outputs: int):
        super().__init__()
        self.first = nn.Conv2d(inputs + context, context, 3, padding=1)
        self.last = ZeroConv(context, outputs)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return self.last(F.silu(self.first(torch.cat([x, c], dim=1))))
