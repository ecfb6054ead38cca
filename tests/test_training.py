"""A run as a whole: resumed exactly, recorded fully, stopped politely."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.run import Run
from genlab.training import Session, train

TINY = ["trainer.batch=16", "trainer.log_every=32", "trainer.validate_every=48", "evaluation.n=0", "logger=none"]
FAMILIES = {
    "diffusion": ["experiment=digits/ddpm", "sampler.steps=2", "optimizer.warmup_images=48"],
    "gan": ["experiment=digits/wgan_gp", "model.n_critic=3"],
    "gan-ada": [  # with all that a GAN remembers: p and the signs of ADA, LeCam's means, the turns of lazy R1
        *(
            "experiment=digits/dcgan",
            "model.n_critic=2",
            "critic_augment=ada",
            "critic_augment.images=200",
            "critic_augment.p=0.5",
        ),
        *("penalty=r1_lecam", "penalty.terms.r1.every=4", "averaging=half_life"),  # ADA is cut between two of its moves
    ],
    "vae": ["experiment=digits/vae"],
    "nvae": [  # with all that a ladder remembers: batch norms, directions of the largest singular values, the rate's way in
        *("experiment=digits/hvae", "model=nvae", "network.blocks=2", "network.width=8", "network.outer=1"),
        *("variational.objective.warmup_images=96", "optimizer.skip_norm=1e9"),
    ],
    "kl": ["experiment=digits/kl_small", "model.start=64"],  # the discriminator begins before the cut
    "vqvae": ["experiment=digits/vqvae", "model.codebook.revive=0.5"],  # codes are put elsewhere in every batch
    # begun by its first batch, and with noise that is learned
    "flow": ["experiment=digits/glow", "network.depth=2", "dequantization=variational"],
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


def assert_equal(a: Any, b: Any, path: str = "") -> None:
    """Bit for bit, all the way down."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for k in a:
            if k != "seconds":
                assert_equal(a[k], b[k], f"{path}/{k}")
    elif isinstance(a, list):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{path}/{i}")
    else:
        assert a == b, path


def history(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "train/images_per_second")} for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_in_a_fresh_process_is_bit_equal(family: str, outputs: Path) -> None:
    # 16 batches cross no multiple of 1,437 images, so a second seed of data order is tested by test_loader
    overrides = [*FAMILIES[family], *TINY, "trainer.checkpoint_every=32"]
    train(preflight("train", [*overrides, "trainer.max_images=96"]), outputs / "cut")
    done = process(outputs / "cut", [*overrides, "trainer.max_images=192"])
    train(preflight("train", [*overrides, "trainer.max_images=192"]), outputs / "whole")
    _, stderr = done.communicate(timeout=120)
    assert done.returncode == 0, stderr
    cut, whole = Run(outputs / "cut").load_checkpoint(), Run(outputs / "whole").load_checkpoint()
    assert cut is not None
    assert whole is not None
    assert whole["images_seen"] == 192
    assert_equal(cut, whole)
    assert history(outputs / "cut") == history(outputs / "whole")


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


def test_lightnings_own_end_by_sigterm_is_no_success(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(session: Session) -> None:
        raise SIGTERMException

    monkeypatch.setattr(Session, "train", stopped)
    with pytest.raises(SystemExit) as caught:
        train(preflight("train", [*FAMILIES["vae"], *TINY, "trainer.max_images=32"]), outputs / "run")
    assert caught.value.code == 128 + signal.SIGTERM
    assert Run(outputs / "run").status["state"] == "preempted"


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


def test_another_sampler_scores_a_finished_run_again_without_training(outputs: Path) -> None:
    overrides = [*FAMILIES["diffusion"], *TINY, "trainer.max_images=32", "evaluation.n=8"]
    train(preflight("train", overrides), outputs / "run")
    before = Run(outputs / "run").load_checkpoint()
    train(preflight("train", [*overrides, "sampler.steps=3"]), outputs / "run")
    rows = [json.loads(line) for line in (outputs / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["value"] for row in rows if row["metric"] == "nfe"] == [2, 3]
    assert_equal(Run(outputs / "run").load_checkpoint(), before)
    assert len((outputs / "run" / "history.jsonl").read_text().splitlines()) == 1


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


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_killed_at_random_batches_is_bit_equal(family: str, outputs: Path) -> None:
    overrides = [*FAMILIES[family], *TINY, "trainer.max_images=6400", "trainer.checkpoint_every=160"]
    train(preflight("train", overrides), outputs / "whole")
    for delay in (0.4, 0.9, 1.7):
        running = process(outputs / "cut", overrides)
        seen = len(list((outputs / "cut" / "checkpoints").glob("*.pt")))
        deadline = time.time() + 60
        while len(list((outputs / "cut" / "checkpoints").glob("*.pt"))) <= min(seen, 1) and time.time() < deadline:
            time.sleep(0.05)
        time.sleep(delay)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    finished = process(outputs / "cut", overrides)
    _, stderr = finished.communicate(timeout=300)
    assert finished.returncode == 0, stderr
    assert_equal(Run(outputs / "cut").load_checkpoint(), Run(outputs / "whole").load_checkpoint())
    assert history(outputs / "cut") == history(outputs / "whole")
