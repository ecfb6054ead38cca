"""Scenes read off images by analysis and synthesis: nearest colours, connected figures, moments, nearest outline.

Nothing is learned. An outline of n-fold symmetry has its rotation in the phase of its n-th moment, Σ a z^n with z = x + iy
from the centroid, and its radius in its area; of the six scenes so drawn, the nearest is what the image shows.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from genlab.data.scenes import GROUND, NAMES, OUTLINES, PAINT, SIZES, Scenes, covered, painted, word
from genlab.errors import GenlabError

ROWS = 128  # images read at a time
SUB = 2  # samples of a pixel's side, as fine as it needs
SOLID = 0.35  # the share of a pixel that a figure covers, from which on it belongs to it
LEAST = 4  # pixels of a figure; fewer are noise
TAIL = 8  # times the median squared error of the pixels is grain
MISFIT, RESIDUAL = 0.1, 24.0  # more of either than any scene has, however grainy: the image is no scene

CONNECTED = ndimage.generate_binary_structure(2, 2)[None] * np.array([0, 1, 0])[:, None, None]  # within each image
BOUNDS = torch.tensor([[*SIZES.values()][k][1] + [*SIZES.values()][k + 1][0] for k in (0, 1)]) / 2
FOLDS = sorted({outline.fold for outline in OUTLINES.values()} - {0})


class Reading(NamedTuple):
    """What N images show, as far as they are scenes."""

    scenes: Scenes
    residual: Tensor  # (N,) root mean square of image less scene, grey levels
    misfit: Tensor  # (N,) the share of the figures' contrast, squared, that the scene leaves unexplained
    readable: Tensor  # (N,) whether the image is a scene at all; what the others show means nothing


class Figures(NamedTuple):
    """The connected figures of N images, of each the first three."""

    count: Tensor  # (N,) of all
    centres: Tensor  # (N, 3, 2) pixels
    area: Tensor  # (N,) pixels, of all
    moments: dict[int, Tensor]  # fold -> (N,) complex: Σ a z^fold over all of them


def read(x: Tensor) -> Reading:
    """The scenes that images (N, 3, S, S) uint8 show; raises GenlabError for images of another kind."""
    if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != 3 or x.shape[2] != x.shape[3]:
        raise GenlabError(f"shapes are read off uint8 images (N, 3, S, S), not {x.dtype} {tuple(x.shape)}")
    parts = [_read(rows.float()) for rows in x.split(ROWS)]
    factors, centres = (torch.cat([part.scenes[k] for part in parts]) for k in (0, 1))
    residual, misfit, readable = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("residual", "misfit", "readable")
    )
    return Reading(Scenes(factors, centres), residual, misfit, readable)


def _read(x: Tensor) -> Reading:
    size = x.shape[-1]
    background = _background(x)
    colour, share = _colour(x, background)
    figures = _figures(share)
    candidates = [_candidate(figures, s, size, colour, background) for s in range(len(OUTLINES))]
    covers = torch.stack([covered(scenes, size, SUB) for scenes in candidates])  # (6, N, S, S)
    best = (covers - share).square().sum((2, 3)).argmin(0)
    row = torch.arange(len(x))
    scenes = Scenes(*(torch.stack([scenes[k] for scenes in candidates])[best, row] for k in (0, 1)))
    cover = covers[best, row]
    error = (x - painted(scenes, cover)).square().sum(1)  # (N, S, S)
    empty = (cover == 0).float()
    grain = ((error * empty).sum((1, 2)) / (3 * empty.sum((1, 2)).clamp(min=1))).sqrt()
    scenes.factors[:, NAMES.index("grain")] = grain
    return _judged(scenes, figures.count, error, cover)


def _judged(scenes: Scenes, count: Tensor, error: Tensor, cover: Tensor) -> Reading:
    """How well the scenes explain the images, given the squared error (N, S, S) of each pixel."""
    contrast = (PAINT[scenes.column("colour")] - GROUND[scenes.column("background")]).square().sum(1)
    noise = TAIL * error.flatten(1).median(1).values  # of the grain, however much there is
    excess = (error.flatten(1) - noise[:, None]).clamp(min=0).sum(1)
    misfit = excess / (contrast * cover.square().sum((1, 2)).clamp(min=1))
    residual = (error.mean((1, 2)) / 3).sqrt()
    readable = (count >= 1) & (count <= 3) & (residual <= RESIDUAL) & (misfit <= MISFIT)
    return Reading(scenes, residual, misfit, readable)


def _background(x: Tensor) -> Tensor:
    """The index of the background's colour (N,), by the median of the outermost pixels, which no figure touches."""
    rim = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], 2)  # (N, 3, 4 S)
    return torch.cdist(rim.median(2).values, GROUND).argmin(1)


