"""One step of each sampler against its paper's formula; equalities between samplers; what they cost and refuse."""

import math
from functools import partial

import pytest
import torch

from genlab.errors import GenlabError
from genlab.gaussian.grids import Linspace, Trailing
from genlab.gaussian.path import Table, linear_betas
from genlab.gaussian.samplers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    Euler,
    EulerMaruyama,
    PredictorCorrector,
    ReverseDiffusion,
)
from genlab.noise import NoiseStream


class Fixed:
    """A denoiser that always answers the same."""

    def __init__(self, path, x_hat):
        self.path, self.x_hat = path, x_hat

    def __call__(self, x_t, t, y=None):
        return torch.full_like(x_t, self.x_hat)


class Ones:
    """A noise stream of nothing but 1."""

    def normal(self, shape):
        return torch.ones(shape, dtype=torch.float64)


def one_step(sampler, path, t, s, x_t, x_hat):
    """x_s of a single number, with z = 1."""
    t, s, x = (torch.tensor(v, dtype=torch.float64) for v in (t, s, [[x_t]]))
    return sampler.step(Fixed(path, x_hat), x, t, s, Ones(), None)[0].item()


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_ancestral_has_the_published_coefficients(large):
    """posterior_mean_coef1 and 2, and β̃_t or β_t, of every step of the linear table."""
    betas = linear_betas(1000, 1e-4, 0.02)
    bar = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), bar[:-1]])
    coef1, coef2 = before.sqrt() * betas / (1 - bar), (1 - betas).sqrt() * (1 - before) / (1 - bar)
    variance = betas if large else betas * (1 - before) / (1 - bar)
    assert large or variance[1].item() == pytest.approx(5.453188e-5, rel=1e-6)
    sampler, path = Ancestral(1000, Trailing(), large, clip=False), Table(betas)
    for t in (2, 3, 10, 500, 999, 1000):
        z = one_step(sampler, path, t, t - 1, 0.0, 0.0)
        assert one_step(sampler, path, t, t - 1, 0.0, 1.0) - z == pytest.approx(coef1[t - 1].item(), rel=1e-8)
        assert one_step(sampler, path, t, t - 1, 1.0, 0.0) - z == pytest.approx(coef2[t - 1].item(), rel=1e-8)
        assert z**2 == pytest.approx(variance[t - 1].item(), rel=1e-8)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("path", ["Table"], indirect=True)
def test_eta_of_ddim_scales_the_standard_deviation(path, eta):
    """c1 = η √((1 - a/a')(1 - a')/(1 - a)), c2 = √(1 - a' - c1²), with a = ᾱ_t and a' = ᾱ_s (Song et al. 2021)."""
    bar = torch.cumprod(1 - linear_betas(1000, 1e-4, 0.02), 0)
    a, before = bar[499].item(), bar[399].item()
    c1 = eta * math.sqrt((1 - a / before) * (1 - before) / (1 - a))
    eps = (0.3 - math.sqrt(a) * 0.7) / math.sqrt(1 - a)
    expected = math.sqrt(before) * 0.7 + math.sqrt(1 - before - c1**2) * eps + c1
    assert one_step(DDIM(10, Trailing(), eta, clip=False), path, 500, 400, 0.3, 0.7) == pytest.approx(expected)


@pytest.mark.parametrize("path", ["Levels"], indirect=True)
def test_langevin_steps_grow_with_the_noise_of_their_level(path):
    """x + h ∇log p + √(2h) z, h = step_size (σ_t/σ_1)²."""
    sampler = AnnealedLangevin(500, Trailing(), inner=1, step_size=2e-5, denoise=True)
    for t in (1, 100, 500):
        sigma = path.sigma[t].item()
        h = 2e-5 * (sigma / 0.01) ** 2
        expected = 0.3 + h * (0.7 - 0.3) / sigma**2 + math.sqrt(2 * h)
        assert one_step(sampler, path, t, t - 0.5, 0.3, 0.7) == pytest.approx(expected)


@pytest.mark.parametrize("make", ["ancestral-small", "ancestral-large", "ddim-0", "ddim-0.5", "ddim-1"], indirect=True)
def test_the_step_to_data_is_the_denoiser(path, make):
    """No noise at t = 0, whatever the length of the last step."""
    assert one_step(make(1, Trailing()), path, path.t_max / 2, 0.0, 0.3, 0.7) == pytest.approx(0.7)


