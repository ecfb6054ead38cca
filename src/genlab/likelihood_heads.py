"""p(x | parameters): what the last layer of a decoder means."""

import abc
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError

LOG_S_MIN = -7.0  # of logistics: a bin of 8 bits is wider than eight deviations, and float32 still knows the logits


class Head(nn.Module, abc.ABC):
    """A likelihood of x (B, C, ...) given parameters (B, outputs(C), ...)."""

    discrete: bool = True
    unbounded: bool = False
    """Whether it can grow without bound at the points of a lattice, so that it has to learn from dequantized data."""

    def outputs(self, channels: int) -> int:
        """How many channels the parameters of an x of so many channels have."""
        return channels

    @abc.abstractmethod
    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """(B,) nats."""

    @abc.abstractmethod
    def mean(self, parameters: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        """A draw, made from u ~ U(0, 1) of the shape of x."""

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        """The parameters at a temperature, where below 1 what is likely becomes likelier."""
        raise GenlabError(f"a {type(self).__name__} has no temperature: set sampler.temperature=1")

    def truncated(self, parameters: Tensor, top_k: int | None, top_p: float) -> Tensor:
        """The parameters without what is not among the `top_k` likeliest and in the share `top_p` of their probability."""
        raise GenlabError(f"top_k and top_p are for tokens: a {type(self).__name__} has sampler.temperature alone")

    def fitting(self, parameters: Tensor, channels: int) -> Tensor:
        """The parameters; raises GenlabError unless they are as many as an x of so many channels needs."""
        if parameters.shape[1] != (needed := self.outputs(channels)):
            raise GenlabError(
                f"the decoder has {parameters.shape[1]} outputs, and {type(self).__name__} on {channels} channels needs "
                f"{needed}: set network.decoder.outputs={needed}"
            )
        return parameters

    def check(self, x: Tensor) -> None:
        """Raise GenlabError if x is nothing that this head gives a probability to."""
        if not x.isfinite().all():
            raise GenlabError("the data are not finite: look for nan or inf in them")


class Bernoulli(Head):
    """Two levels, -1 and 1, with logit l: log p = log σ(x l)."""

    def __init__(self, levels: int):
        super().__init__()
        if levels != 2:
            raise GenlabError(f"a Bernoulli head needs data of two levels, not {levels}: use DiscretizedLogistic")

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        return F.logsigmoid(x * parameters).flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        return 2 * parameters.sigmoid() - 1

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        return 2 * (u < parameters.sigmoid()).to(parameters.dtype) - 1

    def check(self, x: Tensor) -> None:
        check_lattice(x, 2)


class DiscretizedLogistic(Head):
    """The mass of a logistic in the bin around each of `levels` points of [-1, 1]; the outer bins reach to ±∞.

    P(x) = S((x + δ - μ)/s) - S((x - δ - μ)/s), δ = 1/(levels - 1). Kingma et al. 2016, arXiv:1606.04934, appendix C.
    """

    def __init__(self, levels: int):
        super().__init__()
        self.levels, self.delta = levels, half_bin(levels)

    def outputs(self, channels: int) -> int:
        return 2 * channels

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        mu, log_s = parameters.chunk(2, dim=1)
        return log_mass(x, mu, log_s, self.delta).flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters.chunk(2, dim=1)[0].clamp(-1, 1)

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        mu, log_s = parameters.chunk(2, dim=1)
        return (mu + log_s.clamp(min=LOG_S_MIN).exp() * torch.logit(u)).clamp(-1, 1)

    def check(self, x: Tensor) -> None:
        check_lattice(x, self.levels)


class Gaussian(Head):
    """N(μ, s²) with both predicted."""

    discrete, unbounded = False, True

    def outputs(self, channels: int) -> int:
        return 2 * channels

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        mu, log_s = parameters.chunk(2, dim=1)
        return (-0.5 * ((x - mu) / log_s.exp()) ** 2 - log_s - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters.chunk(2, dim=1)[0]

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        mu, log_s = parameters.chunk(2, dim=1)
        return mu + log_s.exp() * torch.special.ndtri(u)


class FixedGaussian(Head):
    """N(μ, s²) with μ predicted and s given: -log p is ‖x - μ‖²/(2 s²) and a constant."""

    discrete = False

    def __init__(self, s: float):
        super().__init__()
        if not s > 0:
            raise GenlabError(f"head.s={s}: a standard deviation above 0 is needed")
        self.s = s

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        return log_isotropic(x, parameters, math.log(self.s))

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        return parameters + self.s * torch.special.ndtri(u)


class OptimalGaussian(Head):
    """N(μ, s²) with μ predicted and one s for all: in training the best of each batch, s² = mean (x - μ)²; otherwise the
    average of its logarithm over batches of training, so that no image is scored by an s that it chose itself.

    Rybkin et al. 2021, arXiv:2006.13202, eq. 7 (optimal σ-VAE). Its gradient is that of the log of the mean squared error.
    """

    discrete = False
    log_s: Tensor
    batches: Tensor

    def __init__(self, memory: float):
        super().__init__()
        if not 0 <= memory < 1:
            raise GenlabError(f"head.memory={memory}: from 0 to below 1, it is what a batch leaves of the average")
        self.memory = memory
        self.register_buffer("log_s", torch.zeros(()))
        self.register_buffer("batches", torch.zeros(()))

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return log_isotropic(x, parameters, self.log_s)
        with torch.no_grad():
            log_s = (x - parameters).square().mean().log() / 2
            log_s = log_s.clamp(min=-6)  # an autoencoder may become exact
            self.batches += 1  # the first batches weigh alike
            self.log_s += (log_s - self.log_s) * (1 / self.batches).clamp(min=1 - self.memory)
        return log_isotropic(x, parameters, log_s)

    def mean(self, parameters: Tensor) -> Tensor:
        return parameters

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        return parameters + self.log_s.exp() * torch.special.ndtri(u)


def log_isotropic(x: Tensor, mu: Tensor, log_s: Tensor | float) -> Tensor:
    """(B,) Σ log N(x; μ, s²)."""
    log_s = torch.as_tensor(log_s, dtype=torch.promote_types(mu.dtype, torch.float32), device=mu.device)
    return (-0.5 * ((x - mu) / log_s.exp()) ** 2 - log_s - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def log_mass(x: Tensor, mu: Tensor, log_s: Tensor, half: float) -> Tensor:
    """log(S((x + δ - μ)/s) - S((x - δ - μ)/s)), δ = half, of each number; the outer bins of [-1, 1] reach to ±∞."""
    s = log_s.clamp(min=LOG_S_MIN).exp()
    upper, lower = (x + half - mu) / s, (x - half - mu) / s
    # log(S(u) - S(l)) = log S(u) + log S(-l) + log(1 - e^{l - u}), where u - l = 2δ/s does not cancel far from x
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-2 * half / s))
    edge = 1 - half
    return torch.where(x < -edge, F.logsigmoid(upper), torch.where(x > edge, F.logsigmoid(-lower), inside))


def half_bin(levels: int) -> float:
    """δ, half of the distance between neighbours of `levels` points of [-1, 1]; raises GenlabError for fewer than two."""
    if levels < 2:
        raise GenlabError(f"a head for {levels} levels: data of 2 levels or more are needed")
    return 1 / (levels - 1)


def check_lattice(x: Tensor, levels: int) -> None:
    """Raise GenlabError unless every number of x is one of `levels` points of [-1, 1]."""
    level = (x + 1) * (levels - 1) / 2
    off = torch.maximum((level - level.round()).abs(), (level - (levels - 1) / 2).abs() - (levels - 1) / 2)
    if not (off < 0.01).all():  # also where it is nan
        raise GenlabError(
            f"the data reach from {x.min().item():.4g} to {x.max().item():.4g} and are not on the {levels} levels from -1 "
            "to 1 that the likelihood head has: give it the data's levels, or use a Gaussian head"
        )
