import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from genlab.codec import Vectors
from genlab.data.planar import Checkerboard, Grid, Ring
from genlab.data.subspaces import Subspaces
from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.planar import Modes, PathEnergy, Points, Wasserstein, w2_squared
from genlab.gaussian.coupling import ExactOT
from genlab.gaussian.denoiser import Prediction
from genlab.gaussian.grids import Trailing
from genlab.gaussian.path import Linear
from genlab.gaussian.prior import Normal
from genlab.gaussian.samplers import Ancestral, Euler
from genlab.gaussian.variances import Small
from genlab.module import Transport
from genlab.noise import NoiseStream
from genlab.paradigms.diffusion import Diffusion


def bank(x):
    return FeatureBank(len(x), features=x)


def modes(density, x):
    return Modes(density)(bank(x), bank(x))


@pytest.mark.parametrize("density", [Ring(), Grid()])
def test_a_perfect_sampler_has_98_889_percent_high_quality(density):
    n = 100_000
    got = modes(density, density.sample(n, torch.Generator().manual_seed(0)).x)
    perfect = 1 - math.exp(-4.5)
    assert got["high_quality"] == pytest.approx(100 * perfect, abs=300 * math.sqrt(perfect * (1 - perfect) / n))
    assert got["modes"] == len(density.centres)
    assert got["reverse_kl"] < 1e-3
    assert Modes(density).better["high_quality"] == "closer to 98.889"


def test_hand_made_samples():
    ring = Ring(modes=8, radius=1, std=0.01)
    centre = ring.centres.float()
    near, far = centre + torch.tensor([0, 0.0299]), centre + torch.tensor([0, 0.0301])
    assert modes(ring, near)["high_quality"] == 100
    assert modes(ring, near)["reverse_kl"] == pytest.approx(0, abs=1e-12)
    assert modes(ring, far)["modes"] == 0
    assert math.isnan(modes(ring, far)["reverse_kl"])
    collapsed = modes(ring, torch.cat([near[:1].repeat(6, 1), far[1:3]]))
    assert collapsed == pytest.approx({"modes": 1, "high_quality": 75, "reverse_kl": math.log(8)})
    two = modes(ring, torch.cat([near[:1].repeat(3, 1), near[1:2]]))
    assert two["reverse_kl"] == pytest.approx(0.75 * math.log(0.75 * 8) + 0.25 * math.log(0.25 * 8))


def test_a_collapsed_sampler_has_one_mode_and_the_reverse_kl_of_one_mode():
    ring = Ring(radius=1, std=0.01)
    x, y = ring.sample(20_000, torch.Generator().manual_seed(0))
    got = modes(ring, x[y == 3])
    assert (got["modes"], got["reverse_kl"]) == (1, pytest.approx(math.log(8)))
    assert got["high_quality"] == pytest.approx(98.889, abs=0.7)


def test_a_circle_without_modes_captures_all_of_them_with_8_percent_of_its_samples():
    angle = torch.linspace(0, 2 * math.pi, 100_001, dtype=torch.float64)[1:]
    got = modes(Ring(radius=1, std=0.01), torch.stack([angle.cos(), angle.sin()], 1))
    assert got["modes"] == 8
    assert got["high_quality"] == pytest.approx(100 * 8 * 4 * math.asin(0.015) / (2 * math.pi), abs=0.01)  # 7.64
    assert got["reverse_kl"] == pytest.approx(0, abs=1e-4)


def test_reverse_kl_is_that_of_a_known_histogram():
    grid = Grid(spacing=2, std=0.05)
    counts = torch.tensor([4, 0, 1, 7, *[0] * 21])
    share = [count / 12 for count in (4, 1, 7)]
    got = modes(grid, grid.centres.float().repeat_interleave(counts, 0))
    assert got["modes"] == 3
    assert got["reverse_kl"] == pytest.approx(sum(p * math.log(25 * p) for p in share))


