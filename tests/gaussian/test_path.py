"""Paths against published numbers, autograd and closed forms."""

import pytest
import torch
from torch.autograd.functional import jvp

from genlab.gaussian.path import VE, VP, Cosine, Karras, Linear, SubVP
from genlab.gaussian.tables import Levels, Table, cosine_betas, linear_betas, scaled_linear_betas

continuous = pytest.mark.parametrize("path", ["VP", "SubVP", "Cosine", "VE", "Karras", "Linear"], indirect=True)
discrete = pytest.mark.parametrize("path", ["Table", "Levels"], indirect=True)
INSTANTS = (1e-6, 1e-3, 0.1, 0.5, 0.9)


def at(path, *t, ndim=1):
    return path(torch.tensor(t, dtype=torch.float64), ndim)


def close(actual, expected, rtol):
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=rtol, atol=0)


def test_linear_table_is_that_of_ddpm():
    """Rows 0, 499 and 999 of the published 0-based table are t = 1, 500, 1000."""
    p = at(Table(linear_betas(1000, 1e-4, 0.02)), 1, 500, 1000)
    close(p.alpha**2, [0.9999, 0.078587243, 4.035829765e-5], rtol=1e-8)
    close((p.sigma / p.alpha)[[0, 2]], [0.0100005, 157.4073], rtol=1e-6)


def test_vp_is_that_of_score_sde():
    p = at(VP(), 1.0, 0.5, 1e-3)
    close(p.alpha[:2], [0.00657159, 0.28118288], rtol=1e-6)
    close(p.sigma, [0.99997841, 0.9596542, 0.01048542], rtol=1e-6)


def test_ve_is_geometric_above_data():
    close(at(VE(0.01, 50.0), 1e-12, 0.5, 1.0).sigma, [0.01, 0.70710678, 50.0], rtol=1e-8)


def test_cosine_table_is_that_of_improved_ddpm():
    betas = cosine_betas(1000)
    p = at(Table(betas), 500, 1000)
    close(betas[0], 4.12842e-5, rtol=1e-5)
    close(p.alpha**2, [0.493844, 2.4288e-9], rtol=2.1e-5)  # half a unit of the last digit
    assert (betas == 0.999).sum() == 1
    close((p.sigma / p.alpha)[1], 20291.17, rtol=1e-5)


def test_cosine_table_is_the_continuous_path_at_its_times():
    """ᾱ of t/T; only the last step is clipped."""
    t = torch.tensor([1.0, 10.0, 500.0, 990.0], dtype=torch.float64)
    table, path = Table(cosine_betas(1000))(t, 1), Cosine()(t / 1000, 1)
    torch.testing.assert_close(table.alpha, path.alpha, rtol=1e-9, atol=0)
    torch.testing.assert_close(table.sigma, path.sigma, rtol=1e-9, atol=0)


def test_scaled_linear_tables_are_those_of_latent_diffusion():
    for (start, end), bar in (((0.0015, 0.0195), 1.42304e-4), ((0.00085, 0.012), 4.66010e-3)):
        close(at(Table(scaled_linear_betas(1000, start, end)), 1000).alpha[0] ** 2, bar, rtol=1e-5)


def test_sub_vp_is_that_of_score_sde():
    p = at(SubVP(), 1e-3, 0.5)
    close(p.sigma, [1.0994e-4, 0.9209362], rtol=1e-4)
    beta, integral = 0.1 + 19.9 * p.t, 0.1 * p.t + 19.9 * p.t**2 / 2
    torch.testing.assert_close(p.diffusion2, beta * (1 - (-2 * integral).exp()), rtol=1e-9, atol=0)
    torch.testing.assert_close(p.drift, -beta / 2)
    torch.testing.assert_close(p.sigma, at(VP(), 1e-3, 0.5).sigma ** 2)


def test_karras_time_is_noise():
    p = at(Karras(80.0), 0.002, 80.0)
    close(p.sigma, [0.002, 80.0], rtol=1e-12)
    torch.testing.assert_close(p.diffusion2, 2 * p.t)


def test_linear_ends_at_its_smallest_noise():
    """Lipman et al.: μ = t x, σ = 1 - (1 - σ_min) t, with time reversed, and σ(0) = 0 as everywhere."""
    p = at(Linear(0.1), 0.0, 1e-9, 0.5, 1.0)
    close(p.sigma, [0.0, 0.1, 0.55, 1.0], rtol=1e-7)
    close(p.alpha, [1.0, 1.0, 0.5, 0.0], rtol=1e-8)
    close(p.dsigma, [0.9] * 4, rtol=1e-12)


