"""The best classifier of noisy x is known on a mixture; and a classifier's life as a run, up to the samples it guides."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from genlab.compare import compare
from genlab.config import preflight
from genlab.data.planar import Ring
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.evaluate import Options as EvaluateOptions
from genlab.evaluate import rescore
from genlab.evaluation.drawing import Cost, drawn
from genlab.gaussian.denoiser import Denoiser, Index, Time
from genlab.gaussian.grids import Trailing
from genlab.gaussian.guidance import Classifier, ClassifierFree
from genlab.gaussian.parametrization import Eps
from genlab.gaussian.path import VE, VP
from genlab.gaussian.samplers import DDIM
from genlab.gaussian.tables import Table, linear_betas
from genlab.gaussian.times import Steps, Uniform
from genlab.gaussian.weights import Unit
from genlab.networks.classifier import EncoderMLP
from genlab.networks.layers import Sinusoidal
from genlab.networks.mlp import NoisyMLP
from genlab.noise import NoiseStream
from genlab.options import overridden
from genlab.paradigms.diffusion import Diffusion
from genlab.paradigms.noisy_classifier import NoisyClassifier
from genlab.sample import Options, sample
from genlab.training import train

TABLE = Table(linear_betas(1000, 1e-4, 0.02))
MEANS = torch.tensor([-1.0, 1.0])
SMALL = ["trainer.max_images=32", "trainer.batch=16", "evaluation.n=0", "logger=none", "trainer.log_every=16"]


class Best(nn.Module):
    """The logits of p(y | x_t) for x = ±1 in one dimension on VP, whose input is as it is: log-odds 2αx/σ²."""

    def forward(self, x, c):
        p = VP()(c, 2)
        return torch.cat([-p.alpha * x / p.sigma**2, p.alpha * x / p.sigma**2], 1)


def build(common, network, path=None, embedding=None, times=None, classes=2, dim=1):
    return NoisyClassifier(
        network=network,
        path=path or VP(),
        embedding=embedding or Time(1.0),
        times=times or Uniform(0.3, 0.3),
        **common(dim, classes),
    )


@torch.no_grad()
def test_loss_of_the_best_network_is_the_entropy_that_is_left(common):
    """H(y | x_t) at one time, by quadrature; and the best accuracy is Φ(α/σ)."""
    n, p = 200_000, VP()(torch.tensor(0.3), 1)
    model = build(common, Best())
    y = torch.arange(n) % 2
    torch.manual_seed(0)
    terms = model.loss(MEANS[y][:, None], y)
    x = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    density = torch.exp(-((x - p.alpha) ** 2) / (2 * p.sigma**2)) / (p.sigma * (2 * torch.pi) ** 0.5)
    entropy = (density * torch.nn.functional.softplus(-2 * p.alpha * x / p.sigma**2)).sum() * (x[1] - x[0])
    assert terms["loss"].item() == pytest.approx(entropy.item(), abs=4 * n**-0.5)
    best = 0.5 * (1 + torch.erf(p.alpha / p.sigma / 2**0.5)).item()
    assert 0.6 < best < 0.99
    assert terms["accuracy"].item() == pytest.approx(best, abs=4 * (best * (1 - best) / n) ** 0.5)


def test_its_input_has_unit_size_on_an_exploding_path(common):
    seen = []

    class Recorder(nn.Module):
        def forward(self, x, c):
            seen.append(x)
            return torch.zeros(len(x), 2)

    model, t = build(common, Recorder(), VE(0.01, 50.0)), torch.tensor(1.0)
    posterior = model.log_posterior(torch.tensor([[100.0]]), t)
    torch.testing.assert_close(seen[0], torch.tensor([[100 / 2501**0.5]]))
    torch.testing.assert_close(posterior, torch.full((1, 2), 0.5).log())


def test_it_needs_labels_and_draws_nothing(common):
    with pytest.raises(GenlabError, match="labels"):
        build(common, Best(), classes=0)
    with pytest.raises(GenlabError, match="draws no samples"):
        build(common, Best()).generate(NoiseStream(0), 4)


# ---------------------------------------------------------------------- guiding a model


def diffusion(common, guidance=None, classes=3, drop=0.1, width=16, depth=2, steps=10):
    torch.manual_seed(0)
    return Diffusion(
        denoiser=Denoiser(NoisyMLP(2, width, depth, classes, Sinusoidal(width)), TABLE, Eps(), Index()),
        times=Steps(1000),
        weight=Unit(),
        sampler=DDIM(steps, Trailing(), eta=0.0),
        guidance=guidance,
        label_drop=drop,
        **common(2, classes, lr=2e-3, algorithm=torch.optim.Adam),
    )


def classifier(common, width=16, classes=3):
    torch.manual_seed(1)
    network = EncoderMLP(2, width, 2, classes, Sinusoidal(width))
    return NoisyClassifier(
        network=network,
        path=Table(linear_betas(1000, 1e-4, 0.02)),
        embedding=Index(),
        times=Steps(1000),
        **common(2, classes, lr=2e-3, algorithm=torch.optim.Adam),
    )


@pytest.fixture
def common(common):
    """As every family's, with the choice of the optimizer."""

    def build(dim, classes=0, lr=0.1, algorithm=torch.optim.SGD):
        arguments = common(dim, classes, lr=lr)
        arguments["optimizer"].algorithm = algorithm
        return arguments

    return build


