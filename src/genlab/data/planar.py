"""Densities in the plane with known log-density and entropy, by default of about unit variance; no download."""

import abc
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from scipy.special import roots_legendre
from torch import Generator, Tensor

from genlab.data.source import Batch, digest
from genlab.errors import GenlabError

ROWS = 4096  # points scored at a time


def log_mixture(x: Tensor, centres: Tensor, weights: Tensor, std: float) -> Tensor:
    """log Σᵢ wᵢ N(x; cᵢ, std² I): (N, 2), (K, 2), (K,) -> (N,) float64."""
    constant = weights.log() - math.log(2 * math.pi * std**2)  # (K,)
    squares = (torch.cdist(rows, centres).square() for rows in x.double().split(ROWS))  # (≤ ROWS, K) each
    return torch.cat([(constant - square / (2 * std**2)).logsumexp(1) for square in squares])


def differential_entropy(log_prob: Callable[[Tensor], Tensor], reach: float, step: float) -> float:
    """−∫ p log p in nats over [−reach, reach]², by a sum over a lattice, whose error falls faster than any power of
    `step` for a density that is smooth on that scale and negligible at the border."""
    axis = torch.arange(-reach, reach, step, dtype=torch.float64)
    log_p = log_prob(torch.cartesian_prod(axis, axis))
    return -(log_p.exp() * log_p).sum().item() * step**2


class Density(abc.ABC):
    """A distribution, in the plane unless it says otherwise, that can be sampled and scored."""

    centres: Tensor | None = None  # (K, D) float64, where its modes are isolated Gaussians
    std: float | None = None  # of the Gaussian noise, where that is isotropic
    noisy: int = 2  # in how many dimensions there is noise

    @abc.abstractmethod
    def sample(self, n: int, generator: Generator) -> Batch:
        """n independent points, (n, D) float32, and the component each belongs to, (n,) int64 or None."""

    @abc.abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats: (N, D) -> (N,) float64."""

    @property
    @abc.abstractmethod
    def entropy(self) -> float:
        """−∫ p log p in nats: the negative log-likelihood that no model can beat."""


class GaussianMixture(Density):
    """Equal isotropic Gaussians: p(x) = 1/K Σₖ N(x; cₖ, std² I)."""

    centres: Tensor
    std: float

    @abc.abstractmethod
    def __init__(self, centres: Tensor, std: float):
        self.centres, self.std = centres, std

    def sample(self, n: int, generator: Generator) -> Batch:
        y = torch.randint(len(self.centres), (n,), generator=generator)
        x = self.centres[y] + self.std * torch.randn(n, 2, generator=generator)
        return Batch(x.float(), y)

    def log_prob(self, x: Tensor) -> Tensor:
        weights = torch.full((len(self.centres),), 1 / len(self.centres), dtype=torch.float64)
        return log_mixture(x, self.centres, weights, self.std)

    @cached_property
    def entropy(self) -> float:
        return differential_entropy(self.log_prob, self.centres.abs().max().item() + 8 * self.std, self.std / 2)


class Ring(GaussianMixture):
    """Gaussians on a circle; by default the WGAN-GP ring (1704.00028), which is PacGAN's (1712.04086) times √2."""

    def __init__(self, modes: int = 8, radius: float = math.sqrt(2), std: float = 0.01 * math.sqrt(2)):
        # A grid of angles that includes 2π, as in several published versions, puts two modes in one place.
        angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
        super().__init__(radius * torch.stack([angle.cos(), angle.sin()], 1), std)


class Grid(GaussianMixture):
    """side² Gaussians on a square lattice; by default the WGAN-GP grid (1704.00028), VEEGAN's (1705.07761) over √8."""

    def __init__(self, side: int = 5, spacing: float = 1 / math.sqrt(2), std: float = 0.05 / math.sqrt(8)):
        axis = spacing * (torch.arange(side, dtype=torch.float64) - (side - 1) / 2)
        super().__init__(torch.cartesian_prod(axis, axis), std)


