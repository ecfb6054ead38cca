"""What else befalls a run: a stranger's checkpoint, a second process, no memory, no permission, a reader who is early."""

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from fault_runs import FAMILIES, LINGER, TINY, Process, assert_same_run, finished

from genlab import evaluate, sample
from genlab.compare import compare
from genlab.config import preflight, run_dir
from genlab.errors import GenlabError
from genlab.report.records import read_run
from genlab.run import Run

Fault = Callable[[str], AbstractContextManager[None]]
pytestmark = pytest.mark.faults
SHORT = [
    *("trainer.max_images=160", "trainer.log_every=80", "trainer.validate_every=112", "trainer.checkpoint_every=48"),
    *("evaluation.n=8", "evaluation.likelihood=false"),
]
VAE = [*FAMILIES["vae"], *SHORT]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nothing has happened to."""
    return finished(tmp_path_factory.mktemp("whole") / "run", VAE)


OTHERS = {
    "another width": ([*VAE, "network.decoder.width=16"], r"conv1.weight \(32, 32, 3, 3\) for \(64, 64, 3, 3\)"),
    "another family": ([*FAMILIES["gan-ada"], *SHORT], r"(missing for \(|for none)"),
}
READS_DATA = """
import sys
from genlab.data.digits import Digits
Digits.split = lambda *_: print("the data are read", file=sys.stderr)
"""


@pytest.mark.parametrize("other", OTHERS)
def test_the_checkpoint_of_another_model_is_refused_before_data_are_read(
    other: str, whole: Run, outputs: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    overrides, word = OTHERS[other]
    theirs, ours = finished(outputs / "theirs", [*overrides, "trainer.max_images=96"]), outputs / "ours"
    shutil.copytree(theirs.checkpoints, ours / "checkpoints")
    shutil.copy(whole.path / "config.yaml", ours)
    with fault("8 a checkpoint of another model"):
        process = Process(ours, VAE, READS_DATA)
        assert process.wait() == 2
        refused(process.stderr, word)
        assert process.run.saved_images == 96, "it is still there"
    for verb in (evaluate, sample):
        with fault("8 a checkpoint of another model"):
            monkeypatch.setattr("sys.argv", ["genlab", str(ours)])
            with pytest.raises(SystemExit) as left:
                verb.main()
            assert left.value.code == 2
            refused(capsys.readouterr().err, word)


def refused(said: str, word: str) -> None:
    assert "the data are read" not in said
    *_, last = said.splitlines()
    with pytest.raises(GenlabError, match=rf"of another model: \d+ of its tensors do not fit .*{word}"):
        raise GenlabError(last)


def test_what_is_no_checkpoint_at_all_is_refused(outputs: Path, fault: Fault) -> None:
    """As Lightning's, which has tensors too."""
    with fault("8 a checkpoint of another model"):
        run = Run(outputs / "run")
        run.checkpoints.mkdir(parents=True)
        torch.save({"state_dict": {"weight": torch.zeros(2)}, "epoch": 3}, run.checkpoints / "000000048.pt")
        process = Process(outputs / "run", VAE, READS_DATA)
        assert process.wait() == 2
        assert "000000048.pt is no checkpoint of genlab" in process.stderr
        assert "the data are read" not in process.stderr


WAIT = """
import sys, time
from pathlib import Path
from genlab.callbacks.validation import Validation
original = Validation.on_train_batch_end
def waiting(self, trainer, module, *more):
    if module.images_seen == 80:
        print("here", file=sys.stderr, flush=True)
        while not Path(GO).exists():
            time.sleep(0.02)
    return original(self, trainer, module, *more)
Validation.on_train_batch_end = waiting
"""


@pytest.mark.parametrize("force", [False, True], ids=["", "force"])
def test_of_two_processes_of_one_run_the_second_leaves(force: bool, whole: Run, outputs: Path, fault: Fault) -> None:
    with fault("19 two processes of one run"):
        first = Process(outputs / "run", VAE, WAIT.replace("GO", repr(str(outputs / "go"))))
        assert first.until(lambda: first.says("here")), first.stderr
        before = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
        second = Process(outputs / "run", [*VAE, f"force={force}"])
        assert second.wait() == 2
        assert f"is in use by process {first.process.pid}: wait for it" in second.stderr
        assert {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()} == before
        (outputs / "go").touch()
        assert first.wait() == 0, first.stderr
        assert_same_run(first.run, whole)


NO_MEMORY = """
import torch
from genlab.module import GenerativeModule
original = GenerativeModule.training_step
def training_step(self, batch, batch_idx):
    found = original(self, batch, batch_idx)
    if self.images_seen == 80 and self.accumulate == 1:  # the weights of a GAN's critic have moved by now
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
    return found
GenerativeModule.training_step = training_step
"""