def test_in_1200_dimensions_exact_samples_have_no_quality_at_10_std_and_98_889_percent_at_28():
    density = Subspaces([-1.0, 0.25, 10.0])
    x, y = density.sample(4000, torch.Generator().manual_seed(0))
    published, reached = Modes(density, reach=10.0), Modes(density, reach=28.0778, suffix="_28")
    assert published(bank(x), bank(x))["modes"] == published(bank(x), bank(x))["high_quality"] == 0
    assert published.better["high_quality"] == "closer to 0.000"
    got = reached(bank(x), bank(x))
    assert got["modes_28"] == 3
    assert got["high_quality_28"] == pytest.approx(98.889, abs=0.5)
    assert reached.better["high_quality_28"] == "closer to 98.889"
    shrunk = density.centres[y].float() + 0.3 * (x - density.centres[y].float())
    assert published(bank(x), bank(shrunk)) == pytest.approx(
        {"modes": 3, "high_quality": 100, "reverse_kl": 0}, abs=2e-3
    )


def test_a_reach_of_nothing_is_refused():
    with pytest.raises(GenlabError, match="reach=0"):
        Modes(Ring(), reach=0)


def test_modes_need_a_mixture():
    with pytest.raises(GenlabError, match="Checkerboard"):
        Modes(Checkerboard())


def test_w2_of_a_translation_is_its_length():
    torch.manual_seed(0)
    x = torch.randn(300, 2)
    shifted = (x + torch.tensor([3.0, 4.0]))[torch.randperm(300)]
    assert Wasserstein()(bank(x), bank(shifted))["w2"] == pytest.approx(5, rel=1e-6)


def test_w2_on_a_line_is_that_of_the_sorted_points_and_the_larger_set_is_cut():
    torch.manual_seed(0)
    line, other = torch.randn(2, 100)
    ours, others = (bank(torch.stack([z, torch.zeros(100)], 1)) for z in (line, other))
    expected = (line.sort().values - other.sort().values).double().square().mean().sqrt().item()
    assert Wasserstein()(ours, others)["w2"] == pytest.approx(expected, rel=1e-6)
    longer = bank(torch.cat([others.features, torch.full((50, 2), 1e3)]))
    assert Wasserstein()(ours, longer) == Wasserstein()(ours, others)
    assert Wasserstein(most=20)(ours, longer) == Wasserstein()(ours.rows(torch.arange(20)), longer)


def test_error_of_w2_is_its_spread_over_sample_sets_even_where_rows_are_left_unused():
    generator = torch.Generator().manual_seed(0)
    real = bank(torch.randn(500, 2, generator=generator))
    fakes = [bank(torch.randn(400, 2, generator=generator) + 1) for _ in range(30)]
    got = [jackknife(Wasserstein(most=200), real, fake)["w2"] for fake in fakes]
    spread = torch.tensor([e.value for e in got]).std().item()
    assert sum(e.stderr for e in got) / len(got) == pytest.approx(spread, rel=0.5)


def test_w2_is_that_of_the_best_assignment_by_another_solver():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 120, 2, generator=generator)
    cost = torch.cdist(x.double(), y.double()).square()
    best = cost[linear_sum_assignment(cost.numpy())].mean().item()
    assert w2_squared(x, y) == pytest.approx(best, rel=1e-9)


def test_a_metric_that_is_too_dear_has_no_error():
    x, y = bank(torch.randn(20, 2)), bank(torch.randn(20, 2))
    value, error, _ = jackknife(Wasserstein(blocks=1), x, y)["w2"]
    assert value == Wasserstein()(x, y)["w2"]
    assert math.isnan(error)


class Exact:
    """What PathEnergy needs of a module."""

    transport, start, latents = Diffusion.transport, Diffusion.start, Diffusion.latents


class Shift(Exact):
    """A module that carries z to z + shift in `steps` legs, each leg as long as its weight."""

    def __init__(self, shift, legs):
        self.shift, self.legs, self.codec = torch.tensor(shift), torch.tensor(legs) / sum(legs), Vectors()

    def transport(self, noise, n, y=None):
        z = noise.normal((n, 2))
        energy = (self.legs * self.shift.norm()).square().sum() * len(self.legs)  # each leg takes the same time
        return Transport(z, z + self.shift, energy.expand(n).double())


