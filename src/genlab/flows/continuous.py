"""A flow in continuous time."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.flows.bijection import Bijection
from genlab.gaussian.likelihood import Divergence
from genlab.gaussian.ode import Parts, integrate

SHOWN = 20  # states of a trajectory


class Continuous(Bijection):
    """dx/dt = f(x, t, y) from x at t = 0 to z at t = 1: log |det ∂z/∂x| = ∫ ∇·f dt, by dopri5.

    Grathwohl et al. 2019, FFJORD, arXiv:1810.01367, eq. 3 and 6. Gradients go through the solver's own steps, and so are
    those of what is computed; theirs are of the adjoint. Raises GenlabError where `most` evaluations of f do not reach the
    tolerance.
    """

    evaluated = "field"
    solved = True

    def __init__(self, field: nn.Module, divergence: Divergence, tolerance: float, most: int):
        super().__init__()
        if not tolerance > 0:
            raise GenlabError(f"network.tolerance={tolerance}: a tolerance above 0 is needed")
        self.field, self.divergence, self.tolerance, self.most = field, divergence, tolerance, most

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        learning = torch.is_grad_enabled()
        self.divergence.start(x)

        def flow(t: Tensor, state: Parts) -> Parts:
            with torch.enable_grad():
                x_t = state[0]
                if not (learning and x_t.requires_grad):
                    x_t = x_t.detach().requires_grad_()
                v = self.field(x_t, t.to(x_t), y)
                volume = self.divergence(v, x_t, learning)
            return (v, volume) if learning else (v.detach(), volume.detach())

        times = torch.tensor([0.0, 1.0], dtype=torch.float64)
        z, volume = integrate(flow, (x, x.new_zeros(len(x))), times, self.tolerance, self.most)
        return z[-1], volume[-1]

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        return self._backward(z, y, 1)[-1]

    def unfold(self, z: Tensor, y: Tensor | None) -> Iterator[Tensor]:
        yield from self._backward(z, y, SHOWN)

    def _backward(self, z: Tensor, y: Tensor | None, steps: int) -> Tensor:
        """(steps, *z.shape) the states at equal distances from t = 1, which is left out, down to 0."""

        def flow(t: Tensor, state: Parts) -> Parts:
            return (self.field(state[0], t.to(z), y),)

        (states,) = integrate(
            flow, (z,), torch.linspace(1, 0, steps + 1, dtype=torch.float64), self.tolerance, self.most
        )
        return states[1:]