@pytest.mark.parametrize("path", ["VE", "Levels"], indirect=True)
def test_reverse_diffusion_ends_with_the_denoiser_on_ve(path):
    assert one_step(ReverseDiffusion(1, Trailing()), path, path.t_max / 2, 0.0, 0.3, 0.7) == pytest.approx(0.7)


@pytest.mark.parametrize("path", ["VP"], indirect=True)
def test_reverse_diffusion_reverses_the_steps_of_the_forward_process(path):
    """VP: x_s = (2 - √(1 - β)) x_t + β ∇log p + √β z with 1 - β = (α_t/α_s)²."""
    p, q = (path(torch.tensor(t, dtype=torch.float64), 2) for t in (0.5, 0.4))
    root = (p.alpha / q.alpha).item()
    score = (p.alpha.item() * 0.7 - 0.3) / p.sigma.item() ** 2
    expected = (2 - root) * 0.3 + (1 - root**2) * score + math.sqrt(1 - root**2)
    assert one_step(ReverseDiffusion(1, Trailing()), path, 0.5, 0.4, 0.3, 0.7) == pytest.approx(expected)


@pytest.mark.parametrize("path", ["VP"], indirect=True)
def test_euler_maruyama_of_score_sde(path):
    """x + [β x/2 + β ∇log p] dt + √(β dt) z, and no noise in the step to data."""
    p, beta = path(torch.tensor(0.5, dtype=torch.float64), 2), 0.1 + 19.9 * 0.5
    score = (p.alpha.item() * 0.7 - 0.3) / p.sigma.item() ** 2
    drift = beta * (0.3 / 2 + score)
    sampler = EulerMaruyama(1, Trailing())
    assert one_step(sampler, path, 0.5, 0.4, 0.3, 0.7) == pytest.approx(0.3 + 0.1 * drift + math.sqrt(0.1 * beta))
    assert one_step(sampler, path, 0.5, 0.0, 0.3, 0.7) == pytest.approx(0.3 + 0.5 * drift)


CLIPPING = {"ancestral": partial(Ancestral, large_variance=False), "ddim": partial(DDIM, eta=0.3)}


@pytest.mark.parametrize("make", CLIPPING.values(), ids=CLIPPING)
def test_clipping_acts_on_x_hat_before_the_step(path, make):
    """x̂ = 3 steps as x̂ = 1 does, so that DDIM derives ε̂ from the clipped x̂ again."""
    clipped, plain = (make(1, Trailing(), clip=clip) for clip in (True, False))
    t, s = path.t_max / 2, path.t_max / 4
    assert one_step(clipped, path, t, s, 0.3, 3.0) == one_step(plain, path, t, s, 0.3, 1.0)
    assert one_step(clipped, path, t, s, 0.3, -3.0) == one_step(plain, path, t, s, 0.3, -1.0)
    assert one_step(plain, path, t, s, 0.3, 3.0) != one_step(plain, path, t, s, 0.3, 1.0)


@pytest.mark.parametrize("path", ["VP", "VE"], indirect=True)
@pytest.mark.parametrize("per_sample", [False, True], ids=["batch", "per-sample"])
def test_corrector_has_the_asked_signal_to_noise_ratio(path, wide_gaussian, per_sample):
    """‖h ∇log p‖ / ‖√(2h) z‖ = r a: h is read off the answers to z and -z."""

    class Stay:
        def __init__(self, steps, grid): ...

        def step(self, denoiser, x_t, *_):
            return x_t, x_t

    class Signed:
        def __init__(self, sign):
            self.sign = sign

        def normal(self, shape):
            return self.sign * NoiseStream(1).normal(shape).double()

    sampler = PredictorCorrector(4, Trailing(), Stay, corrections=1, snr=0.2, per_sample=per_sample)
    x, times = wide_gaussian.prior(NoiseStream(0), 5), (wide_gaussian.at(0.5).t, wide_gaussian.at(0.4).t)
    plus, minus = (sampler.step(wide_gaussian, x, *times, Signed(sign), None)[0] for sign in (1, -1))
    signal, noise = ((plus + minus) / 2 - x).norm(dim=1), ((plus - minus) / 2).norm(dim=1)
    a = wide_gaussian.at(0.5).alpha / wide_gaussian.at(0.4).alpha
    ratio = signal / noise if per_sample else signal.mean() / noise.mean()
    torch.testing.assert_close(ratio, (0.2 * a).squeeze().expand_as(ratio), rtol=1e-9, atol=0)


# ------------------------------------------------------------------ equivalences


