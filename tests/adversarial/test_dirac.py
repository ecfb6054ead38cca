"""The Dirac GAN: data at 0, G = δ_θ, D(x) = ψ x, whose rates of convergence are known by hand.

The field of simultaneous gradient flow is v(θ, ψ) = (-∂L_G/∂θ, -∂L_D/∂ψ), and its equilibrium (0, 0). With f the slope of
an objective at the value that decides nothing, its Jacobian there is J = [[0, f], [-f, -d]], where d is what a penalty
gains as ψ²/2: so λ = -d/2 ± √(d²/4 - f²), which is ±i f without a penalty. Mescheder et al. 2018, arXiv:1801.04406,
section 2, lemma 2.3 and theorem 4.1, where f is f'(0).
"""

import cmath
import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.adversarial.consistency import Consistency, LatentConsistency, LeCam
from genlab.adversarial.objectives import (
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Objective,
    Relativistic,
    ReverseKL,
    Wasserstein,
)
from genlab.adversarial.penalties import (
    DRAGAN,
    R1,
    R2,
    GradientPenalty,
    Lazy,
    NoPenalty,
    Penalty,
    Round,
    Sum,
    WeightClipping,
    ZeroCentred,
)

OBJECTIVES: dict[str, tuple[Objective, float]] = {  # and f
    "minimax": (Minimax(), 0.5),  # σ(0)
    "non-saturating": (NonSaturating(), 0.5),
    "reverse kl": (ReverseKL(), math.sqrt(0.5)),  # σ(0) of the critic and 1 of the generator: the root of their product
    "least-squares": (LeastSquares(0.0, 1.0, 1.0), 0.5),  # of ½ (v - 1)² and ½ v² at ½
    "hinge": (Hinge(), 1.0),
    "wasserstein": (Wasserstein(), 1.0),
    "relativistic": (Relativistic(), 0.5),  # σ(0): its pair has one value of 0 and one of ψθ
}


def aside(x: Tensor) -> Tensor:
    """An augmentation: to the right by 0.7."""
    return x + 0.7


PENALTIES: dict[str, tuple[Penalty, float]] = {  # and d
    "none": (NoPenalty(), 0.0),
    "r1": (R1(0.6), 0.6),  # γ/2 ψ²
    "r2": (R2(0.6), 0.6),
    "r1 + r2": (Sum({"r1": R1(0.3), "r2": R2(0.5)}), 0.8),
    "lazy r1": (Lazy(R1(0.6), 16), 16 * 0.6),  # in its turn; 0.6 on average
    "zero-centred": (ZeroCentred(0.6), 1.2),  # w ψ²
    "consistency": (Consistency(aside, 0.3, 0.2), 2 * 0.5 * 0.7**2),  # (w_r + w_f) (ψ · 0.7)²
    "latent consistency": (LatentConsistency(3.0, 0.5, 0.1), 0.0),  # G does not depend on z
    "lecam": (LeCam(3.0, 0.9, 0), 0.0),  # (D(G) - α)² with α = 0 there: ψ²θ² is of fourth order
    "weight clipping": (WeightClipping(1.0), 0.0),  # far from the limit
}


