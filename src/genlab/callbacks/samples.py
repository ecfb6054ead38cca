"""Pictures of samples over training, always from the same noise."""

import sys
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor

from genlab.callbacks.occasion import Occasion
from genlab.errors import GenlabError
from genlab.files import writing
from genlab.module import Frame, GenerativeModule
from genlab.noise import NoiseStream, key
from genlab.pictures import film, picture
from genlab.run import SPACE, Run
from genlab.tracking import Tracker


@torch.no_grad()
def frames(module: GenerativeModule, seed: int, n: int) -> Iterator[Frame]:
    """The n samples of every picture of a run with this seed after each step, in data space; leaves the mode as it was."""
    training = module.training
    module.eval()
    try:
        stream = NoiseStream(key(seed, "pictures"), device=module.device)
        for frame in module.trajectory(stream, n, module.labels(stream, n, None)):
            yield frame.shown(module.codec.decode)
    finally:
        module.train(training)


@torch.no_grad()
def reconstructions(module: GenerativeModule, x: Tensor, columns: int = 8) -> Tensor:
    """Rows of data and below each what the module makes of it, (2N, ...) in data space of x (N, ...)."""
    training = module.training
    module.eval()
    back = module.codec.decode(module.reconstruct(module.codec.encode(x.to(module.device)))).cpu()
    module.train(training)
    return torch.stack([part.unflatten(0, (-1, columns)) for part in (x, back)], dim=1).flatten(0, 2)


def count(module: GenerativeModule) -> int:
    """How many samples a picture shows: an eight by eight grid of images, a page of text, or enough points to see a density."""
    return 64 if len(module.shape) > 1 or module.discrete else 2000


class Samples(Occasion):
    """samples/<images seen>.png at a cadence of images, with the averaged weights; reconstructions of what has no samples."""

    prefix = "samples"

    def __init__(self, run: Run, tracker: Tracker, seed: int, held_out: Tensor, *kept: Any):
        super().__init__(*kept)
        self.run, self.tracker, self.seed, self.held_out = run, tracker, seed, held_out

    def wanted(self, module: GenerativeModule) -> bool:
        return super().wanted(module) and not self.ends(module)  # that is final.png

    def act(self, trainer: L.Trainer, module: GenerativeModule) -> None:
        try:
            with self.averaged(module) as averaged:
                if not self.guard.leads:
                    return
                shown = self._shown(averaged)
            path = self.run.picture(f"{module.images_seen:09d}.png", picture(shown))
        except GenlabError as error:  # a picture is not worth a run
            print(f"genlab: no picture at {module.images_seen} images: {error}", file=sys.stderr)
            return
        self.tracker.picture("samples", path, module.images_seen)

    def final(self, module: GenerativeModule) -> None:
        """Write final.png of a module as it stands, the way there (trajectory.webp, and x̂ as denoised.webp), and data.png to
        compare with."""
        if module.reconstructs:
            shown = self._shown(module)
        else:
            steps = list(frames(module, self.seed, count(module)))
            shown = steps[-1].x_t
            with writing(self.run.path, SPACE):
                self.run.samples.mkdir(exist_ok=True)
                film(steps, self.run.samples, 40)
        self.run.picture("data.png", picture(self.held_out[: count(module)]))
        self.tracker.picture("samples", self.run.picture("final.png", picture(shown)), module.images_seen)

    def _shown(self, module: GenerativeModule) -> Tensor:
        if module.reconstructs:
            return reconstructions(module, self.held_out[: count(module) // 2])
        return list(frames(module, self.seed, count(module)))[-1].x_t
