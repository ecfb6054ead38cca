"""Between two images: what their latents make, what lies on the arc between those, and how well each comes back."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.data.loader import select
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key

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


def lerp(a: Tensor, b: Tensor, s: Tensor) -> Tensor:
    """(B, S, ...) at fractions s, (S,), of the line from a to b: (1-s) a + s b."""
    s = s.reshape(-1, *[1] * (a.ndim - 1))
    return (1 - s) * a[:, None] + s * b[:, None]


def pairs(data: Batch, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """The rows of up to n disjoint pairs, the two of one label where there are labels; a seed's choice."""
    if data.y is not None and data.y.ndim > 1:
        raise GenlabError("these data have several labels an image, of which pairs of one label cannot be found")
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


CURVES = {"arc": slerp, "line": lerp}


@torch.no_grad()
def interpolate(module: GenerativeModule, data: Batch, steps: int, seed: int, along: str = "arc") -> Interpolation:
    """From image to image in `steps` steps, a conditional model by their common label; raises GenlabError without latents."""
    data = data if module.classes else Batch(data.x, None)
    sides = [select(data, rows) for rows in pairs(data, PAIRS, seed)]
    x = torch.cat([side.x for side in sides]).to(module.device)  # (2P, C, H, W)
    y = sides[0].y if sides[0].y is None else sides[0].y.to(module.device)  # (P,), the same on both sides
    known = module.codec.encode(x)
    z_a, z_b = module.encode(known, None if y is None else y.repeat(2)).chunk(2)
    rows = walked(module, z_a, z_b, y, steps, along)  # (P, S, C, H, W)
    error = (torch.cat([rows[:, 0], rows[:, -1]]) - known).square().mean().sqrt().item()
    a, b = x[:, None].chunk(2)
    between = module.codec.decode(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
    return Interpolation(torch.cat([a, between, b], 1).cpu(), error)


@torch.no_grad()
def between_samples(module: GenerativeModule, steps: int, seed: int, y: int | None, along: str = "arc") -> Tensor:
    """(P, S, C, H, W) in data space: from sample to sample of one label, for models that encode nothing too."""
    noise = NoiseStream(key(seed, "interpolation"), device=module.device)
    label = None if y is None else torch.full((PAIRS,), y, device=module.device)
    z_a, z_b = (module.latents(noise, PAIRS) for _ in range(2))
    rows = walked(module, z_a, z_b, module.labels(noise, PAIRS, label), steps, along)
    return module.codec.decode(rows.flatten(0, 1)).unflatten(0, rows.shape[:2]).cpu()


def walked(module: GenerativeModule, a: Tensor, b: Tensor, y: Tensor | None, steps: int, along: str) -> Tensor:
    """(P, S, ...) in model space: what the latents between a and b (P, ...) make, `along` the arc or the line."""
    if along not in CURVES:
        raise GenlabError(f"along={along}: there is {' and '.join(CURVES)}")
    between = CURVES[along](a, b, torch.linspace(0, 1, steps, device=a.device))  # (P, S, ...)
    rendered = module.render(between.flatten(0, 1), None if y is None else y.repeat_interleave(steps))
    return rendered.unflatten(0, (-1, steps))
