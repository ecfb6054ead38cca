"""Objectives against their formulas, their gradients and their optima."""

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor

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

OBJECTIVES = {
    "minimax": Minimax(),
    "non-saturating": NonSaturating(),
    "reverse kl": ReverseKL(),
    "least-squares": LeastSquares(0.0, 1.0, 1.0),
    "pearson": LeastSquares(-1.0, 1.0, 0.0),
    "hinge": Hinge(),
    "wasserstein": Wasserstein(),
    "relativistic": Relativistic(),
}
every = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
P, Q = torch.tensor([1, 2, 5]), torch.tensor([4, 3, 1])  # counts of 8 at three places: p of data, q of samples


@pytest.fixture
def values() -> Tensor:
    return torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def losses(objective: Objective, at: Tensor) -> tuple[Tensor, Tensor]:
    """Of the critic whose values at the three places are given."""
    real, fake = at.repeat_interleave(P), at.repeat_interleave(Q)
    return objective.critic(real, fake), objective.generator(None, fake)


def test_losses_are_the_papers_formulas(values: Tensor) -> None:
    real, fake = values
    d, g = real.sigmoid(), fake.sigmoid()
    zero = torch.zeros(())
    formulas = {
        "minimax": (-d.log().mean() - (1 - g).log().mean(), (1 - g).log().mean()),
        "non-saturating": (-d.log().mean() - (1 - g).log().mean(), -g.log().mean()),
        "reverse kl": (-d.log().mean() - (1 - g).log().mean(), (1 / g - 1).log().mean()),
        "least-squares": (((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2, ((fake - 1) ** 2).mean() / 2),
        "pearson": (((real - 1) ** 2).mean() / 2 + ((fake + 1) ** 2).mean() / 2, (fake**2).mean() / 2),
        "hinge": (-torch.minimum(zero, real - 1).mean() - torch.minimum(zero, -1 - fake).mean(), -fake.mean()),
        "wasserstein": (fake.mean() - real.mean(), -fake.mean()),
        "relativistic": (-(real - fake).sigmoid().log().mean(), -(fake - real).sigmoid().log().mean()),
    }
    for name, objective in OBJECTIVES.items():
        torch.testing.assert_close(
            (objective.critic(real, fake), objective.generator(real, fake)),
            formulas[name],
            msg=lambda m, n=name: f"{n}: {m}",
        )


@every
def test_critic_raises_data_and_lowers_samples_and_generator_raises_samples(objective: Objective) -> None:
    values = torch.tensor([[-0.9, -0.5, -0.1, 0.2], [-0.3, -0.6, -0.2, -0.8]], requires_grad=True)  # of no one's choice
    real, fake = values
    critic = torch.autograd.grad(objective.critic(real, fake), values, retain_graph=True)[0]
    assert (critic[0] < 0).all()
    assert (critic[1] > 0).all() or isinstance(objective, LeastSquares)  # which lowers those above its target alone
    generator = torch.autograd.grad(objective.generator(real.detach(), fake), values)[0]
    assert (generator[1] < 0).all()
    assert (generator[0] == 0).all()


@pytest.mark.parametrize("name", ["non-saturating", "reverse kl", "wasserstein", "hinge", "relativistic"])
@pytest.mark.parametrize("confidence", [30.0, 1000.0])
def test_generator_learns_from_a_critic_that_is_sure(name: str, confidence: float) -> None:
    """Where the minimax loss saturates; and no overflow in any."""
    fake, objective = torch.full((4,), -confidence, requires_grad=True), OBJECTIVES[name]
    objective.generator(-fake.detach(), fake).backward()
    torch.testing.assert_close(fake.grad, torch.full((4,), -0.25))
    assert objective.critic(-fake.detach(), fake.detach()).isfinite()
    fake.grad = None
    Minimax().generator(None, fake).backward()
    assert fake.grad is not None
    assert fake.grad.abs().max() < 1e-12


@pytest.mark.parametrize("name", ["minimax", "non-saturating", "reverse kl"])
def test_the_best_critic_finds_divergences_of_jensen_and_shannon_and_of_kullback_and_leibler(
    name: str,
) -> None:
    """D* = log p/q, where the critic's loss is 2 log 2 - 2 JSD(p, q), and with m = (p + q)/2 the generator's is
    KL(q ‖ m) - log 2 in minimax, KL(q ‖ p) - KL(q ‖ m) + log 2 where it does not saturate, and KL(q ‖ p) itself where it is
    D. Goodfellow et al. 2014, theorem 1.
    """
    p, q = P.double() / 8, Q.double() / 8
    best = (p / q).log().requires_grad_()
    critic, generator = losses(OBJECTIVES[name], best)
    assert critic.item() == pytest.approx(2 * math.log(2) - 2 * jensenshannon(p, q) ** 2)
    assert torch.autograd.grad(critic, best, retain_graph=True)[0].abs().max() < 1e-12
    mean = (p + q) / 2

    def kl(a: Tensor, b: Tensor) -> float:
        return (a * (a / b).log()).sum().item()

    expected = {
        "minimax": kl(q, mean) - math.log(2),  # E_q log(1 - σ(D*)) = E_q log q/(p + q)
        "non-saturating": kl(q, p) - kl(q, mean) + math.log(2),  # -E_q log p/(p + q)
        "reverse kl": kl(q, p),
    }
    assert generator.item() == pytest.approx(expected[name])


def test_the_best_critic_of_least_squares_finds_pearsons_chi_squared() -> None:
    """D* = (b p + a q)/(p + q), where E_p (D* - c)² + E_q (D* - c)² = χ²(p + q ‖ 2q) for b - c = 1, b - a = 2. Mao et al., eq. 7."""
    p, q, objective = P.double() / 8, Q.double() / 8, LeastSquares(-1.0, 1.0, 0.0)
    best = ((p - q) / (p + q)).requires_grad_()
    critic, _ = losses(objective, best)
    assert torch.autograd.grad(critic, best)[0].abs().max() < 1e-12
    both = 2 * objective.generator(None, best.repeat_interleave(Q)) + 2 * objective.generator(
        None, best.repeat_interleave(P)
    )
    assert both.item() == pytest.approx(((2 * q - (p + q)) ** 2 / (p + q)).sum().item())


def test_the_best_critic_of_the_hinge_finds_total_variation() -> None:
    """D* = sign(p - q), where the loss is 2 - 2 TV(p, q); no other critic of -1 and 1 does better."""
    p, q = P.double() / 8, Q.double() / 8
    loss = losses(Hinge(), (p - q).sign())[0].item()
    assert loss == pytest.approx(2 - (p - q).abs().sum().item())
    others = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 3)
    assert all(losses(Hinge(), other)[0] >= loss - 1e-12 for other in others)


def test_the_relativistic_objective_sees_differences_alone_and_swaps_with_its_players(values: Tensor) -> None:
    real, fake = values
    objective = Relativistic()
    torch.testing.assert_close(objective.critic(real + 3, fake + 3), objective.critic(real, fake))
    torch.testing.assert_close(objective.generator(real, fake), objective.critic(fake, real))
    assert objective.paired
    assert not any(o.paired for name, o in OBJECTIVES.items() if name != "relativistic")


@every
def test_undecided_is_the_value_of_a_critic_that_cannot_tell(objective: Objective) -> None:
    """Where data and samples are the same, a critic of one value everywhere learns just that, where there is one."""
    if objective.undecided is None:
        value = torch.randn(5, dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(objective.critic(value, value), value)[0]  # none is better than another
        torch.testing.assert_close(slope.sum(), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-12)
    else:
        value = torch.full((5,), objective.undecided, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.grad(objective.critic(value, value), value)[0].abs().max() < 1e-12


def test_undecided_of_the_hinge_is_the_middle_of_all_that_are_as_good() -> None:
    at = [torch.full((5,), Hinge.undecided + step) for step in (-1.01, -1.0, 0.0, 1.0, 1.01)]
    beyond, *as_good, above = (Hinge().critic(value, value).item() for value in at)
    assert as_good == [2.0, 2.0, 2.0]
    assert min(beyond, above) > 2
