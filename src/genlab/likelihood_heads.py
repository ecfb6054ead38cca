"""p(x | parameters): what the last layer of a decoder means."""

import abc
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.errors import GenlabError


class Head(abc.ABC):
    """A factorized likelihood whose parameters are `factor` numbers for each number of x, along dimension 1."""

    factor: int
    discrete: bool = True

    @abc.abstractmethod
    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """(B,) nats of x (B, C, ...) under parameters (B, factor · C, ...)."""

    @abc.abstractmethod
    def mean(self, parameters: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        """A draw, made from u ~ U(0, 1) of the shape of x."""


class Bernoulli(Head):
    """Two levels, -1 and 1, with logit l: log p = log σ(x l)."""

    factor = 1

    def __init__(self, levels: int):
        if levels != 2:
            raise GenlabError(f"a Bernoulli head needs data of two levels, not {levels}: use DiscretizedLogistic")

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        return F.logsigmoid(x * parameters).flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        return 2 * parameters.sigmoid() - 1

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        return 2 * (u < parameters.sigmoid()).to(parameters.dtype) - 1


class DiscretizedLogistic(Head):
    """The mass of a logistic in the bin around each of `levels` points of [-1, 1]; the outer bins reach to ±∞.

    P(x) = S((x + δ - μ)/s) - S((x - δ - μ)/s), δ = 1/(levels - 1). Kingma et al. 2016, arXiv:1606.04934, appendix C.
    """

    factor = 2

    def __init__(self, levels: int):
        self.half = 1 / (levels - 1)

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        mu, log_s = parameters.chunk(2, dim=1)
        s = log_s.clamp(min=-7).exp()
        upper, lower = (x + self.half - mu) / s, (x - self.half - mu) / s
        # log(S(u) - S(l)) = log S(u) + log S(-l) + log(1 - e^{l - u}), where u - l = 2δ/s does not cancel far from x
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-2 * self.half / s))
        edge = 1 - self.half
        terms = torch.where(x < -edge, F.logsigmoid(upper), torch.where(x > edge, F.logsigmoid(-lower), inside))
        return terms.flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters.chunk(2, dim=1)[0].clamp(-1, 1)

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        mu, log_s = parameters.chunk(2, dim=1)
        return (mu + log_s.clamp(min=-7).exp() * torch.logit(u)).clamp(-1, 1)


class Gaussian(Head):
    """N(μ, s²) with both predicted."""

    factor = 2
    discrete = False

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        mu, log_s = parameters.chunk(2, dim=1)
        return (-0.5 * ((x - mu) / log_s.exp()) ** 2 - log_s - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters.chunk(2, dim=1)[0]

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        mu, log_s = parameters.chunk(2, dim=1)
        return mu + log_s.exp() * torch.special.ndtri(u)