@pytest.mark.parametrize("family", ["diffusion", "gan-ada", "vae"])
def test_without_memory_the_advice_helps(family: str, outputs: Path, fault: Fault) -> None:
    with fault("22 no memory is left"):
        overrides = [*FAMILIES[family], *SHORT]
        process = Process(outputs / "run", overrides, NO_MEMORY)
        assert process.wait() == 2
        *_, last = process.stderr.splitlines()
        assert "out of memory with trainer.batch=16: the same command with trainer.accumulate=2" in last
        assert last.endswith("000000048.pt")
        run = process.run
        assert (run.status["state"], run.saved_images) == ("failed", 48), "no checkpoint from within a batch"
        again = Process(outputs / "run", [*overrides, "trainer.accumulate=2"], NO_MEMORY)
        assert again.wait() == 0, again.stderr
        assert "accumulate 1 -> 2 from 48 images on" in again.stderr
        assert (run.status["state"], run.saved_images) == ("finished", 160)


UNPRIVILEGED = """
import ctypes, os
if os.geteuid() == 0:  # whom permissions bind only without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, and the same of higher numbers
    assert libc.capget(header, sets) == 0
    for i in range(3):
        sets[i] &= ~0b110
    assert libc.capset(header, sets) == 0
"""
FORBIDDEN = """
import os
from genlab.callbacks.checkpoint import Checkpoint
original = Checkpoint.on_train_batch_end
def forbidding(self, trainer, module, *more):
    if module.images_seen == 64:
        os.chmod(self.run.PLACE, 0o500)
    return original(self, trainer, module, *more)
Checkpoint.on_train_batch_end = forbidding
"""


def test_a_folder_that_may_not_be_written_is_refused_at_once(outputs: Path, fault: Fault) -> None:
    with fault("23 the machine around it"):
        folder = Path(run_dir(preflight("train", [*TINY, *VAE])))
        folder.chmod(0o500)
        process = Process(folder, VAE, UNPRIVILEGED, GENLAB_OUTPUTS=str(outputs))
        assert process.wait() == 2
        assert process.stderr.splitlines() == [f"genlab: cannot write in the folder {folder}: set outputs=FOLDER"]
        assert [*folder.iterdir()] == []
    with fault("23 the machine around it"):  # another way to a run than `outputs`
        (outputs / "run").mkdir(0o500)
        process = Process(outputs / "run", VAE, UNPRIVILEGED)
        assert process.wait() == 2
        assert "cannot write in" in process.stderr
        assert "(Permission denied): make it writable, and the same command" in process.stderr
        assert "Traceback" not in process.stderr


@pytest.mark.parametrize("place", ["checkpoints", "path"])
def test_a_folder_that_is_closed_on_the_way_ends_the_run_in_one_line(
    place: str, whole: Run, outputs: Path, fault: Fault
) -> None:
    with fault("23 the machine around it"):
        process = Process(outputs / "run", VAE, UNPRIVILEGED + FORBIDDEN.replace("PLACE", place))
        assert process.wait() == 2, process.stderr
        assert "(Permission denied): " in process.stderr
        assert "make it writable, and the same command goes on" in process.stderr
        assert "Traceback" not in process.stderr
        for folder in (process.run.path, process.run.checkpoints):
            folder.chmod(0o700)
        assert_same_run(finished(outputs / "run", VAE), whole)


def test_a_report_of_a_half_written_run_says_so(whole: Run, outputs: Path, fault: Fault) -> None:
    with fault("24 a report of a half-written run"):
        evaluated = [*VAE, "trainer.evaluate_every=96", "trainer.sample_every=48"]
        process = Process(outputs / "run", evaluated, LINGER + "linger(GenerativeModule, 'validation_step', 112)")
        assert process.until(lambda: process.says("here")), process.stderr
        for path in ("copy", "cut"):
            shutil.copytree(process.folder, outputs / path)
        process.process.kill()
        process.wait()
        with open(outputs / "cut" / "history.jsonl", "a") as file:
            file.write('{"images_seen": 112, "val/lo')
        with open(outputs / "cut" / "metrics.jsonl", "a") as file:
            file.write('{"metric": "fd_digits", "val')
        picture = outputs / "cut" / "samples" / "000000096.png"
        picture.write_bytes(picture.read_bytes()[:100])
        record = read_run(outputs / "cut")
        assert [n for n, _ in record.frames] == [48]
        assert record.metrics == {}
        assert [point["images_seen"] for point in record.history] == [80, 96]
        for path in ("copy", "cut"):
            report = compare([outputs / path, whole.path], outputs / "report")
            (half, done) = sorted(report.tables[0].rows[:2], key=lambda row: row.state == "")
            assert (half.state, done.state) == ("running, 60 %", "")
            assert not any(cell.best for cell in half.cells.values())
            for name in ("index.html", "report.md"):
                assert "running, 60 %" in (outputs / "report" / name).read_text()
        (outputs / "cut" / "status.json").write_text('{"state": "runn')
        report = compare([outputs / "cut"], outputs / "report")
        assert report.tables[0].rows[0].state == "unknown: no readable status.json"
