"""Scores samples against held-out data by one recorded protocol."""

import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.evaluation.banks import Chunk, chunks, everywhere, fill, gathered, mine, ranks, summed
from genlab.evaluation.features import FeatureBank, Metric, ModuleMetric
from genlab.evaluation.jackknife import Estimate, jackknife
from genlab.evaluation.memorization import Training
from genlab.evaluation.protocol import Protocol, counted
from genlab.evaluation.reference import References
from genlab.files import place
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key

Row = dict[str, Any]


@dataclass
class Cost:
    """What sampling takes, filled while samples are drawn."""

    evaluations: int = 0  # of a sampling network, counted
    seconds: float = 0.0
    samples: int = 0

    @property
    def nfe(self) -> float:
        """Evaluations per sample, on all ranks."""
        return summed(self.evaluations) / summed(self.samples)

    @property
    def milliseconds(self) -> float:
        """Of one device, per sample."""
        return 1000 * summed(self.seconds) / summed(self.samples)


@torch.no_grad()
def drawn(
    module: GenerativeModule, n: int, batch: int, seed: int, cost: Cost, between: Callable[[], None] = lambda: None
) -> Iterator[Chunk]:
    """This rank's share of samples 0, ..., n - 1 of a seed, the same whatever the batch; `between` is called after each."""
    module.eval()
    for first, count in mine(n, batch):
        stream = NoiseStream(key(seed, "evaluation"), first, module.device)
        started = time.perf_counter()
        with counted(*(module.get_submodule(name) for name in module.averaged)) as evaluations:
            y = module.labels(stream, count, None)
            z = module.sample(stream, count, y)
            x = module.codec.decode(z)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        cost.seconds += time.perf_counter() - started
        cost.evaluations += evaluations.rows
        cost.samples += count
        if x.dtype == torch.uint8 and not torch.isfinite(z).all():  # which decoding would show as black
            raise GenlabError(
                "the samples hold nan or inf: the weights or the sampler have diverged, so there is no score"
            )
        yield Chunk(first, x, y)
        between()


@dataclass(frozen=True)
class Score:
    """A metric over one or several sets of samples."""

    values: list[float]  # of each set
    stderrs: list[float]  # of each, by the jackknife
    corrected: list[float]  # of each, where the metric is biased by O(1/N); else nan
    better: str

    @property
    def row(self) -> Row:
        """The mean over the sets, its standard error, and the spread of the sets where there are several."""
        several = len(self.values) > 1
        error = math.sqrt(sum(e * e for e in self.stderrs)) / len(self.stderrs)
        return {
            "value": statistics.fmean(self.values),
            "stderr": error,
            "spread": statistics.stdev(self.values) if several and all(map(math.isfinite, self.values)) else None,
            "values": self.values if several else None,
            "corrected": None if math.isnan(sum(self.corrected)) else statistics.fmean(self.corrected),
            "better": self.better,
        }


