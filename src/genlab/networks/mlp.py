"""Fully connected networks for densities in the plane."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.networks.layers import labels


class MLP(nn.Module):
    """x (B, inputs), y -> (B, outputs), or (B,) where outputs = 0: `depth` hidden SiLU layers; y by embedding."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, classes: int):
        super().__init__()
        self.label = nn.Embedding(classes, width) if classes else None
        self.first = nn.Linear(inputs, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, max(outputs, 1))
        self.outputs = outputs

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.first(x)
        if self.label is not None:
            h = h + self.label(y)
        for layer in self.hidden:
            h = layer(F.silu(h))
        h = self.last(F.silu(h))
        return h if self.outputs else h[:, 0]


class ReLUMLP(nn.Module):
    """x (B, inputs) -> (B, outputs), or (B,) where outputs = 0: `depth` hidden ReLU layers, with `batch_norm` each normalized
    over the batch and without bias, as in the generator of PacGAN (Lin et al. 2018, arXiv:1712.04086, and its code).

    Weights begin as N(0, std²) and biases at 0, or as torch has them where std is null. Raises GenlabError for labels.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        classes: int,
        batch_norm: bool,
        std: float | None = None,
    ):
        super().__init__()
        unlabelled(classes)
        layers: list[nn.Module] = []
        for a, b in pairwise([inputs] + [width] * depth):
            norm = [nn.BatchNorm1d(b, eps=1e-4, momentum=0.05)] if batch_norm else []
            layers += [nn.Linear(a, b, bias=not batch_norm), *norm, nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, max(outputs, 1)))
        self.outputs = outputs
        initialize(self, std)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.layers(x)
        return h if self.outputs else h[:, 0]


class Maxout(nn.Module):
    """x (B, inputs) -> (B,): `depth` hidden layers h ← maxᵢ (Wᵢ h + bᵢ) over `pieces` i, and a linear one (Goodfellow et al.
    2013, arXiv:1302.4389), as in the critic of PacGAN (Lin et al. 2018, arXiv:1712.04086, and its code).

    Weights begin as N(0, std²) and biases at 0, or as torch has them where std is null. Raises GenlabError for labels.
    """

    def __init__(self, inputs: int, width: int, depth: int, pieces: int, classes: int, std: float | None = None):
        super().__init__()
        unlabelled(classes)
        sizes = [inputs] + [width] * depth
        self.hidden = nn.ModuleList(nn.Linear(a, b * pieces) for a, b in pairwise(sizes))
        self.last = nn.Linear(width, 1)
        self.pieces = pieces
        initialize(self, std)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        for layer in self.hidden:
            x = layer(x).unflatten(1, (-1, self.pieces)).amax(2)
        return self.last(x)[:, 0]


def initialize(network: nn.Module, std: float | None) -> None:
    """Every linear layer: weights ~ N(0, std²), biases 0; nothing where std is null."""
    if std is None:
        return
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def unlabelled(classes: int) -> None:
    """Raise GenlabError where labels are asked for."""
    if classes:
        raise GenlabError(f"this network takes no labels: model.classes={classes} needs network=mlp_gan")


class NoisyMLP(nn.Module):
    """(x_t, c, y) -> F (B, dim · outputs_per_channel): residual SiLU layers, noise and label added to each.

    Label `classes` is "no label".
    """

    def __init__(
        self, dim: int, width: int, depth: int, classes: int, time_embedding: nn.Module, outputs_per_channel: int = 1
    ):
        super().__init__()
        self.time = nn.Sequential(time_embedding, nn.Linear(width, width), nn.SiLU())
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.classes = classes
        self.first = nn.Linear(dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, dim * outputs_per_channel)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        c = self.time(c)  # (B, width)
        if self.label is not None:
            c = c + self.label(labels(y, self.classes, x))
        h = self.first(x)
        for layer in self.hidden:
            h = h + layer(F.silu(h + c))
        return self.last(F.silu(h))


class TimeMLP(nn.Module):
    """(x_t, c) -> F (B, dim): `depth` SELU layers of the concatenation (x_t, c), as in Tong et al. 2024, arXiv:2302.00482.

    Raises GenlabError for a conditional model.
    """

    def __init__(self, dim: int, width: int, depth: int, classes: int):
        super().__init__()
        if classes:
            raise GenlabError(f"this network takes no labels: model.classes={classes} needs network=noisy_mlp")
        sizes = [dim + 1] + [width] * depth
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SELU())]
        self.layers = nn.Sequential(*layers, nn.Linear(width, dim))

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(torch.cat([x, c[:, None]], dim=1))


class ConcatSquash(nn.Module):
    """(x, s, y) -> T f(x, T s), a velocity for s in [0, 1] whose end T is learned too: `depth` tanh layers
    (W x + b) S(u t + c) + v t, label and x side by side.

    Grathwohl et al. 2019, FFJORD, arXiv:1810.01367, published code of the densities in the plane. x may be of any shape.
    """

    def __init__(self, shape: Sequence[int], width: int, depth: int, time: float, classes: int):
        super().__init__()
        if not time > 0:
            raise GenlabError(f"network.field.time={time}: a flow takes more than no time")
        dim = math.prod(shape)
        sizes = [dim] + [width] * depth + [dim]
        self.classes = classes
        self.layers = nn.ModuleList(nn.Linear(a + classes * (i == 0), b) for i, (a, b) in enumerate(pairwise(sizes)))
        self.gates = nn.ModuleList(nn.Linear(1, b) for b in sizes[1:])
        self.shifts = nn.ModuleList(nn.Linear(1, b, bias=False) for b in sizes[1:])
        self.log_time = nn.Parameter(torch.tensor(float(time)).log())

    def forward(self, x: Tensor, s: Tensor, y: Tensor | None = None) -> Tensor:
        end = self.log_time.exp()
        t = (end * s).reshape(1, 1)
        h = x.flatten(1)
        if y is not None:
            h = torch.cat([h, F.one_hot(y, self.classes).to(h.dtype)], dim=1)
        for i, (layer, gate, shift) in enumerate(zip(self.layers, self.gates, self.shifts, strict=True)):
            h = layer(torch.tanh(h) if i else h) * gate(t).sigmoid() + shift(t)
        return (end * h).view_as(x)
