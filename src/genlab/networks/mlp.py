"""Fully connected networks for densities in the plane."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError


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
            c = c + self.label(torch.full((len(x),), self.classes, device=x.device) if y is None else y)
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
