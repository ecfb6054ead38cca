"""Pictures of samples over training, always from the same noise."""

import sys
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch

from genlab.callbacks.budget import Clock, due
from genlab.callbacks.ema import EMA
from genlab.errors import GenlabError
from genlab.module import Frame, GenerativeModule
from genlab.noise import NoiseStream, key
from genlab.pictures import picture
from genlab.run import Run
from genlab.tracking import Tracker


@torch.no_grad()
def frames(module: GenerativeModule, seed: int, n: int) -> Iterator[Frame]:
    """The n samples of every picture of a run with this seed after each step, in data space; leaves the mode as it was."""
    training = module.training
    module.eval()
    try:
        stream = NoiseStream(key(seed, "pictures"), device=module.device)
        for frame in module.trajectory(stream, n, module.labels(stream, n, None)):
            yield Frame(*(module.codec.decode(z).cpu() for z in frame))
    finally:
        module.train(training)


def count(module: GenerativeModule) -> int:
    """How many samples a picture shows: an eight by eight grid of images, or enough points to see a density."""
    return 64 if len(module.shape) > 1 else 2000


class Samples(L.Callback):
    """samples/<images seen>.png at a cadence of images, with the averaged weights."""

    def __init__(
        self, run: Run, tracker: Tracker, ema: EMA, clock: Clock, seed: int, batch: int, every: int, n: int = 64
    ):
        self.run, self.tracker, self.ema, self.clock = run, tracker, ema, clock
        self.seed, self.batch, self.every = seed, batch, every

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        if not due(module.images_seen, self.batch, self.every) or trainer.is_last_batch:  # the last is final.png
            return
        try:
            with self.ema.applied():
                last = list(frames(module, self.seed, count(module)))[-1]
        except GenlabError as error:  # a picture is not worth a run
            print(f"genlab: no picture at {module.images_seen} images: {error}", file=sys.stderr)
            return
        self.run.samples.mkdir(exist_ok=True)
        path = self.run.samples / f"{module.images_seen:09d}.png"
        picture(last.x_t).save(path)
        self.tracker.picture("samples", path, module.images_seen)
        self.clock.mark()
