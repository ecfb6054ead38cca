"""Step by step equality with diffusers' schedulers, from the same model outputs and the same noise.

The differences that docs/samplers.md lists are tested as such. Tolerances are those of diffusers' float32 tables.
"""

from collections.abc import Iterator

import pytest
import torch

from genlab.gaussian.denoiser import Prediction
from genlab.gaussian.grids import KarrasRho, Linspace, Trailing
from genlab.gaussian.path import VP, Karras
from genlab.gaussian.samplers import (
    DDIM,
    Ancestral,
    DPMSolverPP,
    Euler,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    ReverseDiffusion,
    UniPC,
)
from genlab.gaussian.tables import Levels, Table, linear_betas
from genlab.gaussian.thresholds import Clip, within
from genlab.gaussian.variances import Large, Small
from genlab.noise import NoiseStream

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.reference

TABLE = Table(linear_betas(1000, 1e-4, 0.02))
SHAPE = (4, 3, 2, 2)


class Mixture:
    """E[x | x_t] of two points ±1 in every pixel, 0.9 apart from linear: tanh(α x_t/σ²)."""

    def __init__(self, path):
        self.path = path

    def predict(self, x_t, t, y=None, threshold=None):
        p = self.path(t, x_t.ndim)
        return Prediction(within(1.2 * torch.tanh(p.alpha * x_t / p.sigma**2), threshold), None)

    def eps(self, x_t, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        return self.path(t, x_t.ndim).eps(x_t, self.predict(x_t, t).x_hat)


class Repeated:
    """The k-th draw of seed 1, for both sides."""

    def __init__(self):
        self.stream = NoiseStream(1)

    def normal(self, shape):
        return self.stream.normal(shape).double()


def start(path) -> torch.Tensor:
    return path.coefficients(torch.tensor(path.t_max, dtype=torch.float64))[1] * NoiseStream(0).normal(SHAPE).double()


def ours(sampler, path, x) -> list[torch.Tensor]:
    return [state.x_t for state in sampler.trajectory(Mixture(path), x, Repeated())]


def theirs(scheduler, steps: int, **options) -> Iterator[torch.Tensor]:
    """x of each step on the DDPM table, whose 0-based step t is our t + 1."""
    x = start(TABLE)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        x = scheduler.step(Mixture(TABLE).eps(x, t + 1), t, x, **{k: make() for k, make in options.items()}).prev_sample
        x = x.double()
        yield x


def visited(scheduler):
    """The grid of a scheduler's own times."""
    return lambda path, steps: torch.cat([scheduler.timesteps.double() + 1, torch.zeros(1, dtype=torch.float64)])


def assert_same(mine, other, tolerance=2e-4) -> None:
    for one, two in zip(mine, other, strict=True):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


@pytest.fixture
def same_noise(monkeypatch):
    """randn_tensor of a scheduler's module draws our numbers."""

    def patch(module):
        noise = Repeated()
        monkeypatch.setattr(module, "randn_tensor", lambda shape, **_: noise.normal(tuple(shape)))

    return patch


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("kind", "variance"), [("fixed_small", Small()), ("fixed_large", Large())])
def test_ddpm(kind, variance, clip, same_noise) -> None:
    same_noise(diffusers.schedulers.scheduling_ddpm)
    scheduler = diffusers.DDPMScheduler(1000, variance_type=kind, clip_sample=clip, timestep_spacing="linspace")
    sampler = Ancestral(10, Linspace(1.0), variance, Clip() if clip else None)
    assert_same(ours(sampler, TABLE, start(TABLE)), theirs(scheduler, 10))


