"""Checkpoints whose writing is cut off, whose disk is full, that are damaged, lost, or of another time."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from fault_runs import FAMILIES, Process, assert_equal, assert_same_run, finished, half_a_save, rows

from genlab.run import Run

Fault = Callable[[str], AbstractContextManager[None]]
SHORT = [
    *("trainer.max_images=160", "trainer.log_every=80", "trainer.validate_every=112", "trainer.checkpoint_every=48"),
    *("evaluation.n=0",),
]
VAE = [*FAMILIES["vae"], *SHORT]
BEFORE_THE_MANIFEST = """
import sys, time
import genlab.run as r
original = r.place
def place(path, *more):
    if path.name == "manifest.json" and (path.parent / "000000096.pt").is_file():
        print("here", file=sys.stderr, flush=True)
        time.sleep(100)
    return original(path, *more)
r.place = place
"""
FULL = """
import resource, torch
original = torch.save
def save(state, file):
    full = state["images_seen"] in TIMES
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000 if full else resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    original(state, file)
torch.save = save
"""
NO_SPACE = """
import errno, os, torch
original = torch.save
def save(state, file):
    if state["images_seen"] in TIMES:
        file.write(bytes(100))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    original(state, file)
torch.save = save
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nothing has happened to, with all of its checkpoints."""
    return finished(tmp_path_factory.mktemp("whole") / "run", [*VAE, "trainer.keep=100"])


@pytest.mark.faults
@pytest.mark.parametrize(
    "before", [half_a_save(96), BEFORE_THE_MANIFEST], ids=["half of a file", "before the manifest"]
)
def test_killed_while_it_saves(before: str, whole: Run, outputs: Path, fault: Fault) -> None:
    with fault("1 kill -9 while a checkpoint is written"):
        process = Process(outputs / "run", VAE, before, TMPDIR="/dev/shm")
        assert process.until(lambda: process.says("here")), process.stderr
        process.send(signal.SIGKILL)
        assert process.wait() == 137
        state = process.run.load_checkpoint()
        assert state is not None
        assert state["images_seen"] == 48
        assert bool([*process.run.checkpoints.glob(".*")]) == (before == half_a_save(96))
        run = finished(outputs / "run", VAE)
        assert not [*run.checkpoints.glob(".*")]
        assert_same_run(run, whole)


@pytest.mark.parametrize(
    ("full", "word"),
    [(FULL, "File too large"), pytest.param(NO_SPACE, "No space left on device", marks=pytest.mark.faults)],
    ids=["RLIMIT_FSIZE", "ENOSPC"],
)
def test_a_full_disk(full: str, word: str, whole: Run, outputs: Path, fault: Fault) -> None:
    with fault("6 a full disk"):
        process = Process(outputs / "run", VAE, full.replace("TIMES", "(96,)"))
        assert process.wait() == 2
        last = process.stderr.splitlines()[-1]
        assert word in last
        assert "000000096.pt takes" in last
        assert "MB are free" in last
        assert process.run.status["state"] == "failed"
        state = process.run.load_checkpoint()
        assert state is not None
        assert state["images_seen"] == 48
        assert not [*process.run.checkpoints.glob(".*")]
        assert_same_run(finished(outputs / "run", VAE), whole)
    with fault("6 a full disk"):  # and one that may be full for a while
        patient = [*VAE, "trainer.save_failures=1"]
        process = Process(outputs / "patient", patient, full.replace("TIMES", "(48,)"))
        assert process.wait() == 0, process.stderr
        assert "warning at 48 images" in process.stderr
        assert_same_run(process.run, whole)


@pytest.mark.faults
def test_a_history_that_cannot_be_written(outputs: Path, fault: Fault) -> None:
    with fault("6 a full disk"):
        (outputs / "run").mkdir()
        (outputs / "run" / "history.jsonl").symlink_to("/dev/full")
        process = Process(outputs / "run", VAE)
        assert process.wait() == 2
        assert "No space left on device" in process.stderr


def flipped(content: bytes) -> bytes:
    """One bit in the middle, which torch.load would read without a word."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:900],
    "empty": lambda content: b"",
    "garbage": lambda content: os.urandom(len(content)),
    "a flipped bit": flipped,
    "a tail of zeros": lambda content: content[:-4096] + bytes(4096),
}