def test_guidance_adds_no_weights(common):
    theirs = classifier(common)
    plain = diffusion(common)
    for guidance in (
        lambda denoiser, classes: ClassifierFree(denoiser, classes, w=1.0),
        lambda denoiser, classes: Classifier(denoiser, classes, theirs, 1.0),
    ):
        guided = diffusion(common, guidance)
        assert list(guided.state_dict()) == list(plain.state_dict())
        assert len(list(guided.parameters())) == len(list(plain.parameters()))
        y = torch.tensor([0, 1, 2, 2])
        assert not torch.equal(guided.generate(NoiseStream(0), 4, y), plain.generate(NoiseStream(0), 4, y))
        x = torch.randn(4, 2)
        torch.manual_seed(0)
        loss = plain.loss(x, y)["loss"]
        torch.manual_seed(0)
        assert torch.equal(guided.loss(x, y)["loss"], loss)  # in sampling alone


def test_labels_of_an_unconditional_model_are_those_of_its_classifier(common):
    theirs = classifier(common)
    model = diffusion(common, lambda denoiser, classes: Classifier(denoiser, classes, theirs, 1.0), classes=0)
    assert model.choices == 3
    assert model.classes == 0
    assert model.labels(NoiseStream(0), 900, None).bincount(minlength=3).min() > 200
    assert model.generate(NoiseStream(0), 4, torch.tensor([0, 1, 2, 0])).isfinite().all()
    for wrong in (3, -1):
        with pytest.raises(GenlabError, match=rf"y={wrong}: the labels are 0 to 2"):
            model.generate(NoiseStream(0), 2, torch.tensor([0, wrong]))


@pytest.mark.slow
def test_guided_points_land_in_the_mode_they_were_asked_for(common, fit):
    """On the ring, at equal training: more of them with guidance than without, by either kind."""
    ring = Ring(std=0.35)
    batches = [ring.sample(512, torch.Generator().manual_seed(k)) for k in range(300)]
    batches = [Batch(x, y) for x, y in batches]
    free = lambda w: lambda denoiser, classes: ClassifierFree(denoiser, classes, w=w)
    models = {c: diffusion(common, None, c, 0.1, 64, 3, 25) for c in (0, 8)}
    theirs = classifier(common, 64, 8)
    for module in (*models.values(), theirs):
        fit(module, batches)
    by = lambda s: lambda denoiser, classes: Classifier(denoiser, classes, theirs.eval(), s)

    def hits(classes, guidance):
        model = diffusion(common, guidance, classes, 0.1, 64, 3, 25)
        model.load_state_dict(models[classes].state_dict())
        y = torch.arange(2000) % 8
        x = model.eval().generate(NoiseStream(0), 2000, y if model.choices else None)
        return (torch.cdist(x.double(), ring.centres).argmin(1) == y).double().mean().item()

    share = {
        "conditional": hits(8, None),
        "w=1": hits(8, free(1.0)),
        "conditional, scale 1": hits(8, by(1.0)),
        "unconditional": hits(0, None),
        "unconditional, scale 1": hits(0, by(1.0)),
        "unconditional, scale 3": hits(0, by(3.0)),
    }
    print(share)  # 0.860, 0.996, 1.000, 0.136, 0.913, 1.000 when this was written
    assert share["w=1"] > share["conditional"] + 0.01
    assert share["conditional, scale 1"] > share["conditional"] + 0.01
    assert share["unconditional"] < 0.2
    assert share["unconditional, scale 1"] > 0.6
    assert share["unconditional, scale 3"] > share["unconditional, scale 1"]


# ---------------------------------------------------------------------- as runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A classifier, and a model with labels and one without, each after two batches."""
    outputs = tmp_path_factory.mktemp("runs")
    recipes = {
        "classifier": ["experiment=digits/noisy_classifier"],
        "conditional": ["experiment=digits/ddpm_conditional", "sampler.steps=2"],
        "unconditional": ["experiment=digits/ddpm", "sampler.steps=2"],
    }
    for name, recipe in recipes.items():
        train(preflight("train", [*recipe, f"outputs={outputs}", *SMALL]), outputs / name)
    return outputs


