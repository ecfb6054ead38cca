"""What the latents of a model mean: class means subtracted and added, one dimension moved, one level drawn anew."""

from typing import NamedTuple

import torch
from torch import Tensor

from genlab.data.loader import select
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key

STEPS = 5  # with which an attribute comes in
ROWS = 8  # images that it is added to
MOST = 64  # images of a class that are encoded, and of all together 512, as an encoder may be an ODE
TRIED = 1024  # latent dimensions, of which each is an image to be made
REACH = 3.0  # deviations of the prior, to both sides


class Traversal(NamedTuple):
    """Rows of images in data space, one for each dimension that tells the most, and which these are."""

    x: Tensor  # (D, S, C, H, W)
    dimensions: list[int]  # of the flattened latent
    deviations: list[float]  # of the codes of data in each; of a sample, by how many grey levels a step of 1 changes it


class Resampling(NamedTuple):
    """Rows of images in data space, one for each run of levels, and the first and the last level of each."""

    x: Tensor  # (R, 2 + S, C, H, W)
    runs: list[tuple[int, int]]


@torch.no_grad()
def encoded(module: GenerativeModule, data: Batch, batch: int = 256) -> Tensor:
    """(N, ...) codes; raises GenlabError for a model without an encoder, and for a conditional one, whose codes leave the
    label out."""
    if module.classes:
        raise GenlabError("the codes of a conditional model leave its label out: use an unconditional one")
    return torch.cat([module.encode(module.codec.encode(x.to(module.device))) for x in data.x.split(batch)])


@torch.no_grad()
def arithmetic(module: GenerativeModule, data: Batch, a: int, b: int, c: int) -> Tensor:
    """(1 + R, 2 + S, C, H, W) in data space: what z + s (mean_a - mean_b) makes, s from 0 to 1, of mean codes of classes.

    In the first row z is mean_c, and what mean_a and mean_b make themselves stands before it: its end is a - b + c. In the
    others z is the code of an image of class c, which stands before it. Larsen et al. 2016, arXiv:1512.09300, section 4.1.
    """
    mean_a, mean_b, mean_c = (encoded(module, _of(data, label, MOST)).mean(0) for label in (a, b, c))
    images = _of(data, c, ROWS)
    codes, attribute = encoded(module, images), mean_a - mean_b  # (R, ...), (...)
    means = torch.cat([torch.stack([mean_a, mean_b]), _line(STEPS, attribute) + mean_c])
    first = _rendered(module, means[None])
    others = _rendered(module, codes[:, None] + _line(STEPS + 1, attribute))
    return torch.cat([first, torch.cat([images.x[:, None], others], dim=1)])


@torch.no_grad()
def traverse(module: GenerativeModule, data: Batch, rows: int, steps: int, seed: int) -> Traversal:
    """From the code of one image, a seed's choice, each of the `rows` dimensions whose codes vary most goes from -3 to 3."""
    order = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(seed))
    z = encoded(module, select(data, order[: 8 * MOST])).float()  # (N, ...)
    deviation = z.flatten(1).std(0)
    if not 1 <= rows <= len(deviation):
        raise GenlabError(f"traverse={rows}: this model has {len(deviation)} latent dimensions")
    return _moved(module, z[:1], deviation, rows, steps)


@torch.no_grad()
def traverse_sample(module: GenerativeModule, rows: int, steps: int, seed: int, y: int | None = None) -> Traversal:
    """The same of one sample, a seed's, and of the dimensions of which a step of 1 changes its image most: for models that
    encode nothing too. Raises GenlabError where there are too many to try."""
    noise = NoiseStream(key(seed, "traversal"), device=module.device)
    z = module.latents(noise, 1).float()  # (1, ...)
    label = module.labels(noise, 1, None if y is None else torch.full((1,), y, device=module.device))
    dims = z[0].numel()
    if not 1 <= rows <= dims <= TRIED:
        raise GenlabError(
            f"traverse={rows} of={dims} latent dimensions: 1 to all of them, and at most {TRIED} are tried"
        )
    stepped = z + torch.eye(dims, device=z.device).reshape(dims, *z.shape[1:])
    before, *after = (_rendered(module, part[None], label)[0].float() for part in (z, *stepped.split(256)))
    change = (torch.cat(after) - before).square().flatten(1).mean(1).sqrt()
    return _moved(module, z, change, rows, steps, label)


def _moved(
    module: GenerativeModule, z: Tensor, measure: Tensor, rows: int, steps: int, y: Tensor | None = None
) -> Traversal:
    """z (1, ...) with each of the `rows` dimensions of the largest measure, (D,), from -3 to 3."""
    chosen = measure.argsort(descending=True)[:rows]
    moved = z.flatten(1).repeat(rows * steps, 1).unflatten(0, (rows, steps))
    moved[torch.arange(rows), :, chosen.to(z.device)] = torch.linspace(-REACH, REACH, steps, device=z.device)
    x = _rendered(module, moved.reshape(rows, steps, *z.shape[1:]), y)
    return Traversal(x, chosen.tolist(), measure[chosen].tolist())


@torch.no_grad()
def resample(module: GenerativeModule, data: Batch, rows: int, draws: int, seed: int) -> Resampling:
    """One image, a seed's choice, its reconstruction, and `draws` times what it is when some levels of its code are drawn anew
    and the others kept, those below in the coordinates of their prior: the levels in `rows` runs, from the top down.
    """
    sizes = module.levels
    if not sizes:
        raise GenlabError(f"a {type(module).__name__} has no levels of latents: use model=hvae")
    if not 1 <= rows <= len(sizes):
        raise GenlabError(f"levels={rows}: this model has {len(sizes)} levels, which so many rows cannot divide")
    order = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(seed))
    image = select(data, order[:1])
    code = encoded(module, image).repeat(draws, 1)  # (S, D)
    noise = NoiseStream(seed, device=code.device)
    runs = [(len(sizes) * i // rows, len(sizes) * (i + 1) // rows - 1) for i in range(rows)]
    shown = []
    for first, last in runs:
        parts = list(code.split(list(sizes), dim=1))
        for level in range(first, last + 1):
            parts[level] = noise.normal(parts[level].shape).to(code.dtype)
        shown.append(torch.cat([code[:1], torch.cat(parts, dim=1)]))
    x = _rendered(module, torch.stack(shown))
    return Resampling(torch.cat([image.x.cpu().expand(rows, 1, *image.x.shape[1:]), x], dim=1), runs)


def _of(data: Batch, label: int, most: int) -> Batch:
    if data.y is None:
        raise GenlabError("these data have no labels to take means by")
    if data.y.ndim > 1:
        raise GenlabError("these data have several labels an image, of which means cannot be taken by one")
    rows = (data.y == label).nonzero()[:most, 0]
    if not len(rows):
        raise GenlabError(f"no image of the test split has the label {label}")
    return select(data, rows)


def _line(steps: int, attribute: Tensor) -> Tensor:
    """(S, ...) from nothing to all of it."""
    return torch.linspace(0, 1, steps, device=attribute.device).reshape(-1, *[1] * attribute.ndim) * attribute


def _rendered(module: GenerativeModule, z: Tensor, y: Tensor | None = None) -> Tensor:
    """(R, S, C, H, W) in data space, on the CPU, of latents (R, S, ...), all of one label y (1,) if there is one."""
    flat = z.flatten(0, 1)
    x = module.render(flat) if y is None else module.render(flat, y.expand(len(flat)))
    return module.codec.decode(x).cpu().unflatten(0, z.shape[:2])
