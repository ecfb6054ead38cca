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
    tell(folder, "finished", status["images_seen"], budget, status["objective"], None)
    more = f", and trained to {seen} images" if (seen := status["images_seen"]) >= budget + config.trainer.batch else ""
    print(f"genlab: already finished{more}: {folder} (force=true trains again)")
    return status
