"""The error of x̂ by noise level, where it is known, and what it costs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.averaging import Constant
from genlab.callbacks.guard import Preempted
from genlab.callbacks.validation import Validation
from genlab.codec import Vectors
from genlab.config import preflight
from genlab.data.source import Batch
from genlab.evaluation.protocol import counted
from genlab.gaussian.denoiser import Denoiser, Time
from genlab.gaussian.parametrization import X
from genlab.gaussian.path import GaussianPath, Karras, Linear
from genlab.gaussian.times import LogNormal, Times, Uniform
from genlab.gaussian.weights import Unit
from genlab.instantiation import build as instantiated
from genlab.optimization import Optimization
from genlab.paradigms.diffusion import Diffusion
from genlab.run import Run
from genlab.scoring import load
from genlab.training import train

STD = torch.tensor([0.3, 2.0])


class Unused:
    """Validation draws no samples."""

    needs = "denoiser"

    def check(self, denoiser: Denoiser) -> None: ...


class Best(nn.Module):
    """E[x | x_t] of data N(0, STD²)."""

    def __init__(self, path: GaussianPath):
        super().__init__()
        self.path = path

    def forward(self, x_t: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        p = self.path(c, 2)
        return p.alpha * STD**2 / (p.alpha**2 * STD**2 + p.sigma**2) * x_t


def build(path: GaussianPath, times: Times) -> Diffusion:
    return Diffusion(
        denoiser=Denoiser(Best(path), path, X(), Time(1.0)),
        times=times,
        weight=Unit(),
        sampler=Unused(),  # type: ignore[arg-type]
        label_drop=0.0,
        codec=Vectors(1.0),
        shape=(2,),
        optimizer=Optimization(torch.optim.SGD, lr=0.1),
        averaging=Constant(0.9),
    )


@pytest.mark.parametrize(
    ("path", "times"), [(Linear(), Uniform()), (Karras(80.0), LogNormal(-1.2, 1.2))], ids=["linear", "karras"]
)
@torch.no_grad()
def test_error_of_the_best_denoiser_is_the_variance_that_is_left(path: GaussianPath, times: Times) -> None:
    """Var[x | x_t] = s²σ²/(α²s² + σ²) at the quantiles (k + 1/2)/10 of p(t)."""
    model, n = build(path, times), 100_000
    torch.manual_seed(0)
    x = torch.randn(n, 2) * STD
    with counted(model.denoiser.network) as evaluations:
        found = model.validation_step(Batch(x, None), 0)
    assert evaluations.rows == 2 * n  # the loss, and once more for all levels together
    p = path(times.quantile((torch.arange(10) + 0.5) / 10), 2)
    left = (STD**2 * p.sigma**2 / (p.alpha**2 * STD**2 + p.sigma**2)).mean(1)
    errors = torch.stack([found[f"x_error/{k}"] for k in range(10)])
    # a mean of squares of N(0, v): its relative error is about √(2/n') with n' = n/10 rows
    torch.testing.assert_close(errors, left, rtol=5 * (2 / (n / 10)) ** 0.5, atol=0)
    assert (errors.diff() > 0).all()


def test_a_small_batch_tells_nothing_and_the_loss_is_as_before() -> None:
    model, x = build(Linear(), Uniform()), torch.randn(9, 2)
    assert set(model.validation_step(Batch(x, None), 0)) == {"loss"}
    x = torch.randn(10, 2)
    torch.manual_seed(0)
    found = model.validation_step(Batch(x, None), 0)
    torch.manual_seed(0)
    assert len(found) == 11
    torch.testing.assert_close(found["loss"], model.loss(x, None)["loss"])


def test_history_has_the_errors(tmp_path: Path) -> None:
    tiny = ["trainer.batch=16", "trainer.max_images=32", "trainer.validate_every=16", "evaluation.n=0", "logger=none"]
    train(preflight("train", ["experiment=digits/flow_matching", "sampler.steps=2", *tiny]), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    row = next(row for row in rows if "val/loss" in row)
    assert [key for key in row if key.startswith("val/x_error")] == [f"val/x_error/{k}" for k in range(10)]
    assert row["val/x_error/9"] > row["val/x_error/0"]


FIRST_STAGE = ["experiment=digits/vqvae", "trainer.batch=100", "trainer.max_images=200", "logger=none"]


def test_the_mean_over_held_out_data_is_that_of_its_images(tmp_path: Path) -> None:
    """360 images in batches of 100: the last one's 60 weigh as 60."""
    found = train(preflight("train", FIRST_STAGE), tmp_path / "run")
    run = Run(tmp_path / "run")
    module, _ = load(run, run.config, "ema", trust=False)
    held_out = instantiated(preflight("train", FIRST_STAGE).data.source).split("test")
    with torch.no_grad():
        whole = module.eval().validation_step(held_out, 0)
    assert len(held_out.x) == 360
    assert found == pytest.approx(whole["reconstruction"].item(), rel=1e-5)


def test_a_run_that_is_stopped_in_its_last_validation_is_not_finished_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = preflight("train", FIRST_STAGE)
    undisturbed = train(config, tmp_path / "whole")
    original = Validation.act

    def stopped(self: Validation, trainer: Any, module: Any) -> None:
        if module.images_seen == 200:
            monkeypatch.setattr(Validation, "act", original)
            raise Preempted(15)
        original(self, trainer, module)

    monkeypatch.setattr(Validation, "act", stopped)
    with pytest.raises(SystemExit):
        train(config, tmp_path / "run")
    assert Run(tmp_path / "run").status["state"] == "preempted"
    assert train(config, tmp_path / "run") == undisturbed
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert sum("val/reconstruction" in row for row in rows) == 1