def test_time_is_the_inverse_of_the_noise_level(path):
    t = path.t_max * torch.tensor([[1e-3, 0.1], [0.5, 0.9]], dtype=torch.float64)
    t = t if path.twin is None else t.ceil()
    p = path(t.flatten(), 1)
    found = path.time((p.sigma / p.alpha).reshape(2, 2))
    torch.testing.assert_close(found, t, rtol=1e-9, atol=0)
    assert path.time(p.sigma[0] / p.alpha[0]).shape == ()


def test_discrete_time_is_the_nearest_step(path):
    if path.twin is not None:
        ratio = at(path, 7.0).sigma / at(path, 7.0).alpha
        assert path.time(ratio * 1.001).tolist() == [7.0]


def test_levels_are_geometric_from_the_smallest():
    close(at(Levels(0.01, 1.0, 3), 1, 2, 3).sigma, [0.01, 0.1, 1.0], rtol=1e-12)


KEPT = [("VP", 1), ("Cosine", 1), ("Table", 1), ("VE", None), ("Karras", None), ("Levels", None)]


@pytest.mark.parametrize(("path", "kept"), KEPT, indirect=["path"])
def test_variance_is_preserved_or_explodes(path, kept):
    p = at(path, *(path.t_max * t for t in (0.1, 0.5, 1.0)))
    close(p.alpha**2 + p.sigma**2 if kept else p.alpha, [1.0, 1.0, 1.0], rtol=1e-12)
    assert path.exploding == (kept is None)


def test_time_zero_is_data(path):
    p = at(path, 0.0)
    assert (p.alpha.item(), p.sigma.item()) == (1.0, 0.0)


def test_noise_grows_with_time(path):
    p = at(path, *(path.t_max * t for t in (0.0, 0.1, 0.5, 0.9)))
    assert ((p.sigma / p.alpha).diff() > 0).all()


@continuous
def test_derivatives_are_those_of_autograd(path):
    t = torch.tensor(INSTANTS, dtype=torch.float64)
    p = path(t, 1)
    _, (dalpha, dsigma) = jvp(lambda t: path.coefficients(t)[:2], t, torch.ones_like(t), strict=False)
    torch.testing.assert_close(p.dalpha, dalpha, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(p.dsigma, dsigma, rtol=1e-9, atol=1e-12)


@discrete
def test_discrete_paths_have_no_derivative(path):
    p = at(path, 1, path.t_max)
    assert p.dalpha.isnan().all()
    assert p.dsigma.isnan().all()


def test_drift_and_diffusion_of_vp():
    p = at(VP(0.1, 20.0), *INSTANTS)
    beta = 0.1 + 19.9 * p.t
    torch.testing.assert_close(p.drift, -beta / 2)
    torch.testing.assert_close(p.diffusion2, beta)


def test_drift_and_diffusion_of_ve():
    """g² = dσ²/dt = 2 ln(σ_max/σ_min) σ²."""
    p = at(VE(0.01, 50.0), *INSTANTS)
    assert (p.drift == 0).all()
    torch.testing.assert_close(p.diffusion2, 2 * torch.tensor(5000.0).double().log() * p.sigma**2)


@continuous
def test_velocity_score_and_eps_of_a_known_pair(path):
    """With x̂ = x: dx_t/dt by autograd, ∇ log N(x_t; αx, σ²) by autograd, and ε itself."""
    t = torch.tensor([[0.05], [0.4], [0.9]], dtype=torch.float64)
    x, eps = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = path(t.flatten(), 2)
    move = lambda t: path(t.flatten(), 2).alpha * x + path(t.flatten(), 2).sigma * eps
    x_t, velocity = jvp(move, t, torch.ones_like(t))
    torch.testing.assert_close(p.velocity(x_t, x), velocity, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(p.eps(x_t, x), eps, rtol=1e-9, atol=1e-9)
    leaf = x_t.detach().requires_grad_()
    torch.distributions.Normal(p.alpha * x, p.sigma).log_prob(leaf).sum().backward()
    torch.testing.assert_close(p.score(x_t, x), leaf.grad, rtol=1e-9, atol=1e-9)


def test_points_broadcast_over_rows(path):
    p = at(path, *(path.t_max * t for t in (0.1, 0.5)), ndim=4)
    assert {field.shape for field in p} == {(2, 1, 1, 1)}
    single = path(torch.tensor(path.t_max, dtype=torch.float64), 4)
    assert {field.shape for field in single} == {()}


def test_coefficients_keep_the_dtype_of_time(path):
    """Training times are float32; a float64 buffer must not promote the images."""
    assert {field.dtype for field in path(torch.ones(2), 4)} == {torch.float32}
