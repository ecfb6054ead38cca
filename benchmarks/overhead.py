"""What the platform costs: genlab's training and sampling against bare PyTorch loops over the same network.

Run: python benchmarks/overhead.py [rounds]. Both sides alternate in one process; the medians of their times are compared.
Training: the digits DDPM, its optimizer with warm-up and clipping, its batch and its running average. Sampling: S ancestral
steps against S network calls at the same batch.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from genlab.callbacks.progress import Report
from genlab.config import preflight
from genlab.fitting import lightning
from genlab.instantiation import build
from genlab.noise import NoiseStream
from genlab.run import Run
from genlab.training import Session

IMAGES = 6400


def configuration(*more: str):
    overrides = [
        "experiment=digits/ddpm",
        "logger=none",
        "evaluation.n=0",
        "trainer.sample_every=0",
        "trainer.validate_every=0",
    ]
    return preflight("train", [*overrides, f"trainer.max_images={IMAGES}", *more])


def platform() -> float:
    """Seconds of genlab's own fit of IMAGES images: everything that `genlab train` does between first and last batch."""
    with tempfile.TemporaryDirectory() as folder:
        config = configuration()
        session = Session(config, Run(Path(folder)), Report(Path(folder), "", IMAGES), leader=True)
        session.run.lock()
        session.build()
        lightning(config.trainer, session.module, session.callbacks).fit(session.module, session.data)
        seconds = session.clock.seconds
        session.close()
    return seconds


def bare() -> float:
    """Seconds of a hand-written loop: the same network, optimizer, batch, loss, clipping, warm-up and average."""
    config = configuration()
    module = build(config.model)
    x = build(config.data.source).split("train").x
    network, alpha, sigma = (
        module.denoiser.network,
        module.denoiser.path.alpha.float(),
        module.denoiser.path.sigma.float(),
    )
    average = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    order, at, batch = torch.randperm(len(x)), 0, config.trainer.batch
    started = time.perf_counter()
    for k in range(IMAGES // batch):
        if at + batch > len(x):
            order, at = torch.randperm(len(x)), 0
        images = x.index_select(0, order[at : at + batch]).float() / 127.5 - 1
        at += batch
        t = torch.randint(1, 1001, (batch,))
        eps = torch.randn_like(images)
        a, s = alpha[t].view(-1, 1, 1, 1), sigma[t].view(-1, 1, 1, 1)
        loss = (network(a * images + s * eps, (t - 1).float()) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, k * batch / 6400)
        optimizer.step()
        torch._foreach_lerp_(average, [p.data for p in network.parameters()], 0.005)  # pyright: ignore
    return time.perf_counter() - started


@torch.no_grad()
def sampling(batch: int, steps: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """Timers of S sampler steps and of S bare calls of the network."""
    module = build(configuration(f"sampler.steps={steps}").model).eval()
    network = module.denoiser.network
    x, c = torch.randn(batch, 1, 8, 8), torch.full((batch,), 500.0)

    @torch.no_grad()
    def ours() -> float:
        started = time.perf_counter()
        module.generate(NoiseStream(0), batch)
        return time.perf_counter() - started

    @torch.no_grad()
    def calls() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            network(x, c)
        return time.perf_counter() - started

    return ours, calls


def compare(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> dict[str, float]:
    """Medians of alternating runs, after one of each to warm up."""
    for warm_up in (ours, theirs):
        warm_up()
    a, b = zip(*((ours(), theirs()) if i % 2 else (theirs(), ours())[::-1] for i in range(rounds)), strict=True)
    ratios = [y / x for x, y in zip(a, b, strict=True)]
    return {"ours": statistics.median(a), "bare": statistics.median(b), "speed ratio": statistics.median(ratios)}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    training = compare(platform, bare, rounds)
    rates = {name: IMAGES / training[name] for name in ("ours", "bare")}
    print(json.dumps({"training images/s": rates, "speed ratio": training["speed ratio"]}))
    for batch in (64, 360):
        print(json.dumps({"sampling batch": batch, **compare(*sampling(batch, 50), rounds)}))
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "rounds": rounds}))


if __name__ == "__main__":
    main()
