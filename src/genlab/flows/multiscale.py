"""Flows of images at several resolutions: RealNVP, Glow, and Glow's layout with splines."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.errors import GenlabError
from genlab.flows.bijection import Bijection, Chain
from genlab.flows.coupling import ChannelCoupling, CheckerboardCoupling
from genlab.flows.elementwise import Elementwise
from genlab.flows.linear import ActNorm, BatchNorm, Gaussian, Mixing
from genlab.networks.coupling import ZeroConv

CORNERS = ((0, 0), (1, 1), (0, 1), (1, 0))  # of a square of 2 x 2: the first half of the channels is a checkerboard


class Squeezed(Bijection):
    """The inner bijection of images (4C, H/2, W/2), each 2x2 square side by side: Dinh et al. 2017, section 3.6.

    All channels of a corner of the square, then those of another; or `by_channel` all corners of a channel, of which the
    half is no checkerboard: of three colours all of the first and the upper row of the second.
    """

    def __init__(self, inner: Bijection, by_channel: bool = False):
        super().__init__()
        self.inner, self.by_channel = inner, by_channel

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.inner(self._squeezed(x), y)
        return self._back(z), log_det

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        return self._back(self.inner.inverse(self._squeezed(z), y))

    def unfold(self, z: Tensor, y: Tensor | None) -> Iterator[Tensor]:
        for state in self.inner.unfold(self._squeezed(z), y):
            yield self._back(state)

    def _squeezed(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, 2) if self.by_channel else squeeze(x)

    def _back(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(z, 2) if self.by_channel else unsqueeze(z)


class Split(Bijection):
    """z_a = inner(x_a), z_b = (x_b - μ(x_a)) e^{-s(x_a)}: half of the channels goes on, the other is Gaussian given it.

    Dinh et al. 2017, arXiv:1605.08803, section 3.6, where μ = s = 0 (`learned` false); Kingma & Dhariwal 2018,
    arXiv:1807.03039, published code.
    """

    def __init__(self, channels: int, inner: Bijection, learned: bool):
        super().__init__()
        self.inner = inner
        self.parts = [channels // 2, channels - channels // 2]
        self.prior = ZeroConv(self.parts[0], 2 * self.parts[1]) if learned else None

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        kept, left = x.split(self.parts, dim=1)
        z, log_det = self.inner(kept, y)
        if self.prior is not None:
            mean, log_s = self.prior(kept).split(self.parts[1], dim=1)
            left, log_det = (left - mean) * (-log_s).exp(), log_det - log_s.flatten(1).sum(1)
        return torch.cat([z, left], dim=1), log_det

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        *_, x = self.unfold(z, y)
        return x

    def unfold(self, z: Tensor, y: Tensor | None) -> Iterator[Tensor]:
        kept, left = z.split(self.parts, dim=1)
        x = kept
        for x in self.inner.unfold(kept, y):
            yield torch.cat([x, left], dim=1)
        if self.prior is not None:
            mean, log_s = self.prior(x).split(self.parts[1], dim=1)
            yield torch.cat([x, left * log_s.exp() + mean], dim=1)


Net = Callable[..., torch.nn.Module]
"""(inputs, outputs, width=...) -> a conditioner."""


def glow(
    shape: Sequence[int],
    levels: int,
    depth: int,
    conditioner: Net,
    elementwise: Callable[[], Elementwise],
    width: int,
    split: bool,
    classes: int,
    before: Bijection | None = None,
) -> Bijection:
    """`levels` times: squeeze, `depth` steps of ActNorm, 1x1 convolution and coupling, then split, but for the last.

    Kingma & Dhariwal 2018, arXiv:1807.03039, figure 2. Without `split` all channels go on, as in the published code of
    Durkan et al. 2019, arXiv:1906.04032, where each level ends with one more 1x1 convolution.
    """
    _check(shape, levels, least=1)

    def net(inputs: int, outputs: int) -> torch.nn.Module:
        return conditioner(inputs=inputs, outputs=outputs, width=width, classes=classes)

    def level(channels: int, left: int) -> Bijection:
        channels = 4 * channels
        steps: list[Bijection] = []
        for _ in range(depth):
            step = [ActNorm(channels), Mixing(channels), ChannelCoupling(channels, net, elementwise)]
            steps.append(Chain(step, whole=True))
        if not split:
            steps.append(Mixing(channels))
        if left == 1:
            steps.append(Gaussian([channels], classes))
        elif split:
            steps.append(Split(channels, level(channels // 2, left - 1), learned=True))
        else:
            steps.append(level(channels, left - 1))
        return Squeezed(Chain(steps))

    return after(before, level(shape[0], levels))


def realnvp(
    shape: Sequence[int],
    levels: int,
    conditioner: Net,
    elementwise: Callable[[], Elementwise],
    width: int,
    blocks: int,
    classes: int,
    before: Bijection | None = None,
) -> Bijection:
    """At each of `levels` resolutions three couplings by checkerboard, a squeeze, three by channel, then half of the channels
    are left; four by checkerboard at the last. Each has a batch norm; `width` doubles with each resolution.

    Dinh et al. 2017, arXiv:1605.08803, section 4.1.
    """
    _check(shape, levels - 1, least=0)

    def scale(channels: int, height: int, width_: int, width: int, left: int) -> Bijection:
        def net(factor: int) -> Callable[[int, int], torch.nn.Module]:
            return lambda inputs, outputs: conditioner(
                inputs=inputs, outputs=outputs, width=factor * width, blocks=blocks, classes=classes
            )

        here, last = [channels, height, width_], left == 1
        layers: list[Bijection] = []
        for i in range(4 if last else 3):
            coupling = CheckerboardCoupling(here, net(1), elementwise, flipped=i % 2 == 0)
            layers.append(Chain([coupling, BatchNorm(channels)], whole=True))
        if last:
            return Chain([*layers, Gaussian(here, classes)] if classes else layers)
        inner: list[Bijection] = []
        for i in range(3):
            coupling = ChannelCoupling(4 * channels, net(2), elementwise, flipped=i % 2 == 1)
            inner.append(Chain([coupling, BatchNorm(4 * channels)], whole=True))
        rest = scale(2 * channels, height // 2, width_ // 2, 2 * width, left - 1)
        # halves of channels that are not those of the checkerboards before (section 3.6), which a split leaves, as in its code
        channel_wise = Squeezed(Chain(inner), by_channel=True)
        return Chain([*layers, channel_wise, Squeezed(Split(4 * channels, rest, learned=False))])

    return after(before, scale(shape[0], shape[1], shape[2], width, levels))


def after(before: Bijection | None, flow: Bijection) -> Bijection:
    """The flow of what `before` makes of x, if anything."""
    return flow if before is None else Chain([before, flow])


def squeeze(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 4C, H/2, W/2), the corners of CORNERS one after another."""
    return torch.cat([x[:, :, i::2, j::2] for i, j in CORNERS], dim=1)


def unsqueeze(z: Tensor) -> Tensor:
    """The inverse of `squeeze`."""
    parts = z.chunk(4, dim=1)
    x = z.new_empty(len(z), z.shape[1] // 4, 2 * z.shape[2], 2 * z.shape[3])
    for (i, j), part in zip(CORNERS, parts, strict=True):
        x[:, :, i::2, j::2] = part
    return x


def _check(shape: Sequence[int], halvings: int, least: int) -> None:
    """Raise GenlabError unless this is the shape of images that can be halved so often."""
    if len(shape) != 3:
        raise GenlabError("this flow is for images, and these data are points: use network=maf, spline_flow or ffjord")
    if halvings < least:
        raise GenlabError("network.levels=0: a flow of images has at least one level")
    _, height, width = shape
    if height % 2**halvings or width % 2**halvings:
        raise GenlabError(
            f"images of {height} x {width} cannot be halved {halvings} times: set network.levels lower, or another data size"
        )
