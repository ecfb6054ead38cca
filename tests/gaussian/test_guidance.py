"""Guided scores against autograd of the densities they are the scores of, on a mixture whose every posterior is known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser
from genlab.gaussian.grids import Trailing
from genlab.gaussian.guidance import Classifier, ClassifierFree
from genlab.gaussian.parametrization import Eps, V, X
from genlab.gaussian.path import VE, VP, Karras
from genlab.gaussian.samplers import DDIM, Ancestral, DPMSolverPP, EulerMaruyama, Heun, ReverseDiffusion
from genlab.gaussian.tables import Table, linear_betas
from genlab.gaussian.thresholds import Clip
from genlab.gaussian.variances import Large, Small
from genlab.noise import NoiseStream

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS = torch.tensor([[0.8, 0.8], [-0.9, 0.3], [0.2, -0.9]], dtype=torch.float64)
STDS = torch.tensor([[0.2, 0.5], [0.4, 0.3], [0.1, 0.6]], dtype=torch.float64)
CLASSES = 3
TABLE = Table(linear_betas(1000, 1e-4, 0.02))


def log_joint(path, x_t, t):
    """(B, K) log p(y) p_t(x_t | y), up to a constant."""
    p = path(t, 3)
    variance = p.alpha**2 * STDS**2 + p.sigma**2
    squares = (x_t[:, None] - p.alpha * MEANS) ** 2 / variance
    return WEIGHTS.log() - (squares + variance.log()).sum(2) / 2


class Exact(nn.Module):
    """What a network of this parametrization says that has learned the mixture, label CLASSES being "none"."""

    def __init__(self, path, parametrization):
        super().__init__()
        self.path, self.parametrization, self.rows = path, parametrization, 0

    def forward(self, x_t, t, y=None):
        self.rows += len(x_t)
        p = self.path(t, 3)
        each = MEANS + p.alpha * STDS**2 / (p.alpha**2 * STDS**2 + p.sigma**2) * (x_t[:, None] - p.alpha * MEANS)
        y = torch.full((len(x_t),), CLASSES) if y is None else y
        known = torch.nn.functional.one_hot(y, CLASSES + 1)[:, :CLASSES].double()
        shares = torch.where((y == CLASSES)[:, None], log_joint(self.path, x_t, t).softmax(1), known)
        x_hat, p = (shares[..., None] * each).sum(1), self.path(t, 2)
        return self.parametrization.target(x_hat, p.eps(x_t, x_hat), p)


class Posterior(SimpleNamespace):
    """The exact log p(y | x_t)."""

    def log_posterior(self, x_t, t):
        return log_joint(self.path, x_t, t).log_softmax(1)

    def to(self, device): ...


def exact(path, parametrization=None):
    parametrization = parametrization or X()
    return Denoiser(Exact(path, parametrization), path, parametrization, lambda p: p.t)


def posterior(path, shape=(2,), classes=CLASSES):
    return Posterior(path=path, shape=shape, classes=classes)


def times(path):
    """Five interior times, (): steps of a discrete path."""
    t = torch.tensor([0.03, 0.2, 0.5, 0.8, 0.95], dtype=torch.float64) * path.t_max
    return list(t.ceil() if path.twin else t)


@pytest.fixture
def points():
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([0, 1, 2, 0, 1, 2])


def noisy(path, x, t):
    """Points of the size that they have at t."""
    p = path(t, 2)
    return (p.alpha**2 + p.sigma**2).sqrt() * x


def scores(path, x_t, t, y):
    """∇ log p_t(x_t | y) and ∇ log p_t(x_t), by autograd."""
    x_t = x_t.clone().requires_grad_()
    log_p = log_joint(path, x_t, t)
    (conditional,) = torch.autograd.grad(log_p.gather(1, y[:, None]).sum(), x_t, retain_graph=True)
    (unconditional,) = torch.autograd.grad(log_p.logsumexp(1).sum(), x_t)
    return conditional, unconditional


@pytest.mark.parametrize("parametrization", [X(), V()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("w", [-0.5, 0.3, 4.0])
def test_classifier_free_guidance_is_the_score_of_the_sharpened_density(path, parametrization, w, points):
    """∇ log p_t(x | y)^(1+w) p_t(x)^(-w), at every noise level."""
    x, y = points
    guided = ClassifierFree(exact(path, parametrization), CLASSES, w=w)
    for t in times(path):
        x_t, p = noisy(path, x, t), path(t, 2)
        conditional, unconditional = scores(path, x_t, t, y)
        score = p.score(x_t, guided(x_t, t, y))
        torch.testing.assert_close(score, (1 + w) * conditional - w * unconditional, rtol=1e-6, atol=1e-8)


def test_guiding_eps_is_guiding_the_denoiser(points):
    """ε̃ = (1 + w) ε(x_t, y) - w ε(x_t), as the paper has it."""
    x, y = points
    t, plain = torch.tensor(400.0, dtype=torch.float64), exact(TABLE, Eps())
    p, none = TABLE(t, 2), torch.full_like(y, CLASSES)
    eps = 2.5 * plain.network(x, t, y) - 1.5 * plain.network(x, t, none)
    torch.testing.assert_close(p.eps(x, ClassifierFree(plain, CLASSES, w=1.5)(x, t, y)), eps)


@torch.no_grad()  # as in sampling
def test_the_exact_classifier_makes_of_the_unconditional_denoiser_the_conditional_one(path, points):
    x, y = points
    guided = Classifier(exact(path), 0, posterior(path), scale=1.0)
    guided.check((2,), 0.1)
    assert guided.labels == CLASSES
    for t in times(path):
        x_t = noisy(path, x, t)
        expected = exact(path)(x_t, t, y)
        assert (expected - exact(path)(x_t, t)).abs().max() > 1e-3  # there is something to shift
        torch.testing.assert_close(guided(x_t, t, y), expected, rtol=1e-6, atol=1e-9)
    each = torch.stack([*times(path), times(path)[0]])  # a time for every row
    x_t = noisy(path, x, each)
    torch.testing.assert_close(guided(x_t, each, y), exact(path)(x_t, each, y), rtol=1e-6, atol=1e-9)


def test_a_classifier_guides_a_conditional_denoiser_by_its_scale(path, points):
    """∇ log p_t(x | y) p_t(y | x)^s."""
    x, y = points
    guided = Classifier(exact(path), CLASSES, posterior(path), scale=2.5)
    for t in times(path):
        x_t, p = noisy(path, x, t), path(t, 2)
        conditional, unconditional = scores(path, x_t, t, y)
        expected = conditional + 2.5 * (conditional - unconditional)
        torch.testing.assert_close(p.score(x_t, guided(x_t, t, y)), expected, rtol=1e-6, atol=1e-8)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_ancestral_and_ddim_steps_of_classifier_guidance_are_the_published_ones(points, scale):
    """Algorithm 2 exactly; algorithm 1, whose shift is sΣ∇, times 1/a for Σ = b² and σ_t²/(aσ_s²) for the posterior's Σ."""
    x, y = points
    t, s = torch.tensor(600.0, dtype=torch.float64), torch.tensor(550.0, dtype=torch.float64)
    p, q = TABLE(t, 2), TABLE(s, 2)
    x_t = noisy(TABLE, x, t)
    conditional, unconditional = (torch.as_tensor(g) for g in _scores_in_no_grad(x_t, t, y))
    gradient, plain = conditional - unconditional, exact(TABLE)
    guided = Classifier(plain, 0, posterior(TABLE), scale)

    eps = p.eps(x_t, plain(x_t, t)) - p.sigma * scale * gradient
    expected = q.alpha * (x_t - p.sigma * eps) / p.alpha + q.sigma * eps
    x_s, _ = DDIM(2, Trailing(), eta=0.0).step(guided, x_t, t, s, NoiseStream(0), y)
    torch.testing.assert_close(x_s, expected)

    a = p.alpha / q.alpha
    b2 = p.sigma**2 - a**2 * q.sigma**2
    small = b2 * q.sigma**2 / p.sigma**2
    for law, variance, factor in ((Large(), b2, 1 / a), (Small(), small, (p.sigma / q.sigma) ** 2 / a)):
        sampler = Ancestral(2, Trailing(), law)
        ours, _ = sampler.step(guided, x_t, t, s, NoiseStream(0), y)
        without, _ = sampler.step(plain, x_t, t, s, NoiseStream(0), None)
        torch.testing.assert_close(ours - without, factor * scale * variance * gradient)


