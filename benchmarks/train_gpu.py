"""The CIFAR-10-sized DDPM U-Net (35.7M parameters) in bf16 on a CUDA card: genlab's training against a bare eager loop.

Run: python benchmarks/train_gpu.py [batch] [rounds]. Prints images a second of both, in alternating rounds, and the share of
the card's matrix-product ceiling (measured by one large bf16 product) that genlab's training reaches.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import lightning as L
import torch
from torch.utils.flop_counter import FlopCounterMode

from genlab.callbacks.progress import Report
from genlab.config import preflight
from genlab.data.source import Batch
from genlab.fitting import lightning
from genlab.instantiation import build
from genlab.run import Run
from genlab.training import Session


class Noise:
    """As many random 32x32 images as CIFAR-10 has: their content costs nothing to a network."""

    name = "noise"

    def split(self, name: str) -> Batch:
        n = 50_000 if name == "train" else 10_000
        return Batch(torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8), None)


def configuration(batch: int, images: int):
    overrides = ["model=ddpm", "data.shape=[3,32,32]", "data.levels=256", "logger=none", "evaluation.n=0"]
    overrides += [f"trainer.batch={batch}", f"trainer.max_images={images}", "trainer.precision=bf16-mixed"]
    overrides += ["trainer.accelerator=cuda", "trainer.log_every=100000", "trainer.checkpoint_every=0", "outputs=/tmp"]
    return preflight("train", overrides, check=False)


def platform(batch: int, steps: int) -> float:
    """Images a second of genlab's own fit, its last batches, when everything is warm."""
    with tempfile.TemporaryDirectory() as folder:
        config = configuration(batch, batch * steps)
        session = Session(config, Run(Path(folder)), Report(Path(folder), "", batch * steps), leader=True)
        session.run.lock()
        session.build()
        session.source = Noise()
        warm = Warm(steps // 3)
        trainer = lightning(config.trainer, session.module, session.callbacks)
        trainer.callbacks.insert(0, warm)  # before the checkpoint of the last batch  # pyright: ignore
        trainer.fit(session.module, session.data)
        session.close()
    return batch * (steps - steps // 3) / warm.seconds


class Warm(L.Callback):
    """Times the batches after the first `skip`."""

    def __init__(self, skip: int):
        self.skip, self.seen = skip, 0

    def on_train_batch_end(self, trainer, *_) -> None:
        self.seen += 1
        if self.seen == self.skip or trainer.is_last_batch:
            torch.cuda.synchronize()
            now = time.perf_counter()
            self.seconds, self.since = now - getattr(self, "since", now), now


def bare(batch: int, steps: int) -> float:
    """Images a second of the same network, loss, optimizer and average in a loop by hand."""
    module = build(configuration(batch, batch).model).cuda()
    network = module.denoiser.network
    alpha, sigma = module.denoiser.path.alpha.float(), module.denoiser.path.sigma.float()
    average = [p.detach().clone() for p in network.parameters()]
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    data = Noise().split("train").x
    order = torch.randperm(len(data))
    started = 0.0
    for k in range(steps):
        if k == steps // 3:
            torch.cuda.synchronize()
            started = time.perf_counter()
        rows = order[torch.arange(k * batch, (k + 1) * batch) % len(data)]
        x = data.index_select(0, rows).cuda().float() / 127.5 - 1
        t = torch.randint(1, 1001, (batch,), device="cuda")
        eps = torch.randn_like(x)
        with torch.autocast("cuda", torch.bfloat16):
            out = network(alpha[t].view(-1, 1, 1, 1) * x + sigma[t].view(-1, 1, 1, 1) * eps, (t - 1).float())
            loss = (out - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch._foreach_lerp_(average, [p.data for p in network.parameters()], 1e-4)  # pyright: ignore
    torch.cuda.synchronize()
    return batch * (steps - steps // 3) / (time.perf_counter() - started)


def flops_per_image(batch: int = 8) -> float:
    """Floating-point operations of a training step (forward and backward) for one image, counted."""
    network = build(configuration(batch, batch).model).denoiser.network.cuda()
    counter = FlopCounterMode(display=False)
    with counter:
        network(torch.randn(batch, 3, 32, 32, device="cuda"), torch.rand(batch, device="cuda")).sum().backward()
    return counter.get_total_flops() / batch


def ceiling(n: int = 8192, repeats: int = 20) -> float:
    """Operations a second of one large bf16 matrix product."""
    a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
    torch.mm(a, a)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        torch.mm(a, a)
    torch.cuda.synchronize()
    return 2 * n**3 * repeats / (time.perf_counter() - started)


def main() -> None:
    if not torch.cuda.is_available():
        print("benchmarks/train_gpu.py needs a CUDA card: skipped")
        return
    batch = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    pairs = [(platform(batch, 90), bare(batch, 90)) for _ in range(rounds)]
    ours, theirs = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    top = ceiling()
    report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "batch": batch,
        "genlab images/s": ours,
        "bare images/s": theirs,
        "speed ratio": statistics.median(a / b for a, b in pairs),
        "bf16 matmul TFLOP/s": top / 1e12,
        "share of the ceiling": ours * flops_per_image() / top,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
