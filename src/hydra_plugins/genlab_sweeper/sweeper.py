"""hydra/sweeper=optuna and hydra/sweeper=random: a search whose study lies in a journal on disk, and survives.

What the command line sweeps is searched, in Hydra's own grammar: `lr=interval(1e-5,1e-2)` or, on a logarithmic scale,
`lr=tag(log,interval(1e-5,1e-2))`; `int(interval(1,8))` where whole numbers are needed; `depth=range(2,9)`; `model=ddpm,edm`. All else is the same in every trial.

Trials are asked for in batches, as many as run at once, and told in their order, whichever ended first; the sampler of a
trial is seeded by (seed, number of the trial). So a study is a function of its configuration, its seed and the size of its
batches, and not of time. The trials of a batch that was interrupted are run again with the values that they have, before
any new one: those that had finished are not repeated, and the others continue, because a run directory follows from its
configuration. A trial that failed is told as failed and never as pruned, and is not tried again.

Modules beside this one begin with an underscore because Hydra's plugin scan would execute them twice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from genlab.printing import say

if TYPE_CHECKING:
    from hydra_plugins.genlab_sweeper._study import Study


@dataclass
class OptunaConf:
    """Fields of hydra/sweeper=optuna, of a tree-structured Parzen estimator that takes running trials for bad ones."""

    _target_: str = "hydra_plugins.genlab_sweeper.sweeper.GenlabSweeper"
    _recursive_: bool = False  # the sampler is made anew for every trial
    trials: int = 20  # in all; a larger number goes on with a study
    parallel: int | None = None  # trials of a batch; null: as many as the launcher runs at once
    direction: str = "minimize"  # or maximize
    seed: int = 0
    sampler: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "optuna.samplers.TPESampler", "multivariate": True, "constant_liar": True}
    )
    params: dict[str, Any] = field(default_factory=dict)  # key: value of the command line, which goes before it


@dataclass
class RandomConf(OptunaConf):
    """Fields of hydra/sweeper=random: every trial by itself."""

    sampler: dict[str, Any] = field(default_factory=lambda: {"_target_": "optuna.samplers.RandomSampler"})


for name, node in {"optuna": OptunaConf, "random": RandomConf}.items():
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node, provider="genlab")


class GenlabSweeper(Sweeper):
    """Asks, launches, tells, until there are enough trials."""

    config: DictConfig
    launcher: Launcher
    hydra_context: HydraContext

    def __init__(self, trials: int, parallel: int | None, direction: str, seed: int, **more: Any) -> None:
        if trials < 1 or (parallel is not None and parallel < 1):
            raise CompactHydraException("hydra.sweeper.trials and hydra.sweeper.parallel must be at least 1")
        if direction not in ("minimize", "maximize"):
            raise CompactHydraException(f"hydra.sweeper.direction={direction}: there is minimize and maximize")
        self.trials, self.parallel, self.direction, self.seed = trials, parallel, direction, seed
        self.sampler, self.params = more["sampler"], more["params"]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher, and keep where the study lies."""
        self.hydra_context, self.config = hydra_context, config  # which validate_batch_is_legal reads
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.folder = Path(str(config.hydra.sweep.dir))

    def sweep(self, arguments: list[str]) -> None:
        """Run the study to its end; raises CompactHydraException if a trial failed, when all of them have ended."""
        searched, fixed = self.split(arguments)
        try:
            from hydra_plugins.genlab_sweeper._study import Study
        except ImportError:
            raise CompactHydraException("this sweeper needs optuna: pip install 'genlab[optuna]'") from None
        parallel = self.parallel or getattr(self.launcher, "at_once", 1)
        with Study(self.folder, searched, fixed, self.direction, self.seed, plain(self.sampler)) as study:
            if study.ended:
                say(f"{study.ended} of {self.trials} trials have ended already")
            while batch := study.batch(self.trials, parallel):
                self.run(study, batch, fixed)
            study.write()
            for line in study.summary():
                say(line)
            failed = study.failures()
        if failed:
            raise CompactHydraException(f"{len(failed)} of {self.trials} trials failed:\n" + "\n".join(failed))

    def run(self, study: "Study", batch: Sequence[Any], fixed: Sequence[str]) -> None:
        """One batch of trials, from their values to their objectives."""
        jobs = [[*fixed, *study.overrides(trial)] for trial in batch]
        self.validate_batch_is_legal(jobs)
        returned = self.launcher.launch(jobs, initial_job_idx=batch[0].number)
        for trial, job in zip(batch, returned, strict=True):
            objective, why = outcome(job)
            study.tell(trial, objective, why, None if job.working_dir is None else str(job.working_dir))
        study.write()
        if not any(value is not None for value in map(objective_of, returned)) and all(map(finished, returned)):
            raise CompactHydraException("the trials have no objective to search by: is evaluation.n=0?")

    def split(self, arguments: Sequence[str]) -> tuple[list[Override], list[str]]:
        """(what is searched, what is fixed) of the params and the command line, of which the command line goes before."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        texts = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        overrides = {o.get_key_element(): o for o in parser.parse_overrides(texts)}.values()
        searched = [o for o in overrides if o.is_sweep_override()]
        if not searched:
            raise CompactHydraException("nothing to search: sweep a key, as optimizer.lr=interval(1e-5,1e-2)")
        if any(o.get_key_element() == "seed" for o in searched):
            raise CompactHydraException(
                "a search over seeds finds the luckiest one: fix seed, and repeat the best trial with others"
            )
        return searched, [str(o.input_line) for o in overrides if not o.is_sweep_override()]


def plain(node: Any) -> dict[str, Any]:
    """A configuration as plain containers."""
    container: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else dict(node)
    return container


def finished(job: JobReturn) -> bool:
    """Whether a job came to its end."""
    return job.status == JobStatus.COMPLETED


def objective_of(job: JobReturn) -> float | None:
    """What a job that came to its end returned, if that is a number."""
    value = job.return_value if finished(job) else None
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else None


def outcome(job: JobReturn) -> tuple[float | None, str]:
    """(objective, why there is none)."""
    if finished(job):
        return objective_of(job), "its objective is not a number"
    return None, str(job._return_value)
