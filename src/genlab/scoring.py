"""From a recorded configuration and weights to the rows of metrics.jsonl."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from genlab.config import near
from genlab.data.source import Source
from genlab.errors import GenlabError
from genlab.evaluation.evaluator import Drawn, Evaluator
from genlab.evaluation.protocol import Protocol
from genlab.instantiation import build
from genlab.module import GenerativeModule
from genlab.run import Run


def evaluate(
    config: dict[str, Any],
    module: GenerativeModule,
    source: Source,
    weights: str,
    seconds: float,
    between: Callable[[], None] = lambda: None,
    trust: bool = False,
) -> list[dict[str, Any]]:
    """The rows for a module that carries `weights` (the name of an average, or "raw") and took `seconds` to train."""
    options = config["evaluation"]
    features, metrics = build(options["features"], trust), build(options["metrics"], trust)
    density = config["data"]["density"] and build(config["data"]["density"], trust)
    entropy = density.entropy if density else None
    transport = build(options["transport"], trust) if options.get("transport") else None
    evaluator = Evaluator(
        source, features, metrics, options["n"], options["batch"], options["seed"], entropy, transport
    )

    def protocol(drawn: Drawn) -> Protocol:
        return Protocol(
            data=config["data"]["name"],
            extractor=features.name,
            extractor_sha256=features.fingerprint,
            reference_split="test",
            n_real=len(evaluator.test.x),
            n_fake=options["n"],
            resize="none",
            quantisation="clamp, round to the nearest level, uint8" if config["data"]["levels"] else "none",
            xflip=False,
            sampler=config["model"].get("sampler") or {},
            guidance=config["model"].get("guidance") or {},
            nfe=drawn.nfe,
            weights=weights,
            precision="32-true",
            seed=options["seed"],
            checkpoint={"images_seen": module.images_seen, "which": "last"},
            device=str(module.device),
            threads=torch.get_num_threads(),
            batch=options["batch"],
        )

    return evaluator(module, protocol, seconds, between)


def load(run: Run, config: dict[str, Any], weights: str, trust: bool) -> tuple[GenerativeModule, float]:
    """The module of a run with `weights` (the name of an average, or "raw") on the best device, and its training seconds.

    Raises GenlabError if the run has no checkpoint, one of another model, or no such weights.
    """
    state = run.load_checkpoint()
    if state is None:
        raise GenlabError(f"{run.path} has no checkpoint yet")
    kept = {**state["averages"], "raw": {}}
    if weights not in kept:
        names = list(kept)
        raise GenlabError(f"weights={weights}{near(weights, names)}; there is {', '.join(names[:-1])} and {names[-1]}")
    module: GenerativeModule = build(config["model"], trust)
    tensors = dict(state["state_dict"]) | {name.replace("/", "."): value for name, value in kept[weights].items()}
    adopt(module, tensors, str(run.path))
    module.images_seen = state["images_seen"]
    return module.eval().to("cuda" if torch.cuda.is_available() else "cpu"), state["seconds"]


def trained(run: str | None) -> GenerativeModule:
    """The module of a run with its averaged weights, frozen: what one model takes from another, such as a classifier.

    Raises GenlabError without a run.
    """
    if run is None:
        raise GenlabError("guidance.classifier.run=RUN is missing: a run of model=noisy_classifier")
    found = Run.existing(Path(run))
    return load(found, found.config, "ema", trust=False)[0].requires_grad_(False)


def adopt(module: GenerativeModule, tensors: dict[str, torch.Tensor], origin: str) -> None:
    """Load a state dict; raises GenlabError that names what does not fit."""
    own = module.state_dict()
    wrong = [name for name in {**own, **tensors} if name not in own or name not in tensors]
    wrong += [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if wrong:
        some = ", ".join(sorted(wrong)[:3])
        raise GenlabError(
            f"the checkpoint of {origin} is of another model: {len(wrong)} of its tensors do not fit ({some}, ...)"
        )
    module.load_state_dict(tensors)
