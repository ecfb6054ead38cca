"""z = f(x), its inverse and the volume it changes: what every layer of a normalizing flow is."""

import abc
from collections.abc import Iterator, Sequence

from torch import Tensor, nn


class Bijection(nn.Module, abc.ABC):
    """z = f(x), of x's own shape, with log |det ∂z/∂x|, so that log p(x) = log p(z) + log |det ∂z/∂x|.

    Dinh et al. 2017, arXiv:1605.08803, eq. 2. A label y is a condition and is never transformed.
    """

    evaluated: str = ""
    """The submodule whose calls are the cost of a pass, itself by default."""
    solved: bool = False
    """Whether its volume is an ODE's, exact up to the tolerance of the solver."""

    def forward(self, x: Tensor, y: Tensor | None = None, backward: bool = False) -> tuple[Tensor, Tensor]:
        """`transform`, or backward (`inverse`, 0), through one call, so that passes in both directions are counted."""
        return (self.inverse(x, y), x.new_zeros(len(x))) if backward else self.transform(x, y)

    @abc.abstractmethod
    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """z of x's shape, and (B,) log |det ∂z/∂x|."""

    @abc.abstractmethod
    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        """The x whose transform is z."""

    def unfold(self, z: Tensor, y: Tensor | None) -> Iterator[Tensor]:
        """What z becomes on its way to x, layer by layer, all of x's shape; the last is `inverse(z)`."""
        yield self.inverse(z, y)


class Chain(Bijection):
    """One after another, f = f_n ∘ ... ∘ f_1; a `whole` one is shown as one layer."""

    def __init__(self, layers: Sequence[Bijection], whole: bool = False):
        super().__init__()
        self.layers, self.whole = nn.ModuleList(layers), whole

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        volume = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x, y)
            volume = volume + log_det
        return x, volume

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        for layer in reversed(self.layers):
            z = layer.inverse(z, y)  # pyright: ignore
        return z

    def unfold(self, z: Tensor, y: Tensor | None) -> Iterator[Tensor]:
        if self.whole:
            yield self.inverse(z, y)
            return
        for layer in reversed(self.layers):
            state = z
            for state in layer.unfold(z, y):  # pyright: ignore
                yield state
            z = state


class Flattened(Bijection):
    """A bijection of vectors, applied to x of any shape."""

    def __init__(self, inner: Bijection):
        super().__init__()
        self.inner = inner

    def transform(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_det = self.inner(x.flatten(1), y)
        return z.view_as(x), log_det

    def inverse(self, z: Tensor, y: Tensor | None) -> Tensor:
        return self.inner.inverse(z.flatten(1), y).view_as(z)

    def unfold(self, z: Tensor, y: Tensor | None) -> Iterator[Tensor]:
        for state in self.inner.unfold(z.flatten(1), y):
            yield state.view_as(z)


def places(x: Tensor) -> int:
    """H W of images (B, C, H, W), 1 of vectors (B, D): over how many places a channel is repeated."""
    return x[0, 0].numel()


def summed(x: Tensor) -> Tensor:
    """(B,) the sum over all dimensions but the first."""
    return x.flatten(1).sum(1)
