"""log p(x) along the probability flow: an ODE carries x to the prior and its divergence the volume."""

import abc
import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.ode import Parts, integrate


class Probe(Protocol):
    """Random e of the shape of x with E[e eᵀ] = 1."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Rademacher:
    """e = ±1, whose estimate of a trace is without the variance of the diagonal: 2 Σ_{i≠j} S_ij², S the symmetric part."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.randint_like(x, 2) * 2 - 1


class Gaussian:
    """e ~ N(0, 1), whose estimate of a trace has the variance 2 Σ_ij S_ij², S the symmetric part."""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)


class Divergence(abc.ABC):
    """∇·v of a velocity field, for each sample."""

    @abc.abstractmethod
    def __call__(self, v: Tensor, x: Tensor, graph: bool = False) -> Tensor:
        """(B,) ∇·v, for v computed from x with gradients; with `graph` it has gradients itself."""

    @abc.abstractmethod
    def start(self, x: Tensor) -> None:
        """Called once for each trajectory; whatever is random is drawn here, so that the ODE stays one ODE."""


class Exact(Divergence):
    """Σ_i ∂v_i/∂x_i, one backward pass for each dimension: for the plane."""

    def start(self, x: Tensor) -> None:
        pass

    def __call__(self, v: Tensor, x: Tensor, graph: bool = False) -> Tensor:
        flat = v.flatten(1)  # (B, D)
        trace = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for i in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True, create_graph=graph)
            trace = trace + row.flatten(1)[:, i]
        return trace


class Hutchinson(Divergence):
    """eᵀ (∂v/∂x) e with random e: unbiased, one backward pass. Grathwohl et al. 2019, arXiv:1810.01367, eq. 7."""

    def __init__(self, probe: Probe | None = None):
        self.probe = probe or Rademacher()

    def start(self, x: Tensor) -> None:
        self.e = self.probe(x)

    def __call__(self, v: Tensor, x: Tensor, graph: bool = False) -> Tensor:
        (product,) = torch.autograd.grad(v, x, self.e, retain_graph=graph, create_graph=graph)
        return (product * self.e).flatten(1).sum(1)


class Flow:
    """The probability flow dx/dt = v between data at t_end and the prior at t_max, by dopri5.

    Song et al. 2021, arXiv:2011.13456, eq. 13 and appendix D.3. Raises GenlabError on a discrete path, and where the
    solver does not reach its tolerance within `most` evaluations.
    """

    def __init__(self, t_end: float, tolerance: float, most: int):
        self.t_end, self.tolerance, self.most = t_end, tolerance, most

    def check(self, denoiser: Denoiser) -> None:
        """Raise GenlabError on a path that has no probability flow, or none from t_end."""
        path, name = denoiser.path, type(denoiser.path).__name__
        if path.twin is not None:
            raise GenlabError(f"the {name} path is discrete and has no probability flow: use the path {path.twin}")
        if not 0 < self.t_end < path.t_max:
            raise GenlabError(
                f"likelihood.t_end={self.t_end:g}: a small time above 0, such as 1e-5, and the {name} path ends at "
                f"{path.t_max:g}"
            )

    @torch.no_grad()
    def encode(self, denoiser: Denoiser, x: Tensor, y: Tensor | None = None) -> Tensor:
        """z = x(t_max)/σ(t_max), which is N(0, 1) where x is data and the denoiser exact."""
        self.check(denoiser)
        path = denoiser.path
        (x_t,) = self.solve(_velocity(denoiser, y), (x,), self.t_end, path.t_max)
        return x_t / _sigma(path.t_max, denoiser)

    @torch.no_grad()
    def render(self, denoiser: Denoiser, z: Tensor, y: Tensor | None = None) -> Tensor:
        """x(t_end) from x(t_max) = σ(t_max) z: the inverse of `encode`, up to the tolerance."""
        self.check(denoiser)
        path = denoiser.path
        (x,) = self.solve(_velocity(denoiser, y), (_sigma(path.t_max, denoiser) * z,), path.t_max, self.t_end)
        return x

    def solve(self, field: Callable[[Tensor, Parts], Parts], state: Parts, start: float, end: float) -> Parts:
        """The state at time `end` of the ODE d state/dt = field(t, state)."""
        times = torch.tensor([start, end], dtype=torch.float64)
        return tuple(part[-1] for part in integrate(field, state, times, self.tolerance, self.most))


