"""What is written once for every family: mirrored images and the norms of gradients."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from torch.utils.data import DataLoader

from genlab.averaging import Constant
from genlab.callbacks.finite import Finite
from genlab.codec import Vectors
from genlab.config import preflight
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.instantiation import build
from genlab.module import GenerativeModule
from genlab.optimization import Optimization
from genlab.run import Run
from genlab.training import train

FAMILIES = ["digits/vae", "digits/dcgan", "digits/ddpm"]
TINY = ["trainer.batch=16", "trainer.log_every=16", "evaluation.n=0", "logger=none", "trainer.max_images=64"]


def made(*overrides: str) -> GenerativeModule:
    return build(preflight("train", [*overrides, "logger=none"]).model)


def images(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_half_of_the_images_are_mirrored_and_none_is_otherwise_changed() -> None:
    x, y = images(4000), torch.arange(4000)
    torch.manual_seed(1)
    batch = made("experiment=digits/vae", "data.flip=true").mirrored(Batch(x, y))
    flipped = (batch.x == x.flip(3)).all((1, 2, 3))
    assert torch.equal(batch.x[~flipped], x[~flipped])
    assert batch.x.dtype == torch.uint8
    assert batch.y is y
    assert abs(flipped.float().mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flip", [False, True])
def test_every_family_mirrors_in_training_and_only_there(
    family: str, flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = made(f"experiment={family}", f"data.flip={str(flip).lower()}")
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(module, "fit_batch", lambda batch: seen.append(batch.x) or {})
    monkeypatch.setattr(module, "loss", lambda x, y: seen.append(module.codec.decode(x)) or {})
    x = images(64) // 16 * 17  # on the lattice of the digits' 17 levels only at 0 and 255
    x = module.codec.decode(module.codec.encode(x))
    module.training_step(Batch(x, None), 0)
    module.validation_step(Batch(x, None), 0)
    trained, validated = seen
    assert torch.equal(trained, x) is not flip
    assert torch.equal(validated, x)


def test_points_cannot_be_mirrored() -> None:
    with pytest.raises(GenlabError, match=r"set data\.flip=false"):
        made("experiment=planar/vae", "data.flip=true")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mirrored_run_goes_on_as_if_it_had_not_stopped(family: str, outputs: Path) -> None:
    overrides = [f"experiment={family}", "data.flip=true", *TINY]
    if family == "digits/ddpm":
        overrides.append("sampler.steps=2")
    weights = []
    for budgets in ((64,), (32, 64)):
        folder = outputs / str(len(budgets))
        for budget in budgets:
            train(preflight("train", [*overrides, f"trainer.max_images={budget}"]), folder)
        weights.append(torch.load(folder / "checkpoints" / "000000064.pt", weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("family", ["digits/vae", "digits/dcgan"])
def test_that_every_step_is_left_out_is_said_once_and_recorded(
    family: str, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(preflight("train", [f"experiment={family}", *TINY, "optimizer.skip_norm=1e-9"]), outputs / "run")
    assert capsys.readouterr().err.count("every step is left out: gradients are of norm") == 1
    rows = [json.loads(line) for line in (outputs / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["train/alarm"] for row in rows] == [1.0] * 4


def test_the_scale_of_a_precision_goes_on_where_it_was(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16-mixed has one, on CUDA alone; its plugin's state is in the checkpoint."""
    given: list[dict[str, Any]] = []
    monkeypatch.setattr(Precision, "state_dict", lambda self: {"scale": 32.0})
    monkeypatch.setattr(Precision, "load_state_dict", lambda self, state: given.append(state))
    for budget in (32, 64):
        train(preflight("train", ["experiment=digits/vae", *TINY, f"trainer.max_images={budget}"]), outputs / "run")
    assert given == [{"scale": 32.0}]


def test_batches_for_which_a_scale_is_halved_end_no_run() -> None:
    """65,536 takes eleven of them until gradients of a thousand fit into float16."""
    finite, scales = Finite(cast(Run, SimpleNamespace(last_good="")), limit=2), [2.0**k for k in range(16, -1, -1)]
    plugin = SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: scales.pop(0) if scales else 1.0))
    trainer, module = SimpleNamespace(precision_plugin=plugin), SimpleNamespace(nonfinite=["all"], images_seen=0)
    for _ in range(18):
        finite.on_train_batch_end(trainer, module)  # type: ignore[arg-type]
    assert finite.total == 18
    with pytest.raises(GenlabError, match="for 3 batches in a row"):
        finite.on_train_batch_end(trainer, module)  # type: ignore[arg-type]


