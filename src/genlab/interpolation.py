"""Between two images: what their latents make, what lies on the arc between those, and how well each comes back."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.data.loader import select
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.module import GenerativeModule

PAIRS = 8


class Interpolation(NamedTuple):
    """Rows of images in data space, and the error with which the two that are known come back."""

    x: Tensor  # (P, 1 + S + 1, C, H, W): an image, S steps from its reconstruction to the other's, and the other
    error: float  # root mean square per dimension, in model space


def slerp(a: Tensor, b: Tensor, s: Tensor) -> Tensor:
    """(B, S, ...) at fractions s, (S,), of the arc from a to b: (sin((1-s)θ) a + sin(sθ) b)/sin θ, θ their angle.

    Shoemake 1985; of latents in Song et al. 2021, arXiv:2010.02502, appendix D.5.
    """
    angle = F.cosine_similarity(a.flatten(1).double(), b.flatten(1).double()).clamp(-1, 1).acos()
    angle = angle.clamp(1e-6, torch.pi - 1e-6)[:, None]  # where a and b are parallel the arc is the line
    shape = (len(a), len(s)) + (1,) * (a.ndim - 1)
    ours, theirs = (((part * angle).sin() / angle.sin()).reshape(shape).to(a.dtype) for part in (1 - s, s))
    return ours * a[:, None] + theirs * b[:, None]


def pairs(data: Batch, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The rows of up to n disjoint pairs, the two of one label where there are labels; a seed's choice."""
    order = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(seed)).tolist()
    waiting: dict[int, int] = {}
    found: list[tuple[int, int]] = []
    for i in order:
        label = 0 if data.y is None else int(data.y[i])
        if label in waiting:
            found.append((waiting.pop(label), i))
        else:
            waiting[label] = i
        if len(found) == n:
            break
    if not found:
        raise GenlabError("no two test images of one label are there to interpolate between")
    first, second = torch.tensor(found).T
    return first, second


@torch.no_grad()
def interpolate(module: GenerativeModule, data: Batch, steps: int, seed: int) -> Interpolation:
    """From image to image in `steps` steps, a conditional model by their common label; raises GenlabError without latents."""
    data = data if module.classes else Batch(data.x, None)
    sides = [select(data, rows) for rows in pairs(data, PAIRS, seed)]
    x = torch.cat([side.x for side in sides]).to(module.device)  # (2P, C, H, W)
    y = sides[0].y if sides[0].y is None else sides[0].y.to(module.device)  # (P,), the same on both sides
    known = module.codec.encode(x)
    z_a, z_b = module.encode(known, None if y is None else y.repeat(2)).chunk(2)
    between = slerp(z_a, z_b, torch.linspace(0, 1, steps, device=module.device))  # (P, S, ...)
    rendered = module.render(between.flatten(0, 1), None if y is None else y.repeat_interleave(steps))
    rows = rendered.unflatten(0, (-1, steps))  # (P, S, C, H, W)
    error = (torch.cat([rows[:, 0], rows[:, -1]]) - known).square().mean().sqrt().item()
    a, b = x[:, None].chunk(2)
    return Interpolation(torch.cat([a, module.codec.decode(rendered).unflatten(0, (-1, steps)), b], 1).cpu(), error)
