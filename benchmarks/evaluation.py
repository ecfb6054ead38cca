"""What evaluation costs: genlab's Fréchet distance, its streaming moments and its memory, beside what others do.

Run: OMP_NUM_THREADS=1 python benchmarks/evaluation.py [rounds] [minutes]. All sides alternate in one process, in another
order in each round; medians of its CPU time are compared, which on one thread is what the clock would say if nothing else
ran. Features are made by a network of random weights from clusters, 2048 of them and none negative. Others: torchmetrics' own
functions, scipy's sqrtm as pytorch-fid and most papers' code use it, numpy's eigvals as torch-fidelity does. The memory is the
peak of a process that evaluates 50,000 samples against as many; `minutes` is how long it may take, and 0 leaves it out.
"""

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from genlab.evaluation.banks import Chunk, fill
from genlab.evaluation.features import Activations, FeatureBank
from genlab.evaluation.frechet import FrechetDistance, FrechetInfinity, frechet_distance
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.kernel import KernelDistance, KernelSubsets
from genlab.evaluation.manifold import Manifold
from genlab.evaluation.moments import Blocks, Gaussian, fit
from genlab.evaluation.vendi import Vendi

WIDTH = 2048


class Source:
    """Features in clusters, like those of a network: the same rows for the same index, whatever the batch."""

    name, fingerprint, layer, resize = "clusters", "", "last", "none"

    def __init__(self, shift: float = 0.0):
        generator = torch.Generator().manual_seed(0)
        self.centres = torch.randn(10, 40, generator=generator)
        self.weights = [
            torch.randn(40, 512, generator=generator) / 40**0.5,
            torch.randn(512, WIDTH, generator=generator),
        ]
        self.shift = shift

    def rows(self, first: int, n: int) -> Tensor:
        """Latents (n, 40) of the samples first, ..., first + n − 1."""
        generator = torch.Generator().manual_seed(1000 * first + round(100 * self.shift))
        kind = torch.randint(10, (n,), generator=generator)
        return self.centres[kind] + 0.5 * torch.randn(n, 40, generator=generator) + self.shift

    def to(self, device: torch.device) -> "Source":
        return self

    def __call__(self, x: Tensor) -> Activations:
        hidden = (x @ self.weights[0]).relu()
        return Activations((hidden @ self.weights[1] / 512**0.5 - 0.3).relu())

    def features(self, n: int, first: int = 0) -> Tensor:
        return self(self.rows(first, n)).features


def nuclear(x: Tensor, y: Tensor) -> float:
    """The distance by QR and the nuclear norm of centred factors, in float64: the reference."""
    a, b = ((z.double() - z.double().mean(0)) / math.sqrt(len(z) - 1) for z in (x, y))
    small = [torch.linalg.qr(z).R if len(z) > z.shape[1] else z for z in (a, b)]
    shift = (x.double().mean(0) - y.double().mean(0)).square().sum()
    root = torch.linalg.svdvals(small[0] @ small[1].T).sum()
    return (shift + a.square().sum() + b.square().sum() - 2 * root).item()


def by_scipy(real: Gaussian, fake: Gaussian) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = scipy.linalg.sqrtm((real.covariance @ fake.covariance).numpy())
    return _distance(real, fake, float(np.trace(np.real(root))))


def by_numpy(real: Gaussian, fake: Gaussian) -> float:
    spectrum = torch.from_numpy(np.linalg.eigvals((real.covariance @ fake.covariance).numpy()))
    return _distance(real, fake, spectrum.to(torch.complex128).sqrt().real.sum().item())


def by_torchmetrics(real: Gaussian, fake: Gaussian) -> float:
    from torchmetrics.image.fid import _compute_fid

    return _compute_fid(real.mean, real.covariance, fake.mean, fake.covariance).item()