@pytest.mark.faults
@pytest.mark.parametrize("manifest", [True, False], ids=["", "no manifest"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint(damage: str, manifest: bool, whole: Run, outputs: Path, fault: Fault) -> None:
    with fault("7 a damaged checkpoint"):
        overrides = [*VAE, "trainer.max_images=112"]
        run = finished(outputs / "run", overrides)
        newest = run.checkpoints / "000000112.pt"
        newest.write_bytes(DAMAGES[damage](newest.read_bytes()))
        if not manifest:
            (run.checkpoints / "manifest.json").unlink()
        process = Process(outputs / "run", VAE)
        assert process.wait() == 0, process.stderr
        assert f"{newest} is missing or damaged (its checksum differs): trying the one before" in process.stderr
        assert_same_run(run, whole)
        for path in run.checkpoints.glob("*.pt"):
            path.write_bytes(DAMAGES[damage](path.read_bytes()))
        process = Process(outputs / "run", [*VAE, "trainer.max_images=320"])
        assert process.wait() == 2
        assert "is intact: train again with force=true" in process.stderr


@pytest.mark.faults
@pytest.mark.parametrize(
    ("override", "word"),
    [("trainer.batch=32", "trainer.batch=16"), ("trainer.accumulate=2", "accumulate 1 -> 2")],
)
def test_another_batch_is_refused_and_other_conditions_are_told(
    override: str, word: str, outputs: Path, fault: Fault
) -> None:
    with fault("15 another batch or number of devices"):
        finished(outputs / "run", [*VAE, "trainer.max_images=96"])
        process = Process(outputs / "run", [*VAE, override])
        assert process.wait() == (2 if "batch" in override else 0)
        assert word in process.stderr
        assert process.run.saved_images == (96 if "batch" in override else 160)


@pytest.mark.faults
@pytest.mark.parametrize("fails", [False, True], ids=["in validation", "on an exception in validation"])
@pytest.mark.parametrize("family", ["diffusion", "gan-ada", "vae"])
def test_raw_and_averaged_weights_whenever_it_is_saved(family: str, fails: bool, outputs: Path, fault: Fault) -> None:
    overrides = [*FAMILIES[family], *SHORT, "trainer.keep=100"]
    theirs = finished(outputs / "whole", [*overrides, "trainer.checkpoint_every=16"])
    expected = torch.load(theirs.checkpoints / "000000112.pt", weights_only=True)
    save = "next(c for c in self.trainer.callbacks if type(c).__name__ == 'Checkpoint').save(self.trainer, self)"
    act = "raise ValueError('no')" if fails else save
    before = f"""
from genlab.callbacks.validation import SequentialLoader
import genlab.callbacks.validation as v
class Loader(SequentialLoader):
    def __iter__(self):
        raise_or_save()
        return super().__iter__()
def raise_or_save():
    import gc
    from genlab.module import GenerativeModule
    self = next(m for m in gc.get_objects() if isinstance(m, GenerativeModule) and m._trainer is not None)
    if self.images_seen == 112:
        {act}
v.SequentialLoader = Loader
"""
    with fault("20 raw and averaged weights"):
        process = Process(outputs / "run", overrides, before)
        assert process.wait() == (1 if fails else 0), process.stderr
        found = torch.load(process.run.checkpoints / "000000112.pt", weights_only=True)
        for part in ("state_dict", "averages", "optimizers"):
            assert_equal(found[part], expected[part])
        name, average = next(iter(expected["averages"]["ema"].items()))
        assert not torch.equal(average, expected["state_dict"][name.replace("/", ".")]), (
            "else they cannot be told apart"
        )
        if fails:
            assert process.run.status["state"] == "failed"
            assert_same_run(finished(outputs / "run", overrides), finished(outputs / "again", overrides))


@pytest.mark.faults
@pytest.mark.parametrize("n_critic", [1, 2, 5])
def test_cadences_of_a_gan_are_counted_in_images(n_critic: int, outputs: Path, fault: Fault) -> None:
    with fault("21 cadences of a GAN"):
        overrides = [*FAMILIES["gan"], *SHORT, f"model.n_critic={n_critic}", "trainer.keep=100"]
        run = finished(outputs / "run", overrides)
        assert sorted(p.name for p in run.checkpoints.glob("*.pt")) == [f"{n:09d}.pt" for n in (48, 96, 144, 160)]
        seen = [(row["images_seen"], "val/critic" in row) for row in rows(run, "history.jsonl")]
        assert seen == [(80, False), (112, True), (160, False)]


@pytest.mark.faults
def test_the_cadence_in_minutes(outputs: Path, fault: Fault) -> None:
    """Of a clock that nobody can set: another time of day changes nothing."""
    jump = "import time\ntime.time = lambda now=time.time: now() - 86400"
    with fault("23 the machine around it"):
        overrides = [*VAE, "trainer.checkpoint_every=0", "trainer.checkpoint_minutes=1e-9", "trainer.keep=100"]
        process = Process(outputs / "run", overrides, jump, TMPDIR="/nowhere")
        assert process.wait() == 0, process.stderr
        names = sorted(p.name for p in process.run.checkpoints.glob("*.pt"))
        assert names == [f"{n:09d}.pt" for n in range(16, 161, 16)]