def _colour(x: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """The colour (N,) of which x = (1 − a) background + a colour explains most, and a, unclipped: (N, S, S)."""
    ground = GROUND[background]  # (N, 3)
    axis = PAINT - ground[:, None]  # (N, 7, 3)
    square = axis.square().sum(2)[:, :, None, None]
    share = torch.einsum("nkc,nchw->nkhw", axis, x - ground[:, :, None, None]) / square
    clipped = share.clamp(0, 1)
    colour = (square * clipped * (clipped - 2 * share)).sum((2, 3)).argmin(1)
    return colour, share[torch.arange(len(x)), colour]


def _figures(share: Tensor) -> Figures:
    """The connected parts of what is covered, given the share (N, S, S) of each pixel."""
    a = share.numpy()
    labels, m = _labelled(a)
    image, row, column = labels.nonzero()
    label, weight = labels[image, row, column] - 1, a[image, row, column]
    area = np.maximum(np.bincount(label, weight, m), 1)
    x, y = column + 0.5, row + 0.5
    centre = np.stack([np.bincount(label, weight * x, m), np.bincount(label, weight * y, m)], 1) / area[:, None]
    z = (x - centre[label, 0]) + 1j * (y - centre[label, 1])
    n, size = len(a), a.shape[-1]
    moments = {}
    for fold in FOLDS:
        power = weight * z**fold
        total = np.bincount(image, power.real, n) + 1j * np.bincount(image, power.imag, n)
        moments[fold] = torch.from_numpy(total)
    of = np.zeros(m, int)  # the image of each figure
    of[label] = image
    count = np.bincount(of, minlength=n)
    place = np.arange(m) - (np.cumsum(count) - count)[of]  # of each figure within its image
    centres, first = np.full((n, 3, 2), size / 2), place < 3
    centres[of[first], place[first]] = centre[first].clip(0, size)
    whole = torch.from_numpy(np.bincount(of, area, n)).float()
    return Figures(torch.from_numpy(count), torch.from_numpy(centres).float(), whole, moments)


def _labelled(a: np.ndarray) -> tuple[np.ndarray, int]:
    """Which figure each pixel (N, S, S) belongs to, 1 to m from the first image to the last, or 0; and m. The pixels next
    to a figure, which it covers in part, are its own."""
    labels, near = np.empty(a.shape, np.int32), np.empty(a.shape, np.int32)
    ndimage.label(a > SOLID, CONNECTED, output=labels)
    solid = np.bincount(labels.ravel()) >= LEAST
    solid[0] = False
    labels = (np.cumsum(solid) * solid)[labels]  # numbered anew without the specks
    ndimage.maximum_filter(labels, size=(1, 3, 3), output=near)
    return np.where(labels, labels, near), int(solid.sum())


def _candidate(figures: Figures, s: int, size: int, colour: Tensor, background: Tensor) -> Scenes:
    """The scene if its figures are of the s-th outline."""
    outline = [*OUTLINES.values()][s]
    count = figures.count.clamp(1, 3)
    radius = ((figures.area / (count * outline.area)).sqrt() / size).clamp(0.05, 0.3)
    turn = figures.moments[outline.fold].angle().float() / outline.fold if outline.fold else torch.zeros(len(count))
    rotation = turn.remainder(outline.period) if outline.fold else turn
    centres = figures.centres / size
    there = (torch.arange(3) < count[:, None])[:, :, None]
    x, y = ((centres * there).sum(1) / count[:, None]).unbind(1)
    shape, scale = torch.full_like(count, s), torch.bucketize(radius, BOUNDS)
    columns = (shape, colour, scale, count, background, word(count, x, y), x, y, radius, rotation, torch.zeros_like(x))
    return Scenes(torch.stack([column.float() for column in columns], 1), centres)
