"""A run as a whole: resumed exactly, recorded fully, stopped politely."""

import json
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.callbacks.guard import Preempted
from genlab.config import preflight, run_dir
from genlab.errors import GenlabError
from genlab.evaluate import Options, rescore
from genlab.rerun import rerun
from genlab.run import Run
from genlab.tracking import Nothing
from genlab.training import train

TINY = ["trainer.batch=16", "trainer.log_every=32", "trainer.validate_every=48", "evaluation.n=0", "logger=none"]
FAMILIES = {
    "autoregressive": ["experiment=digits/transformer", "optimizer.warmup_images=48", "optimizer.decay_images=null"],
    "diffusion": ["experiment=digits/ddpm", "sampler.steps=2", "optimizer.warmup_images=48"],
    "vae": ["experiment=digits/vae"],
}
RESUME = """
import sys
from pathlib import Path
import torch
from genlab.config import preflight
from genlab.training import train
torch.manual_seed(123)  # nothing may depend on what a process drew before
torch.set_num_threads(int(sys.argv[2]))
train(preflight("train", sys.argv[3:]), Path(sys.argv[1]))
"""


def process(folder: Path, overrides: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RESUME, str(folder), str(torch.get_num_threads()), *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_signal_saves_at_a_batch_boundary_and_the_same_command_goes_on(outputs: Path) -> None:
    overrides = [*FAMILIES["diffusion"], *TINY, "trainer.max_images=1000000"]
    running = process(outputs / "run", overrides)
    deadline = time.time() + 60
    while not (outputs / "run" / "history.jsonl").is_file() and time.time() < deadline:
        time.sleep(0.1)
    with pytest.raises(GenlabError, match="is in use by process"):
        Run(outputs / "run").lock()
    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 128 + signal.SIGTERM, stderr
    assert "the same command continues" in stderr
    run = Run(outputs / "run")
    state = run.load_checkpoint()
    assert state is not None
    assert run.status["state"] == "preempted"
    assert run.status["images_seen"] == state["images_seen"] > 0
    train(preflight("train", [*overrides[:-1], f"trainer.max_images={state['images_seen'] + 16}"]), run.path)
    assert run.status["state"] == "finished"


def test_finished_is_not_repeated_unless_forced(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [*FAMILIES["vae"], *TINY, "trainer.max_images=32", "evaluation.n=8"]
    objective = train(preflight("train", overrides), outputs / "run")
    before = (outputs / "run" / "metrics.jsonl").read_text()
    assert train(preflight("train", overrides), outputs / "run") == objective
    assert "already finished" in capsys.readouterr().out
    assert (outputs / "run" / "metrics.jsonl").read_text() == before
    train(preflight("train", [*overrides, "force=true"]), outputs / "run")
    after = [json.loads(line) for line in (outputs / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(after) == len(before.splitlines())


def test_a_smaller_budget_takes_nothing_from_the_record_of_a_finished_run(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, tiny = Run(outputs / "run"), [*FAMILIES["vae"], *TINY]
    monkeypatch.setenv("GENLAB_REPORT", str(outputs / "report.json"))
    objective = train(preflight("train", [*tiny, "trainer.max_images=40", "evaluation.n=8"]), run.path)
    assert capsys.readouterr().out.startswith(f"genlab: finished: {run.path}: fd_digits {objective:.4g}, trained for ")
    before = run.status
    assert train(preflight("train", [*tiny, "trainer.max_images=16"]), run.path) == objective, "evaluation.n=0"
    assert "already finished, and trained to 48 images" in capsys.readouterr().out
    assert run.status == before
    assert train(preflight("train", [*tiny, "trainer.max_images=16", "evaluation.n=9"]), run.path) != objective
    assert "trained to 48 images already: only drawn and scored again" in capsys.readouterr().out
    assert json.loads((outputs / "report.json").read_text())["why"] == "trained to 48 images", "for the sweep's line"
    assert run.status["max_images"] == run.config["trainer"]["max_images"] == 40


@pytest.mark.parametrize(
    "refused",
    [
        ["evaluation.n=9", "evaluation.reference.statistics=nowhere.npz"],
        ["trainer.max_images=64", "trainer.accelerator=tpu"],
    ],
    ids=["before it is built", "after"],
)
def test_what_fails_before_its_first_batch_takes_nothing_from_a_finished_run(refused: list[str], outputs: Path) -> None:
    run, tiny = Run(outputs / "run"), [*FAMILIES["vae"], *TINY, "trainer.max_images=32", "evaluation.n=8"]
    train(preflight("train", tiny), run.path)
    before = {path: path.read_text() for path in run.path.glob("[chms]*.*")}
    with pytest.raises(GenlabError):
        train(preflight("train", [*tiny, *refused]), run.path)
    assert {path: path.read_text() for path in before} == before
    assert run.status["state"] == "finished"


def test_a_signal_after_the_end_does_not_unfinish_a_run(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """W&B may take minutes for its last uploads."""
    overrides = [*FAMILIES["vae"], *TINY, "trainer.max_images=32", "evaluation.n=8"]

    def stopped(self: Nothing, exit_code: int) -> None:
        raise Preempted(signal.SIGINT)

    monkeypatch.setattr(Nothing, "finish", stopped)
    with pytest.raises(SystemExit) as stop:
        train(preflight("train", overrides), outputs / "run")
    assert stop.value.code == 130
    assert "the run is finished" in capsys.readouterr().err
    before = (outputs / "run" / "metrics.jsonl").read_text()
    assert Run(outputs / "run").status["state"] == "finished"
    assert train(preflight("train", overrides), outputs / "run") is not None
    assert (outputs / "run" / "metrics.jsonl").read_text() == before


def test_other_data_at_the_same_path_are_refused(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the labels alone are others too; and a checkpoint of before this was recorded goes on."""
    x, labels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8), np.arange(40) % 10
    np.savez(outputs / "a.npz", x=x, y=labels)
    data = ["data=folder", "data.source.path=a.npz", "data.shape=[1,8,8]", "data.classes=10"]
    monkeypatch.chdir(outputs)
    overrides = [*FAMILIES["vae"], *data, *TINY]
    train(preflight("train", [*overrides, "trainer.max_images=32"]), outputs / "run")
    assert Run(outputs / "run").config["data"]["source"]["path"] == str(outputs / "a.npz"), "wherever it is read from"
    np.savez(outputs / "a.npz", x=x, y=labels[::-1])
    with pytest.raises(GenlabError, match=r"trained on other data until 32 images .*force=true"):
        train(preflight("train", [*overrides, "trainer.max_images=32"]), outputs / "run")
    run = Run(outputs / "run")
    state = run.load_checkpoint()
    assert state is not None
    assert len(state["conditions"].pop("data")) == 64
    run.save_checkpoint(state, 32, 1)
    train(preflight("train", [*overrides, "trainer.max_images=64"]), outputs / "run")
    assert run.status["images_seen"] == 64


def test_a_job_that_comes_back_does_not_begin_anew_again(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*FAMILIES["vae"], *TINY, "trainer.max_images=32"]
    train(preflight("train", overrides), outputs / "run")
    before = Run(outputs / "run").load_checkpoint()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    train(preflight("train", [*overrides[:-1], "trainer.max_images=48", "force=true"]), outputs / "run")
    after = Run(outputs / "run").load_checkpoint()
    assert before is not None
    assert after is not None
    assert after["seconds"] > before["seconds"]
    kept = sorted(path.stem for path in Run(outputs / "run").checkpoints.glob("*.pt"))
    assert kept == ["000000032", "000000048"], "it went on from the first"


def test_another_sampler_scores_a_finished_run_again_without_training(outputs: Path) -> None:
    overrides = [*FAMILIES["diffusion"], *TINY, "trainer.max_images=32", "evaluation.n=8"]
    train(preflight("train", overrides), outputs / "run")
    before = Run(outputs / "run").load_checkpoint()
    train(preflight("train", [*overrides, "sampler.steps=3"]), outputs / "run")
    rows = [json.loads(line) for line in (outputs / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["value"] for row in rows if row["metric"] == "nfe"] == [2, 3]
    after = Run(outputs / "run").load_checkpoint()
    assert before is not None
    assert after is not None
    assert before["seconds"] == after["seconds"]
    assert len((outputs / "run" / "history.jsonl").read_text().splitlines()) == 1


MINE = """
import torch
class Net(torch.nn.Conv2d):
    def __init__(self, channels, **_): super().__init__(channels, channels, 1)
    def forward(self, x, c, y=None): return super().forward(x)
"""


def test_a_class_of_the_users_own_is_trained_and_scored_by_his_word_alone(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (outputs / "mine.py").write_text(MINE)
    monkeypatch.syspath_prepend(outputs)
    overrides = [*FAMILIES["diffusion"], *TINY, "trainer.max_images=32", "network._target_=mine.Net"]
    with pytest.raises(GenlabError, match=r"mine\.Net is not genlab's own.*trust=true"):
        train(preflight("train", overrides), outputs / "run")
    config = preflight("train", [*overrides, "trust=true"])
    assert run_dir(config) == run_dir(preflight("train", overrides))
    train(config, outputs / "run")
    assert "trust" not in Run(outputs / "run").config
    for trust in (True, False):
        with nullcontext() if trust else pytest.raises(GenlabError, match="refused"):
            rescore(outputs / "run", ["frechet"], Options(trust=trust), ["evaluation.n=8"])
    Run(outputs / "run").write_config({**Run(outputs / "run").config, "trust": True})
    with pytest.raises(GenlabError, match="refused"):
        rerun(outputs / "run", None, [])
    rerun(outputs / "run", None, [], trust=True)


def test_every_number_carries_its_protocol(outputs: Path) -> None:
    train(
        preflight("train", [*FAMILIES["diffusion"], *TINY, "trainer.max_images=32", "evaluation.n=8"]), outputs / "run"
    )
    rows = {row["metric"]: row for row in map(json.loads, (outputs / "run" / "metrics.jsonl").read_text().splitlines())}
    row = rows["fd_digits"]
    assert row["protocol"]["n_fake"] == 8
    assert row["protocol"]["n_real"] == 360
    assert row["protocol"]["nfe"] == rows["nfe"]["value"] == 2
    assert len(row["protocol"]["extractor_sha256"]) == 64
    assert row["protocol"]["checkpoint"] == {"images_seen": 32, "which": "last"}
    assert row["references"]["train"]["n"] == row["references"]["noise"]["n"] == 8
    assert row["references"]["noise"]["value"] > row["references"]["train"]["value"]


def test_a_loss_that_is_no_number_ends_the_run_in_one_line_and_keeps_the_last_good_weights(outputs: Path) -> None:
    overrides = [*FAMILIES["vae"], *TINY, "trainer.max_images=640", "optimizer.lr=1e30", "optimizer.warmup_images=0"]
    with pytest.raises(GenlabError, match=r"optimizer\.lr"):
        train(preflight("train", overrides), outputs / "run")
    status = Run(outputs / "run").status
    assert status["state"] == "failed"
    assert "optimizer.lr" in status["why"]
    assert list((outputs / "run" / "checkpoints").glob("*.pt")) == []


def test_a_batch_larger_than_the_data_is_refused(outputs: Path) -> None:
    with pytest.raises(GenlabError, match=r"trainer\.batch=2000 is larger than the data \(1437 samples\)"):
        train(preflight("train", [*FAMILIES["vae"], *TINY, "trainer.batch=2000"]), outputs / "run")
    assert Run(outputs / "run").status["state"] == "failed"


def test_secrets_stay_out_of_the_record(outputs: Path) -> None:
    run = Run(outputs)
    run.write_config({"logger": {"api_key": "hunter2", "mode": "offline"}})
    assert run.config == {"logger": {"api_key": "(redacted)", "mode": "offline"}}


@pytest.mark.parametrize("choice", ["accelerator=abacus", "accelerator=tpu"])
def test_what_lightning_has_not_is_one_line(choice: str, outputs: Path) -> None:
    with pytest.raises(GenlabError, match="trainer: ") as error:
        train(
            preflight("train", ["experiment=digits/vae", "logger=none", "evaluation.n=0", f"trainer.{choice}"]),
            outputs / "run",
        )
    assert "\n" not in str(error.value)
    assert Run(outputs / "run").status["state"] == "failed"
