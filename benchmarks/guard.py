"""What it costs to look at every gradient before it moves anything: steps with and without the guard.

Run: python benchmarks/guard.py [steps]. In one fit, each step has the guard or has it not, by a coin; the medians of their times
are compared, in seconds of the processor on one thread, which whatever else runs on the machine lengthens least. A step is all
from the batch to the moved weights, without what callbacks do. Without the guard: no test of the norm, no copy of the running
statistics, a loss that is not looked at; the norm itself is computed on both sides, as the history has it.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from genlab.callbacks.progress import Report
from genlab.config import preflight
from genlab.fitting import lightning
from genlab.module import GenerativeModule
from genlab.run import Run
from genlab.training import Session

BATCH, WARM = 64, 50
NETWORKS = {"ddpm": ["experiment=digits/ddpm"], "dcgan": ["experiment=digits/dcgan"], "vae": ["experiment=digits/vae"]}


def bare(self: GenerativeModule, optimizer: torch.optim.Optimizer) -> None:
    """`on_before_optimizer_step` of a module that trusts its gradients."""
    for i, (optimization, own) in enumerate(zip(self.optimizations, self.trainer.optimizers, strict=True)):
        if own is optimizer:
            name = f"grad_norm/{i}" if len(self.optimizations) > 1 else "grad_norm"
            self.grad_norms[name] = norm = optimization.norm(optimizer)
            optimization.clip(optimizer, norm)


GUARDED: dict[str, Any] = {name: getattr(GenerativeModule, name) for name in ("backward", "on_before_optimizer_step")}
BARE: dict[str, Any] = {
    "backward": lambda self, loss, *args, **kwargs: loss.backward(*args, **kwargs),
    "on_before_optimizer_step": bare,
}


class Coin(L.Callback):
    """Times every step, and tosses for the guard before it."""

    def __init__(self) -> None:
        self.seconds: dict[bool, list[float]] = {True: [], False: []}
        self.tosses, self.statistics, self.steps = random.Random(0), None, 0

    def on_train_batch_start(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        self.statistics = module._statistics if self.statistics is None else self.statistics
        self.guarded = self.tosses.random() < 0.5
        for name, method in (GUARDED if self.guarded else BARE).items():
            setattr(GenerativeModule, name, method)
        module._statistics = self.statistics if self.guarded else []
        self.began = time.process_time()

    def on_train_batch_end(self, *_: Any) -> None:
        spent, self.steps = time.process_time() - self.began, self.steps + 1
        if self.steps > WARM:
            self.seconds[self.guarded].append(spent)


def measured(network: str, steps: int) -> Coin:
    overrides = [*NETWORKS[network], f"trainer.batch={BATCH}", f"trainer.max_images={BATCH * (steps + WARM)}"]
    overrides += ["logger=none", "evaluation.n=0", "trainer.sample_every=0", "trainer.validate_every=0"]
    config = preflight("train", [*overrides, "trainer.threads=1", "trainer.accelerator=cpu"])
    with tempfile.TemporaryDirectory() as folder:
        session = Session(config, Run(Path(folder)), Report(Path(folder), "", 1), leader=True)
        session.run.lock()
        session.build()
        trainer, coin = lightning(config.trainer, session.module, session.callbacks), Coin()
        trainer.callbacks.insert(0, coin)  # pyright: ignore
        trainer.fit(session.module, session.data)
        session.close()
    return coin


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rng = np.random.default_rng(0)
    for network in NETWORKS:
        ours, theirs = (np.array(seconds) for seconds in measured(network, steps).seconds.values())
        drawn = [
            np.median(rng.choice(ours, len(ours))) / np.median(rng.choice(theirs, len(theirs))) for _ in range(500)
        ]
        row = {"network": network, "guarded_ms": 1e3 * np.median(ours), "bare_ms": 1e3 * np.median(theirs)}
        row |= {"cost": round(np.median(ours) / np.median(theirs) - 1, 4), "stderr": round(float(np.std(drawn)), 4)}
        row |= {"steps": [len(ours), len(theirs)], "batch": BATCH, "threads": torch.get_num_threads()}
        print(json.dumps(row | {"date": time.strftime("%Y-%m-%d"), "torch": str(torch.__version__)}), flush=True)


if __name__ == "__main__":
    main()