def same_trajectories(one, other, denoiser, n=20):
    streams = NoiseStream(3), NoiseStream(3)
    x = denoiser.prior(NoiseStream(2), n)
    trajectories = (
        sampler.trajectory(denoiser, x, noise) for sampler, noise in zip((one, other), streams, strict=True)
    )
    for mine, theirs in zip(*trajectories, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_ddim_with_eta_1_is_ancestral_with_the_small_variance(mixture):
    ddim, ancestral = DDIM(20, Trailing(), 1.0, clip=False), Ancestral(20, Trailing(), False, clip=False)
    same_trajectories(ddim, ancestral, mixture)


@pytest.mark.parametrize("path", ["Linear"], indirect=True)
def test_ddim_with_eta_0_is_euler_on_straight_lines(mixture):
    same_trajectories(DDIM(20, Trailing(), 0.0, clip=False), Euler(20, Trailing()), mixture)


@pytest.mark.parametrize("path", ["VE"], indirect=True)
def test_large_variance_is_reverse_diffusion_where_nothing_shrinks(mixture):
    """With α = 1 both have mean x_t + b² ∇log p and variance b²."""
    same_trajectories(Ancestral(20, Trailing(), True, clip=False), ReverseDiffusion(20, Trailing()), mixture)


@pytest.mark.parametrize("make", ["corrector-none"], indirect=True)
def test_no_corrections_leave_the_predictor(mixture, make):
    same_trajectories(make(20, Trailing()), ReverseDiffusion(20, Trailing()), mixture)


# ------------------------------------------------------------------ costs and refusals

EVALUATIONS = {"ancestral-small": 10, "ddim-0": 10, "euler-maruyama": 10, "reverse-diffusion": 10, "euler": 10}
EVALUATIONS |= {"heun": 19, "corrector-batch": 20, "corrector-none": 10}
COSTS = [("VP", name, calls) for name, calls in EVALUATIONS.items()] + [("VE", "langevin", 31)]


@pytest.mark.parametrize(("path", "make", "evaluations"), COSTS, indirect=["path", "make"])
def test_evaluations_of_ten_steps(gaussian, make, evaluations):
    states = list(make(10, Trailing()).trajectory(gaussian, gaussian.prior(NoiseStream(0), 2), NoiseStream(1)))
    assert gaussian.calls == evaluations
    assert len(states) == 10
    assert states[-1].t == 0


REFUSED = [
    (path, make, f"path is discrete: use the path {twin}")
    for make in ("euler-maruyama", "euler", "heun", "corrector-euler-maruyama")
    for path, twin in (("Table", "VP"), ("Levels", "VE"))
]
REFUSED += [(path, "langevin", "Levels, VE") for path in ("VP", "Linear", "Table")]
REFUSED += [("Linear", make, "α") for make in ("euler-maruyama", "corrector-euler-maruyama")]


@pytest.mark.parametrize("grid", [Trailing(), Linspace(1e-3)], ids=["trailing", "linspace"])
@pytest.mark.parametrize(("path", "make", "remedy"), REFUSED, indirect=["path", "make"])
def test_what_makes_no_sense_is_refused_with_its_remedy(path, make, remedy, grid):
    """Whatever the grid of the sampler's recipe: the path is the reason, and not the times."""
    with pytest.raises(GenlabError, match=remedy):
        make(10, grid).check(path)


@pytest.mark.parametrize("make", ["ancestral-small", "corrector-batch", "langevin"], indirect=True)
@pytest.mark.parametrize(("path", "steps"), [("Levels", 501)], indirect=["path"])
def test_more_steps_than_the_path_has_are_refused(path, make, steps):
    with pytest.raises(GenlabError, match="steps=501 is more than the 500"):
        make(steps, Trailing()).check(path)


NAMES = (*EVALUATIONS, "ancestral-large", "ddim-1", "corrector-sample", "corrector-euler-maruyama", "langevin")


@pytest.mark.parametrize("make", NAMES, indirect=True)
def test_what_check_lets_pass_draws_finite_samples(path, make, mixture):
    sampler = make(10, Trailing())
    try:
        sampler.check(path)
    except GenlabError:
        return
    for state in sampler.trajectory(mixture, mixture.prior(NoiseStream(0), 4), NoiseStream(1)):
        assert state.x_t.isfinite().all()


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps):
    with pytest.raises(GenlabError, match=f"steps={steps}"):
        Euler(steps, Trailing())