def test_a_translation_at_constant_speed_has_no_npe_and_detours_cost_their_energy():
    real = NoiseStream(0).normal((400, 2)) + torch.tensor([3.0, 4.0])
    straight = PathEnergy(400)(Shift([3.0, 4.0], [1.0, 1.0]), real, NoiseStream(0))
    assert straight["npe"] == pytest.approx((0, 0), abs=1e-6)
    assert straight["straightness"] == pytest.approx((0, 0), abs=1e-4)
    uneven = PathEnergy(400)(Shift([3.0, 4.0], [1.0, 3.0]), real, NoiseStream(0))
    assert uneven["npe"][0] == pytest.approx(0.25, rel=1e-5)  # 2 (1/16 + 9/16) - 1
    assert uneven["straightness"][0] == pytest.approx(25 / 4, rel=1e-5)


@pytest.mark.parametrize("steps", [1, 10])
def test_optimal_pairs_of_a_gaussian_and_its_translation_give_straight_paths(steps):
    """N(0, 1) to N(m, 1): optimal pairs are x = ε + m, whose velocity is m everywhere; independent pairs bend."""
    m = torch.tensor([2.0, 0.0])
    path, noise = Linear(), NoiseStream(0)
    real = noise.normal((1000, 2)) + m
    eps = NoiseStream(1).normal((1000, 2))
    _, met, _ = ExactOT()(real, eps, None)
    assert (real - met - m).square().sum(1).mean() < 0.05 * (real - eps - m).square().sum(1).mean()
    straight = module_of(lambda x_t, t: x_t + t * m, path, steps)
    got = PathEnergy(1000)(straight, real, NoiseStream(0))
    assert got["npe"][0] == pytest.approx(0, abs=1e-5)
    assert got["straightness"][0] == pytest.approx(0, abs=1e-4)


def test_path_energy_of_independent_pairs_is_that_of_the_closed_form():
    """E[x | x_t] of x ~ N(m, 1), ε ~ N(0, 1) independent; the flow is x(t) = (1 - t) m + s(t) z, s² = (1 - t)² + t²,
    so that ∫ E‖x'‖² dt = ‖m‖² + 2 ∫ s'² dt."""
    m = torch.tensor([2.0, 0.0])

    def denoise(x_t, t):
        return m + (1 - t) / ((1 - t) ** 2 + t**2) * (x_t - (1 - t) * m)

    t = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    speed = (2 * t - 1).square() / ((1 - t) ** 2 + t**2)  # s'²
    expected = 4 + 2 * torch.trapezoid(speed, t).item()
    module = module_of(denoise, Linear(), 500)
    way = module.transport(NoiseStream(0), 20_000)
    assert way.energy.mean().item() == pytest.approx(expected, rel=0.01)


class Known:
    """A denoiser in closed form."""

    def __init__(self, denoise, path):
        self.denoise, self.path = denoise, path

    def predict(self, x_t, t, y=None, threshold=None):
        return Prediction(self.denoise(x_t, t), None)

    def __call__(self, x_t, t, y=None):
        return self.denoise(x_t, t)


def module_of(denoise, path, steps):
    """A flow whose E[x | x_t] is given."""
    module = Exact()
    module.sampler, module.codec = Euler(steps, Trailing()), Vectors()
    module.prior, module.shape = Normal(), (2,)
    module.denoiser = module.guided = Known(denoise, path)
    return module


def test_models_that_draw_noise_on_their_way_are_refused():
    module = module_of(lambda x_t, t: x_t, Linear(), 5)
    module.sampler = Ancestral(5, Trailing(), variance=Small())
    with pytest.raises(GenlabError, match="draws noise"):
        PathEnergy()(module, torch.zeros(4, 2), NoiseStream(0))


def test_a_diverged_model_scores_nan():
    x = torch.randn(10, 2)
    assert math.isnan(Wasserstein()(bank(x), bank(x * math.inf))["w2"])


def test_points_are_their_own_features():
    torch.manual_seed(0)
    x = torch.randn(4, 2)
    seen = Points()(x)
    assert seen.features is x
    assert seen.logits is None
