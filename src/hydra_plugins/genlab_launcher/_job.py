"""One job of a sweep: a fresh process, its log, and the report that it keeps about itself."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException

PATIENCE = 30.0  # seconds that a job has for saving once it was asked to leave
PREEMPTED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
NOISE = ("$ ", "wandb:", "Set the environment variable HYDRA_FULL_ERROR")
EXCEPTION = re.compile(r"genlab: |([\w.]+\.)?\w*(Error|Exception)(: |$)")


class Process(Protocol):
    """What runs a job."""

    def poll(self) -> int | None: ...
    def send_signal(self, signum: int) -> None: ...
    def kill(self) -> None: ...


Spawn = Callable[[Sequence[str], Mapping[str, str], Path, Path], Process]  # of (command, environment, log, report)


class Local:
    """A process of this machine, in a session of its own: a signal reaches it through `send_signal` alone, and once."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, report: Path):
        with log.open("a") as file:
            self.process = subprocess.Popen(
                command,
                env={**environment, "GENLAB_REPORT": str(report)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def poll(self) -> int | None:
        return self.process.poll()

    def send_signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def kill(self) -> None:
        """With all that it started, such as the other ranks of a run that crashed."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class JobFailed(CompactHydraException):
    """A job of the sweep did not finish; Hydra prints a compact exception without a traceback."""


@dataclass
class Job:
    """One run of the sweep, from its overrides to its outcome."""

    index: int
    name: str
    overrides: Sequence[str]
    log: Path
    state: str = "waiting"
    exit_code: int | None = None
    seconds: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)
    asked_to_leave: float | None = None

    def start(self, command: Sequence[str], environment: Mapping[str, str], spawn: "Spawn") -> None:
        """Start the process, or whatever `spawn` makes of it, its log begun and no report of an earlier one left."""
        self.report_file.unlink(missing_ok=True)
        self.log.write_text(f"$ {shlex.join(command)}\n")
        self.process = spawn(command, environment, self.log, self.report_file.absolute())
        self.state = "running"
        self.started = time.monotonic()

    @property
    def objective(self) -> float | None:
        """What the job reports as its objective; one that is not a number is none."""
        value = self.report.get("objective")
        return None if value is None or math.isnan(value) else value

    @property
    def report_file(self) -> Path:
        """Where the job says how far it is and, at last, its objective."""
        return self.log.with_suffix(".json")

    def has_ended(self) -> bool:
        """Look at the process and at its report, and settle the outcome when it has ended."""
        code = self.process.poll()
        with suppress(OSError, ValueError):  # not written yet, or not ours: a report must never stop a sweep
            self.report = json.loads(self.report_file.read_text())
        if code is None:
            return False
        self.process.kill()  # whatever the process left behind, such as the other ranks of a run that crashed
        self.exit_code = code if code >= 0 else 128 - code
        self.seconds = time.monotonic() - self.started
        if self.exit_code in PREEMPTED or (self.exit_code and self.asked_to_leave):
            self.state = "preempted"
        else:
            self.state = "failed" if self.exit_code or self.report.get("phase") == "failed" else "finished"
        return True

    def stop(self, signum: int) -> bool:
        """Ask the process to save and to leave, the first time; kill it when its time for that is over."""
        if self.asked_to_leave is None:
            self.asked_to_leave = time.monotonic()
            # Only the leading process: it tells its ranks, while data workers must live until it has saved.
            self.process.send_signal(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)
            return True
        if time.monotonic() - self.asked_to_leave > PATIENCE:
            self.kill()
        return False

    def kill(self) -> None:
        """Kill the process and all that it started."""
        self.process.kill()

    def outcome(self) -> str:
        """How the job went, in one line."""
        if self.state == "finished":
            scored = "" if self.objective is None else f", objective {self.objective:g}"
            more = f", {why}" if (why := self.report.get("why")) else ""
            return f"finished {self.name} in {self.seconds:.0f} s{scored}{more}"
        return f"{self.state} {self.name}, exit code {self.exit_code}: {self.why()} (log: {self.log})"

    def why(self) -> str:
        """The reason that the job reports, else the last exception in its log, else the log's last line."""
        with self.log.open(errors="replace") as log:
            lines = [line.rstrip() for line in log if line.strip() and not line.startswith(NOISE)]
        exceptions = [line for line in lines if EXCEPTION.match(line)]
        return self.report.get("why") or (exceptions or lines or ["it printed nothing"])[-1]

    def record(self) -> dict[str, Any]:
        """The job's entry in jobs.json."""
        return {
            "name": self.name,
            "overrides": list(self.overrides),
            "run_dir": self.report.get("run_dir"),
            "state": self.state,
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 1),
            "why": None if self.state == "finished" else self.why(),
            "log": str(self.log),
            "objective": self.objective,
        }

    def returned(self) -> JobReturn:
        """What Hydra's sweepers expect of a job: its objective, or the reason why there is none."""
        finished = self.state == "finished"
        value = self.objective if finished else JobFailed(self.outcome())
        status = JobStatus.COMPLETED if finished else JobStatus.FAILED
        return JobReturn(
            overrides=self.overrides, working_dir=self.report.get("run_dir"), status=status, _return_value=value
        )
