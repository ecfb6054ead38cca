"""Losses and gradients that are no numbers move nothing, and end a run when they do not cease."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from fault_runs import FAMILIES, TINY, assert_equal, rows
from torch import Tensor

from genlab.callbacks.finite import Finite
from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.paradigms.gan import GAN
from genlab.run import Run
from genlab.training import train

Fault = Callable[[str], AbstractContextManager[None]]
ROW = "10 a batch that is no number"
SHORT = ["trainer.max_images=160", "trainer.log_every=80", "trainer.checkpoint_every=48", "evaluation.n=0"]
CASES = {
    "diffusion": FAMILIES["diffusion"],
    "gan-ada": FAMILIES["gan-ada"],  # batch norm, ADA and LeCam's means see the batch before its loss is known
    "vae": FAMILIES["vae"],
    "nvae": FAMILIES["nvae"],
}


def states(module: GenerativeModule) -> dict[str, object]:
    """All that a batch may change."""
    optimizers = [optimizer.state_dict()["state"] for optimizer in module.trainer.optimizers]
    tensors = {name: t.clone() for name, t in module.state_dict().items()}
    return {"tensors": tensors, "optimizers": [{k: {n: v.clone() for n, v in s.items()} for k, s in o.items()} for o in optimizers]}  # fmt: skip


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[int]]:
    """Images that are no numbers from one point of training to another; what such a batch leaves must be as it was."""

    def spoil(first: int, last: int) -> list[int]:
        kept: list[dict[str, object]] = []
        checked: list[int] = []
        original_step, original_end = GenerativeModule.training_step, Finite.on_train_batch_end

        def training_step(self: GenerativeModule, batch, batch_idx: int):  # type: ignore[no-untyped-def]
            if first <= self.images_seen < last:
                kept.append(states(self))
                encode = self.codec.encode
                self.codec.encode = lambda x: encode(x) * torch.nan
                try:
                    return original_step(self, batch, batch_idx)
                finally:
                    del self.codec.encode
            return original_step(self, batch, batch_idx)

        def on_train_batch_end(self: Finite, trainer, module: GenerativeModule, *more) -> None:  # type: ignore[no-untyped-def]
            if kept:
                before, after = kept.pop(), states(module)
                if isinstance(module, GAN) and len(module.nonfinite) == 1:  # the generator's turn sees no image
                    before, after = critic(before), critic(after)
                assert_equal(after, before)
                checked.append(module.images_seen)
            original_end(self, trainer, module, *more)

        monkeypatch.setattr(GenerativeModule, "training_step", training_step)
        monkeypatch.setattr(Finite, "on_train_batch_end", on_train_batch_end)
        return checked

    return spoil


def critic(state: dict) -> dict:
    """What is the critic's of a state, and not the statistics of its layers, which the generator's turn moves."""
    names = [n for n in state["tensors"] if not n.startswith("generator") and "running" not in n and "num_" not in n]
    tensors = {name: state["tensors"][name] for name in names}
    return {"tensors": tensors, "optimizers": state["optimizers"][1:]}


@pytest.mark.parametrize("family", [pytest.param(f, marks=[] if f == "vae" else pytest.mark.faults) for f in CASES])
def test_one_batch_is_skipped_and_counted(
    family: str, outputs: Path, spoiled: Callable[[int, int], list[int]], fault: Fault
) -> None:
    with fault(ROW):
        checked = spoiled(64, 96)
        train(preflight("train", [*TINY, *CASES[family], *SHORT]), outputs / "run")
        run = Run(outputs / "run")
        assert checked == [80, 96]
        assert run.status["nonfinite"] == 2
        counted = {
            row["images_seen"]: row["train/nonfinite"] for row in rows(run, "history.jsonl") if "train/nonfinite" in row
        }
        assert counted == {80: 1, 160: 1}
        assert all(v is not None for row in rows(run, "history.jsonl") for v in row.values()), (
            "no null: means are of numbers"
        )
        state = run.load_checkpoint()
        assert state is not None
        for part in (state["state_dict"], *state["averages"].values()):
            assert all(t.isfinite().all() for t in part.values())


@pytest.mark.faults
@pytest.mark.parametrize("family", CASES)
def test_too_many_in_a_row_end_the_run_with_its_place(
    family: str, outputs: Path, spoiled: Callable[[int, int], list[int]], fault: Fault
) -> None:
    with fault(ROW):
        checked = spoiled(64, 10**9)
        with pytest.raises(GenlabError) as caught:
            train(preflight("train", [*TINY, *CASES[family], *SHORT, "trainer.skip_nonfinite=2"]), outputs / "run")
        said = str(caught.value)
        assert checked == [80, 96, 112]
        assert "at 112 images, for 3 batches in a row" in said
        assert ("discriminator" if family == "gan-ada" else "gradients of") in said
        assert "000000096.pt" in said
        run = Run(outputs / "run")
        assert run.status["state"] == "failed"
        state = run.load_checkpoint()
        assert state is not None
        assert state["images_seen"] == 96
        assert all(t.isfinite().all() for t in state["state_dict"].values())


@pytest.mark.faults
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_loss_that_is_no_number_is_found_though_its_gradients_are(
    value: float, outputs: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    original = GenerativeModule._terms

    def terms(self: GenerativeModule, batch) -> dict[str, Tensor]:  # type: ignore[no-untyped-def]
        found = original(self, batch)
        return {**found, "loss": found["loss"] + value} if self.training and self.images_seen == 64 else found

    monkeypatch.setattr(GenerativeModule, "_terms", terms)
    with fault(ROW):
        train(preflight("train", [*TINY, *FAMILIES["vae"], *SHORT]), outputs / "run")
        assert Run(outputs / "run").status["nonfinite"] == 1


@pytest.mark.faults
def test_a_row_of_them_that_spans_a_checkpoint_is_one_row(
    outputs: Path, spoiled: Callable[[int, int], list[int]], fault: Fault
) -> None:
    with fault(ROW):
        spoiled(64, 10**9)
        overrides = [*TINY, *FAMILIES["diffusion"], *SHORT, "trainer.skip_nonfinite=3"]
        train(preflight("train", [*overrides, "trainer.max_images=96"]), outputs / "run")
        with pytest.raises(GenlabError, match="at 128 images, for 4 batches in a row"):
            train(preflight("train", overrides), outputs / "run")
