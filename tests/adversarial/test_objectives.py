"""Objectives against their formulas, their gradients and their optima."""

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from genlab.adversarial.objectives import NonSaturating, Wasserstein

OBJECTIVES = {"non-saturating": NonSaturating(), "wasserstein": Wasserstein()}
every = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)


@pytest.fixture
def values():
    return torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_non_saturating_is_cross_entropy(values):
    real, fake = values
    critic = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
    torch.testing.assert_close(NonSaturating().critic(real, fake), critic)
    torch.testing.assert_close(NonSaturating().generator(fake), -fake.sigmoid().log().mean())


def test_wasserstein_is_a_difference_of_means(values):
    real, fake = values
    torch.testing.assert_close(Wasserstein().critic(real, fake), fake.mean() - real.mean())
    torch.testing.assert_close(Wasserstein().generator(fake), -fake.mean())


@every
def test_critic_raises_data_and_lowers_samples_and_generator_raises_samples(objective, values):
    critic = torch.autograd.grad(objective.critic(*values), values)[0]
    assert (critic[0] < 0).all()
    assert (critic[1] > 0).all()
    generator = torch.autograd.grad(objective.generator(values[1]), values)[0]
    assert (generator[1] < 0).all()


@every
@pytest.mark.parametrize("confidence", [30.0, 1000.0])
def test_generator_learns_from_a_critic_that_is_sure(objective, confidence):
    """Where the minimax loss saturates; and no overflow in either."""
    fake = torch.full((4,), -confidence, requires_grad=True)
    objective.generator(fake).backward()
    torch.testing.assert_close(fake.grad, torch.full((4,), -0.25))
    assert objective.critic(-fake.detach(), fake.detach()).isfinite()


def test_optimal_critic_of_the_non_saturating_objective():
    """D* = log p/q; its loss is 2 log 2 - 2 JSD(p, q). Goodfellow et al. 2014, theorem 1."""
    p, q = torch.tensor([1, 2, 5]), torch.tensor([4, 3, 1])  # counts of 8
    critic = (p.double() / q).log().requires_grad_()
    loss = NonSaturating().critic(critic.repeat_interleave(p), critic.repeat_interleave(q))
    assert loss.item() == pytest.approx(2 * math.log(2) - 2 * jensenshannon(p / 8, q / 8) ** 2)
    assert torch.autograd.grad(loss, critic)[0].abs().max() < 1e-12
