"""One step of each sampler against its paper's formula; equalities between samplers; what they cost and refuse."""

import math

import pytest
import torch

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser, Prediction, Time
from genlab.gaussian.grids import KarrasRho, Linspace, Trailing
from genlab.gaussian.parametrization import X
from genlab.gaussian.samplers import (
    DDIM,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPP,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    ProbabilityFlow,
    ReverseDiffusion,
    UniPC,
)
from genlab.gaussian.tables import Table, linear_betas
from genlab.gaussian.thresholds import Clip, Dynamic, within
from genlab.gaussian.variances import Large, Learned, Small
from genlab.noise import NoiseStream

NAMES = ("ancestral-small", "ancestral-large", "ancestral-learned", "ddim-0", "ddim-1", "reverse-diffusion")
NAMES += ("euler-maruyama", "euler", "heun", "churn", "probability-flow", "langevin")
NAMES += ("dpmpp-2m", "dpmpp-3m", "dpmpp-2m-sde", "unipc-2", "unipc-3", "unipc-2-bh1")
NAMES += ("corrector-batch", "corrector-sample", "corrector-none", "corrector-euler-maruyama")


class Fixed:
    """A denoiser that always answers the same."""

    def __init__(self, path, x_hat, learned_variance=True):
        self.path, self.x_hat, self.learned_variance = path, x_hat, learned_variance

    def predict(self, x_t, t, y=None, threshold=None):
        return Prediction(within(torch.full_like(x_t, self.x_hat), threshold), torch.full_like(x_t, 0.5))


def refuses(sampler, path):
    try:
        sampler.check(Fixed(path, 0.0))
    except GenlabError:
        return True
    return False


