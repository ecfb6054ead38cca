"""A run that was interrupted is bit for bit the one that was not."""

import random
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fault_runs import FAMILIES, Process, assert_same_run, finished

from genlab.run import Run

Fault = Callable[[str], AbstractContextManager[None]]

# no cadence is a multiple of another, so that every mean spans a checkpoint and every work falls between two
BUSY = [
    *("trainer.log_every=80", "trainer.validate_every=112", "trainer.sample_every=144", "trainer.evaluate_every=128"),
    *("trainer.checkpoint_every=48", "evaluation.n=8", "evaluation.likelihood=false"),
]


FAST = ("diffusion", "gan-ada", "vae")


@pytest.mark.parametrize("family", [f if f in FAST else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_a_longer_budget_in_a_fresh_process_is_bit_equal(family: str, outputs: Path) -> None:
    # 20 batches cross no multiple of 1,437 images, so the seam between epochs is tested by test_loader
    overrides = [*FAMILIES[family], *BUSY]
    first = Process(outputs / "cut", [*overrides, "trainer.max_images=176"])
    whole = Process(outputs / "whole", [*overrides, "trainer.max_images=320"])
    assert first.wait() == 0, first.stderr
    (outputs / "cut" / "metrics.jsonl").unlink(missing_ok=True)  # the shorter run has scored itself, too
    cut = finished(outputs / "cut", [*overrides, "trainer.max_images=320"])
    assert whole.wait() == 0, whole.stderr
    assert_same_run(cut, whole.run)


@pytest.mark.faults
@pytest.mark.parametrize("family", FAMILIES)
def test_killed_at_random_moments(family: str, outputs: Path, fault: Fault) -> None:
    overrides = [*FAMILIES[family], *BUSY, "trainer.max_images=1920", "trainer.checkpoint_every=112"]
    whole = finished(outputs / "whole", overrides)
    rng = random.Random(family)
    targets = sorted(rng.randrange(1920) for _ in range(4))
    for target in targets:
        with fault("2 kill -9 at a random moment"):
            process = Process(outputs / "cut", overrides)
            process.until(lambda p=process, t=target: p.images >= t)
            time.sleep(rng.random() * 0.1)
            process.send(signal.SIGKILL)
            assert process.wait() in (137, 0)
    assert_same_run(finished(outputs / "cut", overrides), whole)
    assert not [*Run(outputs / "cut").checkpoints.glob(".*")]