class Evaluator:
    """Metrics of sets of n samples against a split of the data, beside what the metric says of real data and of noise.

    Of the latter `floors` names those wanted: "train" (or "test", where the reference is train) at the same n,
    "train_full" for all of it or ten times n, and "noise". They are computed once for a reference, and kept beside it.
    `recipe` is what the metrics were built from. Every rank takes part; the rows are those of rank 0.
    """

    def __init__(
        self,
        references: References,
        split: str,
        metrics: dict[str, Metric],
        recipe: dict[str, Any],
        n: int,
        batch: int,
        seed: int = 0,
        seeds: int = 1,
        floors: Sequence[str] = (),
        brought: FeatureBank | None = None,
    ):
        if n < 2:
            raise GenlabError(f"evaluation.n={n}: at least 2 samples are needed")
        self.references, self.split, self.metrics, self.recipe = references, split, metrics, recipe
        self.n, self.batch, self.seed, self.seeds, self.floors = n, batch, seed, seeds, floors
        self._told: set[str] = set()
        self.needs = tuple(dict.fromkeys(need for metric in metrics.values() for need in metric.needs))
        if "nearest" in self.needs:
            self.nearest = Training(self._bank("train", ("features",)).have("features", "nearest"))
        else:
            self.nearest = None
        self.real = brought or self._real()

    def _bank(self, split: str, needs: Sequence[str]) -> FeatureBank:
        return self.references.bank(split, needs)

    def _real(self) -> FeatureBank:
        if self.nearest is None:
            return self._bank(self.split, self.needs)
        bank = self._bank(self.split, (*self.needs, "features"))
        return replace(bank, nearest=self.nearest(bank.have("features", "nearest")))

    def bank(self, samples: Iterable[Chunk], n: int) -> FeatureBank:
        """What the metrics need of n samples."""
        extractor, device = self.references.extractor, self.references.device
        bank = fill(samples, n, extractor, self.needs, device, self.nearest)
        if bank.moments and self.real.moments:
            ours, theirs = (len(moments.gaussian.mean) for moments in (bank.moments, self.real.moments))
            if ours != theirs:
                raise GenlabError(
                    f"the reference statistics have {theirs} features and {extractor.name} has {ours}: they are of "
                    "another extractor"
                )
        return bank

    def score(self, sets: Iterable[Iterable[Chunk]], n: int) -> dict[str, Score]:
        """Every metric over sets of n samples each; on the ranks after the first, nothing."""
        scores: dict[str, Score] = {}
        for samples in sets:
            fake = self.bank(samples, n)
            if ranks()[0]:
                continue
            for metric in self.metrics.values():
                for name, (value, error, corrected) in self._estimates(metric, fake).items():
                    score = scores.setdefault(name, Score([], [], [], metric.better[name]))
                    score.values.append(value)
                    score.stderrs.append(error)
                    score.corrected.append(corrected if getattr(metric, "biased", False) else math.nan)
        return scores

    def _estimates(self, metric: Metric, fake: FeatureBank) -> dict[str, Estimate]:
        """One number that cannot be had must not cost the others."""
        try:
            return jackknife(metric, self.real, fake)
        except GenlabError as error:
            if len(self.metrics) == 1:
                raise
            self._tell(error)
            return {}

    def _tell(self, error: GenlabError) -> None:
        """What is missing, once."""
        if str(error) not in self._told:
            print(f"genlab: {error}", file=sys.stderr)
        self._told.add(str(error))

    def quick(self, module: GenerativeModule, n: int, between: Callable[[], None]) -> dict[str, Score]:
        """Every metric of n samples of a module as it stands, at the cost of nothing else."""
        return self.score([drawn(module, n, self.batch, self.seed, Cost(), between)], n)

    # ------------------------------------------------------------------ what a value is held against

    def floor(self, decode: Callable[[Tensor], Tensor], shape: Sequence[int]) -> dict[str, dict[str, Row]]:
        """metric -> {"train", "train_full", "noise"} -> value, standard error and n; `decode` brings noise to data space."""
        wanted = {label: make for label, make in self._floors(decode, shape).items() if label in self.floors}
        identity = [self.recipe, self.n, self.seed, sorted(wanted), self.references.identity(self._other)]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        path = self.references.folder(self.split) / f"floors-{digest}.json"
        known = path.is_file()
        if everywhere(known):
            return json.loads(path.read_text())
        table: dict[str, dict[str, Row]] = {}
        for label, make in wanted.items():
            data = make()
            for name, score in self.score([chunks(data, self.batch)], len(data.x)).items():
                error = score.row["stderr"]
                row = {"value": score.row["value"], "stderr": None if math.isnan(error) else error, "n": len(data.x)}
                table.setdefault(name, {})[label] = row
        if not ranks()[0]:
            place(path, lambda file: file.write(json.dumps(table).encode()))
        return table

    @property
    def _other(self) -> str:
        """The split that is not the reference."""
        return "test" if self.split == "train" else "train"

    def _floors(self, decode: Callable[[Tensor], Tensor], shape: Sequence[int]) -> dict[str, Callable[[], Batch]]:
        other, n = self.references.source.split(self._other), self.n
        order = torch.randperm(len(other.x), generator=torch.Generator().manual_seed(key(self.seed, "floor")))

        def rows(count: int) -> Batch:
            return Batch(other.x[order[:count]], None if other.y is None else other.y[order[:count]])

        def noise() -> Batch:
            return Batch(decode(NoiseStream(key(self.seed, "ceiling")).normal((n, *shape))), None)

        floors = {self._other: lambda: rows(n), "noise": noise}
        if n < len(other.x):
            floors[f"{self._other}_full"] = lambda: rows(10 * n)
        return floors

    # ------------------------------------------------------------------ a model

    def __call__(
        self,
        module: GenerativeModule,
        protocol: Callable[[float], Protocol],
        seconds: float,
        between: Callable[[], None] = lambda: None,
        others: dict[str, ModuleMetric] | None = None,
        entropy: float | None = None,
        likelihood: bool = True,
    ) -> list[Row]:
        """One row of metrics.jsonl for each metric, likelihood and cost of the module as it stands.

        `protocol` makes the record from the NFE, `seconds` is what training took, `between` is called between batches of
        samples, `others` are metrics of the module itself, and `entropy` is what an NLL is held against.
        """
        cost = Cost()
        sets = (
            drawn(module, self.n, self.batch, seed, cost, between) for seed in range(self.seed, self.seed + self.seeds)
        )
        scores = self.score(sets, self.n) if self.metrics else {}
        made = protocol(cost.nfe if self.metrics else math.nan)
        floors = self.floor(module.codec.decode, module.shape) if self.floors else {}
        rows = [self.row(made, name, score.row, floors.get(name, {})) for name, score in scores.items()]
        if not ranks()[0]:
            rows += self._of_module(module, made, others or {})
        try:
            rows += self._likelihood(module, made, entropy, between) if likelihood else []
        except GenlabError as error:  # one number that cannot be had must not cost the others
            print(f"genlab: no likelihood: {error}", file=sys.stderr)
        parameters = sum(p.numel() for name in module.averaged for p in module.get_submodule(name).parameters())
        costs = {"parameters": float(parameters)}
        if self.metrics:
            costs = {"nfe": cost.nfe, "ms_per_sample": cost.milliseconds, **costs}
        rows += [self.row(made, name, single(value, None, "lower")) for name, value in costs.items()]
        rate = module.images_seen / seconds
        return [*rows, self.row(made, "train_images_per_second", single(rate, None, "higher"))]

    def _of_module(self, module: GenerativeModule, made: Protocol, metrics: dict[str, ModuleMetric]) -> list[Row]:
        rows: list[Row] = []
        for metric in metrics.values():
            real = self.references.source.split(self.split).x.to(module.device)
            noise = NoiseStream(key(self.seed, "evaluation"), device=module.device)
            try:
                found = metric(module, real, noise)
            except GenlabError as error:
                self._tell(error)
                continue
            rows += [self.row(made, name, single(*pair, metric.better[name])) for name, pair in found.items()]
        return rows

    def _likelihood(
        self, module: GenerativeModule, made: Protocol, entropy: float | None, between: Callable[[], None]
    ) -> list[Row]:
        """Bits/dim of the test images, or nats of the test points beside the density's own entropy."""
        if module.likelihood is None or module.codec.log_volume is None:
            return []
        test = self.references.source.split("test")
        points = test.x.ndim == 2
        parts: dict[int, dict[str, Tensor]] = {}
        with counted(*(module.get_submodule(name) for name in module.averaged)) as evaluations:
            for first, x, y in chunks(test, self.batch):
                torch.manual_seed(key(self.seed, "likelihood", first))
                nats = module.nats_parts(x.to(module.device), None if y is None else y.to(module.device))
                parts[first] = {k: (-v if points else module.bits(v)).cpu().double() for k, v in nats.items()}
                between()
        parts = gathered(parts)
        cost = {"kind": module.likelihood, "likelihood_nfe": summed(evaluations.rows) / len(test.x)}
        cost |= {"bound": module.bound} if module.bound else {}
        split = {k: torch.cat([parts[first][k] for first in sorted(parts)]) for k in parts[min(parts)]}
        values = torch.stack([*split.values()]).sum(0)
        name, held_against = ("nll", {}) if points else ("bits_per_dim", {})
        if points and entropy is not None:
            held_against = {"entropy": {"value": entropy, "stderr": None, "n": None}}
        error = (values.std() / len(values) ** 0.5).item()
        row = self.row(made, name, single(values.mean().item(), error, "lower"), held_against, **cost)
        if len(split) > 1:  # the rate and the distortion of a bound, in the same unit
            row["parts"] = {k: v.mean().item() for k, v in split.items()}
        return [row]

    def row(self, made: Protocol, name: str, score: Row, held_against: Row | None = None, **more: Any) -> Row:
        return {
            "metric": name,
            **score,
            "evaluation": made.id,
            "fingerprint": made.fingerprint(name),
            "references": held_against or {},
            "protocol": made.row(name, **more),
        }


def single(value: float, error: float | None, better: str) -> Row:
    """The numbers of a metric that is no function of sets of samples."""
    return {"value": value, "stderr": error, "better": better}