@torch.no_grad()
def test_a_threshold_is_for_the_denoiser_and_not_for_what_a_classifier_shifts(points):
    """As in the published code; a guidance without classifier is a denoiser of its own, whose x̂ it is for."""
    x, y = points
    t, plain = torch.tensor(600.0, dtype=torch.float64), exact(TABLE)
    x_t, clip = noisy(TABLE, x, t), Clip(-0.2, 0.2)
    assert (plain(x_t, t).abs() > 0.2).any()
    guided = Classifier(plain, 0, posterior(TABLE), 3.0)
    found = guided.predict(x_t, t, y, clip).x_hat
    torch.testing.assert_close(found, plain(x_t, t).clamp(-0.2, 0.2) + guided(x_t, t, y) - plain(x_t, t))
    assert (found.abs() > 0.2).any()
    free = ClassifierFree(plain, CLASSES, w=3.0)
    torch.testing.assert_close(free.predict(x_t, t, y, clip).x_hat, free(x_t, t, y).clamp(-0.2, 0.2))


def _scores_in_no_grad(x_t, t, y):
    with torch.enable_grad():
        return scores(TABLE, x_t, t, y)


def test_without_weight_or_label_there_is_no_guidance_and_no_cost(points):
    x, y = points
    t, path = torch.tensor(0.4, dtype=torch.float64), VP()
    plain = exact(path)
    rows = plain.network
    for guided, label in (
        (ClassifierFree(plain, CLASSES, w=0.0), y),
        (ClassifierFree(plain, CLASSES, scale=1.0), y),
        (ClassifierFree(plain, CLASSES, w=3.0), None),
        (Classifier(plain, CLASSES, posterior(path), 0.0), y),
        (Classifier(plain, CLASSES, posterior(path), 3.0), None),
    ):
        expected, rows.rows = plain(x, t, label), 0
        assert torch.equal(guided(x, t, label), expected)
        assert rows.rows == len(x)


