"""Terms that keep a critic smooth, added to the losses of an objective, as values."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from genlab.adversarial.objectives import Objective
from genlab.errors import GenlabError
from genlab.precision import wide
from genlab.schedules import Schedule


class Round(NamedTuple):
    """What was shown to the critic and what it said; `x`, `fake` may be differentiated in the critic's turn."""

    critic: Callable[[Tensor, Tensor | None], Tensor]
    generator: Callable[[Tensor], Tensor]  # z -> samples as the critic sees them
    x: Tensor  # (B, ...) data
    fake: Tensor  # (B, ...) samples G(z)
    z: Tensor
    y: Tensor | None
    real_value: Tensor | None  # (B,) D(x), None in the generator's turn
    fake_value: Tensor  # (B,) D(G(z))
    turn: int  # how many batches training saw before this one
    images_seen: int = 0  # and how many images
    packing: int = 1  # samples side by side in the channels of each


class Penalty(nn.Module, abc.ABC):
    """Terms added to the losses; a module, so that what one remembers is in the checkpoint."""

    @abc.abstractmethod
    def critic(self, seen: Round) -> Tensor:
        """What the critic's loss gains."""

    def generator(self, seen: Round) -> Tensor:
        """What the generator's loss gains."""
        return seen.fake.new_zeros(())

    def project(self, critic: nn.Module) -> None:
        """Move the critic's weights back to where they are allowed, after each of its steps."""

    def check(self, objective: Objective, shape: Sequence[int]) -> None:
        """Raise GenlabError for an objective whose critic this cannot restrain, and for data it is not made for."""


