"""Weights & Biases: a copy of what the run directory holds, never the source of truth."""

import abc
import json
import os
import sys
from pathlib import Path
from typing import Any


class Tracker(abc.ABC):
    """Where a run's numbers and pictures are shown besides its own directory."""

    @abc.abstractmethod
    def start(self, folder: Path, config: dict[str, Any], job_type: str) -> None: ...

    @abc.abstractmethod
    def log(self, row: dict[str, float]) -> None: ...

    @abc.abstractmethod
    def picture(self, name: str, path: Path, images_seen: int) -> None: ...

    @abc.abstractmethod
    def summarize(self, values: dict[str, Any]) -> None: ...

    @abc.abstractmethod
    def finish(self, exit_code: int) -> None: ...


class Wandb(Tracker):
    """Online where an API key is found, offline with one line of warning where none is or the network fails."""

    def __init__(
        self,
        project: str,
        entity: str | None = None,
        group: str | None = None,
        mode: str = "auto",
        tags: tuple[str, ...] = (),
    ):
        self.project, self.entity, self.group, self.mode, self.tags = project, entity, group, mode, list(tags)
        self.run: Any = None  # until it starts, which a run that fails before that never does

    def start(self, folder: Path, config: dict[str, Any], job_type: str) -> None:
        import wandb
        from wandb.errors import CommError, UsageError

        os.environ.setdefault("WANDB_SILENT", "true")
        sidecar = folder / "wandb.json"
        earlier = json.loads(sidecar.read_text())["id"] if sidecar.is_file() else None
        mode = self._mode()
        options: dict[str, Any] = {
            "project": self.project,
            "entity": self.entity,
            "group": self.group or os.environ.get("WANDB_RUN_GROUP"),
            "job_type": job_type,
            "tags": [config["model_name"], config["data"]["name"], *self.tags],
            "name": f"{config['model_name']}-s{config['seed']}",
            "dir": str(folder),
            "config": config,
        }
        try:
            # an offline run cannot be continued: it becomes a new one that names the earlier
            identity = {"id": earlier, "resume": "allow"} if earlier and mode == "online" else {}
            self.run = wandb.init(mode=mode, settings=wandb.Settings(init_timeout=15), **identity, **options)  # pyright: ignore
        except (CommError, UsageError) as error:
            print(f"genlab: W&B is offline ({str(error).splitlines()[0]})", file=sys.stderr)
            self.run = wandb.init(mode="offline", **options)
        if earlier and earlier != self.run.id:
            self.run.config.update({"resumed_from": earlier})
        sidecar.write_text(json.dumps({"id": self.run.id, "mode": mode}))
        self.run.define_metric("images_seen")
        self.run.define_metric("*", step_metric="images_seen")

    def _mode(self) -> Any:
        import wandb

        if self.mode != "auto":
            return self.mode
        if "WANDB_MODE" in os.environ:
            return os.environ["WANDB_MODE"]
        if wandb.setup().settings.api_key is None:
            print("genlab: no W&B key found, logging offline (`wandb login`, or logger=none)", file=sys.stderr)
            return "offline"
        return "online"

    def log(self, row: dict[str, float]) -> None:
        self.run.log(row)

    def picture(self, name: str, path: Path, images_seen: int) -> None:
        import wandb

        self.run.log({name: wandb.Image(str(path)), "images_seen": images_seen})

    def summarize(self, values: dict[str, Any]) -> None:
        self.run.summary.update(values)

    def finish(self, exit_code: int) -> None:
        if self.run is not None:
            self.run.finish(exit_code=exit_code)


class Nothing(Tracker):
    """No copy anywhere."""

    def __init__(self, **_: Any):
        pass

    def start(self, folder: Path, config: dict[str, Any], job_type: str) -> None:
        pass

    def log(self, row: dict[str, float]) -> None:
        pass

    def picture(self, name: str, path: Path, images_seen: int) -> None:
        pass

    def summarize(self, values: dict[str, Any]) -> None:
        pass

    def finish(self, exit_code: int) -> None:
        pass
