"""Lightning's trainer as genlab uses it: its loop and its devices, and none of its loggers, checkpoints and bars."""

import logging
import warnings
from collections.abc import Sequence
from datetime import timedelta

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy, Strategy
from omegaconf import DictConfig

from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.sharding import FullySharded

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # what it says of devices and limits is not the user's
warnings.filterwarnings("ignore", module="lightning")


def lightning(options: DictConfig, module: GenerativeModule, callbacks: Sequence[L.Callback]) -> L.Trainer:
    """The trainer of one run; `options` are conf/trainer's. Raises GenlabError for what this machine, or Lightning, has not."""
    try:
        trainer = L.Trainer(
            max_epochs=1,
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=_strategy(options, module),
            precision=options.precision,
            callbacks=list(callbacks),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (ValueError, ImportError, MisconfigurationException) as error:  # no such precision, accelerator or device
        raise GenlabError(f"trainer: {' '.join(str(error).split())}") from None
    # its handler of SIGTERM saves nothing, talks to other ranks from within, and ends with exit code 0
    trainer._signal_connector.register_signal_handlers = lambda: None
    return trainer


def world(options: DictConfig) -> int:
    """How many ranks train together."""
    return options.devices * options.num_nodes


def sharded(options: DictConfig) -> bool:
    """Whether each of them holds a part of the weights."""
    return world(options) > 1 and options.strategy == "fsdp"


def _strategy(options: DictConfig, module: GenerativeModule) -> Strategy | str:
    if world(options) == 1:
        return "auto"
    if sharded(options):
        return FullySharded(world(options), options.timeout)
    unused = not module.automatic_optimization  # a GAN's steps each leave half of the parameters out
    return DDPStrategy(find_unused_parameters=unused, timeout=timedelta(seconds=options.timeout))
