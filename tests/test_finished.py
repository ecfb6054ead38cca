"""What is left to do of a run, and what it costs to hear that nothing is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from genlab.config import preflight, run_dir
from genlab.finished import finished

COMMAND = ["experiment=digits/vae", "evaluation.n=8", "logger=none", "trainer.max_images=32"]


def recorded(outputs: Path, state: str = "finished", seen: int = 32, **changed: Any) -> tuple[Any, Path]:
    """A configuration, and the directory of a run of it as a run leaves it."""
    config = preflight("train", [*COMMAND, f"outputs={outputs}"])
    folder = Path(run_dir(config))
    folder.mkdir(parents=True, exist_ok=True)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**plain, **changed}))
    (folder / "status.json").write_text(json.dumps({"state": state, "images_seen": seen, "objective": 1.5}))
    return config, folder


def test_a_finished_run_says_so_and_gives_its_objective_without_torch(outputs: Path) -> None:
    _, folder = recorded(outputs)
    report = outputs / "report.json"
    code = "import sys; from genlab.train import main; main(); assert 'torch' not in sys.modules, 'torch'"
    command = [sys.executable, "-c", code, *COMMAND, f"outputs={outputs}"]
    environment = {**os.environ, "GENLAB_REPORT": str(report)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=60)
    assert f"already finished: {folder} (force=true trains again)" in done.stdout
    said = {"run_dir": str(folder), "phase": "finished", "images_seen": 32, "max_images": 32, "objective": 1.5}
    assert json.loads(report.read_text()) == {**said, "why": None}


@pytest.mark.parametrize(
    "left",
    [{"state": "preempted"}, {"state": "failed"}, {"seen": 31}, {"evaluation": {"n": 9}}, {"sampler": {"steps": 3}}],
    ids=str,
)
def test_there_is_work_where_it_was_stopped_or_is_to_be_scored_otherwise(outputs: Path, left: dict[str, Any]) -> None:
    config, folder = recorded(outputs, **left)
    assert finished(config, folder) is None


def test_there_is_work_where_nothing_was_run_or_it_is_forced(outputs: Path) -> None:
    config, folder = recorded(outputs)
    assert finished(config, outputs / "elsewhere") is None
    assert finished(config, folder) == {"state": "finished", "images_seen": 32, "objective": 1.5}
    config.force = True
    assert finished(config, folder) is None