def test_scale_is_one_more_than_w(points):
    x, y = points
    t, plain = torch.tensor(0.4, dtype=torch.float64), exact(VP())
    assert torch.equal(
        ClassifierFree(plain, CLASSES, scale=2.5)(x, t, y), ClassifierFree(plain, CLASSES, w=1.5)(x, t, y)
    )
    unconditional = ClassifierFree(plain, CLASSES, scale=0.0)(x, t, y)
    torch.testing.assert_close(unconditional, plain(x, t))


@pytest.mark.parametrize(
    ("interval", "inside"),
    [([0.5, 2.0], [2.0, 1.0, 0.51]), ([None, 2.0], [0.01, 2.0]), ([0.5, None], [0.51, 80.0])],
)
def test_guidance_in_an_interval_of_noise_levels(points, interval, inside):
    """Open below and closed above, on a path whose time is the level; two evaluations within, one elsewhere."""
    x, y = points
    plain = exact(Karras(80.0))
    limited, always = ClassifierFree(plain, CLASSES, w=2.0, interval=interval), ClassifierFree(plain, CLASSES, w=2.0)
    for level in (0.01, 0.5, 0.51, 1.0, 2.0, 2.01, 80.0):
        t = torch.tensor(level, dtype=torch.float64)
        expected = (always if level in inside or _within(interval, level) else plain)(level * x, t, y)
        plain.network.rows = 0
        assert torch.equal(limited(level * x, t, y), expected)
        assert plain.network.rows == len(x) * (2 if _within(interval, level) else 1)


def _within(interval, level):
    low, high = interval
    return (low or 0) < level <= (math.inf if high is None else high)


