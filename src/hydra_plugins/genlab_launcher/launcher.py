"""hydra/launcher=genlab: every job of a sweep is one fresh process in RUN mode.

Lightning starts the other ranks of a run by executing sys.argv again; inside a Hydra multirun that would repeat the
whole sweep. A process per job avoids it, and one crash cannot take the sweep down. A job is `python -m <module of the
task function>` with

- the same primary config from the same places as the sweep (--config-name, --config-path, --config-dir, read off
  hydra.runtime): what the primary config sets itself, and not as an override, reaches the job because the job composes
  the same file again;
- the overrides of the sweep for Hydra itself, as the stock launchers apply them, and hydra.mode=RUN last;
- the overrides of this job.

With hydra/launcher=slurm a job is a submission instead, of as many tasks as the run has ranks (conf/hydra/launcher/slurm.yaml).

Modules beside this one begin with an underscore because Hydra's plugin scan would execute them twice.
"""

import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, filter_overrides, get_valid_filename
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.genlab_launcher._job import PATIENCE, Job, Local, Process
from hydra_plugins.genlab_launcher._machine import slots

if TYPE_CHECKING:
    from hydra_plugins.genlab_launcher._display import Display

TICK = 0.2  # seconds between two looks at the jobs
# Variables by which a process would take itself for a rank of its parent, or for another program.
SCRUBBED = {"LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"}
SCRUBBED |= {"MASTER_PORT", "PL_GLOBAL_SEED", "TORCHELASTIC_RUN_ID", "HYDRA_MAIN_MODULE"}


@dataclass
class GenlabLauncherConf:
    """Fields of hydra/launcher=genlab."""

    _target_: str = "hydra_plugins.genlab_launcher.launcher.GenlabLauncher"
    jobs: int | None = None  # at once; null: one for each CUDA device, or for each core where there is none
    threads: int | None = None  # of each job; null: the cores divided by the jobs
    slurm: Any = None  # submit jobs instead, with these of submitit's parameters


ConfigStore.instance().store(group="hydra/launcher", name="genlab", node=GenlabLauncherConf, provider="genlab")