def test_ddpm_with_trailing_steps_leaves_noise_in_the_samples(same_noise) -> None:
    """Theirs asks whether t = 0 (0-based) and not whether the step ends at data; without noise the means agree."""
    same_noise(diffusers.schedulers.scheduling_ddpm)
    scheduler = diffusers.DDPMScheduler(
        1000, variance_type="fixed_large", clip_sample=False, timestep_spacing="trailing"
    )
    mine, other = ours(Ancestral(10, Trailing(), Large()), TABLE, start(TABLE)), list(theirs(scheduler, 10))
    assert_same(mine[:-1], other[:-1])
    noise = (other[-1] - mine[-1]).std()
    assert noise == pytest.approx(TABLE.sigma[100].item(), rel=0.3)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ddim(eta, clip) -> None:
    scheduler = diffusers.DDIMScheduler(1000, clip_sample=clip, timestep_spacing="trailing")
    noise = Repeated()
    options = {"eta": lambda: eta, "use_clipped_model_output": lambda: True}
    if eta > 0:
        options["variance_noise"] = lambda: noise.normal(SHAPE)
    sampler = DDIM(10, Trailing(), eta, Clip() if clip else None)
    assert_same(ours(sampler, TABLE, start(TABLE)), theirs(scheduler, 10, **options))


def test_ddim_clips_without_deriving_eps_again_unless_asked() -> None:
    scheduler = diffusers.DDIMScheduler(1000, clip_sample=True, timestep_spacing="trailing")
    mine = ours(DDIM(10, Trailing(), 0.0, Clip()), TABLE, start(TABLE))
    other = list(theirs(scheduler, 10))
    assert (mine[-2] - other[-2]).abs().max() > 0.01


def test_ddim_takes_the_previous_time_from_a_ratio_and_not_from_its_list() -> None:
    """With linspace the step from 444 goes to 344, while the next time on the list is 333 (0-based)."""
    scheduler = diffusers.DDIMScheduler(1000, clip_sample=False, timestep_spacing="linspace")
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist()[5:7] == [444, 333]
    x, model = start(TABLE), Mixture(TABLE)
    other = scheduler.step(model.eps(x, 445), 444, x).prev_sample
    t, ratio, listed = (torch.tensor(t, dtype=torch.float64) for t in (445, 345, 334))
    sampler = DDIM(10, Linspace(1.0), 0.0)
    to_ratio, to_listed = (sampler.step(model, x, t, s, Repeated(), None)[0] for s in (ratio, listed))
    torch.testing.assert_close(other, to_ratio, rtol=1e-4, atol=1e-4)
    assert (other - to_listed).abs().max() > 5e-3


def test_euler_and_its_karras_sigmas() -> None:
    scheduler = diffusers.EulerDiscreteScheduler(1000, use_karras_sigmas=True, sigma_min=0.002, sigma_max=80.0)
    scheduler.set_timesteps(18)
    path = Karras(80.0)
    times = KarrasRho(0.002, 80.0, 7.0)(path, 18)
    torch.testing.assert_close(scheduler.sigmas.double(), times, rtol=1e-5, atol=0)
    x, other = start(path), []
    for i, t in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(x, t)
        x = scheduler.step(Mixture(path).eps(x, times[i]), t, x).prev_sample.double()
        other.append(x)
    assert_same(ours(Euler(18, KarrasRho(0.002, 80.0, 7.0)), path, start(path)), other)


