"""Runs that are asked to stop, wherever they are."""

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fault_runs import FAMILIES, LINGER, Process, assert_same_run, finished, half_a_save

from genlab.run import Run

Fault = Callable[[str], AbstractContextManager[None]]
BUSY = [
    *("trainer.log_every=80", "trainer.validate_every=64", "trainer.sample_every=48", "trainer.evaluate_every=96"),
    *("trainer.checkpoint_every=32", "trainer.max_images=160", "evaluation.n=8", "evaluation.likelihood=false"),
]
PLACES = {
    "the data are loaded": (0, "import genlab.data.digits as d; linger(d.Digits, 'split', 0)"),
    "the tracker starts": (0, "import genlab.tracking as t; linger(t.Nothing, 'start', 0)"),
    "it validates": (64, "linger(GenerativeModule, '_terms', 64)"),
    "it draws a picture": (48, "linger(GenerativeModule, 'labels', 48)"),
    "it evaluates": (96, "import genlab.evaluation.evaluator as e; linger(e.Evaluator, 'quick', 96)"),
    "it draws at the end": (160, "import genlab.callbacks.samples as s; linger(s, 'film', 160)"),
    "it evaluates at the end": (160, "import genlab.scoring as s; linger(s.Scoring, 'module', 160)"),
}
SLEEPING_BATCH = "linger(GenerativeModule, 'training_step', 80)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """The run of a family that nobody has stopped."""
    made: dict[str, Run] = {}

    def run(family: str) -> Run:
        if family not in made:
            made[family] = finished(tmp_path_factory.mktemp("whole") / "run", [*FAMILIES[family], *BUSY])
        return made[family]

    return run


def stopped(folder: Path, family: str, before: str, *signals: int, **environment: str) -> tuple[int, str]:
    """The exit code and the last words of a run that was sent signals where it said that it was."""
    process = Process(folder, [*FAMILIES[family], *BUSY], LINGER + before, **environment)
    assert process.until(lambda: process.says("here")), process.stderr
    for number, signum in enumerate(signals, 1):
        process.send(signum)
        # or the system would make one signal of two
        process.until(lambda number=number: process.stderr.count("received") >= number)
    return process.wait(), process.stderr


PHASES = [
    pytest.param(place, family, marks=[] if (place, family) == ("it evaluates", "vae") else pytest.mark.faults)
    for place in PLACES
    for family in ("diffusion", "gan-ada", "vae")
]


@pytest.mark.parametrize(("place", "family"), PHASES)
def test_a_signal_ends_what_saves_nothing_at_once(
    place: str, family: str, whole: Callable[[str], Run], outputs: Path, fault: Fault
) -> None:
    images, before = PLACES[place]
    with fault("3 SIGTERM or SIGINT wherever it is"):
        code, said = stopped(outputs / "run", family, before, signal.SIGTERM)
        assert code == 143, said
        assert said.splitlines()[-1] == f"genlab: stopped by SIGTERM at {images} images; the same command continues"
        run = Run(outputs / "run")
        assert (run.status["state"], run.status["images_seen"]) == ("preempted", images)
        if images:
            state = run.load_checkpoint()
            assert state is not None
            assert state["images_seen"] == images
        assert_same_run(finished(run.path, [*FAMILIES[family], *BUSY]), whole(family))


@pytest.mark.faults
@pytest.mark.parametrize("family", ["diffusion", "gan-ada", "vae"])
@pytest.mark.parametrize(("signum", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_training_waits_for_the_batch(
    family: str, signum: int, expected: int, whole: Callable[[str], Run], outputs: Path, fault: Fault
) -> None:
    """It comes in the middle of the batch that makes 96 images of 80, and the checkpoint has 96."""
    middle = "time.sleep = lambda seconds, sleep=time.sleep: sleep(min(seconds, 1))\n" + SLEEPING_BATCH
    with fault("3 SIGTERM or SIGINT wherever it is"):
        code, said = stopped(outputs / "run", family, middle, signum)
        assert code == expected, said
        run = Run(outputs / "run")
        assert (run.status["state"], run.saved_images) == ("preempted", 96)
        assert_same_run(finished(run.path, [*FAMILIES[family], *BUSY]), whole(family))


TWICE = [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.faults
@pytest.mark.parametrize("before", [SLEEPING_BATCH, half_a_save(64)], ids=["in a batch", "while it saves"])
@pytest.mark.parametrize("signals", TWICE)
def test_a_second_signal_does_not_wait(
    signals: tuple[int, int], before: str, whole: Callable[[str], Run], outputs: Path, fault: Fault
) -> None:
    with fault("4 a second signal"):
        code, said = stopped(outputs / "run", "vae", before, *signals)
        assert code == (130 if signals[1] == signal.SIGINT else 143), said
        run = Run(outputs / "run")
        assert (run.status["state"], run.status["images_seen"]) == ("preempted", run.saved_images)
        assert run.saved_images == (64 if before == SLEEPING_BATCH else 32)
        assert "at once" in run.status["why"]
        assert not [*run.checkpoints.glob(".*")]
        assert_same_run(finished(run.path, [*FAMILIES["vae"], *BUSY]), whole("vae"))


CHAINED = """
import signal
def requeue(signum, frame):
    from pathlib import Path
    assert [*Path(FOLDER).glob("checkpoints/*64.pt")], "the checkpoint comes first"
    print("requeued", file=sys.stderr)
    sys.exit(255)
signal.signal(signal.SIGUSR2, requeue)
"""


@pytest.mark.parametrize(
    ("signum", "array"),
    [
        (signal.SIGUSR1, False),
        pytest.param(signal.SIGUSR2, True, marks=pytest.mark.faults),
    ],
)
def test_the_schedulers_signal_saves_and_queues_the_job_once(
    signum: int, array: bool, whole: Callable[[str], Run], outputs: Path, fault: Fault
) -> None:
    stub, calls = outputs / "bin" / "scontrol", outputs / "calls"
    stub.parent.mkdir()
    stub.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    stub.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "71", "PATH": f"{stub.parent}:/usr/bin:/bin"}
    slurm |= {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"} if array else {}
    with fault("5 the scheduler's signal"):
        code, said = stopped(outputs / "run", "vae", PLACES["it validates"][1], signum, signum, **slurm)
        assert code == 143, said
        assert calls.read_text().splitlines() == ["requeue 70_3" if array else "requeue 71"]
        assert Run(outputs / "run").saved_images == 64
        assert_same_run(finished(outputs / "run", [*FAMILIES["vae"], *BUSY]), whole("vae"))


@pytest.mark.faults
def test_whoever_had_the_schedulers_signal_queues_the_job_after_the_checkpoint(outputs: Path, fault: Fault) -> None:
    """As submitit does, whose handler leaves by itself."""
    with fault("5 the scheduler's signal"):
        chained = CHAINED.replace("FOLDER", repr(str(outputs / "run")))
        code, said = stopped(outputs / "run", "vae", chained + PLACES["it validates"][1], signal.SIGUSR2)
        assert code == 255, said
        assert said.count("requeued") == 1
        assert Run(outputs / "run").status["state"] == "preempted"
