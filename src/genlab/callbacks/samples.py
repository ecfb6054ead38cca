"""Pictures of samples over training, always from the same noise."""

from typing import Any

import lightning as L

from genlab.callbacks.budget import Clock, due
from genlab.callbacks.ema import EMA
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key
from genlab.pictures import picture
from genlab.run import Run
from genlab.tracking import Tracker


def show(module: GenerativeModule, seed: int, n: int) -> Any:
    """The n samples of every picture of a run with this seed, in data space, on the CPU; leaves the mode as it was."""
    training = module.training
    module.eval()
    try:
        return module.generate(NoiseStream(key(seed, "pictures"), device=module.device), n).cpu()
    finally:
        module.train(training)


class Samples(L.Callback):
    """samples/<images seen>.png at a cadence of images, with the averaged weights."""

    def __init__(
        self, run: Run, tracker: Tracker, ema: EMA, clock: Clock, seed: int, batch: int, every: int, n: int = 64
    ):
        self.run, self.tracker, self.ema, self.clock = run, tracker, ema, clock
        self.seed, self.batch, self.every, self.n = seed, batch, every, n

    def on_train_batch_end(self, trainer: L.Trainer, module: GenerativeModule, *_: Any) -> None:  # pyright: ignore
        if not due(module.images_seen, self.batch, self.every) or trainer.is_last_batch:  # the last is final.png
            return
        with self.ema.applied():
            drawn = picture(show(module, self.seed, self.n if len(module.shape) > 1 else 2000))
        self.run.samples.mkdir(exist_ok=True)
        path = self.run.samples / f"{module.images_seen:09d}.png"
        drawn.save(path)
        self.tracker.picture("samples", path, module.images_seen)
        self.clock.mark()
