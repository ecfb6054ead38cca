"""Runs with nothing left to do, recognized without importing torch: a sweep that goes on asks this of every job it has."""

import json
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from genlab.data.identity import stamp
from genlab.files import json_object, write_atomically
from genlab.recorded import configuration
from genlab.redaction import redact

SCORED = ("sampler", "guidance", "likelihood", "evaluation")


def tell(
    run_dir: Path, phase: str, images_seen: int, max_images: int, objective: float | None, why: str | None
) -> None:
    """Write what a run is doing to the file that $GENLAB_REPORT names, for the sweep that launched it."""
    if "GENLAB_REPORT" in os.environ:
        report = {"run_dir": str(run_dir), "phase": phase, "images_seen": images_seen, "max_images": max_images}
        write_atomically(Path(os.environ["GENLAB_REPORT"]), json.dumps({**report, "objective": objective, "why": why}))


def beyond(images_seen: int, budget: int, batch: int) -> str | None:
    """How far a run was trained, where an earlier budget was larger than the one that is asked for."""
    return f"trained to {images_seen} images" if images_seen >= budget + batch else None


def finished(config: DictConfig, folder: Path) -> dict[str, Any] | None:
    """The status of a run that is trained to its budget and scored as `config` asks, if it asks for a score, once that has
    been told; else None."""
    status, budget = json_object(folder / "status.json"), config.trainer.max_images
    if config.force or status.get("state") != "finished" or status["images_seen"] < budget:
        return None
    then, now = status.get("data"), stamp(config.data.source.get("path"))
    if then and now and then != now:  # whether these are the data that it was trained on is known once they are read
        return None
    plain: Any = OmegaConf.to_container(config, resolve=True)
    recorded, asked = configuration(folder), redact(plain)
    if config.evaluation.n and any(recorded.get(key) != asked.get(key) for key in SCORED):
        return None
    more = beyond(status["images_seen"], budget, config.trainer.batch)
    tell(folder, "finished", status["images_seen"], budget, status["objective"], more)
    print(f"genlab: already finished{f', and {more}' if more else ''}: {folder} (force=true trains again)")
    return status
