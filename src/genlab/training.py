"""One run from configuration to metrics."""

import os
import sys
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from subprocess import Popen
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from omegaconf import DictConfig, OmegaConf

from genlab import distributed, processes, resuming
from genlab.callbacks.budget import Budget, Clock
from genlab.callbacks.checkpoint import Checkpoint, Resume
from genlab.callbacks.ema import EMA
from genlab.callbacks.evaluations import Evaluations
from genlab.callbacks.finite import Finite
from genlab.callbacks.guard import Guard, Preempted
from genlab.callbacks.history import History
from genlab.callbacks.occasion import Occasion
from genlab.callbacks.progress import Report
from genlab.callbacks.samples import Samples
from genlab.callbacks.validation import Validation
from genlab.data.datamodule import DataModule
from genlab.data.identity import stamp
from genlab.distributed import gathered, ranks
from genlab.errors import GenlabError
from genlab.failures import explained
from genlab.finished import beyond, finished
from genlab.fitting import lightning, sharded
from genlab.instantiation import build
from genlab.launched import leader, local_rank
from genlab.module import GenerativeModule
from genlab.networks.batch_norm import synchronize
from genlab.noise import key
from genlab.redaction import redact
from genlab.run import Run
from genlab.scoring import Scoring, adopt, restored
from genlab.tracking import Nothing, Tracker


def train(config: DictConfig, folder: Path) -> float | None:
    """Train what is left of the budget, score, and return the first metric; None if there is none.

    Raises GenlabError in one line for what the user can mend; exits with 143, or 130 after SIGINT, where a signal stopped it.
    """
    run, first = Run(folder), leader()
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")):
        config.force = False  # a job that comes back goes on with what it has begun anew
    report = Report(folder, f"{config.data.name}/{config.model_name} s{config.seed}", config.trainer.max_images)
    if first:
        run.lock()
    else:
        processes.follow()
    session = Session(config, run, report, first)
    try:
        if first and config.force:
            run.clear()
        if status := finished(config, folder):  # on every rank: the others would wait for the first
            return status["objective"]
        session.build()
        return session.train()
    except Preempted as stop:
        with suppress(Preempted):  # by a second signal, which leaves nothing to be done
            session.preempted(stop)
        sys.exit(stop.exit_code if first else 0)  # of the first rank's alone: Lightning kills all for another's
    except BaseException as error:
        told = session.failed(error)
        if told is error:
            raise
        raise told from error
    finally:
        session.close()


