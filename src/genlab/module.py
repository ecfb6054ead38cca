"""A generative model is four verbs: loss, sample, log_prob, encode; all the rest is written here once."""

import abc
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Literal, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from genlab.averaging import Averaging
from genlab.codec import Codec
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.noise import NoiseStream
from genlab.optimization import Optimization, moving
from genlab.sharding import FullySharded, full


class Frame(NamedTuple):
    """A moment of sampling in model space: (n, *shape) as it is there, and what it is expected to become, if anything is."""

    x_t: Tensor
    x_hat: Tensor | None = None

    def shown(self, decode: Callable[[Tensor], Tensor]) -> "Frame":
        """The moment in data space, on the CPU."""
        return Frame(decode(self.x_t).cpu(), None if self.x_hat is None else decode(self.x_hat).cpu())


class Transport(NamedTuple):
    """Where samples began, what they became, in model space, and (n,) ∫ ‖dx/dt‖² dt on their way."""

    z: Tensor
    x: Tensor
    energy: Tensor


class GenerativeModule(L.LightningModule, abc.ABC):
    """A distribution over data that can be trained, sampled and, sometimes, scored."""

    likelihood: Literal["exact", "bound", "ode"] | None = None
    bound: str | None = None
    """The name of a log_prob that is a bound and depends on how it is computed: ELBO, IW-64."""
    discrete: bool = False
    """Whether log_prob is of probabilities on the codec's lattice, and not of a density."""
    levels: Sequence[int] = ()
    """Of a latent that is a ladder, how many of its numbers each level has, from the top down."""
    repeats: int = 1
    """Over how many draws of a log-density, each with its own dequantization, its value is averaged."""
    averaged: tuple[str, ...]
    """The submodules that sampling uses: their running average is kept, and their calls are its cost."""
    shards: ClassVar[bool] = False
    """Whether its weights can be split over ranks: all that learn are in `averaged`, whose parts are only called."""
    judged_by: ClassVar[str | None] = None
    """Of a module that cannot draw, the held-out term that is a run's objective in place of its samples' scores."""
    reconstructs: ClassVar[bool] = False
    """Whether it is shown by what it makes of held-out data, which it takes apart and puts together."""

    def __init__(
        self,
        codec: Codec,
        shape: Sequence[int],
        optimizer: Optimization,
        averaging: Averaging | Mapping[str, Averaging],
        classes: int = 0,
        flip: bool = False,
    ):
        super().__init__()
        self.codec, self.shape, self.classes = codec, tuple(shape), classes
        self.optimizations = (optimizer,)
        self.averaging = averaging
        if flip and len(self.shape) != 3:
            raise GenlabError("flip mirrors images, and these data are none: set data.flip=false")
        self.flip = flip
        self.accumulate = 1  # in how many parts, one after the other, a batch gives its gradient
        self.grad_norms: dict[str, Tensor] = {}  # of this batch, each optimizer's before clipping
        self.nonfinite: list[str] = []  # of this batch, where gradients were no numbers, in words
        self.images_seen = 0  # real images consumed by all ranks so far; kept by callbacks.budget

    @abc.abstractmethod
    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """Terms of the training loss in model space; "loss" is the one that is minimized."""

    @abc.abstractmethod
    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        """(n, *shape) samples in model space; sample i depends on the stream's row i alone."""

    def trajectory(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Iterator[Frame]:
        """One Frame for each step of sampling, x_t of the last being `sample`'s; families of one step have one."""
        x = self.sample(noise, n, y)
        yield Frame(x, x)

    def transport(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Transport:
        """`sample`, with where it began and how far it went; raises GenlabError where that is not a function of z."""
        raise GenlabError(f"{type(self).__name__} follows no path from its noise to its samples")

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) log-density or its bound in nats, of x in model space; `likelihood` says which."""
        raise NotImplementedError(f"{type(self).__name__} has no likelihood")

    def log_prob_parts(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """(B,) parts that add up to log_prob, by name: minus the rate and minus the distortion where it has these."""
        return {"log_prob": self.log_prob(x, y)}

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The latent z of x in model space; raises GenlabError for a model without an encoder."""
        raise GenlabError(f"a {type(self).__name__} has no encoder: use a VAE, or a Gaussian path with an ODE")

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The x in model space of a latent z; raises GenlabError for a model without latents."""
        raise GenlabError(f"a {type(self).__name__} has no latents to render")

    def latents(self, noise: NoiseStream, n: int) -> Tensor:
        """(n, ...) latents as `sample` draws them, which `render` takes; raises GenlabError for a model without latents."""
        raise GenlabError(f"a {type(self).__name__} draws no latents: use a GAN, a VAE, a flow, or a path with an ODE")

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """What is left of x in model space on its way through the latent; raises GenlabError where there is none."""
        return self.render(self.encode(x, y), y)

    def complete(self, noise: NoiseStream, given: Tensor, y: Tensor | None = None) -> Tensor:
        """(n, *shape) samples in model space that begin with given (n, k); GenlabError of a model that has no beginning."""
        raise GenlabError(f"a {type(self).__name__} continues nothing: a prompt is for an autoregressive model of text")

    def warning(self, means: Mapping[str, float]) -> str | None:
        """What to say, once, of the terms of training in their mean since the last line of the history, if anything."""
        if any(name.startswith("skipped") and mean == 1 for name, mean in means.items()):
            norm = max(mean for name, mean in means.items() if name.startswith("grad_norm"))
            return f"every step is left out: gradients are of norm {norm:.3g}, and optimizer.skip_norm is below that"
        return None

    # ------------------------------------------------------------------ written once for every family

    def drawn_by(self, sampler: Any) -> Any:
        """The sampler; raises GenlabError for one of another family, before hours of training and not after them."""
        if sampler is not None and not hasattr(self, getattr(sampler, "needs", "")):
            name, own = type(sampler).__name__, type(self).__name__
            raise GenlabError(f"sampler={name} is of another family than {own}: take one of its own, or none")
        return sampler

    def prepare(self) -> None:
        """Do what the sampler has to do once for weights as they stand, which is no part of what a sample costs."""
        if prepare := getattr(getattr(self, "sampler", None), "prepare", None):
            prepare(self)

    @torch.no_grad()
    def generate(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        """n samples in data space; a conditional model that is given no y draws it uniformly from the stream."""
        return self.codec.decode(self.sample(noise, n, self.labels(noise, n, y)))

    @property
    def choices(self) -> int:
        """How many labels samples may be asked for; 0 is none."""
        return self.classes

    def labels(self, noise: NoiseStream, n: int, y: Tensor | None) -> Tensor | None:
        """(n,) int64 labels of a conditional model, None of any other; raises GenlabError for labels it has not."""
        if not self.choices:
            if y is not None:
                raise GenlabError("this model is unconditional: train it with model.classes=K to sample by label")
            return None
        if y is None:
            return (noise.uniform((n, 1))[:, 0] * self.choices).long()
        wrong = y[(y < 0) | (y >= self.choices)]
        if len(wrong):
            raise GenlabError(f"y={wrong[0].item()}: the labels are 0 to {self.choices - 1}")
        return y

    def nats(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) log p(x) of data x; raises NotImplementedError without a likelihood."""
        return torch.stack([*self.nats_parts(x, y).values()]).sum(0)

    @torch.no_grad()
    def nats_parts(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """(B,) parts that add up to log p(x) of data x, as log_prob_parts has them in model space."""
        if self.codec.log_volume is None:
            raise NotImplementedError(f"{type(self.codec).__name__} is no bijection, so densities do not carry over")
        y = y if self.classes else None
        if self.discrete:
            return self.log_prob_parts(self.codec.encode(x), y)
        draws = [self.log_prob_parts(self.codec.dequantize(x), y) for _ in range(self.repeats)]
        parts = {name: torch.stack([draw[name] for draw in draws]).mean(0) for name in draws[0]}
        *_, last = parts  # the distortion, or all there is: a change of scale is no matter of the rate
        return parts | {last: parts[last] + math.prod(self.shape) * self.codec.log_volume}

    def bits_per_dim(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,) -log₂ p(x) / D of data x."""
        return self.bits(self.nats(x, y))

    def bits(self, nats: Tensor) -> Tensor:
        """Minus nats in bits per dimension: the only place where a log-likelihood changes its base."""
        return -nats / (math.prod(self.shape) * math.log(2))

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self.fit_batch(self.mirrored(batch) if self.flip else batch)

    def fit_batch(self, batch: Batch) -> dict[str, Tensor]:
        """The terms of a batch to learn from, in their mean over its parts, of which all but the last have left their
        gradients; who optimizes manually does it here."""
        if self.accumulate == 1:
            return self._terms(batch)
        *earlier, last = batch.parts(self.accumulate)
        self.trainer.optimizers[0].zero_grad()
        found = []
        for part in earlier:
            terms = self._terms(part)
            # ranks add up what is there when the last part is done, as torch's DDP does with what came before its forward
            self.trainer.strategy.backward(terms["loss"] / self.accumulate, None)
            found.append({name: term.detach() for name, term in terms.items()})
        found.append(self._terms(last))
        return {name: torch.stack([terms[name] for terms in found]).mean(0) for name in found[0]}

    def descend(
        self,
        optimizer: Any,
        minimized: str,
        turn: Callable[[Tensor, Tensor | None], dict[str, Tensor]],
        parts: Sequence[Batch],
    ) -> dict[str, Tensor]:
        """For who optimizes manually: one step down one term of `turn` in its mean over the parts of a batch, and all of its
        terms so."""
        found = []
        with self.toggled_optimizer(optimizer):
            optimizer.zero_grad()
            for part in parts:
                terms = turn(self.codec.encode(part.x), part.y if self.classes else None)
                alone = (
                    nullcontext
                    if part is parts[-1]
                    else getattr(self.trainer.strategy, "block_backward_sync", nullcontext)
                )
                with alone():  # ranks add their gradients up once
                    self.manual_backward(terms[minimized] / len(parts))
                found.append({name: term.detach() for name, term in terms.items()})
            optimizer.step()
        return {name: torch.stack([terms[name] for terms in found]).mean(0) for name in found[0]}

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        if self.accumulate == 1:  # else `fit_batch` has done it, before the first part
            optimizer.zero_grad()

    def mirrored(self, batch: Batch) -> Batch:
        """Each image as it is or mirrored left to right, with probability 1/2 each."""
        chosen = torch.rand(len(batch.x), 1, 1, 1, device=batch.x.device) < 0.5
        return batch._replace(x=torch.where(chosen, batch.x.flip(3), batch.x))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return self._terms(batch)

    def validated(self) -> dict[str, Tensor]:
        """What a whole pass over the held-out data tells beyond the means of its terms."""
        return {}

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        return self.loss(self.codec.encode(batch.x), batch.y if self.classes else None)

    def configure_model(self) -> None:
        """Split the weights over the ranks, if that is how they train."""
        if isinstance(self.trainer.strategy, FullySharded):
            for name in self.averaged:
                self.trainer.strategy.shard(self.get_submodule(name))

    def configure_optimizers(self) -> Optimizer | list[Optimizer]:
        return self.optimizations[0].build(self.parameters())

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """∂loss/∂θ, times nan where the loss itself is no number, which all ranks see in the gradients that they share."""
        value = loss.detach()
        loss.backward(1 + (value - value), *args, **kwargs)

    def on_train_start(self) -> None:
        parameters = {id(p) for p in self.parameters()}
        kept = [t for t in self.state_dict(keep_vars=True).values() if id(t) not in parameters]
        self._statistics = [t for t in kept if t.dtype != torch.bool]  # that weights were begun by data stays true
        self._before = [t.clone() for t in self._statistics]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.grad_norms, self.nonfinite = {}, []
        if self._statistics:
            torch._foreach_copy_(self._before, self._statistics)  # pyright: ignore
        for optimization, optimizer in zip(self.optimizations, self.trainer.optimizers, strict=True):
            optimization.advance(optimizer, self.images_seen)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        for i, (optimization, own) in enumerate(zip(self.optimizations, self.trainer.optimizers, strict=True)):
            if own is optimizer:
                of = f"/{i}" if len(self.optimizations) > 1 else ""
                self.grad_norms[f"grad_norm{of}"] = norm = optimization.norm(optimizer)
                if optimization.skip_norm is not None:
                    self.grad_norms[f"skipped{of}"] = norm.new_tensor(float(optimization.skips(norm)))
                if math.isfinite(norm.item()):
                    optimization.clip(optimizer, norm)
                else:
                    self._skip(optimization, optimizer)

    def _skip(self, optimization: Optimization, optimizer: Optimizer) -> None:
        """Leave weights, optimizer and running statistics as they were before this batch, and remember what was wrong."""
        names = {id(p): name for name, p in self.named_parameters()}
        ours, wrong = [], []
        for p in moving(optimizer):
            ours.append(names[id(p)])
            wrong += [] if full(p.grad.isfinite().all()) else ours[-1:]
        whole = os.path.commonpath([name.replace(".", "/") for name in ours]).replace("/", ".") or "the model"
        large = f"the norm of the {len(ours)} gradients of {whole}, too large for a number"
        self.nonfinite.append(f"{len(wrong)} of {len(ours)} gradients of {whole}, first {wrong[0]}" if wrong else large)
        optimization.mend(optimizer)
        if self._statistics:
            torch._foreach_copy_(self._statistics, self._before)  # pyright: ignore