class GenlabLauncher(Launcher):
    """Runs the jobs of a sweep as processes, some at a time, and returns the objective of each."""

    def __init__(self, jobs: int | None = None, threads: int | None = None, slurm: DictConfig | None = None) -> None:
        for name, value in {"jobs": jobs, "threads": threads}.items():
            if value is not None and value < 1:
                raise CompactHydraException(f"hydra.launcher.{name} must be at least 1, or null; it is {value}")
        self.jobs = jobs
        self.threads = threads
        self.slurm: Any = None if slurm is None else OmegaConf.to_container(slurm, resolve=True)
        self.ended: list[Job] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what every job shares: the program, its primary config, and where the sweep writes."""
        self.command = program(task_function) + primary_config(config)
        self.hydra_overrides = [item for item in config.hydra.overrides.hydra if not item.startswith("hydra.mode=")]
        self.sweep_dir = Path(str(config.hydra.sweep.dir))

    @property
    def at_once(self) -> int:
        """How many jobs run at once, of as many as anybody wants."""
        return len(self.places(1 << 16))

    def places(self, wanted: int) -> list[dict[str, str]]:
        """The environment of each place where a job can run: on SLURM, which gives out devices itself, all the same."""
        if self.slurm is not None:
            return [{} for _ in range(min(self.jobs or wanted, wanted))]
        return slots(self.jobs, self.threads, wanted)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one batch of jobs to their ends, the failed ones included."""
        from hydra_plugins.genlab_launcher._display import display  # rich: Hydra loads plugins for every command

        self.sweep_dir.mkdir(parents=True, exist_ok=True)
        self.write_records()
        jobs = self.batch(job_overrides, initial_job_idx)
        with caught_signals() as caught, display(len(jobs)) as shown:
            self.run(jobs, self.places(len(jobs)), shown, caught)
        if caught:
            raise SystemExit(128 + caught[0])
        return [job.returned() for job in jobs]

    def batch(self, job_overrides: Sequence[Sequence[str]], first: int) -> list[Job]:
        """Jobs, each named after the overrides that set it apart from the others."""
        common = set.intersection(*map(set, job_overrides)) if len(job_overrides) > 1 else set()
        jobs = []
        for index, overrides in enumerate(job_overrides, first):
            name = ",".join(item for item in filter_overrides(overrides) if item not in common) or f"job {index}"
            stem = get_valid_filename(name.replace("/", "_").replace("=", "-"))[:100]
            jobs.append(Job(index, name, list(overrides), self.sweep_dir / f"{index}-{stem}.log"))
        return jobs

    def run(self, jobs: list[Job], places: list[dict[str, str]], shown: "Display", caught: list[int]) -> None:
        """Keep every place busy until all jobs have ended, or until a signal asks the sweep to leave."""
        waiting, running = deque(jobs), dict[int, Job]()
        try:
            while running or (waiting and not caught):
                for place, environment in enumerate(places):
                    if place not in running and waiting and not caught:
                        job = waiting.popleft()
                        self.start(job, environment)
                        running[place] = job
                        shown.started(job)
                time.sleep(TICK)
                for place, job in list(running.items()):
                    if job.has_ended():
                        self.ended.append(running.pop(place))
                        self.write_records()
                        shown.ended(job)
                    elif caught and job.stop(caught[0]):
                        shown.say(f"stopping {job.name}: it has {PATIENCE:.0f} s to save")
                    else:
                        shown.moved(job)
        finally:
            for job in running.values():
                job.kill()

    def start(self, job: Job, place: dict[str, str]) -> None:
        """Start one job in one place."""
        inherited = {name: value for name, value in os.environ.items() if name not in SCRUBBED}
        grouped = {"WANDB_RUN_GROUP": self.sweep_dir.name, "PYTHONUNBUFFERED": "1", **inherited}
        command = [*self.command, *self.hydra_overrides, *job.overrides, "hydra.mode=RUN"]
        job.start(command, grouped | place, Local if self.slurm is None else self.submitted)

    def submitted(self, command: Sequence[str], environment: Mapping[str, str], log: Path, report: Path) -> Process:
        """A job on SLURM, to which sbatch hands the rest of the environment."""
        from hydra_plugins.genlab_launcher._slurm import Submission, Task  # pickled by that name

        own = {name: environment[name] for name in ("WANDB_RUN_GROUP", "PYTHONUNBUFFERED")}
        return Submission(Task(command, own, str(report), os.getcwd()), self.slurm, log)

    def write_records(self) -> None:
        """Write jobs.json whole or not at all: the jobs that have ended, in the order of the sweep."""
        temporary = self.sweep_dir / ".jobs.json.tmp"
        records = [job.record() for job in sorted(self.ended, key=lambda job: job.index)]
        temporary.write_text(json.dumps(records, indent=2) + "\n")
        temporary.replace(self.sweep_dir / "jobs.json")


def program(task_function: TaskFunction) -> list[str]:
    """The command that starts the program of a task function anew."""
    if task_function.__module__ != "__main__":
        return [sys.executable, "-m", task_function.__module__]
    spec = sys.modules["__main__"].__spec__  # there is one under `python -m`, and none for a script
    return [sys.executable, "-m", spec.name] if spec else [sys.executable, os.path.abspath(sys.argv[0])]


def primary_config(config: DictConfig) -> list[str]:
    """The flags by which a job composes the primary config of the sweep, from the same places."""
    flags = {"--config-name": config.hydra.job.config_name}
    for source in config.hydra.runtime.config_sources:
        place = source.path if source.schema == "file" else f"{source.schema}://{source.path}"
        flags |= {"--config-path": place} if source.provider == "main" else {}
        flags |= {"--config-dir": place} if source.provider == "command-line" else {}
    return [f"{flag}={value}" for flag, value in flags.items() if value]


@contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Note the signals that ask the sweep to leave, but for those that are ignored already, as under nohup."""
    caught: list[int] = []
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, lambda received, _: caught.append(received))
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