class Curve(Density):
    """Blurred curves: x = c_y(t) + std ε with t ~ U[0, 1], so p(x) = 1/A Σ_y ∫₀¹ N(x; c_y(t), std² I) dt, to rounding
    error by Gauss–Legendre quadrature; `speed` is more than any |c′|."""

    std: float

    def __init__(self, std: float, speed: float):
        self.std, self.speed = std, speed

    @abc.abstractmethod
    def arms(self, t: Tensor) -> Tensor:
        """c_y(t) for every arm y: (n,) in [0, 1] -> (A, n, 2) float64."""

    def sample(self, n: int, generator: Generator) -> Batch:
        arms = self.arms(torch.rand(n, generator=generator, dtype=torch.float64))
        y = torch.randint(len(arms), (n,), generator=generator)
        x = arms[y, torch.arange(n)] + self.std * torch.randn(n, 2, generator=generator)
        return Batch(x.float(), y if len(arms) > 1 else None)

    @cached_property
    def quadrature(self) -> tuple[Tensor, Tensor]:
        """Points of the curves and their weights: (A · n, 2), (A · n,)."""
        # n nodes are up to π/2n apart, so that no step is longer than std
        nodes, weights = map(torch.from_numpy, roots_legendre(math.ceil(1.6 * self.speed / self.std)))
        arms = self.arms((nodes + 1) / 2)
        return arms.flatten(0, 1), weights.repeat(len(arms)) / (2 * len(arms))

    def log_prob(self, x: Tensor) -> Tensor:
        return log_mixture(x, *self.quadrature, self.std)

    @cached_property
    def entropy(self) -> float:
        return differential_entropy(self.log_prob, self.quadrature[0].abs().max().item() + 8 * self.std, self.std / 2)


class TwoMoons(Curve):
    """Two half circles, scikit-learn's `make_moons` centred, times `scale`, about `centre`; by default its noise is 0.05."""

    def __init__(
        self, std: float = 0.05 * math.sqrt(2), scale: float = math.sqrt(2), centre: Sequence[float] = (0.0, 0.0)
    ):
        super().__init__(std, speed=4 * scale)
        self.scale, self.centre = scale, torch.tensor(centre, dtype=torch.float64)

    def arms(self, t: Tensor) -> Tensor:
        cos, sin = (math.pi * t).cos(), (math.pi * t).sin()
        upper, lower = torch.stack([cos - 0.5, sin - 0.25], 1), torch.stack([0.5 - cos, 0.25 - sin], 1)
        return self.scale * torch.stack([upper, lower]) + self.centre


class SwissRoll(Curve):
    """The spiral φ (cos φ, sin φ) / 7 with φ ~ U[3π/2, 9π/2]; by default with the noise of FFJORD (1810.01367)."""

    def __init__(self, std: float = 1 / 7):
        super().__init__(std, speed=20)

    def arms(self, t: Tensor) -> Tensor:
        angle = 1.5 * math.pi * (1 + 2 * t)
        return (angle[:, None] * torch.stack([angle.cos(), angle.sin()], 1) / 7)[None]


class SCurve(Curve):
    """scikit-learn's `make_s_curve` from the side, ±(sin φ, cos φ − 1) times `scale`, φ ~ U[0, 3π/2], of which y is the
    half; by default with the scale and the noise of OT-CFM (2302.00482)."""

    def __init__(self, std: float = 0.075, scale: float = 1.5):
        super().__init__(std, speed=5 * scale)
        self.scale = scale

    def arms(self, t: Tensor) -> Tensor:
        angle = 1.5 * math.pi * t
        half = self.scale * torch.stack([angle.sin(), angle.cos() - 1], 1)
        return torch.stack([half, -half])


