"""How a sweep looks while it runs: bars on a terminal, lines elsewhere."""

import sys
from contextlib import AbstractContextManager
from typing import Protocol, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from genlab.printing import say
from hydra_plugins.genlab_launcher._job import Job


class Display(AbstractContextManager, Protocol):
    """What the launcher tells a person."""

    def started(self, job: Job) -> None: ...
    def moved(self, job: Job) -> None: ...
    def ended(self, job: Job) -> None: ...
    def say(self, text: str) -> None: ...


class Lines:
    """One line when a job starts, and one when it ends."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def started(self, job: Job) -> None:
        """Name the job."""
        self.say(f"started {job.name}")

    def moved(self, job: Job) -> None:
        """Keep silent: a log file has no use for progress."""

    def ended(self, job: Job) -> None:
        """Say how it went."""
        self.say(job.outcome())

    def say(self, text: str) -> None:
        """Print at once, for whoever follows a pipe."""
        say(text)


class Bars:
    """One bar for the sweep, and one for each job that is running."""

    def __init__(self, jobs: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[phase]}", markup=False),
            TimeRemainingColumn(),
        )
        self.total = self.progress.add_task("sweep", total=jobs, phase="")
        self.tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def started(self, job: Job) -> None:
        """Add the job's bar, which pulses until the job knows how long it is."""
        self.tasks[job.index] = self.progress.add_task(job.name, total=None, phase="starting")

    def moved(self, job: Job) -> None:
        """Show the phase and the images seen that the job reports."""
        report = job.report
        if report:
            seen, total = report.get("images_seen", 0), report.get("max_images")
            self.progress.update(self.tasks[job.index], completed=seen, total=total, phase=report.get("phase", ""))

    def ended(self, job: Job) -> None:
        """Turn the job's bar into a line."""
        self.progress.remove_task(self.tasks.pop(job.index))
        self.progress.advance(self.total)
        self.say(job.outcome())

    def say(self, text: str) -> None:
        """Print above the bars."""
        self.progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def display(jobs: int) -> Display:
    """Bars for a person at a terminal, lines for a file."""
    return Bars(jobs) if sys.stdout.isatty() else Lines()
