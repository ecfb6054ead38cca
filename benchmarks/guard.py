"""What it costs to look at every gradient before it moves anything: steps with and without the guard.

Run: python benchmarks/guard.py [rounds]. Both sides train the same network from the same weights in one process, in fits that
alternate; the medians of their times are compared, in seconds of the processor on one thread, which whatever else runs on the
machine lengthens least. Without the guard: no test of the norm, no copy of the running statistics, a loss that is not looked
at; the norm itself is computed on both sides, as the history has it.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from genlab.callbacks.progress import Report
from genlab.config import preflight
from genlab.module import GenerativeModule
from genlab.run import Run
from genlab.training import Session

IMAGES = 3200
NETWORKS = {"ddpm": ["experiment=digits/ddpm"], "dcgan": ["experiment=digits/dcgan"], "vae": ["experiment=digits/vae"]}


def bare(self: GenerativeModule, optimizer: torch.optim.Optimizer) -> None:
    """`on_before_optimizer_step` of a module that trusts its gradients."""
    for optimization, own in zip(self.optimizations, self.trainer.optimizers, strict=True):
        if own is optimizer:
            optimization.clip(optimizer, optimization.norm(optimizer))


GUARDED: dict[str, Any] = {name: getattr(GenerativeModule, name) for name in ("backward", "on_before_optimizer_step")}
BARE: dict[str, Any] = {
    "backward": lambda self, loss, *args, **kwargs: loss.backward(*args, **kwargs),
    "on_before_optimizer_step": bare,
}


def seconds(network: str, guarded: bool) -> float:
    """Of IMAGES images of a run's own fit."""
    for name, method in (GUARDED if guarded else BARE).items():
        setattr(GenerativeModule, name, method)
    overrides = [*NETWORKS[network], "logger=none", "evaluation.n=0", "trainer.sample_every=0", "trainer.threads=1"]
    config = preflight("train", [*overrides, "trainer.validate_every=0", f"trainer.max_images={IMAGES}"])
    with tempfile.TemporaryDirectory() as folder:
        session = Session(config, Run(Path(folder)), Report(Path(folder), "", IMAGES), leader=True)
        session.run.lock()
        session.build()
        trainer = session.trainer()
        if not guarded:
            session.module.on_train_start = lambda: setattr(session.module, "_statistics", [])
        began = time.process_time()
        trainer.fit(session.module, session.data)
        spent = time.process_time() - began
        session.close()
    return spent


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    for network in NETWORKS:
        seconds(network, True)
        pairs = []
        for i in range(rounds):
            first, second = seconds(network, bool(i % 2)), seconds(network, not i % 2)
            pairs.append((first, second) if i % 2 else (second, first))
        ours, theirs = zip(*pairs, strict=True)
        cost = statistics.median(a / b for a, b in pairs) - 1
        fastest = min(ours) / min(theirs) - 1
        row = {"network": network, "guarded_s": statistics.median(ours), "bare_s": statistics.median(theirs)}
        row |= {"cost": round(cost, 4), "cost_of_the_fastest": round(fastest, 4), "rounds": rounds}
        row |= {"date": time.strftime("%Y-%m-%d"), "torch": str(torch.__version__), "threads": torch.get_num_threads()}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
