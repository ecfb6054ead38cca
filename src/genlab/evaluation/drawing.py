"""Samples of a model in batches, and what they cost."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genlab.data.source import Batch
from genlab.distributed import mine, summed
from genlab.errors import GenlabError
from genlab.evaluation.banks import Chunk, chunks
from genlab.evaluation.protocol import counted
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key


@dataclass
class Cost:
    """What sampling takes, filled while samples are drawn."""

    evaluations: int = 0  # of a sampling network, counted
    seconds: float = 0.0
    samples: int = 0

    @property
    def nfe(self) -> float:
        """Evaluations per sample, on all ranks."""
        return summed(self.evaluations) / summed(self.samples)

    @property
    def milliseconds(self) -> float:
        """Of one device, per sample."""
        return 1000 * summed(self.seconds) / summed(self.samples)


@torch.no_grad()
def drawn(module: GenerativeModule, n: int, batch: int, seed: int, cost: Cost) -> Iterator[Chunk]:
    """This rank's share of samples 0, ..., n - 1 of a seed, the same whatever the batch."""
    module.eval()
    module.prepare()
    for first, count in mine(n, batch):
        stream = NoiseStream(key(seed, "evaluation"), first, module.device)
        started = time.perf_counter()
        with counted(*(module.get_submodule(name) for name in module.averaged)) as evaluations:
            y = module.labels(stream, count, None)
            z = module.sample(stream, count, y)
            x = module.codec.decode(z)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        cost.seconds += time.perf_counter() - started
        cost.evaluations += evaluations.rows
        cost.samples += count
        _finite(x, z)
        yield Chunk(first, x, y)


@torch.no_grad()
def reconstructed(module: GenerativeModule, data: Batch, batch: int) -> Iterator[Chunk]:
    """This rank's share of data, taken apart and put together again by the module."""
    module.eval()
    for first, x, y in chunks(data, batch):
        z = module.reconstruct(module.codec.encode(x.to(module.device)))
        x_hat = module.codec.decode(z)
        _finite(x_hat, z)
        yield Chunk(first, x_hat, y)


def _finite(x: Tensor, z: Tensor) -> None:
    """Raise GenlabError for z that are no numbers, which decoding to the images x would show as black."""
    if x.dtype == torch.uint8 and not torch.isfinite(z).all():
        raise GenlabError("the samples hold nan or inf: the weights or the sampler have diverged, so there is no score")
