"""Scores samples against held-out data by one recorded protocol."""

import hashlib
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from genlab.data.source import Batch
from genlab.distributed import everywhere, ranks
from genlab.errors import GenlabError
from genlab.evaluation.banks import Chunk, chunks, fill
from genlab.evaluation.drawing import Cost, drawn
from genlab.evaluation.features import FeatureBank, Metric
from genlab.evaluation.jackknife import Estimate, jackknife
from genlab.evaluation.memorization import Training
from genlab.evaluation.protocol import Row, settings
from genlab.evaluation.reference import References
from genlab.files import place
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key


@dataclass(frozen=True)
class Score:
    """A metric over one or several sets of samples."""

    values: list[float]  # of each set
    stderrs: list[float]  # of each, by the jackknife
    corrected: list[float]  # of each, where the metric is biased by O(1/N); else nan
    better: str | None
    options: dict[str, Any] = field(default_factory=dict)  # of the metric, by which its number would be another

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
            self.nearest = Training(self.references.bank("train", ("features",)).have("features", "nearest"))
        else:
            self.nearest = None
        self.real = brought or self._real()

    def _real(self) -> FeatureBank:
        if self.nearest is None:
            return self.references.bank(self.split, self.needs)
        bank = self.references.bank(self.split, (*self.needs, "features"))
        # train is 0 from itself
        held_out = bank if self.split != "train" else self.references.bank("test", ("features",))
        return replace(bank, nearest=self.nearest(held_out.have("features", "nearest")))

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
            for label, metric in self.metrics.items():
                options = settings(self.recipe.get("metrics", {}).get(label, {}))
                for name, (value, error, corrected) in self._estimates(metric, fake).items():
                    score = scores.setdefault(name, Score([], [], [], metric.better[name], options))
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
            self.tell(error)
            return {}

    def tell(self, error: GenlabError) -> None:
        """What is missing, once."""
        if str(error) not in self._told:
            print(f"genlab: {error}", file=sys.stderr)
        self._told.add(str(error))

    def quick(self, module: GenerativeModule, n: int) -> dict[str, Score]:
        """Every metric of n samples of a module as it stands, at the cost of nothing else."""
        return self.score([drawn(module, n, self.batch, self.seed, Cost())], n)

    # ------------------------------------------------------------------ what a value is held against

    def floor(self, decode: Callable[[Tensor], Tensor], shape: Sequence[int]) -> dict[str, dict[str, Row]]:
        """metric -> {"train", "train_full", "noise"} -> value, standard error and n; `decode` brings noise to data space.

        What a metric of the nearest training samples says of these themselves is left out.
        """
        wanted = {label: make for label, make in self._floors(decode, shape).items() if label in self.floors}
        noise = decode(NoiseStream(0).normal((1, *shape)))  # by which codecs are told apart
        drawn_as = hashlib.sha256(noise.numpy().tobytes()).hexdigest()
        copies, other = self._of_copies, self.references.identity(self._other)
        identity = [self.recipe, self.n, self.seed, sorted(wanted), other, drawn_as, *copies]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        path = self.references.folder(self.split) / f"floors-{digest}.json"
        known = path.is_file()
        if everywhere(known):
            return json.loads(path.read_text())
        table: dict[str, dict[str, Row]] = {}
        for label, make in wanted.items():
            data = make()
            try:
                scores = self.score([chunks(data, self.batch)], len(data.x))
            except GenlabError as error:  # a split too small for a metric costs its floor, and not the score
                self.tell(error)
                continue
            for name, score in scores.items():
                if name in copies and label != "noise":
                    continue
                error = score.row["stderr"]
                row = {"value": score.row["value"], "stderr": None if math.isnan(error) else error, "n": len(data.x)}
                table.setdefault(name, {})[label] = row
        if not ranks()[0]:
            place(path, lambda file: file.write(json.dumps(table).encode()))
        return table

    @property
    def _of_copies(self) -> list[str]:
        """The metrics by which the split that is not the reference is nothing but copies, being the training samples."""
        near = [metric for metric in self.metrics.values() if "nearest" in metric.needs and self._other == "train"]
        return sorted(name for metric in near for name in metric.better)

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
