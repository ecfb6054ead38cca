"""NVAE: residual cells with batch norm, wide depthwise ones on the way down. Vahdat & Kautz 2020, arXiv:2007.03898, and its code."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from genlab.errors import GenlabError
from genlab.networks.levels import Latent, split


class WeightNorm(nn.Module):
    """W = exp(ℓ) v/‖v‖ for each output, of a weight's direction v and log-length ℓ, at first log(‖W‖ + 0.01).

    Salimans & Kingma 2016, arXiv:1602.07868, in the published code of NVAE, where lengths cannot change their sign.
    """

    def forward(self, v: Tensor, log_length: Tensor) -> Tensor:
        return log_length.exp() * v / (lengths(v) + 1e-5)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight, (lengths(weight) + 0.01).log()


def lengths(weight: Tensor) -> Tensor:
    """(O, I, k, k) -> (O, 1, 1, 1)."""
    return weight.square().sum((1, 2, 3), keepdim=True).sqrt()


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution whose weight has its length apart from its direction."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=bias)
    register_parametrization(layer, "weight", WeightNorm())
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-5, momentum=0.05)


class Excitation(nn.Module):
    """x · sigmoid(f(mean of x)), f of one hidden layer. Hu et al. 2018, arXiv:1709.01507."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 16, 4)
        layers = nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layers(x.mean((2, 3)))[:, :, None, None]