def test_rows_at_different_times_are_guided_each_by_its_own(points):
    x, y = points
    plain = exact(VE(0.01, 50.0))
    limited = ClassifierFree(plain, CLASSES, w=2.0, interval=[0.5, 5.0], rescale=0.5)
    t = torch.tensor([0.1, 0.5, 0.6, 0.7, 0.9, 1.0], dtype=torch.float64)
    together = limited(x, t, y)
    for i in range(6):
        torch.testing.assert_close(together[i : i + 1], limited(x[i : i + 1], t[i], y[i : i + 1]))


@pytest.mark.parametrize("rescale", [0.3, 1.0])
@pytest.mark.parametrize("parametrization", [X(), V()], ids=lambda p: type(p).__name__)
def test_rescaling_gives_the_output_the_spread_of_the_conditional_one(parametrization, rescale, points):
    """φ F̃ std F/std F̃ + (1 - φ) F̃ of the network's output F, for each sample."""
    x, y = points
    path, t = VP(), torch.tensor(0.3, dtype=torch.float64)
    plain, p = exact(path, parametrization), VP()(t, 2)

    def output(x_hat):
        return parametrization.target(x_hat, p.eps(x, x_hat), p)

    conditional = output(plain(x, t, y))
    guided = output(ClassifierFree(plain, CLASSES, w=3.0)(x, t, y))
    rescaled = output(ClassifierFree(plain, CLASSES, w=3.0, rescale=rescale)(x, t, y))
    ratio = conditional.std(1, keepdim=True) / guided.std(1, keepdim=True)
    assert (ratio - 1).abs().min() > 1e-3
    torch.testing.assert_close(rescaled, rescale * guided * ratio + (1 - rescale) * guided)
    if rescale == 1:
        torch.testing.assert_close(rescaled.std(1), conditional.std(1))


class Telltale(nn.Module):
    """Twice the channels: the label, and the label over ten."""

    def forward(self, x, c, y):
        return torch.stack([y, y / 10], 1).to(x)[:, :, None].expand(-1, -1, x.shape[2])


def test_the_learned_variance_is_the_conditional_one():
    denoiser = Denoiser(Telltale(), TABLE, X(), lambda p: p.t, learned_variance=True)
    y, t = torch.tensor([1, 2]), torch.tensor(500.0)
    x_hat, v = ClassifierFree(denoiser, CLASSES, w=0.5).predict(torch.zeros(2, 1, 4), t, y)
    expected = 1.5 * y - 0.5 * CLASSES
    torch.testing.assert_close(x_hat, expected[:, None, None].expand(2, 1, 4))
    torch.testing.assert_close(v, ((y / 10 + 1) / 2)[:, None, None].expand(2, 1, 4))
    _, v = Classifier(denoiser, CLASSES, posterior(TABLE), 0.0).predict(torch.zeros(2, 1, 4), t, y)
    torch.testing.assert_close(v, ((y / 10 + 1) / 2)[:, None, None].expand(2, 1, 4))


def test_images_stay_in_their_precision(points):
    """Times of samplers are float64 scalars."""
    x, y = points[0].float(), points[1]
    t, path = torch.tensor(0.5, dtype=torch.float64), VP()
    network = nn.Sequential()
    network.forward = lambda x, c, y: x * (1 + y[:, None])
    denoiser = Denoiser(network, path, X(), lambda p: p.t)
    assert ClassifierFree(denoiser, CLASSES, w=1.0, interval=[0.1, 9.0], rescale=0.5)(x, t, y).dtype == torch.float32

    class Flat(Posterior):
        def log_posterior(self, x_t, t):
            return (x_t[:, :1] * torch.arange(3)).log_softmax(1)

    flat = Flat(path=path, shape=(2,), classes=3)
    assert Classifier(denoiser, CLASSES, flat, 1.0)(x, t, y).dtype == torch.float32


