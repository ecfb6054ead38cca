"""Layers that are linear in x: normalization of channels, and what mixes them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.flows.bijection import Bijection, places
from genlab.networks.batch_norm import average
from genlab.networks.coupling import DataNorm


class ActNorm(Bijection):
    """z = e^s (x + b) for each channel, of mean 0 and variance 1 on the first batch of training.

    Kingma & Dhariwal 2018, arXiv:1807.03039, section 3.1.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = DataNorm(channels)

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        z = self.norm(x)
        return z, (self.norm.log_scale.sum() * places(x)).expand(len(x))

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        return self.norm.inverse(z)


class BatchNorm(Bijection):
    """z = (x - m)/√(v + ε) for each channel: moments of the batch, of all ranks, in training, their running averages otherwise.

    Dinh et al. 2017, arXiv:1605.08803, section 3.7 and appendix E. In training the inverse is of running averages too.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-4):
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, variance = self.mean, self.variance
        if self.training:
            flat = x.transpose(0, 1).flatten(1)  # (C, B H W)
            mean = average(flat.mean(1))
            variance = average((flat - mean[:, None]).square().mean(1))
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance, self.momentum)
        z = (x - channelwise(mean, x)) * channelwise((variance + self.eps).rsqrt(), x)
        return z, (-(variance + self.eps).log().sum() / 2 * places(x)).expand(len(x))

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        return z * channelwise((self.variance + self.eps).sqrt(), z) + channelwise(self.mean, z)


class Mixing(Bijection):
    """z = W x over channels at each place, W = P L (U + diag(sign · e^s)): an invertible 1x1 convolution in LU form.

    Kingma & Dhariwal 2018, arXiv:1807.03039, eq. 10 and 11: P and the signs stay those of a random rotation, L and U are
    unit and strictly triangular, log |det W| = Σ s. One matrix holds L below, s on and U above its diagonal.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int):
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels)).Q
        permutation, lower, upper = torch.linalg.lu(rotation)
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", upper.diag().sign())
        self.lsu = nn.Parameter(lower.tril(-1) + upper.diag().abs().log().diag() + upper.triu(1))

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors()
        return mixed(self.permutation.double() @ lower @ upper, x), (self.lsu.diag().sum() * places(x)).expand(len(x))

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        lower, upper = self._factors()
        inner = torch.linalg.solve_triangular(lower, self.permutation.T.double(), upper=False, unitriangular=True)
        return mixed(torch.linalg.solve_triangular(upper, inner, upper=True), z)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """In float64, as W⁻¹ would lose digits that every layer before it adds to."""
        lsu, one = self.lsu.double(), torch.eye(len(self.sign), dtype=torch.float64, device=self.lsu.device)
        return lsu.tril(-1) + one, lsu.triu(1) + (self.sign * lsu.diag().exp()).diag()


class Reverse(Bijection):
    """The dimensions of vectors in reverse order."""

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        return x.flip(1), x.new_zeros(len(x))

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        return z.flip(1)


class Gaussian(Bijection):
    """z = (x - μ_y) e^{-s_y}: the latents of each channel and label begin as N(0, 1) and have a mean and a scale of their own.

    The learned top of Kingma & Dhariwal 2018, arXiv:1807.03039, with their published code's condition on the label.
    """

    def __init__(self, shape: Sequence[int], classes: int):
        super().__init__()
        self.table = nn.Embedding(max(classes, 1), 2 * shape[0])
        nn.init.zeros_(self.table.weight)

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_s = self._moments(x, y)
        return (x - mean) * (-log_s).exp(), -log_s.flatten(1).sum(1) * places(x)

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        mean, log_s = self._moments(z, y)
        return z * log_s.exp() + mean

    def _moments(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        rows = self.table(torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y)
        mean, log_s = rows.reshape(*rows.shape, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        return mean, log_s


def channelwise(values: Tensor, x: Tensor) -> Tensor:
    """(C,) so that it multiplies the channels of x (B, C, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 2))


def mixed(weight: Tensor, x: Tensor) -> Tensor:
    """W x over the channels of x (B, C, ...), in the precision of x, though autocast's be another."""
    weight = weight.to(x.dtype)
    with torch.autocast(
        x.device.type, enabled=False
    ):  # else the state itself would lose half a grey level at each step
        return F.linear(x, weight) if x.ndim == 2 else F.conv2d(x, weight[:, :, None, None])
