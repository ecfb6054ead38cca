"""Runs in processes of their own, each as fresh as a new interpreter that has imported genlab and done nothing else."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from genlab.run import Run

TINY = ["trainer.batch=16", "trainer.accelerator=cpu", "evaluation.floors=[]", "logger=none"]
FAMILIES = {  # a new one joins every test of exactness by a line here
    "diffusion": ["experiment=digits/ddpm", "sampler.steps=2", "optimizer.warmup_images=48"],
    "gan": ["experiment=digits/wgan_gp", "model.n_critic=3"],
    "gan-ada": [  # with all that a GAN remembers: p and the signs of ADA, LeCam's means, the turns of lazy R1
        *("experiment=digits/dcgan", "model.n_critic=2", "critic_augment=ada", "critic_augment.images=200"),
        *("critic_augment.p=0.5", "penalty=r1_lecam", "penalty.terms.r1.every=4", "averaging=half_life"),
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
    "autoregressive": ["experiment=digits/transformer"],
    "accumulated": ["experiment=digits/dcgan", "trainer.accumulate=2"],
    "classifier": ["experiment=digits/noisy_classifier"],
}
# Where a run is caught: it says so, and waits. `at` images have been seen there.
LINGER = """
import sys, time
from genlab.module import GenerativeModule
def linger(owner, name, at):
    original = getattr(owner, name)
    def lingering(*args, **kwargs):
        module = next((a for a in args if isinstance(a, GenerativeModule)), None)
        if module is None or module.images_seen == at:
            print("here", file=sys.stderr, flush=True)
            time.sleep(100)
        return original(*args, **kwargs)
    setattr(owner, name, lingering)
from genlab.callbacks.guard import Guard
def received(self, signum, frame, original=Guard._received):
    print("received", file=sys.stderr, flush=True)
    original(self, signum, frame)
Guard._received = received
"""
HALF_A_SAVE = """
import sys, time, torch
original = torch.save
def save(state, file):
    if state["images_seen"] == AT:
        file.write(bytes(10000))
        file.flush()
        print("here", file=sys.stderr, flush=True)
        time.sleep(100)
    original(state, file)
torch.save = save
"""
SECONDS = 120.0  # that anything may take before it is given up

forkserver = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(["genlab.training", "genlab.train"])


def half_a_save(at: int) -> str:
    """What makes a run linger while it writes the checkpoint of `at` images, a part of which is in its file."""
    return HALF_A_SAVE.replace("AT", str(at))


def _run(folder: str, overrides: list[str], before: str, environment: dict[str, str], threads: int) -> None:
    """What the process does: as `genlab train`, but in a folder of the test's choice."""
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{folder}.{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.update(environment)
    from genlab.config import preflight
    from genlab.errors import GenlabError
    from genlab.training import train

    torch.manual_seed(123)  # nothing may depend on what a process drew before
    torch.set_num_threads(threads)
    exec(before, {})  # noqa: S102 - the words of the test itself
    try:
        train(preflight("train", overrides), Path(folder))
    except GenlabError as error:
        print(f"genlab: {error}", file=sys.stderr)
        sys.exit(2)


class Process:
    """A run of genlab train, to be disturbed from outside or, by the source text `before`, from within."""

    def __init__(self, folder: Path, overrides: list[str], before: str = "", **environment: str):
        folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder, self.run = folder, Run(folder)
        cache = {"GENLAB_CACHE": os.environ["GENLAB_CACHE"], **environment}
        self._seen = self.stderr
        arguments = (str(folder), [*TINY, *overrides], before, cache, torch.get_num_threads())
        # none outlives the tests, not even one whose test has failed
        self.process = forkserver.Process(target=_run, args=arguments, daemon=True)
        self.process.start()

    def send(self, signum: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signum)

    def wait(self) -> int:
        """Its exit code, as a shell tells it."""
        self.process.join(SECONDS)
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            raise AssertionError(f"it did not end:\n{self.stderr}")
        return code if code >= 0 else 128 - code

    def until(self, happened: Callable[[], bool]) -> bool:
        """Wait for something to happen; False if the process has ended before."""
        deadline = time.monotonic() + SECONDS
        while not happened():
            if not self.process.is_alive():
                return False
            assert time.monotonic() < deadline, self.stderr
            time.sleep(0.002)
        return True

    def says(self, word: str) -> bool:
        """Whether it has printed this, as `before` does to say where it is."""
        return word in self.stderr

    @property
    def stderr(self) -> str:
        path = Path(f"{self.folder}.err")
        return path.read_text()[len(getattr(self, "_seen", "")) :] if path.is_file() else ""

    @property
    def images(self) -> int:
        """How far its history says that it has come."""
        path = self.folder / "history.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.is_file() else []
        return json.loads(lines[-1])["images_seen"] if lines else 0


def finished(folder: Path, overrides: list[str], before: str = "") -> Run:
    """A run that has come to its end."""
    process = Process(folder, overrides, before)
    assert process.wait() == 0, process.stderr
    assert process.run.status["state"] == "finished"
    return process.run


def rows(run: Run, name: str) -> list[dict[str, Any]]:
    """The lines of history.jsonl or metrics.jsonl, without what times it took."""
    clocks = ("seconds", "train/images_per_second", "eval/seconds")
    read = [json.loads(line) for line in (run.path / name).read_text().splitlines()]
    read = [row for row in read if row.get("metric") not in ("train_images_per_second", "ms_per_sample")]
    return [{k: v for k, v in row.items() if k not in (*clocks, "time", "evaluation")} for row in read]


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


def assert_same_run(ours: Run, theirs: Run) -> None:
    """Weights, averages, optimizers, progress, history and metrics."""
    assert_equal(ours.load_checkpoint(), theirs.load_checkpoint())
    assert_equal(ours.load_checkpoint("best"), theirs.load_checkpoint("best"))
    assert_equal(rows(ours, "history.jsonl"), rows(theirs, "history.jsonl"))
    if (theirs.path / "metrics.jsonl").is_file():
        assert_equal(rows(ours, "metrics.jsonl"), rows(theirs, "metrics.jsonl"))


__all__ = [
    "FAMILIES",
    "LINGER",
    "Process",
    "assert_equal",
    "assert_same_run",
    "finished",
    "half_a_save",
    "rows",
    "signal",
]