def test_heun() -> None:
    scheduler = diffusers.HeunDiscreteScheduler(1000, beta_start=1e-4, beta_end=0.02, use_karras_sigmas=True)
    scheduler.set_timesteps(10)
    low, high = scheduler.sigmas[-2].item(), scheduler.sigmas[0].item()
    path, grid = Karras(high), KarrasRho(low, high, 7.0)
    x, other = start(path), []
    for i, t in enumerate(scheduler.timesteps):
        reached = grid(path, 10)[(i + 1) // 2]  # each time but the first twice: after Euler's half and after Heun's
        x = scheduler.step(Mixture(path).eps(x, reached), t, x).prev_sample.double()
        if i % 2 == 1 or i == len(scheduler.timesteps) - 1:
            other.append(x)
    assert_same(ours(Heun(10, grid), path, start(path)), other)


@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize(("order", "stochastic"), [(1, False), (2, False), (1, True), (2, True)])
def test_dpm_solver_plus_plus(order, stochastic, steps) -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(
        1000,
        solver_order=order,
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++",
        final_sigmas_type="zero",
        timestep_spacing="trailing",
    )
    noise = Repeated()
    options = {"variance_noise": lambda: noise.normal(SHAPE)} if stochastic else {}
    sampler = DPMSolverPP(steps, Trailing(), order, stochastic)
    assert_same(ours(sampler, TABLE, start(TABLE)), theirs(scheduler, steps, **options), 1e-3)


@pytest.mark.parametrize("bh1", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("corrector", [False, True])
def test_unipc(order, bh1, corrector) -> None:
    scheduler = diffusers.UniPCMultistepScheduler(
        1000,
        solver_order=order,
        solver_type="bh1" if bh1 else "bh2",
        disable_corrector=[] if corrector else list(range(20)),
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(12)
    mine = ours(UniPC(12, visited(scheduler), order, bh1, corrector), TABLE, start(TABLE))
    other = list(theirs(scheduler, 12))
    if bh1:  # B(h) = -h is infinite in the step to data, and theirs multiplies it by 0
        assert other.pop().isnan().all()
        mine.pop()
    assert_same(mine, other, 1e-3)


def test_third_order_is_their_unipc_and_not_their_dpm_solver() -> None:
    """Their DPM-Solver++(3M), after the published code, gives the second difference half of its weight."""
    predictor = diffusers.UniPCMultistepScheduler(
        1000, solver_order=3, disable_corrector=list(range(20)), final_sigmas_type="zero"
    )
    predictor.set_timesteps(12)
    mine = ours(DPMSolverPP(12, visited(predictor), 3), TABLE, start(TABLE))
    assert_same(mine, theirs(predictor, 12), 1e-3)
    solver = diffusers.DPMSolverMultistepScheduler(
        1000, solver_order=3, algorithm_type="dpmsolver++", final_sigmas_type="zero"
    )
    assert_same(mine[:2], list(theirs(solver, 12))[:2], 1e-3)  # two steps of lower order
    assert max((one - two).abs().max() for one, two in zip(mine, theirs(solver, 12), strict=True)) > 5e-3


@pytest.mark.parametrize("corrections", [0, 1])
def test_score_sde_ve(corrections, same_noise) -> None:
    same_noise(diffusers.schedulers.scheduling_sde_ve)
    n = 20
    scheduler = diffusers.ScoreSdeVeScheduler(2000, snr=0.16, sigma_min=0.01, sigma_max=50.0, correct_steps=corrections)
    scheduler.set_timesteps(n)
    scheduler.set_sigmas(n)
    path = Levels(0.01, 50.0, n)
    x, other = start(path), []
    for i, t in enumerate(scheduler.timesteps):
        level = torch.tensor(n - i, dtype=torch.float64)
        for _ in range(corrections):
            x = scheduler.step_correct(-Mixture(path).eps(x, level) / path.sigma[n - i], x).prev_sample
        out = scheduler.step_pred(-Mixture(path).eps(x, level) / path.sigma[n - i], t, x)
        x = out.prev_sample
        other.append(x if i < n - 1 else out.prev_sample_mean)
    sampler = PredictorCorrector(n, Trailing(), ReverseDiffusion, corrections, snr=0.16, per_sample=False)
    assert_same(ours(sampler, path, start(path)), other)


@pytest.mark.parametrize("n", [1000, 100])
def test_score_sde_vp(n, same_noise) -> None:
    """Their step is 1/N on times (1 - ε)/(N - 1) apart, which are the same at N = 1000 and at no other N."""
    from diffusers.schedulers.deprecated import scheduling_sde_vp

    same_noise(scheduling_sde_vp)
    scheduler = scheduling_sde_vp.ScoreSdeVpScheduler(1000, beta_min=0.1, beta_max=20, sampling_eps=1e-3)
    scheduler.set_timesteps(n)
    path, x, other = VP(), start(VP()), []
    times = Linspace(1e-3)(path, n)
    for t in times[:-1]:
        following, mean = scheduler.step_pred(Mixture(path).eps(x, t), x, t)
        x = following if t > times[-2] else mean
        other.append(x)
    mine = ours(EulerMaruyama(n, Linspace(1e-3)), path, start(path))
    if n == 1000:
        assert_same(mine, other)
    else:
        assert (mine[0] - other[0]).abs().max() > 1e-3
