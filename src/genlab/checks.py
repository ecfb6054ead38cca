"""What no schema can refuse of a configuration."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genlab.errors import GenlabError
from genlab.hints import flatten, near
from genlab.recorded import leads_out

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # others would round noise schedules and likelihoods too
OF_POINTS = tuple(f"genlab.networks.mlp.{name}" for name in ("MLP", "ReLUMLP", "Maxout", "NoisyMLP", "TimeMLP"))
FLOORS = ("train", "train_full", "test", "test_full", "noise")


def check_values(config: DictConfig) -> None:
    """Raise GenlabError for values that no schema can refuse, in themselves or beside the model that was chosen."""
    missing = [str(key) for key in OmegaConf.missing_keys(config)]
    if missing:
        raise GenlabError(f"no value for {', '.join(sorted(missing))}")
    if config.model.get("sampler") is None and {"denoiser", "joint"} & config.model.keys():  # others have a prior
        raise GenlabError(f"model={config.model_name} needs some sampler: choose sampler=OPTION")
    if not config.model_name or leads_out(config.model_name):
        raise GenlabError(f"model_name={config.model_name}: a name of a folder within outputs is needed")
    if config.seed < 0:
        raise GenlabError(f"seed={config.seed}: at least 0 is needed")
    trainer = config.trainer
    for key in ("max_images", "batch", "accumulate", "devices", "num_nodes", "keep", "log_every"):
        if trainer[key] < 1:
            raise GenlabError(f"trainer.{key}={trainer[key]}: at least 1 is needed")
    if trainer.precision not in PRECISIONS:
        raise GenlabError(
            f"trainer.precision={trainer.precision}{near(trainer.precision, PRECISIONS)}; there is {', '.join(PRECISIONS)}"
        )
    if trainer.strategy not in ("ddp", "fsdp"):
        raise GenlabError(f"trainer.strategy={trainer.strategy}: there is ddp and fsdp")
    if trainer.strategy == "fsdp" and trainer.precision == "16-mixed":
        raise GenlabError("trainer=fsdp cannot scale the losses of 16-mixed: set trainer.precision=bf16-mixed")
    for name in trainer.requeue_signals:
        if name not in signal.Signals.__members__ or name in ("SIGINT", "SIGTERM", "SIGKILL", "SIGSTOP"):
            raise GenlabError(
                f"trainer.requeue_signals: {name} is no signal that a job can be queued again by (SIGUSR1)"
            )
    check_evaluation(config.evaluation)
    for key in flatten(config.network, "network.") if config.network else ():
        if key.endswith("width") and isinstance(width := OmegaConf.select(config, key), int) and width < 1:
            raise GenlabError(f"{key}={width}: at least 1 is needed")
        if len(config.model.shape) == 3 and (target := OmegaConf.select(config, key)) in OF_POINTS:
            raise GenlabError(
                f"{target} is for points, and {config.data.name} are images: choose another network=OPTION"
            )
    if config.guidance is not None and "guidance" not in config.model:
        raise GenlabError(f"model={config.model_name} takes no guidance: only diffusion models are guided")
    for group in ("objective", "penalty", "critic_augment"):
        if config[group] is not None and group not in config.model:
            raise GenlabError(f"model={config.model_name} takes no {group}: only GANs do")
        if group != "critic_augment" and group in config.model and config.model[group] is None:
            raise GenlabError(f"model={config.model_name} needs some {group}: choose {group}=OPTION, as penalty=none")
    if config.sampler is not None and "sampler" not in config.model:
        raise GenlabError(f"model={config.model_name} takes no sampler: leave it out")
    if config.dequantization is not None and "dequantization" not in config.model:
        raise GenlabError(f"model={config.model_name} takes no dequantization: only flows do")
    if (classes := config.model.get("classes")) and classes != config.data.classes:
        raise GenlabError(
            f"model.classes={classes}: the labels of {config.data.name} are of {config.data.classes or 'no'} classes, "
            f"so it is {f'{config.data.classes} or ' if config.data.classes else ''}0"
        )
    if classes and (condition := config.data.source.get("condition", "label")) != "label":
        told = "null" if condition is None else condition
        raise GenlabError(
            f"model.classes={classes}: data.source.condition={told} serves no labels: set it to label, or model.classes=0"
        )


def check_evaluation(options: Mapping[str, Any]) -> None:
    """The same of a protocol, whoever brought it: `config.evaluation`, or what a run has recorded."""
    for key, least in (("n", 0), ("batch", 1), ("seeds", 1)):
        if not isinstance(options[key], int) or options[key] < least:
            none = " (no evaluation)" if least == 0 else ""
            raise GenlabError(f"evaluation.{key}={options[key]}: a whole number of at least {least}{none} is needed")
    for name in options["floors"] or ():
        if name not in FLOORS:
            raise GenlabError(f"evaluation.floors: no floor {name!r}{near(name, FLOORS)}; there is {', '.join(FLOORS)}")


def check_writable(path: Path, key: str = "outputs") -> None:
    """Raise GenlabError, with the key that names another, if `path` is no folder that can be made and written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GenlabError(f"cannot make the folder {path} ({error.strerror}): set {key}=FOLDER") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise GenlabError(f"cannot write in the folder {path}: set {key}=FOLDER")
