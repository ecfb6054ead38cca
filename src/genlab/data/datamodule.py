"""A source under Lightning."""

import math

import lightning as L

from genlab.data.loader import TrainLoader
from genlab.data.source import Source
from genlab.module import GenerativeModule


class DataModule(L.LightningDataModule):
    """Train batches from where the model stands up to `max_images`, as one epoch."""

    def __init__(self, source: Source, batch: int, seed: int, max_images: int):
        super().__init__()
        self.source, self.batch, self.seed, self.max_images = source, batch, seed, max_images

    def train_dataloader(self) -> TrainLoader:
        trainer = self.trainer
        assert trainer is not None, "called by a Trainer"
        module = trainer.lightning_module
        assert isinstance(module, GenerativeModule)
        start, stop = module.images_seen // self.batch, math.ceil(self.max_images / self.batch)
        ranks = (trainer.global_rank, trainer.world_size)
        return TrainLoader(self.source.split("train"), self.batch, self.seed, start, stop, *ranks)
