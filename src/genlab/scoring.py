"""From a recorded configuration and weights to the rows of metrics.jsonl."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from genlab.data.source import Source
from genlab.errors import GenlabError
from genlab.evaluation.evaluator import Evaluator
from genlab.evaluation.features import Metric
from genlab.evaluation.model import score_model
from genlab.evaluation.protocol import Protocol, settings
from genlab.evaluation.reference import References, imported
from genlab.files import sha256
from genlab.hints import near
from genlab.instantiation import build
from genlab.module import GenerativeModule
from genlab.recorded import here
from genlab.run import Run


class Scoring:
    """The evaluation of a recorded configuration, made once and used for any number of models or sample sets."""

    def __init__(self, config: dict[str, Any], source: Source, device: torch.device, trust: bool = False):
        options = config["evaluation"]
        self.config, self.options, self.trust = config, options, trust
        self.device = device if device.type == "cuda" else torch.device("cpu")  # elsewhere there is no float64
        self.extractor = build(options["features"], trust).to(self.device)
        self.references = References(source, self.extractor, options["cache"], options["batch"], self.device)
        self.recipe, self.brought, self.words = {"metrics": options["metrics"]}, None, "data"
        statistics = options["reference"]["statistics"]
        if statistics is not None:
            path, said = Path(statistics).expanduser(), options["reference"]["of"]
            if said is None:
                raise GenlabError(f"say what {path} is of, for nobody else knows: evaluation.reference.of=WORDS")
            self.brought = imported(path, options["reference"]["n"]).to(self.device)
            self.recipe["statistics"] = digest = sha256(path)
            self.words = f"{said} ({path.name}, sha256 {digest[:12]})"
        self.split = options["reference"]["split"]

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        return build(self.options["metrics"], self.trust)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Made when the first samples are scored, since it reads, or makes, the reference statistics."""
        options = self.options
        sets = (options["n"], options["batch"], options["seed"], options["seeds"], options["floors"])
        return Evaluator(self.references, self.split, self.metrics, self.recipe, *sets, self.brought)

    def module(
        self,
        module: GenerativeModule,
        recipe: dict[str, Any],
        weights: str,
        seconds: float,
        chosen_by: str | None = None,
    ) -> list[dict[str, Any]]:
        """The rows for a module that was built from `recipe`, carries `weights` (the name of an average, or "raw") and took
        `seconds` to train; `chosen_by` is the metric for which its checkpoint was kept, None of the last one."""
        which = {"which": "last"} if chosen_by is None else {"which": "best", "by": chosen_by}

        def protocol(nfe: float) -> Protocol:
            return self.protocol(
                self.options["n"],
                seeds=self.options["seeds"],
                sampler=recipe.get("sampler") or {},
                guidance=recipe.get("guidance") or {},
                nfe=nfe,
                weights=weights,
                checkpoint={"images_seen": module.images_seen, **which},
                device=str(module.device),
            )

        others = {} if not self.options["module_metrics"] else build(self.options["module_metrics"], self.trust)
        density = self.config["data"]["density"] and build(self.config["data"]["density"], self.trust)
        entropy = density.entropy if density else None
        options = {name: settings(metric) for name, metric in (self.options["module_metrics"] or {}).items()}
        likelihood = self.options["likelihood"]
        return score_model(self.evaluator, module, protocol, seconds, others, options, entropy, likelihood)

    def protocol(self, n: int, **own: Any) -> Protocol:
        """The record of numbers about n samples; `own` are the fields that the model fills."""
        fields: dict[str, Any] = {"seeds": 1, "sampler": {}, "guidance": {}, "nfe": 0.0, "weights": "none"}
        fields |= {"checkpoint": {}, "device": str(self.device), **own}
        identity, levels = self.references.identity(self.split), self.config["data"]["levels"]
        return Protocol(
            data=identity["data"],
            data_sha256=identity["data_sha256"] if self.brought is None else "",
            transform=identity["transform"],
            reference_split=self.split,
            reference=self.words,
            n_real=self.evaluator.real.n or None,
            n_fake=n,
            extractor=self.extractor.name,
            extractor_sha256=self.extractor.fingerprint,
            layer=self.extractor.layer,
            resize=self.extractor.resize,
            quantisation=f"clamp, round to the nearest of {levels} levels, uint8" if levels else "none",
            xflip=False,
            precision="32-true",
            seed=self.options["seed"],
            threads=torch.get_num_threads(),
            batch=self.options["batch"],
            **fields,
        )


NO_BEST = "train with trainer.evaluate_every=IMAGES"


def load(
    run: Run, config: dict[str, Any], weights: str, trust: bool, checkpoint: str = "last"
) -> tuple[GenerativeModule, dict[str, Any]]:
    """The module of a run with `weights` (the name of an average, or "raw") on the best device, and its whole checkpoint.

    Raises GenlabError if `checkpoint` is neither "last" nor "best", if the run has no such checkpoint, one of another
    model, or no such weights.
    """
    if checkpoint not in ("last", "best"):
        raise GenlabError(f"checkpoint={checkpoint}: there is last and best")
    state = run.load_checkpoint(checkpoint)
    if state is None:
        raise GenlabError(
            f"{run.path} has no {checkpoint} checkpoint" + (" yet" if checkpoint == "last" else ": " + NO_BEST)
        )
    module = restored(config["model"], state, weights, trust, str(run.path))
    return module.eval().to("cuda" if torch.cuda.is_available() else "cpu"), state


def restored(model: Any, state: dict[str, Any], weights: str, trust: bool, origin: str) -> GenerativeModule:
    """The module of a configuration with `weights` of a checkpoint; raises GenlabError for one that has none of that name."""
    kept = {**state["averages"], "raw": {}}
    if weights not in kept:
        names = list(kept)
        raise GenlabError(f"weights={weights}{near(weights, names)}; there is {', '.join(names[:-1])} and {names[-1]}")
    module: GenerativeModule = build(model, trust)
    average = {name.replace("/", "."): value for name, value in kept[weights].items()}
    adopt(module, state["state_dict"] | average, origin)
    module.images_seen = state["images_seen"]
    return module


def trained(run: str | None) -> GenerativeModule:
    """The module of a run with its averaged weights, frozen: what one model takes from another, such as a classifier.

    Raises GenlabError without a run.
    """
    if run is None:
        raise GenlabError("guidance.classifier.run=RUN is missing: a run of model=noisy_classifier")
    found = Run.existing(Path(run))
    return load(found, here(found.config), "ema", trust=False)[0].requires_grad_(False)


def adopt(module: GenerativeModule, tensors: dict[str, torch.Tensor], origin: str) -> None:
    """Load a state dict; raises GenlabError that names what does not fit."""
    own, found = ({name: tuple(t.shape) for name, t in d.items()} for d in (module.state_dict(), tensors))
    wrong = sorted(name for name in {**own, **found} if own.get(name) != found.get(name))
    if wrong:
        some = ", ".join(f"{name} {found.get(name, 'missing')} for {own.get(name, 'none')}" for name in wrong[:3])
        raise GenlabError(
            f"the checkpoint of {origin} is of another model: {len(wrong)} of its tensors do not fit ({some}, ...)"
        )
    module.load_state_dict(tensors)
