"""Flows against autograd's Jacobians, their own inverses and numerical integrals."""

from functools import partial

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from genlab.errors import GenlabError
from genlab.variational.flows import Autoregressive, Coupling
from genlab.variational.posterior import Diagonal, Flow

STEPS = [Autoregressive, Coupling]
steps = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)


def flow(step, latent=4, length=3, seed=0) -> Flow:
    """A flow far from the identity, in float64."""
    torch.manual_seed(seed)
    made = Flow(latent, length, partial(step, width=16)).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(1.6)
    return made


def parameters(n: int, latent: int, seed: int = 0) -> torch.Tensor:
    return 0.5 * torch.randn(n, 2 * latent, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_diagonal_gaussian_has_the_density_and_the_divergence_of_torch() -> None:
    h, eps = parameters(5, 3), torch.randn(5, 3, dtype=torch.float64)
    mu, log_s = h.chunk(2, dim=1)
    exact, draw = Normal(mu, log_s.exp()), Diagonal().draw(h, eps)
    torch.testing.assert_close(draw.z, mu + log_s.exp() * eps)
    torch.testing.assert_close(draw.log_q, exact.log_prob(draw.z).sum(1))
    torch.testing.assert_close(draw.rate, kl_divergence(exact, Normal(0.0, 1.0)))
    z = torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(Diagonal().pairs(z, h), exact.log_prob(z[:, None]))
    assert torch.equal(Diagonal().mean(h), mu)


@steps
@pytest.mark.parametrize("latent", [2, 5])
def test_log_det_of_a_step_is_that_of_autograd(step, latent: int) -> None:
    torch.manual_seed(0)
    one, c = step(latent, 3, 16).double(), torch.randn(4, 3, dtype=torch.float64)
    z = torch.randn(4, latent, dtype=torch.float64)
    _, log_det = one(z, c)
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda row, i=i: one(row[None], c[i : i + 1])[0][0], z[i])
        assert log_det[i].item() == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-10)
        assert jacobian.triu(1).abs().max() == 0  # triangular: z'_i sees nothing above i
        assert jacobian.tril(-1).abs().max() > 0


@pytest.mark.parametrize("latent", [2, 5, 16])
def test_every_latent_sees_all_before_it(latent: int) -> None:
    """No mask cuts off more than it must; widths need not be multiples."""
    torch.manual_seed(0)
    one = Autoregressive(latent, 1, 16).double()
    z, c = torch.randn(latent, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda row: one(row[None], c)[0][0], z)
    assert (jacobian.tril()[tuple(torch.tril_indices(latent, latent))] != 0).all()


@steps
def test_a_step_is_undone(step) -> None:
    torch.manual_seed(0)
    one, c, z = step(5, 3, 16).double(), torch.randn(6, 3).double(), 2 * torch.randn(6, 5).double()
    torch.testing.assert_close(one.inverse(one(z, c)[0], c), z)


@steps
@torch.no_grad()
def test_log_q_of_a_flow_is_the_same_from_both_ends_and_integrates_to_1(step) -> None:
    made, h = flow(step, latent=2), parameters(3, 2)
    draw = made.draw(h, torch.randn(3, 2, dtype=torch.float64))
    torch.testing.assert_close(made.pairs(draw.z, h)[:, :, 0].diagonal(), draw.log_q)
    line = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    mass = made.pairs(grid, h[:1]).exp().sum() * (line[1] - line[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-3)


@steps
@torch.no_grad()
def test_the_rate_of_a_flow_is_its_divergence_from_the_normal(step) -> None:
    """By numerical integration in the plane."""
    made, h = flow(step, latent=2), parameters(1, 2, seed=3)
    line = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    log_q = made.pairs(grid, h)[:, 0, 0].clamp(min=-1000)  # or 0 times ∞ far away
    log_p = Normal(0.0, 1.0).log_prob(grid).sum(1)
    exact = (log_q.exp() * (log_q - log_p)).sum() * (line[1] - line[0]) ** 2
    torch.manual_seed(1)
    rate = made.draw(h.expand(20_000, -1), torch.randn(20_000, 2, dtype=torch.float64)).rate
    assert rate.shape == (20_000, 1)
    assert rate.mean().item() == pytest.approx(exact.item(), abs=5 * rate.std().item() / 20_000**0.5)


@steps
def test_a_new_flow_is_near_the_identity_and_bends_a_gaussian_when_trained_far_from_it(step) -> None:
    torch.manual_seed(0)
    made, h = Flow(6, 4, partial(step, width=32)), torch.zeros(64, 12)
    z = torch.randn(64, 6)
    moved = made.draw(h, z).z
    assert torch.nn.functional.cosine_similarity(moved.flatten(), z.flatten(), dim=0) > 0.9
    assert torch.equal(made.mean(h), made.draw(h, torch.zeros_like(z)).z)


@steps
@pytest.mark.parametrize(("latent", "width", "message"), [(1, 16, "nothing to condition"), (8, 4, "width 4")])
def test_impossible_sizes_are_refused(step, latent: int, width: int, message: str) -> None:
    with pytest.raises(GenlabError, match=message):
        Flow(latent, 2, partial(step, width=width))


def test_a_flow_of_no_steps_is_refused() -> None:
    with pytest.raises(GenlabError, match="at least 1"):
        Flow(4, 0, partial(Coupling, width=16))