def _distance(real: Gaussian, fake: Gaussian, root: float) -> float:
    shift = (real.mean - fake.mean).square().sum()
    return (shift + real.covariance.trace() + fake.covariance.trace()).item() - 2 * root


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def rounds(sides: Mapping[str, Callable[[], object]], count: int) -> dict[str, float]:
    """The median seconds of each side, in another order in each round."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(count):
        names = list(sides)
        for name in names[k % len(names) :] + names[: k % len(names)]:
            taken[name].append(seconds(sides[name]))
    return {name: statistics.median(values) for name, values in taken.items()}


def distances(count: int) -> Iterator[dict]:
    """Fréchet distances from a cached reference of 10,000 samples."""
    x = Source().features(10_000)
    real = fit(x)
    real.factor  # noqa: B018  cached, as it is beside the reference statistics
    for n in (5000, 1000):
        y = Source(0.1).features(n)
        fake, expected = fit(y), nuclear(x, y)
        works = {"ours": frechet_distance, "torchmetrics": by_torchmetrics, "numpy": by_numpy, "scipy": by_scipy}
        errors = {name: abs(work(real, fake) / expected - 1) for name, work in works.items()}
        sides = {name: lambda work=work, fake=fake: work(real, fake) for name, work in works.items()}
        taken = rounds(sides, count)
        ratios = {name: taken[name] / taken["ours"] for name in works}
        yield {
            "frechet distance, n": n,
            "value": expected,
            "seconds": taken,
            "slower": ratios,
            "relative error": errors,
        }


def streaming(count: int) -> dict:
    """Moments of 1,000 features in batches of 64; ours in ten blocks."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Identity(nn.Identity):
        num_features = WIDTH

    theirs, ours, one = FrechetInceptionDistance(feature=Identity()), Blocks(WIDTH, 10), Blocks(WIDTH)
    batches = Source().features(1024).split(64)[:16]

    def update(sums: Blocks) -> None:
        for k, batch in enumerate(batches):
            sums.update(batch, 64 * k)
        sums.flush()

    sides = {
        "ours": lambda: update(ours),
        "ours in one block": lambda: update(one),
        "torchmetrics": lambda: [theirs.update(batch, real=False) for batch in batches],
    }
    rounds(sides, 1)  # to warm up, as for the distances their errors do
    taken = rounds(sides, 3 * count)
    taken = {name: value * 1000 / 1024 for name, value in taken.items()}
    return {"update of 1,000 features, batch 64": taken, "slower": taken["torchmetrics"] / taken["ours"]}


def pairs(count: int) -> dict:
    """Metrics of all pairs, 5,000 against 5,000, each with its jackknife over ten blocks."""
    real, fake = (FeatureBank(5000, features=Source(shift).features(5000)) for shift in (0, 0.1))
    sides = {
        "kernel distance": lambda: jackknife(KernelDistance("net"), real, fake),
        "precision, recall, density, coverage": lambda: jackknife(Manifold(), real, fake),
        "kernel distance of 100 subsets of 1,000": lambda: jackknife(KernelSubsets("net"), real, fake),
    }
    return {"metrics of 5,000 against 5,000, seconds with ten replicates": rounds(sides, count)}


def evaluation(n: int) -> None:
    """Say the peak memory after each step of an evaluation of n samples against n, of which features are kept."""
    source, device, started = Source(), torch.device("cpu"), time.perf_counter()

    def say(step: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"after": step, "GiB": round(peak, 3), "s": round(time.perf_counter() - started)}), flush=True)

    say("imports")
    features = torch.empty(n, WIDTH)
    for first in range(0, n, 500):
        features[first : first + 500] = source.features(500, first)
    moments = Blocks.of(features).gaussian
    moments.factor  # noqa: B018
    real = FeatureBank(n, moments, features=features)
    say("reference")
    shifted = Source(0.1)
    chunks = (Chunk(first, shifted.rows(first, 500), None) for first in range(0, n, 500))
    fake = fill(chunks, n, shifted, ("moments", "features"), device)
    say("features and moments in ten blocks")
    metrics = (FrechetDistance, FrechetInfinity, Vendi, KernelSubsets)
    for metric in (*(kind("net") for kind in metrics), KernelDistance("net"), Manifold()):
        jackknife(metric, real, fake)
        say(type(metric).__name__)


def memory(minutes: float) -> dict:
    """The peak of `evaluation` of 50,000 samples in a process of its own, and its steps, as far as it comes."""
    command = [sys.executable, __file__, "evaluation", "50000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            out, _ = process.communicate(timeout=60 * minutes)
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # also of a step that was not finished
    steps = [json.loads(line) for line in out.splitlines()]
    return {
        "peak memory of 50,000 against 50,000, GiB": round(peak, 3),
        "finished": not process.returncode,
        "steps": steps,
    }


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    minutes = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    for row in distances(count):
        print(json.dumps(row), flush=True)
    print(json.dumps(streaming(count)), flush=True)
    print(json.dumps(pairs(1)), flush=True)
    if minutes:
        print(json.dumps(memory(minutes)), flush=True)
    about = {
        "torch": torch.__version__,
        "scipy": scipy.__version__,
        "threads": torch.get_num_threads(),
        "rounds": count,
    }
    print(json.dumps({**about, "load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    evaluation(int(sys.argv[2])) if sys.argv[1:2] == ["evaluation"] else main()
