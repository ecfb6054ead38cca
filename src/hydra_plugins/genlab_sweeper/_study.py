"""A study in a journal: what was asked, what was told, and what is left to do."""

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import optuna
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import CompactHydraException
from hydra.utils import instantiate
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
    """The study of one question: the same space, fixed overrides, sampler and seed go on where they were.

    Another question in the same folder is another study in the same journal. The folder is this process's alone.
    """

    def __init__(
        self,
        folder: Path,
        searched: Sequence[Override],
        fixed: Sequence[str],
        direction: str,
        seed: int,
        sampler: dict[str, Any],
    ):
        self.folder, self.seed, self.sampler = folder, seed, sampler
        self.space = {o.get_key_element(): distribution(o) for o in searched}
        space = {key: optuna.distributions.distribution_to_json(d) for key, d in self.space.items()}
        question = json.dumps([space, sorted(fixed), direction, seed, sampler], sort_keys=True)
        self.name, self.direction = hashlib.sha256(question.encode()).hexdigest()[:12], direction

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "study.journal"
        self.lock = open(self.folder / ".study.lock", "w")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CompactHydraException(f"another process searches in {self.folder}: wait for it") from None
        Path(f"{path}.lock").unlink(missing_ok=True)  # of a process that was killed while it wrote
        _mend(path)
        storage = JournalStorage(JournalFileBackend(str(path)))
        direction = optuna.study.StudyDirection[self.direction.upper()]
        self.study = optuna.create_study(
            storage=storage, study_name=self.name, direction=direction, load_if_exists=True
        )
        return self

    def __exit__(self, *error: object) -> None:
        self.lock.close()

    @property
    def ended(self) -> int:
        """How many trials need nothing more."""
        return sum(trial.state.is_finished() for trial in self.study.trials)

    def batch(self, trials: int, parallel: int) -> list[Trial]:
        """The trials to run next: those that were interrupted, or as many new ones as fit; none when there are enough."""
        waiting = [t for t in self.study.trials if t.state == TrialState.RUNNING]
        if waiting:
            return [Trial(self.study, t._trial_id) for t in waiting[:parallel]]
        return [self._asked() for _ in range(min(parallel, trials - len(self.study.trials)))]

    def _asked(self) -> Trial:
        number = len(self.study.trials)
        digest = hashlib.sha256(f"{self.seed} {number}".encode()).digest()
        self.study.sampler = instantiate(self.sampler, seed=int.from_bytes(digest[:4], "little"))
        return self.study.ask(self.space)

    def overrides(self, trial: Trial) -> list[str]:
        """The values of a trial, as the command line would have them."""
        return [f"{key}={value}" for key, value in trial.params.items()]

    def tell(self, trial: Trial, objective: float | None, why: str, run_dir: str | None) -> None:
        """Record how a trial ended."""
        trial.set_user_attr("run_dir", run_dir)
        if objective is None:
            trial.set_user_attr("why", why)
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            self.study.tell(trial, objective)

    def write(self) -> None:
        """study.json: the trials in their order, whole or not at all."""
        temporary = self.folder / ".study.json.tmp"
        temporary.write_text(json.dumps([self._record(t) for t in self.study.trials], indent=1) + "\n")
        os.replace(temporary, self.folder / "study.json")

    def _record(self, trial: FrozenTrial) -> dict[str, Any]:
        return {
            "number": trial.number,
            "params": trial.params,
            "state": "failed" if trial.state == TrialState.FAIL else trial.state.name.lower(),
            "objective": trial.value if trial.state == TrialState.COMPLETE else None,
            "run_dir": trial.user_attrs.get("run_dir"),
        }

    def summary(self) -> list[str]:
        """The best trial, in words; nothing where none came to its end."""
        if not any(t.state == TrialState.COMPLETE for t in self.study.trials):
            return []
        best = self.study.best_trial
        values = " ".join(f"{key}={value}" for key, value in best.params.items())
        return [f"best of {self.ended} trials: {best.number}, objective {best.value:g}: {values}"] + [
            f"  {best.user_attrs['run_dir']}" for _ in range("run_dir" in best.user_attrs)
        ]

    def failures(self) -> list[str]:
        """A line for each trial that failed, now or before."""
        return [
            f"  trial {t.number}: {t.user_attrs.get('why')}" for t in self.study.trials if t.state == TrialState.FAIL
        ]


def distribution(override: Override) -> BaseDistribution:
    """What Optuna draws from for a swept override; raises CompactHydraException where that cannot be searched."""
    value, key = override.value(), override.get_key_element()
    if isinstance(value, IntervalSweep):
        low, high, log = value.start, value.end, "log" in value.tags
        if low is None or high is None or low >= high or (log and low <= 0):
            raise CompactHydraException(f"{override.input_line}: an interval goes up, and on a log scale from above 0")
        whole = isinstance(low, int) and isinstance(high, int)
        if whole:
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(float(low), float(high), log=log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        values: list[Any] = list(value.range())
        if not values:
            raise CompactHydraException(f"{override.input_line}: an empty range")
        if all(isinstance(v, int) for v in values) and value.step > 0:
            return IntDistribution(values[0], values[-1], step=int(value.step))
    choices = list(override.sweep_string_iterator())
    if not choices:
        raise CompactHydraException(f"{key}: nothing to choose from")
    return CategoricalDistribution(choices)


def _mend(path: Path) -> None:
    """Drop a last line that a kill cut off, which would spoil the line after it."""
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