class Ignorant(torch.nn.Module):
    """A network in float32 that halves x and knows neither time nor label."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, x, c, y=None):
        assert x.dtype == torch.float32
        return self.weight * x


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
    sampler, path = Ancestral(1000, Trailing(), Large() if large else Small()), Table(betas)
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
    assert one_step(DDIM(10, Trailing(), eta), path, 500, 400, 0.3, 0.7) == pytest.approx(expected)


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


@pytest.mark.parametrize("v", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("path", ["Table"], indirect=True)
def test_learned_variance_lies_between_the_small_and_the_large_of_the_grid(path, v):
    """exp(v log β + (1 - v) log β̃), with the β of the respaced process as guided diffusion recomputes it."""
    bar = torch.cumprod(1 - linear_betas(1000, 1e-4, 0.02), 0)
    a, before = bar[499].item(), bar[399].item()
    beta = 1 - a / before
    expected = beta**v * (beta * (1 - before) / (1 - a)) ** (1 - v)

    class Zero:
        def predict(self, x_t, t, y, threshold=None):
            return Prediction(torch.zeros_like(x_t), torch.full_like(x_t, v))

    class One:
        def normal(self, shape):
            return torch.ones(shape, dtype=torch.float64)

    denoiser, x = Zero(), torch.zeros(1, 1, dtype=torch.float64)
    denoiser.path = path
    t, s = (torch.tensor(float(t), dtype=torch.float64) for t in (500, 400))
    x_s, _ = Ancestral(2, Trailing(), Learned()).step(denoiser, x, t, s, One(), None)
    assert x_s.item() ** 2 == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("make", NAMES, indirect=True)
@pytest.mark.parametrize("path", ["VE", "Linear", "Table"], indirect=True)
def test_a_threshold_acts_on_x_hat_before_anything_is_derived_from_it(path, make, mixture):
    """x̂ = 3 steps as x̂ = 1 does, in every sampler, so that ε̂, the score and the velocity are those of the x̂ left."""
    clipped, plain = make(4, Trailing(), threshold=Clip()), make(4, Trailing())
    if refuses(plain, path):
        return
    x = mixture.prior(NoiseStream(0), 3)
    for answer, kept in ((3.0, 1.0), (-3.0, -1.0)):
        mine = clipped.trajectory(Fixed(path, answer), x, NoiseStream(1))
        same = plain.trajectory(Fixed(path, kept), x, NoiseStream(1))
        for one, other in zip(mine, same, strict=True):
            torch.testing.assert_close(one.x_t, other.x_t, rtol=0, atol=0)
    *_, end = plain.trajectory(Fixed(path, 3.0), x, NoiseStream(1))
    assert (end.x_t - one.x_t).abs().max() > 0.1


@pytest.mark.parametrize("make", NAMES, indirect=True)
@pytest.mark.parametrize("path", ["VE", "Linear", "Table"], indirect=True)
def test_a_network_that_answers_nan_is_one_clear_line(path, make):
    sampler = make(4, Trailing())
    if refuses(sampler, path):
        return
    with pytest.raises(GenlabError, match="NaN") as caught:
        list(sampler.trajectory(Fixed(path, math.nan), torch.ones(2, 2), NoiseStream(1)))
    assert "\n" not in str(caught.value)
    name = (
        "ODE" if isinstance(sampler, ProbabilityFlow) else type(sampler).__name__
    )  # whose solver likelihoods have too
    assert name in str(caught.value)


@pytest.mark.parametrize("make", ["ddim-0", "ancestral-small", "heun", "unipc-3", "probability-flow"], indirect=True)
@pytest.mark.parametrize("path", ["VP"], indirect=True)
def test_double_keeps_the_state_in_float64_and_the_network_in_its_own(path, make):
    denoiser = Denoiser(Ignorant(), path, X(), Time(1.0))
    x = NoiseStream(0).normal((3, 2))
    with torch.no_grad():
        *_, single = make(4, Trailing()).trajectory(denoiser, x, NoiseStream(1))
        *_, double = make(4, Trailing(), double=True).trajectory(denoiser, x, NoiseStream(1))
    assert (single.x_t.dtype, double.x_t.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.x_t.double(), double.x_t, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["VP", "VE", "Table"], indirect=True)
def test_three_nodes_integrate_a_quadratic_in_lambda_exactly(path, samplers):
    """x_s = (σ_s/σ_t) x_t + σ_s ∫ e^λ x̂ dλ with x̂ = 1 + 2λ - λ²/2; ∫ e^λ f dλ = e^λ (f - f' + f'')."""

    class Quadratic:
        def __init__(self):
            self.path = path

        def predict(self, x_t, t, y=None, threshold=None):
            p = path(t, 2)
            lam = (p.alpha / p.sigma).log()
            return Prediction(torch.ones_like(x_t) * (1 + 2 * lam - lam**2 / 2), None)

    def antiderivative(p):
        lam = (p.alpha / p.sigma).log()
        return lam.exp() * ((1 + 2 * lam - lam**2 / 2) - (2 - lam) + (-1))

    times = [path.t_max * share for share in (0.8, 0.7, 0.5, 0.4)]
    grid = lambda _, steps: torch.tensor(times, dtype=torch.float64)
    for name in ("dpmpp-3m", "unip-3"):
        x = torch.full((1, 1), 0.3, dtype=torch.float64)
        _, before, end = samplers[name](3, grid).trajectory(Quadratic(), x, NoiseStream(0))
        p, q = (path(torch.tensor(t, dtype=torch.float64), 2) for t in times[2:])
        expected = q.sigma * (before.x_t / p.sigma + antiderivative(q) - antiderivative(p))
        torch.testing.assert_close(end.x_t, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("path", ["Karras"], indirect=True)
@pytest.mark.parametrize("churn", [0.0, 5.0, 100.0])
def test_heun_is_the_sampler_of_edm(path, mixture, churn):
    """Karras et al. 2022, algorithm 2, written here again: γ in [0.05, 50], capped at √2 - 1."""
    steps, s_noise, noise = 18, 1.003, NoiseStream(1)
    x = start = mixture.prior(NoiseStream(0), 5)
    ladder = [(80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(steps)] + [0.0]
    for i in range(steps):
        gamma = min(churn / steps, 2**0.5 - 1) if 0.05 <= ladder[i] <= 50 else 0.0
        t = ladder[i] + gamma * ladder[i]
        if gamma > 0:
            x = x + math.sqrt(t**2 - ladder[i] ** 2) * s_noise * noise.normal(x.shape)
        d = (x - mixture(x, torch.tensor(t, dtype=torch.float64))) / t
        following = x + (ladder[i + 1] - t) * d
        if ladder[i + 1] > 0:
            s = torch.tensor(ladder[i + 1], dtype=torch.float64)
            following = x + (ladder[i + 1] - t) * (d + (following - mixture(following, s)) / s) / 2
        x = following
    sampler = Heun(steps, KarrasRho(0.002, 80.0, 7.0), churn, 0.05, 50.0, s_noise)
    *_, end = sampler.trajectory(mixture, start, NoiseStream(1))
    torch.testing.assert_close(end.x_t, x, rtol=1e-9, atol=1e-9)
    assert sampler.deterministic == (churn == 0)


@pytest.mark.parametrize("path", ["VP", "VE"], indirect=True)
@pytest.mark.parametrize("per_sample", [False, True], ids=["batch", "per-sample"])
def test_corrector_has_the_asked_signal_to_noise_ratio(path, wide_gaussian, per_sample):
    """‖h ∇log p‖ / ‖√(2h) z‖ = r a: h is read off the answers to z and -z."""

    class Stay:
        def __init__(self, steps, grid, threshold): ...

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


SAME = [("ddim-1", "ancestral-small"), ("dpmpp-1", "ddim-0"), ("dpmpp-1-sde", "ddim-1")]
SAME += [("unip-2", "dpmpp-2m"), ("unip-3", "dpmpp-3m")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_two_names_of_one_sampler(mixture, samplers, one, other):
    same_trajectories(samplers[one](20, Trailing()), samplers[other](20, Trailing()), mixture)


@pytest.mark.parametrize("path", ["Linear"], indirect=True)
def test_ddim_with_eta_0_is_euler_on_straight_lines(mixture):
    same_trajectories(DDIM(20, Trailing(), 0.0), Euler(20, Trailing()), mixture)


@pytest.mark.parametrize("path", ["VE"], indirect=True)
def test_large_variance_is_reverse_diffusion_where_nothing_shrinks(mixture):
    """With α = 1 both have mean x_t + b² ∇log p and variance b²."""
    same_trajectories(Ancestral(20, Trailing(), Large()), ReverseDiffusion(20, Trailing()), mixture)


@pytest.mark.parametrize("make", ["corrector-none"], indirect=True)
def test_no_corrections_leave_the_predictor(mixture, make):
    same_trajectories(make(20, Trailing()), ReverseDiffusion(20, Trailing()), mixture)


# ------------------------------------------------------------------ costs and refusals

EVALUATIONS = {"ancestral-small": 10, "ddim-0": 10, "euler-maruyama": 10, "reverse-diffusion": 10, "euler": 10}
EVALUATIONS |= {"dpmpp-2m": 10, "dpmpp-3m": 10, "dpmpp-2m-sde": 10, "unip-2": 10, "unipc-3": 10}
EVALUATIONS |= {"heun": 19, "churn": 19, "corrector-batch": 20, "corrector-none": 10}
COSTS = [("VP", name, calls) for name, calls in EVALUATIONS.items()] + [("VE", "langevin", 31)]


@pytest.mark.parametrize(("path", "make", "evaluations"), COSTS, indirect=["path", "make"])
def test_evaluations_of_ten_steps(gaussian, make, evaluations):
    states = list(make(10, Trailing()).trajectory(gaussian, gaussian.prior(NoiseStream(0), 2), NoiseStream(1)))
    assert gaussian.calls == evaluations
    assert len(states) == 10
    assert states[-1].t == 0


REFUSED = [
    (path, make, f"path is discrete: use the path {twin}")
    for make in ("euler-maruyama", "euler", "heun", "churn", "probability-flow", "corrector-euler-maruyama")
    for path, twin in (("Table", "VP"), ("Levels", "VE"))
]
REFUSED += [(path, "langevin", "Levels, VE") for path in ("VP", "Linear", "Table")]
REFUSED += [
    ("Karras", make, r"equal steps of σ.*use sampler=edm") for make in ("ddim-0", "heun", "dpmpp-2m", "unipc-3")
]
REFUSED += [("Linear", make, "α") for make in ("euler-maruyama", "corrector-euler-maruyama")]


@pytest.mark.parametrize("grid", [Trailing(), Linspace(1e-3)], ids=["trailing", "linspace"])
@pytest.mark.parametrize(("path", "make", "remedy"), REFUSED, indirect=["path", "make"])
def test_what_makes_no_sense_is_refused_with_its_remedy(path, make, remedy, grid):
    """Whatever the grid of the sampler's recipe: the path is the reason, and not the times."""
    with pytest.raises(GenlabError, match=remedy):
        make(10, grid).check(Fixed(path, 0.0))


@pytest.mark.parametrize("make", ["ancestral-small", "corrector-batch", "langevin"], indirect=True)
@pytest.mark.parametrize(("path", "steps"), [("Levels", 501)], indirect=["path"])
def test_more_steps_than_the_path_has_are_refused(path, make, steps):
    with pytest.raises(GenlabError, match="steps=501 is more than the 500"):
        make(steps, Trailing()).check(Fixed(path, 0.0))


@pytest.mark.parametrize("make", NAMES, indirect=True)
def test_what_check_lets_pass_draws_finite_samples(path, make, mixture):
    sampler = make(10, Trailing())
    if refuses(sampler, path):
        return
    for state in sampler.trajectory(mixture, mixture.prior(NoiseStream(0), 4), NoiseStream(1)):
        assert state.x_t.isfinite().all()


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_refused(steps):
    with pytest.raises(GenlabError, match=f"steps={steps}"):
        Euler(steps, Trailing())


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_is_a_share_of_the_posterior_deviation(eta):
    with pytest.raises(GenlabError, match="from 0"):
        DDIM(10, Trailing(), eta)


def test_a_learned_variance_needs_a_network_that_learned_it():
    denoiser = Fixed(Table(linear_betas(1000, 1e-4, 0.02)), 0.0, learned_variance=False)
    with pytest.raises(GenlabError, match="Small or Large"):
        Ancestral(10, Trailing(), Learned()).check(denoiser)
    Ancestral(10, Trailing(), Small()).check(denoiser)


SENSELESS = {
    "churn": lambda: Heun(10, Trailing(), churn=-1.0),
    "s_min": lambda: Heun(10, Trailing(), churn=1.0, s_min=2.0, s_max=1.0),
    "from 1 to 3": lambda: DPMSolverPP(10, Trailing(), 4),
    "from 1 to 2 with stochastic": lambda: DPMSolverPP(10, Trailing(), 3, stochastic=True),
    "DPMSolverPP is no sampler of single steps: use Ancestral": lambda: PredictorCorrector(
        10, Trailing(), lambda **keys: DPMSolverPP(order=2, **keys), corrections=1, snr=0.16, per_sample=False
    ),
    "order=0": lambda: UniPC(10, Trailing(), 0),
    "percentile": lambda: Dynamic(1.5),
    "low must be below high": lambda: Clip(1.0, -1.0),
}


@pytest.mark.parametrize(("remedy", "make"), SENSELESS.items(), ids=SENSELESS)
def test_arguments_without_sense_are_refused(remedy, make):
    with pytest.raises(GenlabError, match=remedy):
        make()


@pytest.mark.parametrize("path", ["VP"], indirect=True)
def test_an_adaptive_solver_that_does_not_reach_its_tolerance(mixture):
    sampler = ProbabilityFlow(1, Trailing(), 1e-5, tolerance=1e-6, denoise=False, most=20)
    with pytest.raises(GenlabError, match="tolerance 1e-06 in 20 evaluations"):
        list(sampler.trajectory(mixture, mixture.prior(NoiseStream(0), 2), NoiseStream(1)))
    with pytest.raises(GenlabError, match="t_end"):
        ProbabilityFlow(1, Trailing(), 0.0, tolerance=1e-6, denoise=False).check(mixture)


@pytest.mark.parametrize("path", ["VP", "Linear", "Karras"], indirect=True)
def test_samplers_know_whether_they_are_deterministic(path, mixture, samplers):
    """Those that say so draw no numbers, and no others do without."""

    class Counting(NoiseStream):
        def normal(self, shape):
            self.drawn = True
            return super().normal(shape)

    for make in samplers.values():
        sampler, noise = make(3, Trailing()), Counting(1)
        noise.drawn = False
        if refuses(sampler, path):
            continue
        list(sampler.trajectory(mixture, mixture.prior(NoiseStream(0), 2), noise))
        assert sampler.deterministic == (not noise.drawn)
