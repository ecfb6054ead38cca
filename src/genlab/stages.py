"""What the configuration of a second stage takes from the finished run of the first: plain files alone, no torch."""

import json
from pathlib import Path
from typing import Any

from genlab.errors import GenlabError
from genlab.recorded import configuration


def weights_of(run: str | None) -> str:
    """The sha256 of a finished run's last checkpoint, which says what it has learned wherever it lies.

    Raises GenlabError where there is no such run, or none that is finished.
    """
    if run is None:
        raise GenlabError("codec.run=RUN is missing: the finished run of an autoencoder, such as model=vqvae")
    folder = Path(run)
    if not (folder / "config.yaml").is_file():
        raise GenlabError(
            f"codec.run={run} is no run directory: it has no config.yaml (runs lie in outputs/DATA/MODEL/)"
        )
    state = _json(folder / "status.json").get("state", "not trained")
    manifest = _json(folder / "checkpoints" / "manifest.json")
    last = max((name for name in manifest if not name.startswith("best-")), default=None)
    if state != "finished" or last is None:
        raise GenlabError(f"codec.run={run} is {state}: train it to its end first")
    return manifest[last]


def recorded(run: str | None, key: str) -> Any:
    """What a run's configuration says of its model; raises GenlabError where that is nothing."""
    weights_of(run)
    config: Any = configuration(Path(run or ""))
    for part in ("model", *key.split(".")):
        if not isinstance(config, dict) or part not in config:
            raise GenlabError(f"codec.run={run} is no autoencoder for this codec: its model has no {key}")
        config = config[part]
    return config


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
