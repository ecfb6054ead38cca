"""log p(x) along the probability flow: an ODE carries x to the prior and its divergence the volume."""

import abc
import math

import torch
from torch import Tensor
from torchdiffeq import odeint

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.path import GaussianPath


class Divergence(abc.ABC):
    """∇·v of a velocity field, for each sample."""

    @abc.abstractmethod
    def __call__(self, v: Tensor, x: Tensor) -> Tensor:
        """(B,) ∇·v, for v computed from x with gradients."""

    @abc.abstractmethod
    def start(self, x: Tensor) -> None:
        """Called once for each trajectory; whatever is random is drawn here, so that the ODE stays one ODE."""


class Exact(Divergence):
    """Σ_i ∂v_i/∂x_i, one backward pass for each dimension: for the plane."""

    def start(self, x: Tensor) -> None:
        pass

    def __call__(self, v: Tensor, x: Tensor) -> Tensor:
        flat = v.flatten(1)  # (B, D)
        trace = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for i in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, i].sum(), x, retain_graph=True)
            trace = trace + row.flatten(1)[:, i]
        return trace


class Hutchinson(Divergence):
    """eᵀ (∂v/∂x) e with e = ±1: unbiased, one backward pass. Grathwohl et al. 2019, arXiv:1810.01367, eq. 7."""

    def start(self, x: Tensor) -> None:
        self.e = torch.randint_like(x, 2) * 2 - 1

    def __call__(self, v: Tensor, x: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(v, x, self.e)
        return (product * self.e).flatten(1).sum(1)


class ProbabilityFlow:
    """log p(x) = log N(x_T; 0, σ_T²) + ∫ ∇·v dt with dx/dt = v the probability flow, dopri5 from t_end up to t_max.

    Song et al. 2021, arXiv:2011.13456, eq. 39 and appendix D.2. Raises GenlabError on a discrete path, and where the
    solver does not reach its tolerance within `most` evaluations.
    """

    def __init__(self, divergence: Divergence, t_end: float, tolerance: float, most: int = 2000):
        self.divergence, self.t_end, self.tolerance, self.most = divergence, t_end, tolerance, most

    def check(self, path: GaussianPath) -> None:
        """Raise GenlabError on a path that has no probability flow."""
        if path.twin is not None:
            name = type(path).__name__
            raise GenlabError(f"the {name} path is discrete and has no probability flow: use the path {path.twin}")

    def log_prob(self, denoiser: Denoiser, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) nats of x in model space."""
        path = denoiser.path
        if path.twin is not None:
            raise GenlabError(
                f"{type(path).__name__} is discrete and has no probability flow: use the path {path.twin}"
            )
        self.divergence.start(x)
        evaluations = 0

        def field(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            nonlocal evaluations
            evaluations += 1
            if evaluations > self.most:
                raise GenlabError(f"the probability flow takes more than {self.most} evaluations: raise its tolerance")
            with torch.enable_grad():
                x_t = state[0].detach().requires_grad_()
                v = path(t, x_t.ndim).velocity(x_t, denoiser(x_t, t, y))
                divergence = self.divergence(v, x_t)
            return v.detach(), divergence.detach()

        times = torch.tensor([self.t_end, path.t_max], dtype=torch.float64, device=x.device)
        start = (x, torch.zeros(len(x), dtype=x.dtype, device=x.device))
        try:
            ends, volumes = odeint(field, start, times, rtol=self.tolerance, atol=self.tolerance, method="dopri5")  # pyright: ignore
        except (
            AssertionError
        ) as error:  # how torchdiffeq says that its step has become nothing, on a field that is too steep
            raise GenlabError(f"the probability flow cannot be integrated to {self.tolerance:g}: {error}") from None
        z, volume = ends[-1], volumes[-1]
        sigma = path(times[-1], 1).sigma.item()
        dims = math.prod(x.shape[1:])
        prior = -0.5 * (z / sigma).square().flatten(1).sum(1) - dims * math.log(sigma * math.sqrt(2 * math.pi))
        return prior + volume