def _velocity(denoiser: Denoiser, y: Tensor | None) -> Callable[[Tensor, Parts], Parts]:
    def field(t: Tensor, state: Parts) -> Parts:
        (x_t,) = state
        return (denoiser.path(t, x_t.ndim).velocity(x_t, denoiser(x_t, t, y)),)

    return field


def _sigma(t: float, denoiser: Denoiser) -> float:
    return denoiser.path(torch.tensor(t, dtype=torch.float64), 1).sigma.item()


class Density(Protocol):
    """log p(x) of what a denoiser samples, or a bound of it."""

    kind: Literal["exact", "bound", "ode"]
    discrete: bool
    """Whether log_prob is of probabilities on the codec's lattice, and not of a density."""
    flow: Flow | None
    """The ODE between data and latents, where there is one."""
    repeats: int
    """How many values of log_prob are averaged, where it is random."""

    def check(self, denoiser: Denoiser) -> None:
        """Raise GenlabError where this makes no sense for the denoiser."""
        ...

    def log_prob(self, denoiser: Denoiser, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) nats of x in model space."""
        ...

    def parts(self, denoiser: Denoiser, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """log_prob as a sum of (B,) parts: one, or minus the rate and minus the distortion of a bound."""
        ...


class ProbabilityFlow:
    """log p(x) = log N(x_T; 0, σ_T²) + ∫ ∇·v dt with dx/dt = v the probability flow, dopri5 from t_end up to t_max.

    Song et al. 2021, arXiv:2011.13456, eq. 39 and appendix D.2. Raises GenlabError on a discrete path, and where the
    solver does not reach its tolerance within `most` evaluations. A model averages log p over `repeats` dequantizations, which
    are still the bound of one; the log of the average (Lipman et al. 2023, arXiv:2210.02747) is a tighter bound, which the
    noise of Hutchinson's probes would raise too.
    """

    kind = "ode"
    discrete = False

    def __init__(self, divergence: Divergence, t_end: float, tolerance: float, most: int = 2000, repeats: int = 1):
        if repeats < 1:
            raise GenlabError(f"likelihood.repeats={repeats}: at least one is needed")
        self.divergence, self.repeats = divergence, repeats
        self.flow = Flow(t_end, tolerance, most)

    def check(self, denoiser: Denoiser) -> None:
        """Raise GenlabError on a path that has no probability flow."""
        self.flow.check(denoiser)

    def log_prob(self, denoiser: Denoiser, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) nats of x in model space."""
        self.check(denoiser)
        path = denoiser.path
        self.divergence.start(x)

        def field(t: Tensor, state: Parts) -> Parts:
            with torch.enable_grad():
                x_t = state[0].detach().requires_grad_()
                v = path(t, x_t.ndim).velocity(x_t, denoiser(x_t, t, y))
                divergence = self.divergence(v, x_t)
            return v.detach(), divergence.detach()

        start = (x, torch.zeros(len(x), dtype=x.dtype, device=x.device))
        x_t, volume = self.flow.solve(field, start, self.flow.t_end, path.t_max)
        sigma, dims = _sigma(path.t_max, denoiser), math.prod(x.shape[1:])
        prior = -0.5 * (x_t / sigma).square().flatten(1).sum(1) - dims * math.log(sigma * math.sqrt(2 * math.pi))
        return prior + volume

    def parts(self, denoiser: Denoiser, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """log_prob, which is all of one part."""
        return {"log_prob": self.log_prob(denoiser, x, y)}
