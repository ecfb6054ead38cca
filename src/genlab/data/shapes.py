"""Procedural scenes with known factors, captions, and combinations that training never sees."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genlab.data.captions import text, tokens
from genlab.data.rendered import Rendered
from genlab.data.scenes import Scenes, draw, render
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.noise import NoiseStream, key

FORMAT = 1  # counted up when the same seed comes to mean other images
LEAST = 24  # pixels, below which small figures cannot be told apart
Told = Callable[[Tensor | None, Callable[[], Scenes]], Tensor | None]  # (labels, scenes) -> y
CONDITIONS: dict[str | None, Told] = {
    "label": lambda labels, scenes: labels,
    "factors": lambda labels, scenes: scenes().factors,
    "tokens": lambda labels, scenes: tokens(scenes()),
    None: lambda labels, scenes: None,
}


class Shapes(Rendered):
    """RGB scenes of `scenes.py`, in splits train, test and unseen, the last as large as test and of the combinations of
    shape and colour that the others never have (`scenes.held_out`); scene i is a function of (seed, split, i), at any size.

    `condition` is what y is: label (the shape, of 6), factors (N, 11) float32 in the order of `scenes.NAMES`, tokens
    (N, 10) int64 of `captions.VOCABULARY`, or null. Raises GenlabError for another, or for images too small to be read.
    """

    def __init__(
        self,
        size: int = 32,
        seed: int = 0,
        train: int = 50_000,
        test: int = 10_000,
        condition: str | None = "label",
        cache: str | None = None,
    ):
        if size < LEAST:
            raise GenlabError(f"data.source.size={size}: shapes need at least {LEAST} pixels to be told apart")
        if condition not in CONDITIONS:
            raise GenlabError(f"data.source.condition={condition}: there is label, factors, tokens and null")
        recipe: dict[str, Any] = {"size": size, "seed": seed, "format": FORMAT}
        counts = {"train": train, "test": test, "unseen": test}
        super().__init__(f"shapes{size}", recipe, counts, {"torch": torch.__version__}, cache)
        self.size, self.seed, self.condition = size, seed, condition
        self._drawn: dict[str, Scenes] = {}

    def rows(self, split: str, start: int, n: int) -> tuple[Tensor, Tensor]:
        stream = self._stream(split, start)
        scenes = draw(stream, n, split == "unseen")
        return render(scenes, self.size, stream), scenes.column("shape")

    def split(self, name: str) -> Batch:
        x, labels = super().split(name)
        return Batch(x, CONDITIONS[self.condition](labels, partial(self.scenes, name)))

    def scenes(self, split: str) -> Scenes:
        """What the images of a split show."""
        if self._known(split) not in self._drawn:
            self._drawn[split] = draw(self._stream(split, 0), self.counts[split], split == "unseen")
        return self._drawn[split]

    def factors(self, split: str) -> Tensor:
        """The table (N, 11) float32, whose columns are `scenes.NAMES`."""
        return self.scenes(split).factors

    def caption(self, split: str, i: int) -> str:
        """Such as "a large red square on a grey background, left"; raises GenlabError where there is no image i."""
        scenes = self.scenes(split)
        if not 0 <= i < self.counts[split]:
            raise GenlabError(f"{self.name} {split} has captions 0 to {self.counts[split] - 1}, and no {i}")
        return text(tokens(Scenes(*(part[i : i + 1] for part in scenes)))[0])

    def _stream(self, split: str, start: int) -> NoiseStream:
        return NoiseStream(key(self.seed, "shapes", split), start)