def losses(objective: Objective, penalty: Penalty, theta: Tensor, psi: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """L_G and L_D, both players having `noise` added to their points."""
    offset = objective.undecided or 0.0

    def critic(x: Tensor, y: Tensor | None = None) -> Tensor:
        return offset + psi * x[:, 0]

    with torch.enable_grad():
        x, fake = noise.clone().requires_grad_(), noise + theta
        seen = Round(critic, lambda z: noise + theta, x, fake, noise, None, critic(x), critic(fake), 0)
        assert seen.real_value is not None
        generator = objective.generator(seen.real_value, seen.fake_value) + penalty.generator(seen)
        return generator, objective.critic(seen.real_value, seen.fake_value) + penalty.critic(seen)


def field(objective: Objective, penalty: Penalty, at: Tensor, noise: Tensor | None = None) -> Tensor:
    """v(θ, ψ), differentiable."""
    theta, psi = (a.clone() if a.requires_grad else a.clone().requires_grad_() for a in at)
    generator, critic = losses(objective, penalty, theta, psi, at.new_zeros(1, 1) if noise is None else noise)
    (down,) = torch.autograd.grad(generator, theta, create_graph=True)
    (up,) = torch.autograd.grad(critic, psi, create_graph=True)
    return -torch.stack([down, up])


def rates(objective: Objective, penalty: Penalty, noise: Tensor | None = None) -> list[complex]:
    """Eigenvalues of the field's Jacobian at the equilibrium, by autograd."""
    at = torch.zeros(2, dtype=torch.float64)
    assert field(objective, penalty, at, noise).abs().max() < 1e-12
    jacobian = torch.autograd.functional.jacobian(lambda a: field(objective, penalty, a, noise), at)
    return sorted(torch.linalg.eigvals(jacobian).tolist(), key=lambda c: (c.real, c.imag))


def predicted(f: float, d: float) -> list[complex]:
    root = cmath.sqrt(d * d / 4 - f * f)
    return sorted([-d / 2 - root, -d / 2 + root], key=lambda c: (c.real, c.imag))


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_and_penalty_has_its_rate(objective: str, penalty: str) -> None:
    (values, f), (term, d) = OBJECTIVES[objective], PENALTIES[penalty]
    term = deepcopy(term)  # LeCam remembers
    assert rates(values, term) == pytest.approx(predicted(f, d), abs=1e-6)  # a double root has the root of the rounding


def test_without_a_penalty_the_rates_are_half_i_and_pearsons_generator_stands_still() -> None:
    assert rates(NonSaturating(), NoPenalty()) == pytest.approx([-0.5j, 0.5j], abs=1e-12)
    assert rates(Wasserstein(), NoPenalty()) == pytest.approx([-1j, 1j], abs=1e-12)
    assert rates(LeastSquares(-1.0, 1.0, 0.0), NoPenalty()) == pytest.approx([0, 0], abs=1e-12)  # c is where D is


@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_lecam_slows_the_critic_by_what_it_remembers(alpha: float) -> None:
    """(α_R - ψθ)₊² with α_R above D's value at the equilibrium takes 2 w α_R from the critic's slope: ±i √(f (f - 2 w α_R))."""
    term = LeCam(0.4, 0.9, 0).eval()
    term.means.fill_(alpha)
    term.batches.fill_(1e6)  # no bias left
    speed = cmath.sqrt(0.5 * (0.5 - 2 * 0.4 * alpha))
    assert rates(NonSaturating(), term) == pytest.approx([-1j * speed, 1j * speed], abs=1e-6)


@pytest.mark.parametrize("gamma", [0.25, 1.0, 3.0])
def test_r1_is_critical_at_1(gamma: float) -> None:
    """-γ/2 ± √(γ²/4 - 1/4): spirals below γ = 1, none above."""
    found = rates(NonSaturating(), R1(gamma))
    root = cmath.sqrt(gamma**2 / 4 - 0.25)
    assert found == pytest.approx(
        sorted([-gamma / 2 - root, -gamma / 2 + root], key=lambda c: (c.real, c.imag)), abs=1e-6
    )
    assert (max(abs(rate.imag) for rate in found) > 1e-3) == (gamma < 1)
    assert max(rate.real for rate in found) < 0


@pytest.mark.parametrize("std", [0.3, 1.0, 2.0])
def test_instance_noise_damps_by_its_variance(std: float) -> None:
    """f''(0) σ² ± √(f''(0)² σ⁴ - f'(0)²) with f''(0) = -1/4 of -log σ: lemma 3.2, exactly, for noise of ±σ."""
    noise = torch.tensor([[-std], [std]], dtype=torch.float64)
    assert rates(NonSaturating(), NoPenalty(), noise) == pytest.approx(predicted(0.5, std**2 / 2), abs=1e-6)


def flow(objective: Objective, penalty: Penalty, steps: int, h: float) -> Tensor:
    """Distances from the equilibrium of alternating descent from (1, 1), clipped where the penalty clips."""
    at, distances = torch.ones(2, dtype=torch.float64), []
    weight = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    for _ in range(steps):
        at[1] += h * field(objective, penalty, at)[1].detach()
        weight.weight.data.fill_(at[1])
        penalty.project(weight)
        at[1] = weight.weight.item()
        at[0] += h * field(objective, penalty, at)[0].detach()
        distances.append(at.norm().item())
    return torch.tensor(distances)


CONVERGENT: dict[str, tuple[Any, Any]] = {
    "r1": (NonSaturating(), R1(1.0)),
    "r2": (NonSaturating(), R2(1.0)),
    "r3gan": (Relativistic(), Sum({"r1": R1(0.5), "r2": R2(0.5)})),
    "wasserstein, zero-centred": (Wasserstein(), ZeroCentred(1.0)),
}
NOT_CONVERGENT: dict[str, tuple[Any, Any]] = {
    "non-saturating": (NonSaturating(), NoPenalty()),
    "wasserstein": (Wasserstein(), NoPenalty()),
    "wgan, clipped": (Wasserstein(), WeightClipping(0.5)),
    "wgan-gp": (Wasserstein(), GradientPenalty(1.0)),
    "wgan-gp, one-sided": (Wasserstein(), GradientPenalty(1.0, one_sided=True)),
    "dragan": (NonSaturating(), DRAGAN(1.0, 0.5)),
}


@pytest.mark.parametrize("case", CONVERGENT)
def test_what_is_centred_at_0_converges(case: str) -> None:
    assert flow(*CONVERGENT[case], steps=200, h=0.2)[-1] < math.exp(-0.2 * 200 / 4)


@pytest.mark.parametrize("case", NOT_CONVERGENT)
def test_what_is_centred_at_1_and_what_is_clipped_does_not(case: str) -> None:
    """WGAN, WGAN-GP and DRAGAN go round the equilibrium for ever (section 3; figure 3 of the paper)."""
    assert flow(*NOT_CONVERGENT[case], steps=300, h=0.2)[-100:].max() > 0.1
