"""What a critic and a generator minimize, as values."""

import abc
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor


class Objective(abc.ABC):
    """Losses of critic values D(x) and D(G(z)), both (B,); in the generator's turn `real` is None unless `paired`."""

    paired: ClassVar[bool] = False
    """Whether only differences D(x) - D(G) count, so that the generator's loss needs D(x) too."""
    undecided: float | None = None
    """The value that a critic gives to what may be either; None where its values have no zero of their own."""

    @abc.abstractmethod
    def critic(self, real: Tensor, fake: Tensor) -> Tensor: ...

    @abc.abstractmethod
    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor: ...


class Logistic(Objective, abc.ABC):
    """Critic: -log σ(D(x)) - log(1 - σ(D(G))), best where D = log p/q."""

    undecided = 0.0

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()


class Minimax(Logistic):
    """Generator: log(1 - σ(D(G))), which saturates.

    Goodfellow et al. 2014, arXiv:1406.2661, eq. 1.
    """

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return -F.softplus(fake).mean()


class NonSaturating(Logistic):
    """Generator: -log σ(D(G)).

    Goodfellow et al. 2014, arXiv:1406.2661, section 3.
    """

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return F.softplus(-fake).mean()


class ReverseKL(Logistic):
    """Generator: -D(G), which is KL(q ‖ p) where the critic is best.

    Sønderby et al. 2017, arXiv:1610.04490, section 3; with the reconstruction of noise it is VEEGAN's (arXiv:1705.07761).
    """

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return -fake.mean()


class LeastSquares(Objective):
    """Critic: ½ (D(x) - b)² + ½ (D(G) - a)²; generator: ½ (D(G) - c)².

    a is `fake`, b `real` and c `wanted`; Mao et al. 2017, arXiv:1611.04076, eq. 2; b - c = 1 and b - a = 2 make it the
    Pearson χ² divergence of p + q and 2q (eq. 8), and a = 0, b = c = 1 are what its experiments take (eq. 9).
    """

    def __init__(self, fake: float, real: float, wanted: float):
        self.fake, self.real, self.wanted = fake, real, wanted
        self.undecided = (fake + real) / 2

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - self.real).square().mean() + (fake - self.fake).square().mean()) / 2

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return (fake - self.wanted).square().mean() / 2


class Hinge(Objective):
    """Critic: (1 - D(x))₊ + (1 + D(G))₊; generator: -D(G).

    Lim & Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eq. 16-17.
    """

    undecided = 0.0

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return -fake.mean()


class Wasserstein(Objective):
    """Critic: D(G) - D(x); generator: -D(G). Arjovsky et al. 2017, arXiv:1701.07875, eq. 2-3."""

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        return -fake.mean()


class Relativistic(Objective):
    """Critic: -log σ(D(x) - D(G)); generator: -log σ(D(G) - D(x)), in pairs of data and samples.

    Jolicoeur-Martineau 2018, arXiv:1807.00734; with R1 and R2 it is R3GAN (Huang et al. 2024, arXiv:2501.05441).
    """

    paired = True

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(fake - real).mean()

    def generator(self, real: Tensor | None, fake: Tensor) -> Tensor:
        assert real is not None, "paired"
        return F.softplus(real - fake).mean()
