"""Run directories as training and evaluation leave them, made by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

PROTOCOL = {
    "extractor": "digits",
    "reference_split": "test",
    "n_real": 360,
    "n_fake": 1437,
    "nfe": 100,
    "weights": "ema",
}
FLOOR = {"train": {"value": 1.0, "stderr": 0.1, "n": 1437}, "noise": {"value": 300.0, "stderr": 2.0, "n": 1437}}


def _measured(
    metric: str,
    value: float,
    stderr: float | None = None,
    better: str | None = "lower",
    *,
    floor: bool = False,
    **more: Any,
) -> dict:
    """One line of metrics.jsonl."""
    line = {
        "metric": metric,
        "value": value,
        "stderr": stderr,
        "better": better,
        "evaluation": "e",
        "references": FLOOR if floor else {},
    }
    return line | {"protocol": {"metric": metric} | PROTOCOL | more.pop("protocol", {})} | more


def _fabricate(
    root: Path,
    metrics: list[dict] | None = None,
    *,
    data: str = "digits",
    model: str = "ddpm",
    name: str = "1a2b",
    seed: int = 0,
    status: dict | None = None,
    config: dict | None = None,
    history: str = "",
    grids: tuple[str, ...] = ("000001000.png", "000002000.png", "final.png", "data.png"),
) -> Path:
    """Writes a run directory and hands back its path."""
    path = root / data.replace("/", "-") / "".join(filter(str.isalnum, model)) / f"{name}-s{seed}"
    (path / "samples").mkdir(parents=True)
    settings = {"data": {"name": data}, "model_name": model, "seed": seed, "trainer": {"max_images": 2000, "batch": 64}}
    (path / "config.yaml").write_text(yaml.safe_dump(settings | (config or {})))
    state = {"state": "finished", "why": None, "images_seen": 2000, "max_images": 2000, "seconds": 3.5, "device": "cpu"}
    (path / "status.json").write_text(json.dumps(state | (status or {})))
    (path / "history.jsonl").write_text(history)
    lines = [_measured("fd_digits", 12.3, 0.4, floor=True)] if metrics is None else metrics
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for i, grid in enumerate(grids):
        Image.new("L", (33, 33), 40 * i).save(path / "samples" / grid)
    return path


@pytest.fixture
def measured():
    """Makes a line of metrics.jsonl."""
    return _measured


@pytest.fixture
def fabricate():
    """Makes a run directory."""
    return _fabricate
