"""One run from configuration to metrics."""

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf

from genlab.callbacks.budget import Budget, Clock
from genlab.callbacks.checkpoint import Checkpoint
from genlab.callbacks.ema import EMA
from genlab.callbacks.guard import Guard, Preempted
from genlab.callbacks.history import History
from genlab.callbacks.progress import Report
from genlab.callbacks.samples import Samples, show
from genlab.data.datamodule import DataModule
from genlab.instantiation import build
from genlab.module import GenerativeModule
from genlab.noise import key
from genlab.pictures import picture
from genlab.run import Run
from genlab.scoring import evaluate
from genlab.tracking import Tracker

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # what it says of devices and limits is not the user's
warnings.filterwarnings("ignore", module="lightning")


def train(config: DictConfig, folder: Path) -> float | None:
    """Train what is left of the budget, score, and return the first metric; None if there is none.

    Raises GenlabError in one line for what the user can mend; exits with 128 + the signal that stopped it.
    """
    leader = int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0"))) == 0
    run, plain = Run(folder), _plain(config)
    report = Report(folder, f"{config.data.name}/{config.model_name} s{config.seed}", 0, config.trainer.max_images)
    if leader:
        run.lock()
        if config.force:
            run.clear()
        objective = _finished(run, config)
        if objective is not None:
            report.images_seen = run.status["images_seen"]
            report.phase("finished", objective=objective)
            print(f"genlab: already finished: {folder} (force=true trains again)")
            return objective
        run.write_config(plain)
    tracker: Tracker = build(config.logger) if leader else build({"_target_": "genlab.tracking.Nothing"})
    session = Session(config, plain, run, tracker, report, leader)
    try:
        return session.train()
    except Preempted as stop:
        session.end("preempted", str(stop))
        report.stop()
        print(f"genlab: {stop} at {session.module.images_seen} images; the same command continues", file=sys.stderr)
        sys.exit(stop.exit_code)
    except BaseException as error:
        session.end("failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        report.stop()


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return {k: v for k, v in plain.items() if k != "hydra"}


def _finished(run: Run, config: DictConfig) -> float | None:
    """The objective of a run that has nothing left to do."""
    status = run.status
    if status.get("state") == "finished" and status["images_seen"] >= config.trainer.max_images:
        return status["objective"] if status["objective"] is not None else float("nan")
    return None


class Session:
    """The objects of one training process."""

    def __init__(
        self, config: DictConfig, plain: dict[str, Any], run: Run, tracker: Tracker, report: Report, leader: bool
    ):
        self.config, self.plain, self.run, self.tracker, self.report, self.leader = (
            config, plain, run, tracker, report, leader
        )  # fmt: skip
        options = config.trainer
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        torch.manual_seed(key(config.seed, "initialization"))
        self.module: GenerativeModule = build(config.model)
        self.ema = EMA(self.module)
        self.source = build(config.data.source)
        state = run.load_checkpoint()
        if state is not None:
            self._restore(state)
        self.clock = Clock(0.0 if state is None else state["seconds"])
        self.guard, self.callbacks = self._callbacks(state)

    def _restore(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["state_dict"])
        self.ema.restore(state["averages"])
        self.module.images_seen = state["images_seen"]
        if self.leader:
            self.run.rewind(state["images_seen"])

    def _callbacks(self, state: dict[str, Any] | None) -> tuple[Guard, list[L.Callback]]:
        options, seed, run = self.config.trainer, self.config.seed, self.run
        own = [self.ema, Budget(seed, options.batch), self.clock]
        checkpoint = Checkpoint(run, self.ema, self.clock, options.batch, options.checkpoint_every, options.keep, state)
        guard = Guard(checkpoint)
        if not self.leader:
            # the other ranks restore and stop with the first, and write nothing
            return guard, [*own, Follower(checkpoint), guard]
        history = History(run, self.tracker, self.clock, options.batch, options.log_every, self.module.images_seen)
        samples = Samples(run, self.tracker, self.ema, self.clock, seed, options.batch, options.sample_every)
        return guard, [*own, history, samples, checkpoint, guard, self.report]

    def train(self) -> float | None:
        """Fit, then draw and score with the averaged weights."""
        options = self.config.trainer
        if self.leader:
            self.status("running")
            self.tracker.start(self.run.path, self.plain, "train")
        if self.module.images_seen < options.max_images:
            data = DataModule(self.source, options.batch, self.config.seed, options.max_images)
            self._trainer().fit(self.module, data)
        if not self.leader:
            return None
        with self.ema.applied():
            self._draw()
            objective = self._evaluate() if self.config.evaluation.n else None
        self.end("finished", None, objective)
        return objective

    def _trainer(self) -> L.Trainer:
        options = self.config.trainer
        processes = options.devices * options.num_nodes
        batches = max(1, options.validate_every // options.batch)
        return L.Trainer(
            max_epochs=1,
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            # a GAN's steps each leave half of the parameters out
            strategy=DDPStrategy(find_unused_parameters=not self.module.automatic_optimization)
            if processes > 1
            else "auto",
            precision=options.precision,
            callbacks=self.callbacks,
            val_check_interval=batches if options.validate_every else None,
            check_val_every_n_epoch=None if options.validate_every else 1,
            limit_val_batches=None if options.validate_every else 0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )

    def _draw(self) -> None:
        """samples/final.png and trajectory.webp from the run's own noise, and data.png to compare with."""
        self.report.phase("sampling")
        self.run.samples.mkdir(exist_ok=True)
        count = 64 if len(self.module.shape) > 1 else 2000
        picture(show(self.module, self.config.seed, count)).save(self.run.samples / "final.png")
        picture(self.source.split("test").x[:count]).save(self.run.samples / "data.png")
        self.tracker.picture("samples", self.run.samples / "final.png", self.module.images_seen)
        self.guard.check()

    def _evaluate(self) -> float:
        self.report.phase("evaluating")
        rows = evaluate(self.plain, self.module, self.source, "ema", self.clock.seconds, self.guard.check)
        for row in rows:
            self.run.append("metrics.jsonl", row)
        self.tracker.summarize({row["metric"]: row["value"] for row in rows})
        self.tracker.summarize({"protocol": rows[0]["protocol"]})
        return rows[0]["value"]

    def status(self, state: str, **more: Any) -> None:
        self.run.write_status(
            state, self.module.images_seen, self.config.trainer.max_images, seconds=self.clock.seconds, **more
        )

    def end(self, state: str, why: str | None, objective: float | None = None) -> None:
        """Write how the run ended, wherever anybody looks for it."""
        if self.leader:
            self.status(state, why=why, objective=objective)
            self.report.images_seen = self.module.images_seen
            self.report.phase(state, objective=objective, why=why)
            self.tracker.finish(0 if state == "finished" else 1)


class Follower(L.Callback):
    """On the ranks that write nothing: restores the optimizers as the first rank does."""

    def __init__(self, checkpoint: Checkpoint):
        self.on_train_start = checkpoint.on_train_start