class Line(GenerativeModule):
    """w·x is 1 in the least squares; no random number is drawn."""

    averaged = ()

    def __init__(self) -> None:
        rule = Optimization(lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9), lr=0.1, clip_norm=0.5)
        super().__init__(Vectors(1.0), (2,), rule, Constant(0.0))
        self.w = torch.nn.Parameter(torch.tensor([3.0, -2.0]))

    def loss(self, x: torch.Tensor, y: torch.Tensor | None) -> dict[str, torch.Tensor]:
        return {"loss": (x @ self.w - 1).square().mean(), "size": x.square().mean()}

    def sample(self, noise: Any, n: int, y: torch.Tensor | None = None) -> torch.Tensor:
        raise NotImplementedError


class Outputs(L.Callback):
    """What every batch says of itself."""

    def __init__(self) -> None:
        self.terms: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.terms.append({name: term.item() for name, term in {**outputs, **pl_module.grad_norms}.items()})


def test_a_batch_in_parts_moves_weights_as_the_whole_does(tmp_path: Path) -> None:
    """Four steps with momentum and clipped gradients; the terms that are logged are those of the whole batch."""
    batches = [Batch(torch.randn(8, 2, generator=torch.Generator().manual_seed(k)), None) for k in range(4)]
    found = []
    for accumulate in (1, 4):
        module, outputs = Line(), Outputs()
        module.accumulate = accumulate
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}
        trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path, callbacks=[outputs], **quiet)
        trainer.fit(module, DataLoader(batches, batch_size=None))
        assert trainer.global_step == 4
        found.append((module.w.detach(), outputs.terms))
    (whole, terms), (parts, own) = found
    torch.testing.assert_close(parts, whole)
    assert (whole - Line().w).norm() > 0.05
    for a, b in zip(own, terms, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize("family", ["digits/vae", "digits/wgan_gp"])
def test_a_run_of_parts_goes_on_as_if_it_had_not_stopped(family: str, outputs: Path) -> None:
    tiny = [f"experiment={family}", *TINY, "trainer.accumulate=4"]
    weights = []
    for budgets in ((64,), (16, 64)):
        folder = outputs / str(len(budgets))
        for budget in budgets:
            train(preflight("train", [*tiny, f"trainer.max_images={budget}"]), folder)
        weights.append(torch.load(folder / "checkpoints" / "000000064.pt", weights_only=True))
    assert weights[0]["images_seen"] == 64
    for name, value in weights[0]["state_dict"].items():
        assert torch.equal(value, weights[1]["state_dict"][name]), name


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["experiment=digits/vae"], ["grad_norm"]),
        (["experiment=digits/wgan_gp", "model.n_critic=2"], ["grad_norm/0", "grad_norm/1"]),
    ],
)
def test_history_has_the_norm_of_the_gradients_that_were_there(
    overrides: list[str], names: list[str], outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of each optimizer's own norms since the last line, before clipping; none where it did not move."""
    norms: dict[str, list[float]] = {name: [] for name in names}
    own = GenerativeModule.on_before_optimizer_step

    def spied(self: GenerativeModule, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        which = next(i for i, o in enumerate(self.trainer.optimizers) if o is optimizer)
        norms[names[which]].append(torch.cat([g.flatten() for g in gradients]).double().norm().item())
        own(self, optimizer)

    monkeypatch.setattr(GenerativeModule, "on_before_optimizer_step", spied)
    tiny = [*TINY, "trainer.log_every=32", "optimizer.clip_norm=0.01"]
    train(preflight("train", [*overrides, *tiny]), outputs / "run")
    rows = [json.loads(line) for line in (outputs / "run" / "history.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "train/images_per_second" in row]
    assert [row["images_seen"] for row in rows] == [32, 64]
    for name, found in norms.items():
        each = len(found) // 2  # 2 of a critic or a single optimizer, 1 of a generator whose turn is every second batch
        assert each == (1 if name == "grad_norm/0" else 2)
        for k, row in enumerate(rows):
            expected = sum(found[k * each : (k + 1) * each]) / each
            assert expected > 0.01
            assert row[f"train/{name}"] == pytest.approx(expected, rel=1e-5)
