"""Critics whose slope is known everywhere, and what a penalty is given."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from genlab.adversarial.penalties import Round


class Linear(nn.Module):
    """D(x, y) = (y + 1) w·x."""

    def __init__(self, w: Tensor):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (x * self.w).flatten(1).sum(1) * (1 if y is None else y + 1)


class Quadratic(nn.Module):
    """D(x) = |x|²/2, of gradient x."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return (x**2).flatten(1).sum(1) / 2


@pytest.fixture
def linear() -> Linear:
    return Linear(torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def quadratic() -> Quadratic:
    return Quadratic()


@pytest.fixture
def pair() -> Tensor:
    return torch.randn(2, 5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def shown() -> Callable[..., Round]:
    """A Round of the critic's turn, as paradigms/gan.py makes it; by default G(z) = z."""

    def build(
        critic: nn.Module,
        x: Tensor,
        fake: Tensor,
        y: Tensor | None = None,
        turn: int = 0,
        generator: nn.Module | None = None,
    ) -> Round:
        z, (x, fake) = fake.detach(), (a.detach().requires_grad_() for a in (x, fake))
        with torch.enable_grad():
            return Round(critic, generator or nn.Identity(), x, fake, z, y, critic(x, y), critic(fake, y), turn)

    return build