def slope(value: Tensor, x: Tensor) -> Tensor:
    """(B, D): the gradient of each sample's value by that sample, itself differentiable; float32 under autocast too."""
    (gradient,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    return wide(gradient).flatten(1)


def between(seen: Round) -> Tensor:
    """u x + (1 - u) G(z), u ~ U(0, 1) for each sample."""
    u = torch.rand((len(seen.x),) + (1,) * (seen.x.ndim - 1), device=seen.x.device, dtype=seen.x.dtype)
    return (u * seen.x + (1 - u) * seen.fake).detach().requires_grad_()


def nonnegative(**values: float) -> None:
    """Raise GenlabError for a weight below 0, which would reward what is to be punished, and for nan."""
    for name, value in values.items():
        if not value >= 0:
            raise GenlabError(f"penalty {name}={value}: it must be 0 or more")


class NoPenalty(Penalty):
    """Zero."""

    def critic(self, seen: Round) -> Tensor:
        return seen.x.new_zeros(())


class GradientPenalty(Penalty):
    """weight · E (‖∇D(u x + (1 - u) G)‖ - 1)², u ~ U(0, 1); one-sided: only where the norm is above 1.

    Gulrajani et al. 2017, arXiv:1704.00028, eq. 3; one-sided in its section 4, and Petzka et al. 2018, arXiv:1709.08894.
    """

    def __init__(self, weight: float, one_sided: bool = False):
        super().__init__()
        nonnegative(weight=weight)
        self.weight, self.one_sided = weight, one_sided

    def critic(self, seen: Round) -> Tensor:
        x = between(seen)
        excess = slope(seen.critic(x, seen.y), x).norm(dim=1) - 1
        return self.weight * (excess.relu() if self.one_sided else excess).square().mean()


class DRAGAN(Penalty):
    """weight · E (‖∇D(x + δ)‖ - 1)², δ = u v `spread` · std(x), u ~ U(0, 1) for each sample, v ~ U(0, 1) for each number.

    Kodali et al. 2017, arXiv:1705.07215, section 2.3, with the noise of its code.
    """

    def __init__(self, weight: float, spread: float):
        super().__init__()
        nonnegative(weight=weight, spread=spread)
        self.weight, self.spread = weight, spread

    def critic(self, seen: Round) -> Tensor:
        x = seen.x.detach()
        u = torch.rand((len(x),) + (1,) * (x.ndim - 1), device=x.device, dtype=x.dtype)
        x = (x + u * torch.rand_like(x) * self.spread * x.std(correction=0)).requires_grad_()
        return self.weight * (slope(seen.critic(x, seen.y), x).norm(dim=1) - 1).square().mean()


class ZeroCentred(Penalty):
    """weight · E ‖∇D(u x + (1 - u) G)‖², u ~ U(0, 1). Thanh-Tung et al. 2019, arXiv:1902.03984."""

    def __init__(self, weight: float):
        super().__init__()
        nonnegative(weight=weight)
        self.weight = weight

    def critic(self, seen: Round) -> Tensor:
        x = between(seen)
        return self.weight * slope(seen.critic(x, seen.y), x).square().sum(1).mean()


class R1(Penalty):
    """weight/2 · E ‖∇D(x)‖² on data. Mescheder et al. 2018, arXiv:1801.04406, eq. 9, where the weight is γ."""

    def __init__(self, weight: float):
        super().__init__()
        nonnegative(weight=weight)
        self.weight = weight

    def critic(self, seen: Round) -> Tensor:
        assert seen.real_value is not None, "the critic's turn"
        return self.weight / 2 * slope(seen.real_value, seen.x).square().sum(1).mean()


class R2(Penalty):
    """weight/2 · E ‖∇D(G(z))‖² on samples. Mescheder et al. 2018, arXiv:1801.04406, eq. 10, where the weight is γ."""

    def __init__(self, weight: float):
        super().__init__()
        nonnegative(weight=weight)
        self.weight = weight

    def critic(self, seen: Round) -> Tensor:
        return self.weight / 2 * slope(seen.fake_value, seen.fake).square().sum(1).mean()


class WeightClipping(Penalty):
    """No term: after each step every weight of the critic is put back into [-limit, limit].

    Arjovsky et al. 2017, arXiv:1701.07875, algorithm 1.
    """

    def __init__(self, limit: float):
        super().__init__()
        if not limit > 0:
            raise GenlabError(f"penalty limit={limit}: above 0, or every weight of the critic is 0")
        self.limit = limit

    def critic(self, seen: Round) -> Tensor:
        return seen.x.new_zeros(())

    @torch.no_grad()
    def project(self, critic: nn.Module) -> None:
        for weight in critic.parameters():
            weight.clamp_(-self.limit, self.limit)


class Sum(Penalty):
    """Several at once, by name, times a `factor` that changes with progress if there is one."""

    def __init__(self, terms: Mapping[str, Penalty], factor: Schedule | None = None):
        super().__init__()
        if not terms:
            raise GenlabError("a sum of no penalties: write penalty=none")
        self.terms, self.factor = nn.ModuleDict(terms), factor

    def parts(self) -> list[Penalty]:
        return list(self.terms.values())  # pyright: ignore[reportReturnType]

    def _scaled(self, terms: Sequence[Tensor], seen: Round) -> Tensor:
        return torch.stack([*terms]).sum() * (1.0 if self.factor is None else self.factor(seen.images_seen))

    def critic(self, seen: Round) -> Tensor:
        return self._scaled([term.critic(seen) for term in self.parts()], seen)

    def generator(self, seen: Round) -> Tensor:
        return self._scaled([term.generator(seen) for term in self.parts()], seen)

    def project(self, critic: nn.Module) -> None:
        for term in self.parts():
            term.project(critic)

    def check(self, objective: Objective, shape: Sequence[int]) -> None:
        for term in self.parts():
            term.check(objective, shape)


class Lazy(Penalty):
    """every · penalty at each `every`-th batch of training, 0 at the others: the same on average, for less.

    Karras et al. 2020, arXiv:1912.04958, appendix B. Theirs is a step of its own, which is why they change Adam's rates;
    here it is one gradient with the batch's loss.
    """

    def __init__(self, penalty: Penalty, every: int):
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise GenlabError(f"penalty every={every}: it counts batches, from 1")
        self.penalty, self.every = penalty, every

    def critic(self, seen: Round) -> Tensor:
        if not self.training:
            return self.penalty.critic(seen)
        if seen.turn % self.every:
            return seen.x.new_zeros(())
        return self.every * self.penalty.critic(seen)

    def generator(self, seen: Round) -> Tensor:
        return self.penalty.generator(seen)

    def project(self, critic: nn.Module) -> None:
        self.penalty.project(critic)

    def check(self, objective: Objective, shape: Sequence[int]) -> None:
        self.penalty.check(objective, shape)