def test_a_classifier_is_a_run_that_ends_with_its_accuracy_and_draws_nothing(runs):
    its = runs / "classifier"
    status = json.loads((its / "status.json").read_text())
    rows = [json.loads(line) for line in (its / "history.jsonl").read_text().splitlines()]
    assert status["state"] == "finished"
    assert [row["val/accuracy"] for row in rows if "val/accuracy" in row] == [status["objective"]]
    assert 0 <= status["objective"] <= 1
    assert not (its / "metrics.jsonl").exists()
    with pytest.raises(GenlabError, match="draws no samples"):
        sample(its, Options(n=2), [])
    with pytest.raises(GenlabError, match="takes no guidance"):
        sample(its, Options(n=2), ["guidance=classifier_free"])


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("conditional", []),
        ("conditional", ["guidance.w=0"]),
        ("conditional", ["guidance=classifier_free_interval"]),
        ("conditional", ["guidance=classifier", "guidance.classifier.run=ITS", "guidance.scale=2"]),
        ("unconditional", ["guidance=classifier", "guidance.classifier.run=ITS", "guidance.scale=2"]),
    ],
)
@pytest.mark.parametrize("y", [3, None])
def test_a_run_is_sampled_with_the_guidance_asked_for(runs, tmp_path, name, overrides, y):
    overrides = [text.replace("ITS", str(runs / "classifier")) for text in overrides]
    folder = sample(runs / name, Options(n=4, y=y, out=str(tmp_path)), overrides)
    with np.load(folder / "samples.npz") as file:
        assert file["x"].shape == (4, 1, 8, 8)
        assert len(file["y"]) == 4
        assert set(file["y"]) <= (set(range(10)) if y is None else {y})


@pytest.mark.parametrize(
    ("name", "overrides", "line"),
    [
        ("unconditional", ["guidance.w=1"], "name one before"),
        ("unconditional", ["guidance=classifier_free", "guidance.w=1"], r"model\.classes=K"),
        ("conditional", ["guidance=classifier_free"], "guidance.w or guidance.scale"),
        ("conditional", ["guidance.scale=2"], "give one of them"),
        ("conditional", ["guidance=classifier"], r"guidance\.classifier\.run=RUN"),
        ("conditional", ["guidance=classifier", "guidance.classifier.run=nowhere"], "not a run directory"),
        ("conditional", ["guidance=classifier", "guidance.classifier.run=OWN"], "model=noisy_classifier"),
        ("conditional", ["guidance=classifier_fre"], "did you mean classifier_free"),
    ],
)
def test_what_cannot_guide_is_told_in_one_line(runs, name, overrides, line):
    overrides = [text.replace("OWN", str(runs / "conditional")) for text in overrides]
    with pytest.raises(GenlabError, match=line) as caught:
        sample(runs / name, Options(n=2), overrides)
    assert "\n" not in str(caught.value)


def test_labels_outside_the_classes_are_told_in_one_line(runs):
    with pytest.raises(GenlabError, match="y=10: the labels are 0 to 9"):
        sample(runs / "conditional", Options(n=2, y=10), [])


def test_models_of_one_step_take_no_guidance():
    guidance = ["guidance=classifier_free", "guidance.w=1"]
    with pytest.raises(GenlabError, match="takes no guidance"):
        preflight("train", ["experiment=digits/vae", *guidance])
    with pytest.raises(GenlabError, match="takes no guidance"):
        overridden({"model": {"latent": 32}}, guidance)


@torch.no_grad()
def test_guiding_costs_two_evaluations_a_step(common):
    model = diffusion(common, lambda denoiser, classes: ClassifierFree(denoiser, classes, w=1.0), steps=5)
    for drawing, nfe in ((model, 10), (diffusion(common, steps=5), 5)):
        cost = Cost()
        assert [chunk.first for chunk in drawn(drawing, 4, 4, 0, cost)] == [0]
        assert cost.nfe == nfe


@pytest.mark.slow
def test_guidance_is_in_the_protocol_and_a_classifier_in_no_ones_way(runs, tmp_path):
    rows = rescore(runs / "conditional", ["frechet"], EvaluateOptions(), ["evaluation.n=24", "guidance.w=2"])
    assert rows[0]["protocol"]["guidance"]["w"] == 2
    assert rows[0]["protocol"]["nfe"] == 4  # two steps, of two evaluations each
    with pytest.raises(GenlabError, match="draws no samples"):
        rescore(runs / "classifier", [], EvaluateOptions(), ["evaluation.n=24"])
    report = compare([runs], tmp_path)
    assert len(report.tables[0].rows) == 3