class Session:
    """The objects of one training process."""

    module: GenerativeModule
    built = owing = complete = False
    meets = False  # whether all ranks end here

    def __init__(self, config: DictConfig, run: Run, report: Report, leader: bool):
        plain: Any = OmegaConf.to_container(config, resolve=True)
        # trust is the word of whoever typed it, and no property of the run
        self.trust: bool = config.get("trust", False)
        self.config, self.plain = config, {k: v for k, v in plain.items() if k not in ("hydra", "trust")}
        self.run, self.report, self.leader = run, report, leader
        self.stamp = stamp(config.data.source.get("path"))
        # what fails before its first batch takes nothing from a run that is finished
        self.ended, self.began = run.ended() if leader and not config.force else {}, self.images_seen
        self.clock, self.finite = Clock(), Finite(run, config.trainer.skip_nonfinite)
        self.sharded = sharded(config.trainer)
        self.guard = Guard(config.trainer.requeue_signals, leader, together=self.sharded)
        self.launcher: _SubprocessScriptLauncher | None = None
        self.tracker: Tracker = Nothing()  # until the model stands

    @property
    def images_seen(self) -> int:
        return self.module.images_seen if self.built else self.run.status.get("images_seen", 0)

    def build(self) -> None:
        """Make the model and its callbacks, as the last checkpoint has them if there is one."""
        options = self.config.trainer
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        if options.tf32 is not None:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = options.tf32
        if options.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which cuBLAS is not
            torch.backends.cudnn.benchmark = False
            torch.use_deterministic_algorithms(True)
        # with force the others may be here before the first has cleared the folder
        state = self.run.load_checkpoint() if self.leader or not self.config.force else None
        if state is not None:  # no record says less than what was trained
            known = min(state["images_seen"], self.run.status.get("max_images", 0))
            options.max_images = max(options.max_images, known)
            self.plain["trainer"]["max_images"] = options.max_images
        torch.manual_seed(key(self.config.seed, "initialization"))
        self.module = build(self.config.model, self.trust)
        if self.sharded and not self.module.shards:
            name = type(self.module).__name__
            raise GenlabError(f"trainer=fsdp is for diffusion and flow matching: a {name} trains with trainer=ddp")
        self.module.accumulate = options.accumulate
        if options.sync_batchnorm:
            synchronize(self.module)
        self.ema = EMA(self.module, options.batch, partial(build, self.config.model, self.trust))
        self.source = build(self.config.data.source, self.trust)
        if (path := getattr(self.source, "path", None)) is not None:
            self.plain["data"]["source"]["path"] = str(path)  # absolute, so that whoever reads the record finds it
        budget = (self.config.seed, options.max_images, options.serve, options.serve_share)
        self.data = DataModule(self.source, options.batch, *budget)
        if state is not None:
            adopt(self.module, state["state_dict"], str(self.run.path))  # or refuse, before any data are read
        here = resuming.conditions(options, self.device, self.source)
        if state is not None:
            going_on = state["images_seen"] < options.max_images
            resuming.check(state["conditions"], here, state["images_seen"], tell=self.leader and going_on)
            self.ema.restore(state["averages"])
            self.module.images_seen, self.clock.seconds = state["images_seen"], state["seconds"]
            self.owing = state["owing"]
        self.tracker = build(redact(self.plain["logger"]), self.trust) if self.leader else Nothing()
        if self.config.evaluation.n and self.module.judged_by is None:
            self.scoring  # noqa: B018 - an extractor that cannot be had is heard of before training, and not after it
        self.callbacks = self._callbacks(state, here)
        self.built = True
        if self.leader:
            undone = [occasion.prefix for occasion in self.occasions if occasion.owed(self.module)]
            self.run.rewind(self.images_seen, undone, self.images_seen < options.max_images)
            self.run.write_config(self.plain)
            self.run.write_provenance(self.config.seed)
            self.status("running", self.images_seen)
            self.tracker.start(self.run.path, redact(self.plain), "train")

    def _callbacks(self, state: dict[str, Any] | None, here: dict[str, Any]) -> list[L.Callback]:
        options, run = self.config.trainer, self.run
        own = [Resume(state), self.ema, Budget(self.config.seed, options.batch), self.clock, self.finite]
        kept = (self.guard, self.ema, self.clock, options.batch, options.max_images)
        checkpoint = Checkpoint(run, self.ema, self.clock, self.guard, options, here, state)
        history = None
        if self.leader:
            history = History(run, self.tracker, self.clock, options.batch, options.log_every, self.images_seen)
        if self.leader or self.sharded:
            pictures = options.sample_every if self.module.judged_by is None or self.module.reconstructs else 0
            held_out = self.source.split("test")
            self.samples = Samples(run, self.tracker, self.config.seed, held_out.x, *kept, pictures)
            self.validation = Validation(held_out, history, self.config.seed, *kept, options.validate_every)
            self.occasions = [self.validation, self.samples, *self._evaluations(checkpoint, history)]
            checkpoint.occasions = self.occasions
            curve = [] if history is None else [history]
            callbacks = [*own, *curve, *self.occasions, checkpoint, self.guard, *([self.report] if self.leader else [])]
        else:  # the other ranks restore, score and stop with the first, and write nothing
            callbacks = [*own, *self._evaluations(checkpoint, None), self.guard]
        for callback in callbacks:
            if state is not None and callback.state_key in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][callback.state_key])
        return callbacks

    def _evaluations(self, checkpoint: Checkpoint, history: History | None) -> list[Occasion]:
        options, evaluation = self.config.trainer, self.config.evaluation
        if not options.evaluate_every or not evaluation.n or self.module.judged_by is not None:
            return []
        n = evaluation.during or evaluation.n
        kept = (self.guard, self.ema, self.clock, options.batch, options.max_images, options.evaluate_every)
        return [Evaluations(self.scoring, n, evaluation.monitor, checkpoint, history, *kept)]

    @cached_property
    def scoring(self) -> Scoring:
        return Scoring(self.plain, self.source, self.device, self.trust)

    @property
    def device(self) -> torch.device:
        """That of this rank."""
        cuda = self.config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        return torch.device("cuda", local_rank()) if cuda else torch.device("cpu")

    def train(self) -> float | None:
        """Fit, then draw and score with the averaged weights; what cannot draw has the last validation as its score."""
        if self.images_seen < self.config.trainer.max_images or self.owing:
            self.fit()
        elif self.leader:
            print(f"genlab: trained to {self.images_seen} images already: only drawn and scored again: {self.run.path}")
        self.module.to(self.device)  # Lightning may leave it on the CPU
        self.ema.place(self.device)
        self.ema.agree(self.module)
        objective, judge = None, self.module.judged_by
        metric = judge
        with self.ema.applied(self.module) as module:
            if self.leader and (judge is None or self.module.reconstructs):
                self.report.phase("sampling", self.images_seen)
                self.samples.final(module)
            if judge is not None:
                objective = self.validation.last.get(f"val/{judge}") if self.leader else None
            elif self.config.evaluation.n:
                metric, objective = self._evaluate(module)
        more = beyond(self.images_seen, self.report.max_images, self.config.trainer.batch)
        self.end("finished", more, objective)
        self.meets = True
        if self.leader:
            self.report.stop()  # which would print this on its own stream
            scored = "not scored" if objective is None else f"{metric} {objective:.4g}"
            print(f"genlab: finished: {self.run.path}: {scored}, trained for {self.clock.seconds:.0f} s")
        return objective

    def fit(self) -> None:
        """Lightning's loop, of which signals and processes are our own matter."""
        trainer = lightning(self.config.trainer, self.module, self.callbacks)
        if self.leader and isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher):
            os.environ[processes.LEADER] = str(os.getpid())
            self.launcher = trainer.strategy.launcher
        trainer.fit(self.module, self.data)

    def _evaluate(self, module: GenerativeModule) -> tuple[str, float] | tuple[None, None]:
        """Score the module as it stands, and before it the best checkpoint that training kept, if that is another one; the
        first metric and its value, on the first rank."""
        self.report.phase("evaluating", self.images_seen)
        best, earlier = self.run.load_checkpoint("best") if self.leader else None, []
        if any(gathered({ranks()[0]: best is not None and best["images_seen"] != self.images_seen}).values()):
            earlier = self._score_best(best or self.run.load_checkpoint("best"))
        rows = self.scoring.module(module, self.plain["model"], "ema", self.clock.seconds)
        if not self.leader:
            return None, None
        self.guard.patient = True  # a signal that comes between here and `end` repeats no rows
        self.run.append("metrics.jsonl", *earlier, *rows)
        self.tracker.summarize({f"best/{row['metric']}": row["value"] for row in earlier})
        self.tracker.summarize({row["metric"]: row["value"] for row in rows})
        self.tracker.summarize({"protocol": rows[0]["protocol"]})
        return rows[0]["metric"], rows[0]["value"]

    def _score_best(self, state: dict[str, Any] | None) -> list[dict[str, Any]]:
        assert state is not None, "the first rank has read it"
        module = restored(self.config.model, state, "ema", self.trust, str(self.run.path)).to(self.device)
        return self.scoring.module(module, self.plain["model"], "ema", state["seconds"], state["best"]["metric"])

    @property
    def others(self) -> list[Popen]:
        """The processes of the ranks that this one has started."""
        return [] if self.launcher is None else self.launcher.procs

    def status(self, state: str, images: int, **more: Any) -> None:
        served = self.data.served if self.built else None  # where the training data lay
        more |= {"seconds": self.clock.seconds, "served": served, "nonfinite": self.finite.total, "data": self.stamp}
        self.run.write_status(state, images, self.config.trainer.max_images, **more)

    def end(self, state: str, why: str | None, objective: float | None = None) -> None:
        """Record how the run ended, and close the tracker."""
        if self.leader:
            self.record(state, self.images_seen, why, objective)
            self.guard.patient = False
            self.tracker.finish(0 if self.complete else 1)

    def record(self, state: str, images: int, why: str | None, objective: float | None = None) -> None:
        """Write how the run ended, for all who ask its directory or launched it."""
        if state == "failed" and self.ended and images == self.began:
            self.run.restore(self.ended)
        else:
            self.status(state, images, why=why, objective=objective)
        self.complete = state == "finished"
        self.report.phase(state, images, objective=objective, why=why)

    def preempted(self, stop: Preempted) -> None:
        """Go, with the other ranks and a word of where from the same command goes on; back into the queue if there is one."""
        self.meets = self.guard.agreed
        if not self.leader:
            return
        if not self.meets:
            processes.end(self.others, 0)
        if self.complete:
            print(f"genlab: {stop} before all was sent to W&B; the run is finished", file=sys.stderr)
            return
        images = self.run.saved_images if stop.at_once else self.images_seen
        self.record("preempted", images, str(stop))
        same = "the same command without force=true" if self.config.force else "the same command"
        print(f"genlab: {stop} at {images} images; {same} continues", file=sys.stderr)
        try:
            self.guard.requeue(stop.signum)  # at once: W&B may take longer than the queue waits
        finally:
            self.tracker.finish(stop.exit_code)

    def failed(self, error: BaseException) -> BaseException:
        """Record it, and return what the user is to be told."""
        told = explained(error, self.config.trainer, self.run, self.others)
        processes.end(self.others, 0)
        try:
            self.end("failed", str(told) if isinstance(told, GenlabError) else f"{type(told).__name__}: {told}")
        except GenlabError as second:  # a full disk, say, which may be what is told already
            print(f"genlab: {second}", file=sys.stderr)
        return told

    def close(self) -> None:
        """Give the directory, the signals and the terminal back, and leave no rank behind."""
        if self.leader:
            self.run.unlock()
        self.guard.release()
        self.report.stop()
        distributed.leave(self.meets)
        processes.end(self.others, 30)