class Shrink(nn.Module):
    """Half the size and twice the channels: a quarter of them from each corner of 2 × 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.corners = nn.ModuleList(conv(channels, channels // 2, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(x)
        parts = [h[:, :, i::2, j::2] for i, j in ((0, 0), (1, 1), (0, 1), (1, 0))]
        return torch.cat([corner(part) for corner, part in zip(self.corners, parts, strict=True)], dim=1)


class Grow(nn.Module):
    """Twice the size and half the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = conv(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class Cell(nn.Module):
    """skip(x) + 0.1 · excitation(body(x)). Figure 3."""

    def __init__(self, skip: nn.Module, body: list[nn.Module], outputs: int):
        super().__init__()
        self.skip, self.body = skip, nn.Sequential(*body, Excitation(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + 0.1 * self.body(x)


def up_cell(c: int, shrinks: bool = False) -> Cell:
    """Of the bottom-up network: twice batch norm, SiLU, 3×3 convolution."""
    d = 2 * c if shrinks else c
    body = [norm(c), nn.SiLU(), conv(c, d, 3, 2 if shrinks else 1), norm(d), nn.SiLU(), conv(d, d, 3)]
    return Cell(Shrink(c) if shrinks else nn.Identity(), body, d)


def down_cell(c: int, expansion: int, grows: bool = False) -> Cell:
    """Of the top-down network: into `expansion` times the channels, 5×5 depthwise, and back."""
    d, wide = c // 2 if grows else c, expansion * c
    body: list[nn.Module] = [nn.Upsample(scale_factor=2)] if grows else []
    body += [norm(c), nn.Conv2d(c, wide, 1, bias=False), norm(wide), nn.SiLU()]
    body += [nn.Conv2d(wide, wide, 5, padding=2, groups=wide, bias=False), norm(wide), nn.SiLU()]
    body += [nn.Conv2d(wide, d, 1, bias=False), norm(d)]
    return Cell(Grow(c) if grows else nn.Identity(), body, d)


def check(size: int, halvings: int, levels: int, cells: int) -> None:
    """GenlabError unless the images can be halved so often, and there are levels with cells between them."""
    if levels < 1:
        raise GenlabError(f"network.blocks={levels}: a hierarchical VAE needs at least 1 level")
    if cells < 1 or halvings < 1:
        raise GenlabError(f"network.cells={cells}, network.halvings={halvings}: at least 1 each")
    if size % 2**halvings:
        raise GenlabError(f"images of size {size} cannot be halved {halvings} times: set network.halvings lower")


class BottomUp(nn.Module):
    """x (B, C, S, S), y -> the features (B, width · 2^halvings, s, s) of each of `levels` levels, from the top down,
    s = S/2^halvings; `cells` of them stand between two levels, and `outer` at each larger size.
    """

    def __init__(
        self, channels: int, size: int, width: int, halvings: int, levels: int, cells: int, outer: int, classes: int
    ):
        super().__init__()
        check(size, halvings, levels, cells)
        self.stem = conv(channels, width, 3)
        self.label = nn.Embedding(classes, width) if classes else None
        sizes = [width << i for i in range(halvings)]
        self.outer = nn.Sequential(*(up_cell(c, k == outer - 1) for c in sizes for k in range(outer)))
        c = width << halvings
        self.rows = nn.ModuleList(nn.Sequential(*(up_cell(c) for _ in range(cells))) for _ in range(levels))
        self.top = nn.Sequential(nn.ELU(), conv(c, c, 1), nn.ELU())

    def forward(self, x: Tensor, y: Tensor | None = None) -> list[Tensor]:
        h = self.stem(x)
        if self.label is not None:
            h = h + self.label(y)[:, :, None, None]
        h, features = self.outer(h), []
        for row in self.rows:
            h = row(h)
            features.append(h)
        return [self.top(h), *features[-2::-1]]


class Level(nn.Module):
    """s -> s' by z; the numbers of its prior are a function of s, those of its posterior of s and the image's features."""

    def __init__(self, c: int, latent: int, cells: int, expansion: int):
        super().__init__()
        self.cells = nn.Sequential(*(down_cell(c, expansion) for _ in range(cells)))
        self.prior = nn.Sequential(nn.ELU(), conv(c, 2 * latent, 1))
        self.merge = conv(c, c, 1)
        self.posterior = conv(c, 2 * latent, 3)
        self.join = conv(c + latent, c, 1)

    def forward(self, s: Tensor, features: Tensor | None, eps: Tensor, latent: Latent) -> Tensor:
        s = self.cells(s)
        h = None if features is None else self.posterior(features + self.merge(s))
        return self.join(torch.cat([s, latent(self.prior(s), h, eps).to(s.dtype)], dim=1))


class Top(nn.Module):
    """The first level, whose prior is N(0, I)."""

    def __init__(self, c: int, latent: int):
        super().__init__()
        self.latent = latent
        self.posterior = conv(c, 2 * latent, 3)
        self.join = conv(c + latent, c, 1)

    def forward(self, s: Tensor, features: Tensor | None, eps: Tensor, latent: Latent) -> Tensor:
        p = s.new_zeros(len(s), 2 * self.latent, *s.shape[2:])
        z = latent(p, None if features is None else self.posterior(features), eps)
        return self.join(torch.cat([s, z.to(s.dtype)], dim=1))


class TopDown(nn.Module):
    """ε (B, D), y -> the parameters (B, outputs, S, S) of a likelihood head, by `levels` levels of `latent` channels at size
    S/2^halvings; `features` of the encoder make it infer. Raises GenlabError for sizes that do not fit.
    """

    def __init__(
        self,
        size: int,
        width: int,
        halvings: int,
        levels: int,
        cells: int,
        outer: int,
        latent: int,
        outputs: int,
        classes: int,
    ):
        super().__init__()
        check(size, halvings, levels, cells)
        if latent < 1:
            raise GenlabError(f"network.decoder.latent={latent}: a level needs at least 1 channel")
        c, s = width << halvings, size >> halvings
        self.shapes = [(latent, s, s)] * levels
        self.start = nn.Parameter(torch.rand(1, c, s, s))
        self.label = nn.Embedding(classes, c) if classes else None
        self.levels = nn.ModuleList(
            [Top(c, latent), *(Level(c, latent, cells, expansion=6) for _ in range(levels - 1))]
        )
        sizes = [width << i for i in range(halvings, 0, -1)]
        outers = [down_cell(c if k == 0 else c // 2, 3, k == 0) for c in sizes for k in range(outer)]
        self.outer = nn.Sequential(*outers, nn.ELU(), conv(width, outputs, 3))

    def forward(
        self, eps: Tensor, latent: Latent, y: Tensor | None = None, features: list[Tensor] | None = None
    ) -> Tensor:
        s = self.start.expand(len(eps), -1, -1, -1)
        if self.label is not None:
            s = s + self.label(y)[:, :, None, None]
        for i, (level, part) in enumerate(zip(self.levels, split(eps, self.shapes), strict=True)):
            s = level(s, None if features is None else features[i], part, latent)
        return self.outer(s)