def test_where_no_label_is_left_in_x_t_nothing_is_shifted(points):
    """Flow matching begins at α = 0, where σ²/α is infinite and the gradient of a trained classifier not quite 0."""
    from genlab.gaussian.path import Linear

    x, y = points
    path, t = Linear(), torch.tensor(1.0, dtype=torch.float64)

    class Biased(Posterior):
        def log_posterior(self, x_t, t):
            return (x_t[:, :1] * torch.arange(3)).log_softmax(1)

    guided = Classifier(exact(path), 0, Biased(path=path, shape=(2,), classes=3), 1.0)
    torch.testing.assert_close(guided(x, t, y), exact(path)(x, t))
    everywhere = ClassifierFree(exact(path), CLASSES, w=1.0, interval=[0.5, None])(x, t, y)
    torch.testing.assert_close(everywhere, 2 * MEANS[y] - (WEIGHTS @ MEANS))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, "guidance.w or guidance.scale"),
        ({"w": 1.0, "scale": 2.0}, "give one of them"),
        ({"w": 1.0, "interval": [2.0, 0.5]}, "from low to high"),
        ({"w": 1.0, "interval": [0.5, 0.5]}, "from low to high"),
        ({"w": 1.0, "interval": [-1.0, 0.5]}, "from low to high"),
        ({"w": 1.0, "interval": [0.5]}, "from low to high"),
        ({"w": 1.0, "rescale": -0.1}, "guidance.rescale=-0.1"),
        ({"w": 1.0, "rescale": 1.1}, "guidance.rescale=1.1"),
    ],
)
def test_what_no_guidance_can_be(arguments, line):
    with pytest.raises(GenlabError, match=line):
        ClassifierFree(exact(VP()), CLASSES, **arguments)


def test_models_that_cannot_be_guided():
    with pytest.raises(GenlabError, match=r"model\.classes=K"):
        ClassifierFree(exact(VP()), 0, w=1.0).check((2,), 0.1)
    with pytest.raises(GenlabError, match="trained without dropped labels"):
        ClassifierFree(exact(VP()), CLASSES, w=1.0).check((2,), 0.0)
    ClassifierFree(exact(VP()), CLASSES, w=1.0).check((2,), 0.1)


@pytest.mark.parametrize(
    ("theirs", "line"),
    [
        (posterior(VP(0.1, 19.0)), "another noise"),
        (posterior(TABLE), "another noise"),
        (posterior(VP(), shape=(1, 8, 8)), "shape"),
        (posterior(VP(), classes=10), "10 classes"),
    ],
)
def test_classifiers_of_something_else_are_refused(theirs, line):
    with pytest.raises(GenlabError, match=line):
        Classifier(exact(VP()), CLASSES, theirs, 1.0).check((2,), 0.1)


def test_a_classifier_of_less_noise_is_refused():
    with pytest.raises(GenlabError, match="another noise"):
        Classifier(exact(Karras(80.0)), CLASSES, posterior(Karras(40.0)), 1.0).check((2,), 0.1)


def test_only_a_classifier_is_one():
    with pytest.raises(GenlabError, match="model=noisy_classifier"):
        Classifier(exact(VP()), CLASSES, exact(VP()), 1.0)


@torch.no_grad()
@pytest.mark.parametrize(
    "sampler",
    [
        Ancestral(4, Trailing(), Large()),
        DDIM(4, Trailing(), eta=0.5),
        EulerMaruyama(4, Trailing()),
        ReverseDiffusion(4, Trailing()),
        Heun(4, Trailing()),
        DPMSolverPP(4, Trailing(), order=2),
    ],
    ids=lambda s: type(s).__name__,
)
def test_every_sampler_takes_a_guided_denoiser(sampler, points):
    """Guided by the exact classifier, the unconditional denoiser takes the conditional one's steps."""
    x, y = points
    path = VP()
    guided = Classifier(exact(path), 0, posterior(path), scale=1.0)
    ours = [state.x_t for state in sampler.trajectory(guided, x, NoiseStream(0), y)]
    theirs = [state.x_t for state in sampler.trajectory(exact(path), x, NoiseStream(0), y)]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    sampler.trajectory(ClassifierFree(exact(path), CLASSES, w=1.0), x, NoiseStream(0), y)
