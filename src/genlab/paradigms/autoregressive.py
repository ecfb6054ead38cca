"""Autoregressive models: each number of a row is told from those before it."""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import parametrize

from genlab.decoding import Decoding
from genlab.errors import GenlabError
from genlab.likelihood_heads import Head
from genlab.module import Frame, GenerativeModule
from genlab.noise import NoiseStream
from genlab.precision import wide


class Network(Protocol):
    """A module: parameters of the law of each position given those before it, as `Transformer.forward` has them."""

    outputs: int

    def memory(self) -> Any: ...

    def __call__(self, s: Tensor, y: Tensor | None = None, memory: Any = None) -> Tensor: ...


class Autoregressive(GenerativeModule):
    """p(x) = Π_i p(x_i | x_1, ..., x_{i-1}), exactly: images row by row from the top left, text from the first byte.

    With `joint` a position is a pixel, all channels of which the head gives one law; without it every channel is a position
    of its own, which follows those before it in its pixel. The loss is -log p(x) / D in nats. `sampler` changes the laws
    that are drawn from, and not log_prob.
    """

    likelihood = "exact"
    discrete = True
    averaged = ("network",)

    def __init__(self, *, network: Network, head: Head, joint: bool, sampler: Decoding, **common: Any):
        super().__init__(**common)
        self.network, self.head, self.joint = network, head, joint
        self.sampler = self.drawn_by(sampler)
        channels = self.shape[0] if joint else 1
        self.positions = math.prod(self.shape) // channels
        self.row = self.positions // (self.shape[-2] if len(self.shape) > 1 else 1)
        needed = head.outputs(channels)
        if network.outputs != needed:
            name = type(head).__name__
            raise GenlabError(
                f"the network has {network.outputs} outputs, and {name} on {channels} channels needs {needed}: set "
                "network.outputs to it"
            )
        self.sampler(head, torch.zeros(1, needed, 1))  # raises what it would after training
        self._unseen = True

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        if self._unseen:  # once: on a GPU it waits
            self.head.check(x)
            self._unseen = False
        return {"loss": -self._log_prob(x, y).mean() / math.prod(self.shape)}

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Σ_i log p(x_i | x_1, ..., x_{i-1})."""
        self.head.check(x)
        return self._log_prob(x, y)

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        *_, last = self.trajectory(noise, n, y)
        return last.x_t

    def trajectory(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Iterator[Frame]:
        """A frame for each row of an image, with 0 where nothing is drawn yet; of text one."""
        yield from self._drawn(noise, n, y, None)

    def complete(self, noise: NoiseStream, given: Tensor, y: Tensor | None = None) -> Tensor:
        """Rows (n, *shape) that begin with the k positions of given (n, k)."""
        if given.shape[1] >= self.positions:
            raise GenlabError(
                f"a prompt of {given.shape[1]}, and this model has {self.positions} positions: shorten it"
            )
        self.head.check(given)
        *_, last = self._drawn(noise, len(given), y, given[:, None])
        return last.x_t

    def _drawn(self, noise: NoiseStream, n: int, y: Tensor | None, given: Tensor | None) -> Iterator[Frame]:
        """Position after position, by the inverse of its distribution function."""
        u = self._sequence(noise.uniform((n, *self.shape)))  # (n, k, N)
        s = u[:, :, :0] if given is None else given  # (n, k, those drawn)
        memory, new, finite = self.network.memory(), s, torch.ones((), dtype=torch.bool, device=u.device)
        with parametrize.cached():  # normalized weights, which are as much work as a position
            for i in range(s.shape[2], self.positions):
                parameters = self.network(new, y, memory)[:, :, -1:]
                finite = finite & parameters.isfinite().all()
                new = self.head.sample(self.sampler(self.head, parameters), u[:, :, i : i + 1])
                s = torch.cat([s, new], dim=2) if i else new
                if (i + 1) % self.row == 0:
                    yield Frame(self._arranged(F.pad(s, (0, self.positions - s.shape[2]))))
        if not finite:
            raise GenlabError("the network says nan or inf: its weights have diverged, so nothing can be drawn")

    def _log_prob(self, x: Tensor, y: Tensor | None) -> Tensor:
        s = self._sequence(x)
        return self.head.log_prob(s, wide(self.network(s, y)))

    def _sequence(self, x: Tensor) -> Tensor:
        """x (B, *shape) as (B, k, N): pixels row by row of k = C numbers, or k = 1 and their channels one by one."""
        if self.joint:
            return x.flatten(2)
        return (x.movedim(1, -1) if len(self.shape) == 3 else x).flatten(1)[:, None]

    def _arranged(self, s: Tensor) -> Tensor:
        """The inverse of `_sequence`."""
        if self.joint or len(self.shape) != 3:
            return s.reshape(len(s), *self.shape)
        return s.reshape(len(s), *self.shape[1:], self.shape[0]).movedim(-1, 1)
