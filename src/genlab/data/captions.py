"""Captions of scenes, as words and as token ids of a closed vocabulary."""

import torch
from torch import Tensor

from genlab.data.scenes import NAMES, WORDS, Scenes
from genlab.errors import GenlabError

LENGTH = 10  # "a large red square on a grey background , left"
_COUNTS = ("a", "two", "three")
_SHAPES = WORDS["shape"]
_PLURALS = tuple(shape + ("es" if shape.endswith("s") else "s") for shape in _SHAPES)
_PLACES = WORDS["position"][:-1]  # several figures have none
VOCABULARY = (
    *("", *_COUNTS, *WORDS["size"], *WORDS["colour"], *_SHAPES, *_PLURALS),
    *("on", *WORDS["background"], "background", ",", *_PLACES),
)
_ID = {word: i for i, word in enumerate(VOCABULARY)}


def tokens(scenes: Scenes) -> Tensor:
    """The captions as ids into VOCABULARY, padded with 0 at the end: (N, 10) int64."""
    count, position = scenes.column("count"), scenes.column("position")
    many = (count > 1).long()
    place = torch.tensor([_ID[word] for word in _PLACES] + [0])[position]
    columns = (
        _ID["a"] + count - 1,
        _ID[WORDS["size"][0]] + scenes.column("size"),
        _ID[WORDS["colour"][0]] + scenes.column("colour"),
        _ID[_SHAPES[0]] + scenes.column("shape") + len(_SHAPES) * many,
        torch.full_like(count, _ID["on"]),
        torch.full_like(count, _ID["a"]),
        _ID[WORDS["background"][0]] + scenes.column("background"),
        torch.full_like(count, _ID["background"]),
        _ID[","] * (1 - many),
        place,
    )
    return torch.stack(columns, 1)


def text(ids: Tensor) -> str:
    """The caption that one row of ids (10,) stands for."""
    return " ".join(VOCABULARY[i] for i in ids.tolist() if i).replace(" ,", ",")


def asked(y: Tensor) -> Tensor:
    """What a condition says of the discrete factors, in the order of WORDS: (N, 6) int64, −1 where it says nothing.

    y is labels (N,), tables of factors (N, 11) in floating point, or captions (N, 10) of ids. Raises GenlabError for
    anything else.
    """
    if y.ndim == 1:
        return torch.cat([y.long()[:, None], torch.full((len(y), len(WORDS) - 1), -1)], 1)
    if y.is_floating_point() and y.shape[1:] == (len(NAMES),):
        return y[:, : len(WORDS)].round().long()
    if y.is_floating_point() or y.shape[1:] != (LENGTH,) or y.min() < 0 or y.max() >= len(VOCABULARY):
        raise GenlabError(
            f"a condition {tuple(y.shape)} of {y.dtype} says nothing of shapes: labels (N,), factors (N, {len(NAMES)}) or "
            f"token ids (N, {LENGTH}) below {len(VOCABULARY)} do"
        )
    shape = y[:, 3] - _ID[_SHAPES[0]]
    place = y[:, 9] - _ID[_PLACES[0]]
    return torch.stack(
        [
            torch.where(shape < len(_SHAPES), shape, shape - len(_SHAPES)),
            y[:, 2] - _ID[WORDS["colour"][0]],
            y[:, 1] - _ID[WORDS["size"][0]],
            y[:, 0] - _ID["a"] + 1,
            y[:, 6] - _ID[WORDS["background"][0]],
            torch.where(y[:, 9] > 0, place, torch.where(y[:, 0] > _ID["a"], len(_PLACES), -1)),
        ],
        1,
    )
