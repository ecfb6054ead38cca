"""What a critic and a generator minimize, as values."""

import abc

import torch.nn.functional as F
from torch import Tensor


class Objective(abc.ABC):
    """Losses of critic values D(x) and D(G(z)), both (B,)."""

    @abc.abstractmethod
    def critic(self, real: Tensor, fake: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def generator(self, fake: Tensor) -> Tensor: ...


class NonSaturating(Objective):
    """Critic: -log σ(D(x)) - log(1 - σ(D(G))); generator: -log σ(D(G)).

    Goodfellow et al. 2014, arXiv:1406.2661, section 3.
    """

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class Wasserstein(Objective):
    """Critic: D(G) - D(x); generator: -D(G). Arjovsky et al. 2017, arXiv:1701.07875, eq. 2-3."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor) -> Tensor:
        return -fake.mean()
