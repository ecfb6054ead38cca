"""Two ranks of which one raises, hangs or is killed: the whole run ends, with a word and a usable checkpoint."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from fault_runs import FAMILIES, TINY, assert_same_run, finished

from genlab.config import preflight, run_dir
from genlab.run import Run

Fault = Callable[[str], AbstractContextManager[None]]
pytestmark = pytest.mark.faults
TIMEOUT = 40.0  # the second rank may take long to start
PAIR = [
    *TINY,
    *("trainer=ddp", "trainer.devices=2", f"trainer.timeout={TIMEOUT:g}", "trainer.max_images=320"),
    *("trainer.log_every=80", "trainer.validate_every=112", "trainer.checkpoint_every=48", "evaluation.n=0"),
]
AT = """
import os, signal, sys, time
from genlab.module import GenerativeModule
original = GenerativeModule.training_step
def training_step(self, batch, batch_idx):
    if self.images_seen == 112:
        ACT
    return original(self, batch, batch_idx)
GenerativeModule.training_step = training_step
"""
ACTS = {
    "raises": "if rank == 1: raise ValueError('not me')",
    "hangs": "if rank == 1: time.sleep(1000)",
    "is killed": "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)",
    "is stopped by the system": "if rank == 1: os.kill(os.getpid(), signal.SIGSTOP)",
    "is killed, the first": "if rank == 0: os.kill(os.getpid(), signal.SIGKILL)",
    "hangs, the first": "if rank == 0: time.sleep(1000)",
}
SHARDED = [(who, "diffusion", "fsdp") for who in ("raises", "hangs", "is killed, the first")]


class Pair:
    """Two ranks in a session of their own."""

    def __init__(self, outputs: Path, family: str, act: str = "", *more: str):
        fault = AT.replace("ACT", act) if act else ""
        environment = {**os.environ, "FAULT": fault, "OMP_NUM_THREADS": "1", "GENLAB_OUTPUTS": str(outputs)}
        command = [sys.executable, str(Path(__file__).parent / "rank_probe.py"), *FAMILIES[family], *PAIR, *more]
        self.outputs = outputs
        self.process = subprocess.Popen(
            [*command, f"outputs={outputs}"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=240)
        return self.process.returncode, said

    @property
    def alive(self) -> list[str]:
        """What is left of the session, zombies aside."""
        listing = subprocess.run(["ps", "-eo", "sid=,stat=,args="], check=True, capture_output=True, text=True).stdout
        found = [line.split(None, 2) for line in listing.splitlines()]
        return [args for sid, stat, args in found if sid == str(self.process.pid) and not stat.startswith("Z")]

    @property
    def run(self) -> Run:
        (status,) = self.outputs.glob("digits/*/*/status.json")
        return Run(status.parent)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_parts_of_the_weights_are_together(signum: int, outputs: Path, fault: Fault) -> None:
    """Validation of a sharded run keeps the other rank waiting, so that the first one heeds it with the next batch."""
    with fault("3 SIGTERM or SIGINT wherever it is"):
        act = f"""from genlab.paradigms.diffusion import Diffusion
        def step(self, batch, k, original=Diffusion.validation_step):
            if k == 1:
                os.kill(os.getpid(), {signum})
            return original(self, batch, k)
        Diffusion.validation_step = step if rank == 0 else Diffusion.validation_step"""
        pair = Pair(outputs, "diffusion", act, "trainer=fsdp")
        code, said = pair.wait()
        assert code == 128 + signum, said
        assert pair.run.status["state"] == "preempted"
        assert pair.run.saved_images == 224, "the batch that it is held after"
        assert "val/loss" in (pair.run.path / "history.jsonl").read_text().splitlines()[-1]
        assert pair.alive == []


@pytest.mark.parametrize(("who", "family", "strategy"), [*((who, "vae", "ddp") for who in ACTS), *SHARDED])
def test_no_rank_outlives_another(who: str, family: str, strategy: str, outputs: Path, fault: Fault) -> None:
    with fault("14 a rank raises, hangs or is killed"):
        pair = Pair(outputs, family, ACTS[who], f"trainer={strategy}")
        reached = time.monotonic()
        while pair.process.poll() is None and not [*outputs.glob("digits/*/*/checkpoints/*96.pt")]:
            assert time.monotonic() - reached < 200
            time.sleep(0.1)
        began = time.monotonic()
        code, said = pair.wait()
        assert code != 0
        assert time.monotonic() - began < TIMEOUT + 10
        time.sleep(2)
        assert pair.alive == []
        state = pair.run.load_checkpoint()
        assert state is not None
        assert state["images_seen"] == 96
        if "first" not in who:
            assert code in (2, 137), said  # Lightning may be faster than the word


def test_another_number_of_devices_is_told(outputs: Path, fault: Fault) -> None:
    with fault("15 another batch or number of devices"):
        single = [override for override in PAIR if override != "trainer=ddp"]
        alone = [*FAMILIES["vae"], *single, "trainer.devices=1", "trainer.max_images=96"]
        finished(Path(run_dir(preflight("train", alone))), alone)
        pair = Pair(outputs, "vae")
        code, said = pair.wait()
        assert code == 0, said
        assert "devices 1 -> 2 from 96 images on: the run goes on, but is not bit for bit" in said
        assert (pair.run.status["state"], pair.run.saved_images) == ("finished", 320)


@pytest.mark.parametrize(("family", "strategy"), [("vae", "ddp"), ("gan-ada", "ddp"), ("diffusion", "fsdp")])
def test_two_ranks_killed_and_stopped_are_bit_equal(family: str, strategy: str, outputs: Path, fault: Fault) -> None:
    how = f"trainer={strategy}"
    whole = Pair(outputs / "whole", family, "", how)
    here = (
        "if rank == 0: print('here', file=sys.stderr, flush=True); time.sleep(20)"  # or it is past the next checkpoint
    )
    cut = Pair(outputs / "cut", family, here, how)
    with fault("2 kill -9 at a random moment"):
        assert cut.process.stderr is not None
        while "here" not in cut.process.stderr.readline():
            assert cut.process.poll() is None
        time.sleep(0.05)
        cut.process.send_signal(signal.SIGKILL)
        cut.process.wait()
    with fault("3 SIGTERM or SIGINT wherever it is"):
        again = Pair(outputs / "cut", family, "if rank == 0: os.kill(os.getpid(), signal.SIGTERM)", how)
        code, said = again.wait()
        assert code == 143, said
        assert again.run.saved_images == 128
    last = Pair(outputs / "cut", family, "", how)
    code, said = last.wait()
    assert code == 0, said
    assert whole.wait()[0] == 0
    assert_same_run(last.run, whole.run)


@pytest.mark.parametrize(("family", "strategy"), [("vae", "ddp"), ("diffusion", "fsdp")])
def test_a_loss_of_one_rank_that_is_no_number_is_skipped_by_both(
    family: str, strategy: str, outputs: Path, fault: Fault
) -> None:
    with fault("10 a batch that is no number"):
        act = "self._terms = (lambda b, o=self._terms: {'loss': o(b)['loss'] * float('inf')}) if rank == 1 else self._terms"
        act += "\n    elif '_terms' in self.__dict__:\n        del self._terms"
        more = (f"trainer={strategy}", "trainer.keep=100", "trainer.checkpoint_every=16")
        pair = Pair(outputs, family, act, *more)
        code, said = pair.wait()
        assert code == 0, said
        assert pair.run.status["nonfinite"] == 1
        state = torch.load(pair.run.checkpoints / "000000320.pt", weights_only=True)
        assert all(t.isfinite().all() for t in state["state_dict"].values())
        before, after = (
            torch.load(pair.run.checkpoints / f"{n:09d}.pt", weights_only=True)["state_dict"] for n in (112, 128)
        )
        assert all(torch.equal(before[name], after[name]) for name in before)