class Checkerboard(Density):
    """Uniform on the 8 dark squares of a 4 × 4 board over [−extent, extent]² (FFJORD, 1810.01367, has extent 4)."""

    def __init__(self, extent: float = math.sqrt(3)):
        self.extent = extent

    def sample(self, n: int, generator: Generator) -> Batch:
        y = torch.randint(8, (n,), generator=generator)
        column = y // 2
        corner = torch.stack([column, 2 * (y % 2) + column % 2], 1)  # (n, 2) in 0..3
        cell = corner + torch.rand(n, 2, generator=generator, dtype=torch.float64)
        return Batch((self.extent * (cell / 2 - 1)).float(), y)

    def log_prob(self, x: Tensor) -> Tensor:
        corner = (2 * (x.double() / self.extent + 1)).floor()
        dark = ((corner >= 0) & (corner <= 3)).all(1) & (corner.sum(1) % 2 == 0)
        return dark.double().log() - self.entropy

    @property
    def entropy(self) -> float:
        return math.log(2 * self.extent**2)


class Pinwheel(Density):
    """Twisted Gaussian blades, after Johnson et al. 2016 (1603.06277): x = √2 e^{i rate exp|z|} z with
    z ~ 1/A Σₖ e^{2πik/A} N((1, 0), diag(radial², tangential²)); twisted by |z|, and not by its radial part as there,
    the map keeps areas, so p(x) = p(z) / 2."""

    def __init__(self, arms: int = 5, radial: float = 0.3, tangential: float = 0.1, rate: float = 0.25):
        self.radial, self.tangential, self.rate = radial, tangential, rate
        self.turns = torch.exp(2j * math.pi * torch.arange(arms, dtype=torch.float64) / arms)  # (A,) complex

    def sample(self, n: int, generator: Generator) -> Batch:
        y = torch.randint(len(self.turns), (n,), generator=generator)
        along, across = torch.randn(2, n, generator=generator, dtype=torch.float64)
        z = self.turns[y] * torch.complex(1 + self.radial * along, self.tangential * across)
        return Batch(torch.view_as_real(math.sqrt(2) * z * self.twist(z)).float(), y)

    def log_prob(self, x: Tensor) -> Tensor:
        z = torch.complex(x[:, 0].double(), x[:, 1].double()) / math.sqrt(2)
        return self.log_blades(z / self.twist(z)) - math.log(2)

    def twist(self, z: Tensor) -> Tensor:
        """e^{i rate exp|z|}."""
        return torch.exp(1j * self.rate * z.abs().exp())

    def log_blades(self, z: Tensor) -> Tensor:
        """log p(z) before the twist: (N,) complex -> (N,)."""
        blade = z[:, None] / self.turns  # (N, A)
        square = ((blade.real - 1) / self.radial).square() + (blade.imag / self.tangential).square()
        constant = math.log(2 * math.pi * self.radial * self.tangential * len(self.turns))
        return (-square / 2).logsumexp(1) - constant

    @cached_property
    def entropy(self) -> float:
        reach, step = 1 + 8 * max(self.radial, self.tangential), min(self.radial, self.tangential) / 2
        return differential_entropy(lambda z: self.log_blades(torch.view_as_complex(z)), reach, step) + math.log(2)


class Planar:
    """The data source of a density: `n_train` and `n_test` points that depend on `seed` alone."""

    transform = "none"

    def __init__(self, name: str, density: Density, n_train: int = 50_000, n_test: int = 10_000, seed: int = 0):
        self.name = name
        self.density = density
        self.draws = {"train": (n_train, 2 * seed), "test": (n_test, 2 * seed + 1)}

    def split(self, name: str) -> Batch:
        if name not in self.draws:
            raise GenlabError(f"{self.name} has the splits train and test, and no {name!r}")
        n, seed = self.draws[name]
        return self.density.sample(n, Generator().manual_seed(seed))

    def sha256(self, split: str) -> str:
        return digest(self.split(split))
