"""A generative model is four verbs: loss, sample, log_prob, encode; all the rest is written here once."""

import abc
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from genlab.codec import Codec
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.noise import NoiseStream
from genlab.optimization import Averaging, Optimization


class GenerativeModule(L.LightningModule, abc.ABC):
    """A distribution over data that can be trained, sampled and, sometimes, scored."""

    likelihood: Literal["exact", "bound", "ode"] | None = None
    discrete: bool = False
    """Whether log_prob is of probabilities on the codec's lattice, and not of a density."""
    averaged: ClassVar[tuple[str, ...]]
    """The submodules that sampling uses: their running average is kept, and their calls are its cost."""

    def __init__(
        self, codec: Codec, shape: Sequence[int], optimizer: Optimization, averaging: Averaging, classes: int = 0
    ):
        super().__init__()
        self.codec, self.shape, self.classes = codec, tuple(shape), classes
        self.optimizations = (optimizer,)
        self.averaging = averaging
        self.images_seen = 0  # real images consumed by all ranks so far; kept by callbacks.budget

    @abc.abstractmethod
    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """Terms of the training loss in model space; "loss" is the one that is minimized."""

    @abc.abstractmethod
    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        """(n, *shape) samples in model space; sample i depends on the stream's row i alone."""

    def trajectory(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Iterator[Tensor]:
        """(n, *shape) after each step of sampling, the last being `sample`'s; families of one step have one."""
        yield self.sample(noise, n, y)

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) log-density or its bound in nats, of x in model space; `likelihood` says which."""
        raise NotImplementedError(f"{type(self).__name__} has no likelihood")

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The latent of x."""
        raise NotImplementedError(f"{type(self).__name__} has no encoder")

    # ------------------------------------------------------------------ written once for every family

    @torch.no_grad()
    def generate(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        """n samples in data space; a conditional model that is given no y draws it uniformly from the stream."""
        return self.codec.decode(self.sample(noise, n, self.labels(noise, n, y)))

    def labels(self, noise: NoiseStream, n: int, y: Tensor | None) -> Tensor | None:
        """(n,) int64 labels of a conditional model, None of any other."""
        if not self.classes:
            if y is not None:
                raise GenlabError("this model is unconditional: train it with model.classes=K to sample by label")
            return None
        return (noise.uniform((n, 1))[:, 0] * self.classes).long() if y is None else y

    @torch.no_grad()
    def nats(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) log p(x) of data x; raises NotImplementedError without a likelihood."""
        if self.codec.log_volume is None:
            raise NotImplementedError(f"{type(self.codec).__name__} is no bijection, so densities do not carry over")
        y = y if self.classes else None
        if self.discrete:
            return self.log_prob(self.codec.encode(x), y)
        return self.log_prob(self.codec.dequantize(x), y) + math.prod(self.shape) * self.codec.log_volume

    def bits_per_dim(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) -log₂ p(x) / D of data x: the only place where logarithms change their base."""
        return -self.nats(x, y) / (math.prod(self.shape) * math.log(2))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._terms(batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._terms(batch)

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        return self.loss(self.codec.encode(batch.x), batch.y if self.classes else None)

    def configure_optimizers(self) -> Optimizer | list[Optimizer]:
        return self.optimizations[0].build(self.parameters())

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        for optimization, optimizer in zip(self.optimizations, self.trainer.optimizers, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = optimization.rate(self.images_seen)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        for optimization, own in zip(self.optimizations, self.trainer.optimizers, strict=True):
            if own is optimizer:
                optimization.clip(optimizer)
