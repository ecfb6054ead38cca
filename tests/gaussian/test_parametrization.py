"""Targets by their definitions, and x̂ as their exact inverse on every path."""

import pytest
import torch

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser, Index
from genlab.gaussian.parametrization import Eps, Karras, ScaledScore, Score, V, Velocity, X

PARAMETRIZATIONS = {kind.__name__: kind() for kind in (Eps, X, V, Score, ScaledScore, Velocity)}
PARAMETRIZATIONS["Karras"] = Karras(0.5)
every = pytest.mark.parametrize("parametrization", PARAMETRIZATIONS.values(), ids=PARAMETRIZATIONS)
FRACTIONS = (1e-8, 1e-5, 1e-3, 0.1, 0.5, 0.9)  # α = 0 at the end of Linear leaves some targets without an inverse


@pytest.fixture
def pair():
    return torch.randn(2, len(FRACTIONS), 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def point(path):
    t = path.t_max * torch.tensor(FRACTIONS, dtype=torch.float64)
    return path(t if path.twin is None else t.ceil(), 4)


@every
def test_denoise_inverts_target(path, parametrization, pair, point):
    x, eps = pair
    if parametrization.needs_derivative and path.twin is not None:
        with pytest.raises(GenlabError, match=path.twin):
            Denoiser(torch.nn.Identity(), path, parametrization, Index())
        return
    x_hat = parametrization.denoise(point.alpha * x + point.sigma * eps, parametrization.target(x, eps, point), point)
    torch.testing.assert_close(x_hat, x, rtol=0, atol=1e-12)  # σ/α is below 90 here: 90 · 2^-52 is 2e-14


@pytest.mark.parametrize("path", ["Linear"], indirect=True)
@pytest.mark.parametrize("name", ["X", "V", "Velocity", "Karras"])
def test_pure_noise_still_has_an_inverse(path, pair, name):
    """At t = 1 of flow matching, where samplers begin, α = 0."""
    x, eps = pair
    p = path(torch.ones(len(x), dtype=torch.float64), 4)
    x_hat = PARAMETRIZATIONS[name].denoise(eps, PARAMETRIZATIONS[name].target(x, eps, p), p)
    torch.testing.assert_close(x_hat, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", ["Linear"], indirect=True)
@pytest.mark.parametrize("name", ["Eps", "Score", "ScaledScore"])
def test_pure_noise_has_no_inverse_that_divides_by_alpha(path, name):
    """Or samples would be nan, after all the training."""
    with pytest.raises(GenlabError, match="Velocity"):
        Denoiser(torch.nn.Identity(), path, PARAMETRIZATIONS[name], Index())


def test_scores_are_gradients_of_the_log_density(path, pair, point):
    x, eps = pair
    x_t = (point.alpha * x + point.sigma * eps).requires_grad_()
    torch.distributions.Normal(point.alpha * x, point.sigma).log_prob(x_t).sum().backward()
    scaled = point.sigma**2 * x_t.grad  # of order σ, and x_t - αx is known to 1e-15
    torch.testing.assert_close(point.sigma**2 * Score().target(x, eps, point), scaled, rtol=0, atol=1e-12)
    torch.testing.assert_close(point.sigma * ScaledScore().target(x, eps, point), scaled, rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", ["VP", "SubVP", "Cosine", "VE", "Karras", "Linear"], indirect=True)
def test_velocity_is_the_motion_of_the_sample(path, pair, point):
    """A central difference in time, whose error is O(h²)."""
    x, eps = pair
    t = torch.full((len(x),), 0.5, dtype=torch.float64)
    before, after, now = path(t - 1e-6, 4), path(t + 1e-6, 4), path(t, 4)
    motion = ((after.alpha - before.alpha) * x + (after.sigma - before.sigma) * eps) / 2e-6
    torch.testing.assert_close(Velocity().target(x, eps, now), motion, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("path", ["VP", "Table"], indirect=True)
def test_v_turns_x_into_eps_along_the_circle(pair, point):
    """x_t = cos φ x + sin φ ε gives V = dx_t/dφ: orthogonal to x_t in the basis (x, ε), and of unit length."""
    angle = torch.atan2(point.sigma, point.alpha)
    x, eps = pair
    torch.testing.assert_close(V().target(x, eps, point), angle.cos() * eps - angle.sin() * x)


def test_eps_and_x_are_themselves(pair, point):
    x, eps = pair
    assert Eps().target(x, eps, point) is eps
    assert X().target(x, eps, point) is x


@every
def test_gain_is_the_derivative_of_x_hat(path, parametrization, pair, point):
    if parametrization.needs_derivative and path.twin is not None:
        return
    x_t, out = pair
    change = parametrization.denoise(x_t, out + 1, point) - parametrization.denoise(x_t, out, point)
    expected = torch.as_tensor(parametrization.gain(point), dtype=torch.float64).expand_as(change)
    torch.testing.assert_close(change, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("path", ["Karras"], indirect=True)
def test_karras_is_edm_table_1(path, pair):
    """c_skip = s²/(σ² + s²), c_out = σs/√(s² + σ²), and the target (x - c_skip x_t)/c_out, of unit variance."""
    x, eps = pair
    p = path(torch.tensor([0.002, 0.1, 0.5, 1.0, 10.0, 80.0], dtype=torch.float64), 4)
    s, x_t = 0.5, x + p.sigma * eps
    skip, scale = s**2 / (p.sigma**2 + s**2), p.sigma * s / (s**2 + p.sigma**2).sqrt()
    out = Karras(s).target(x, eps, p)
    torch.testing.assert_close(out, (x - skip * x_t) / scale, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(Karras(s).denoise(x_t, out, p), skip * x_t + scale * out)
    many = torch.randn(2, 6, 20_000, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    variance = Karras(s).target(s * many[0], many[1], p).flatten(1).var(1)
    torch.testing.assert_close(variance, torch.ones(6, dtype=torch.float64), rtol=0, atol=0.05)


def test_karras_target_does_not_cancel_at_tiny_noise(path):
    """In float32 at σ/α = 1e-4, where (x - c_skip x_t)/c_out has lost three of its seven digits."""
    t = path.time(torch.tensor([1e-4], dtype=torch.float64)) if path.twin is None else torch.tensor([1.0])
    x, eps = torch.randn(2, 1, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    double = path(t.double(), 2)
    single = type(double)(*(field.float() for field in double))
    exact, rounded = Karras(0.5).target(x, eps, double), Karras(0.5).target(x.float(), eps.float(), single)
    torch.testing.assert_close(rounded.double(), exact, rtol=0, atol=1e-6)
