"""Weights & Biases: a copy of what the run directory holds, never the source of truth."""

import abc
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from genlab.errors import printable
from genlab.files import json_object, write_atomically

FINISH = 600.0  # seconds that W&B has for its last uploads; what is not sent then is on the disk, for `wandb sync`


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
    """Online where an API key is found, offline with one line of warning where none is or the server is away.

    A run is one W&B run, which goes on under its id when it is resumed online. Offline that cannot be: what is resumed is a
    new W&B run of the same group, which names the earlier. Whatever happens to W&B happens to this copy alone: the first
    failure is one line, and the last that is heard of it.
    """

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
        try:
            self._start(folder, config, job_type)
        except Exception as error:  # noqa: BLE001 - whatever becomes of the copy, the run goes on
            self._gone(error)

    def _start(self, folder: Path, config: dict[str, Any], job_type: str) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        place = folder / "wandb"
        place.mkdir(parents=True, exist_ok=True)
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(f"cannot write in {place}")  # W&B would go to a temporary folder without a word
        sidecar = folder / "wandb.json"
        earlier = json_object(sidecar)
        group = self.group or os.environ.get("WANDB_RUN_GROUP") or re.sub(r"-s\d+$", "", folder.name)
        options: dict[str, Any] = {
            "project": self.project,
            "entity": self.entity,
            "group": group,
            "job_type": job_type,
            "tags": [config["model_name"], config["data"]["name"], *self.tags],
            "name": f"{config['model_name']}-s{config['seed']}",
            "dir": str(folder),
            "config": config,
        }
        # an agent of W&B's sweeps has chosen the id of this run already
        continued = earlier if earlier.get("mode") == "online" and "WANDB_SWEEP_ID" not in os.environ else {}
        self.run, mode = self._begun(self._mode(), continued.get("id"), options)
        if earlier and earlier["id"] != self.run.id:
            self.run.config.update({"resumed_from": earlier["id"]})
            print(f"genlab: W&B run {earlier['id']} goes on as {self.run.id}, of the group {group}", file=sys.stderr)
        write_atomically(sidecar, json.dumps({"id": self.run.id, "mode": mode}))
        self.run.define_metric("images_seen")
        self.run.define_metric("*", step_metric="images_seen")

    def _begun(self, mode: Any, earlier: str | None, options: dict[str, Any]) -> tuple[Any, str]:
        """(a run, its mode): the earlier one again, a new one, or one that is offline because the server is away."""
        import wandb
        from wandb.errors import CommError, UsageError

        # W&B's record of the command line has secrets in it, genlab's own, environment.jsonl, has not; and what is printed
        # through W&B is lost when its process dies
        settings = wandb.Settings(init_timeout=15, finish_timeout=FINISH, x_disable_meta=True, console="off")
        identity = {"id": earlier, "resume": "allow"} if earlier and mode == "online" else {}
        try:
            return wandb.init(mode=mode, settings=settings, **identity, **options), mode  # pyright: ignore
        except (CommError, UsageError) as error:
            print(f"genlab: W&B is offline ({printable(error)})", file=sys.stderr)
            return wandb.init(mode="offline", settings=settings, **options), "offline"

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
        self._attempt(lambda run: run.log(row))

    def picture(self, name: str, path: Path, images_seen: int) -> None:
        def show(run: Any) -> None:
            import wandb

            run.log({name: wandb.Image(str(path)), "images_seen": images_seen})

        self._attempt(show)

    def summarize(self, values: dict[str, Any]) -> None:
        self._attempt(lambda run: run.summary.update(values))

    def finish(self, exit_code: int) -> None:
        self._attempt(lambda run: run.finish(exit_code=exit_code))

    def _attempt(self, act: Callable[[Any], object]) -> None:
        """Do it with the run if there still is one."""
        if self.run is not None:
            try:
                act(self.run)
            except Exception as error:  # noqa: BLE001 - whatever becomes of the copy, the run goes on
                self._gone(error)

    def _gone(self, error: Exception) -> None:
        self.run = None
        print(f"genlab: W&B is gone ({printable(error)}); history.jsonl goes on without it", file=sys.stderr)
        with suppress(Exception):  # or it would print a traceback of its own at the end of this process
            import wandb

            wandb.teardown()


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
