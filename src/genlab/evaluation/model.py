"""Every number of a model: of sets of its samples, of itself, its likelihood and its costs."""

import math
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from genlab.distributed import gathered, ranks, summed
from genlab.errors import GenlabError
from genlab.evaluation.banks import chunks
from genlab.evaluation.drawing import Cost, drawn, reconstructed
from genlab.evaluation.evaluator import Evaluator
from genlab.evaluation.features import ModuleMetric
from genlab.evaluation.protocol import Protocol, Row, counted
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key

# What a likelihood does not look at.
UNSEEN = {"reference": "data", "extractor": "none", "extractor_sha256": "", "layer": "", "resize": ""}


def score_model(
    evaluator: Evaluator,
    module: GenerativeModule,
    protocol: Callable[[float], Protocol],
    seconds: float,
    others: dict[str, ModuleMetric] | None = None,
    options: dict[str, Row] | None = None,
    entropy: float | None = None,
    likelihood: bool = True,
) -> list[Row]:
    """One row of metrics.jsonl for each metric, likelihood and cost of the module as it stands.

    What reconstructs is scored by that instead: a row is then of all images of the reference's split, each taken apart and
    put together again, against these images. `protocol` makes the record from the NFE, `seconds` is what training took,
    `others` are metrics of the module itself, `options` what each was made with, and `entropy` is what an NLL is held against.
    """
    module.eval()
    if module.reconstructs:
        return _of_reconstructions(evaluator, module, protocol(0.0))
    cost = Cost()
    sets = (
        drawn(module, evaluator.n, evaluator.batch, seed, cost)
        for seed in range(evaluator.seed, evaluator.seed + evaluator.seeds)
    )
    scores = evaluator.score(sets, evaluator.n) if evaluator.metrics else {}
    made = protocol(cost.nfe if evaluator.metrics else math.nan)
    codec, shape = module.codec.of_data(module.shape)  # noise is the same for all models of these data
    floors = evaluator.floor(codec.decode, shape) if evaluator.floors else {}
    rows = [made.line(name, score.row, floors.get(name, {}), options=score.options) for name, score in scores.items()]
    if not ranks()[0]:
        rows += _of_module(evaluator, module, made, others or {}, options or {})
    try:
        rows += _likelihood(evaluator, module, made, entropy) if likelihood else []
    except GenlabError as error:  # one number that cannot be had must not cost the others
        print(f"genlab: no likelihood: {error}", file=sys.stderr)
    parameters = sum(p.numel() for name in module.averaged for p in module.get_submodule(name).parameters())
    costs = {"parameters": float(parameters)}
    if evaluator.metrics:
        costs = {"nfe": cost.nfe, "ms_per_sample": cost.milliseconds, **costs}
    rows += [made.line(name, single(value, None, "lower")) for name, value in costs.items()]
    rate = module.images_seen / seconds
    return [*rows, made.line("train_images_per_second", single(rate, None, "higher"))]


def _of_reconstructions(evaluator: Evaluator, module: GenerativeModule, made: Protocol) -> list[Row]:
    """`reconstruction_` and the name of each metric, such as rFID; noise and other data are no floors of these."""
    if not evaluator.metrics:
        raise GenlabError(f"a {type(module).__name__} has no likelihood: it is scored by its reconstructions alone")
    real = evaluator.references.source.split(evaluator.split)
    scores = evaluator.score([reconstructed(module, real, evaluator.batch)], len(real.x))
    made = replace(made, n_fake=len(real.x), seeds=1)
    of = f"reconstructions of {evaluator.split}"
    return [
        made.line(f"reconstruction_{name}", score.row, of=of, options=score.options) for name, score in scores.items()
    ]


def _of_module(
    evaluator: Evaluator,
    module: GenerativeModule,
    made: Protocol,
    metrics: dict[str, ModuleMetric],
    options: dict[str, Row],
) -> list[Row]:
    rows: list[Row] = []
    for label, metric in metrics.items():
        real = evaluator.references.source.split(evaluator.split).x.to(module.device)
        noise = NoiseStream(key(evaluator.seed, "evaluation"), device=module.device)
        try:
            found = metric(module, real, noise)
        except GenlabError as error:
            evaluator.tell(error)
            continue
        told = {"options": options.get(label, {})}
        rows += [made.line(name, single(*pair, metric.better[name]), **told) for name, pair in found.items()]
    return rows


def _likelihood(evaluator: Evaluator, module: GenerativeModule, made: Protocol, entropy: float | None) -> list[Row]:
    """Bits/dim of the test images, or nats of the test points beside the density's own entropy H, and their `nll_gap`
    E −log q(x) − H = KL(p ‖ q), or a bound on it."""
    if module.likelihood is None or module.codec.log_volume is None:
        return []
    test = evaluator.references.source.split("test")
    digest = evaluator.references.identity("test")["data_sha256"]
    made = replace(made, reference_split="test", data_sha256=digest, n_real=len(test.x), n_fake=0, seeds=1, **UNSEEN)
    points = test.x.is_floating_point()
    parts: dict[int, dict[str, Tensor]] = {}
    failed: str | None = None  # on this rank, of which the others must hear
    with counted(*(module.get_submodule(name) for name in module.averaged)) as evaluations:
        for first, x, y in chunks(test, evaluator.batch):
            torch.manual_seed(key(evaluator.seed, "likelihood", first))
            try:
                nats = module.nats_parts(x.to(module.device), None if y is None else y.to(module.device))
            except GenlabError as error:
                failed = str(error)
                break
            parts[first] = {k: (-v if points else module.bits(v)).cpu().double() for k, v in nats.items()}
    why = next((said for said in gathered({ranks()[0]: failed}).values() if said), None)
    if why is not None:
        raise GenlabError(why)
    parts = gathered(parts)
    cost = {"kind": module.likelihood, "likelihood_nfe": summed(evaluations.rows) / len(test.x)}
    cost |= {"bound": module.bound} if module.bound else {}
    split = {k: torch.cat([parts[first][k] for first in sorted(parts)]) for k in parts[min(parts)]}
    values = torch.stack([*split.values()]).sum(0)
    name, held_against = ("nll", {}) if points else ("bits_per_dim", {})
    if points and entropy is not None:
        held_against = {"entropy": {"value": entropy, "stderr": None, "n": None}}
    error = (values.std() / len(values) ** 0.5).item()
    row = made.line(name, single(values.mean().item(), error, "lower"), held_against, **cost)
    if len(split) > 1:  # the rate and the distortion of a bound, in the same unit
        row["parts"] = {k: v.mean().item() for k, v in split.items()}
    if not held_against:
        return [row]
    gap = single(values.mean().item() - held_against["entropy"]["value"], error, "lower")
    return [row, made.line("nll_gap", gap, **cost)]


def single(value: float, error: float | None, better: str) -> Row:
    """The numbers of a metric that is no function of sets of samples."""
    return {"value": value, "stderr": error, "better": better}
