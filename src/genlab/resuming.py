"""What the numbers of a run depend on besides its hash, and what is said where that changes on the way."""

import sys
from typing import Any

import torch
from omegaconf import DictConfig

from genlab.data.source import Source
from genlab.errors import GenlabError


def conditions(options: DictConfig, device: torch.device, source: Source) -> dict[str, Any]:
    """What a checkpoint records of where it was made, and of which data; `options` are those of the trainer."""
    return {
        # what is computed is known by its recipe, as its last bits are each machine's own
        "data": source.sha256("train") if hasattr(source, "path") else source.name,
        "batch": options.batch,
        "accumulate": options.accumulate,
        "devices": options.devices * options.num_nodes,
        "strategy": options.strategy,
        "sync_batchnorm": options.sync_batchnorm,
        "tf32": options.tf32,
        "deterministic": options.deterministic,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def check(then: dict[str, Any], now: dict[str, Any], images_seen: int, tell: bool) -> None:
    """Say from where on a run is no longer bit for bit what it would have been; raises GenlabError for another
    batch, and for other data."""
    if then["batch"] != now["batch"]:
        raise GenlabError(
            f"this run has trained with trainer.batch={then['batch']} until {images_seen} images, and the batch is part of "
            f"what is learned: go on with that, or train again with force=true"
        )
    if then.get("data", now["data"]) != now["data"]:  # unknown of checkpoints of before it was recorded
        raise GenlabError(
            f"this run has trained on other data until {images_seen} images than lie at data.source.path, or in the cache, "
            "by now: bring those back, or train again with force=true"
        )
    changed = [f"{name} {then[name]} -> {now[name]}" for name in then if then[name] != now[name]]
    if changed and tell:
        print(
            f"genlab: warning: {', '.join(changed)} from {images_seen} images on: the run goes on, but is not bit for bit "
            "what it would have been",
            file=sys.stderr,
        )
