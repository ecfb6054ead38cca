"""A source under Lightning."""

import math
import mmap

import lightning as L

from genlab.data.loader import TrainLoader
from genlab.data.serving import advise, chosen
from genlab.data.source import Source
from genlab.module import GenerativeModule


class DataModule(L.LightningDataModule):
    """Train batches from where the model stands up to `max_images`, as one epoch, from the place that `serve` names."""

    served: str | None = None
    """Where the training data lie, as soon as they do."""

    def __init__(
        self, source: Source, batch: int, seed: int, max_images: int, serve: str = "auto", serve_share: float = 0.25
    ):
        super().__init__()
        self.source, self.batch, self.seed, self.max_images = source, batch, seed, max_images
        self.serve, self.serve_share = serve, serve_share

    def train_dataloader(self) -> TrainLoader:
        trainer = self.trainer
        assert trainer is not None, "called by a Trainer"
        module = trainer.lightning_module
        assert isinstance(module, GenerativeModule)
        start, stop = module.images_seen // self.batch, math.ceil(self.max_images / self.batch)
        data, device = self.source.split("train"), trainer.strategy.root_device
        place = chosen(self.serve, data, device, self.serve_share, trainer.num_devices)
        self.served = place.name
        ranks = (trainer.global_rank, trainer.world_size)
        return TrainLoader(
            place(data, device), self.batch, self.seed, start, stop, *ranks, ahead=place.ahead, pin=place.pins
        )

    def teardown(self, stage: str) -> None:
        """Whoever reads the data next does it in order."""
        if self.served == "map":
            advise(self.source.split("train").x, mmap.MADV_NORMAL)
