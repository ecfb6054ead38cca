"""Scores a model against held-out data by one recorded protocol."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genlab.data.source import Source
from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank, Features, Metric, TransportMetric
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.memorization import nearest
from genlab.evaluation.protocol import Protocol, counted
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key

Row = dict[str, Any]


@dataclass
class Drawn:
    """Generated samples and what they cost."""

    x: Tensor  # (n, ...) in data space, on the CPU
    nfe: float  # evaluations of a sampling network per sample, counted
    milliseconds: float  # per sample


@torch.no_grad()
def draw(module: GenerativeModule, n: int, batch: int, seed: int, between: Callable[[], None] = lambda: None) -> Drawn:
    """Samples 0, ..., n - 1 of a seed, the same whatever the batch; `between` is called after each batch."""
    parts: list[Tensor] = []
    module.eval()
    started = time.perf_counter()
    with counted(*(module.get_submodule(name) for name in module.averaged)) as evaluations:
        for start in range(0, n, batch):
            stream = NoiseStream(key(seed, "evaluation"), start, module.device)
            parts.append(module.generate(stream, min(batch, n - start)).cpu())
            between()
    seconds = time.perf_counter() - started
    return Drawn(torch.cat(parts), evaluations.rows / n, 1000 * seconds / n)


class Evaluator:
    """Metrics of n samples against the test split, beside two references: the train split, and noise.

    The train split against the test split is the floor, at the same n and whole; noise is the ceiling.
    """

    def __init__(
        self,
        source: Source,
        features: Features,
        metrics: dict[str, Metric],
        n: int,
        batch: int,
        seed: int,
        entropy: float | None,
        transport: TransportMetric | None = None,
    ):
        if n < 2:
            raise GenlabError(f"evaluation.n={n}: at least 2 samples are needed")
        self.source, self.features, self.metrics = source, features, metrics
        self.n, self.batch, self.seed, self.entropy = n, batch, seed, entropy
        self.transport = transport
        self.train, self.test = source.split("train"), source.split("test")
        self.train_features = self._features(self.train.x)[0]
        self.real = self.bank(self.test.x)

    def bank(self, x: Tensor) -> FeatureBank:
        """Features of data, and each sample's distance to the training data."""
        features, logits = self._features(x)
        return FeatureBank(features, logits, nearest(features, self.train_features))

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = zip(*(self.features(part) for part in x.split(1024)), strict=True)
        return torch.cat(features).float(), None if logits[0] is None else torch.cat(logits).float()

    def score(self, x: Tensor) -> Iterator[tuple[str, float, float, str]]:
        """(name, value, standard error, better) of every metric of samples in data space."""
        fake = self.bank(x)
        for metric in self.metrics.values():
            for name, (value, error) in jackknife(metric, self.real, fake).items():
                yield name, value, error, metric.better[name]

    def references(self, module: GenerativeModule) -> dict[str, dict[str, Row]]:
        """metric -> {"train", "train_full", "noise"} -> value, standard error and n.

        "train_full" is the whole train split, or ten times as many samples as were generated if it is larger than that.
        """
        order = torch.randperm(len(self.train.x), generator=torch.Generator().manual_seed(key(self.seed, "floor")))
        noise = NoiseStream(key(self.seed, "ceiling")).normal((self.n, *module.shape))
        sets = {"train": self.train.x[order[: self.n]], "noise": module.codec.decode(noise)}
        if self.n < len(self.train.x):
            sets["train_full"] = self.train.x[order[: 10 * self.n]]
        table: dict[str, dict[str, Row]] = {}
        for label, x in sets.items():
            for name, value, error, _ in self.score(x):
                table.setdefault(name, {})[label] = {"value": value, "stderr": error, "n": len(x)}
        return table

    def __call__(
        self,
        module: GenerativeModule,
        protocol: Callable[[Drawn], Protocol],
        seconds: float,
        between: Callable[[], None] = lambda: None,
    ) -> list[Row]:
        """One row of metrics.jsonl for each metric, likelihood and cost of the module as it stands.

        `seconds` is what its training took; `between` is called between batches of samples.
        """
        drawn = draw(module, self.n, self.batch, self.seed, between)
        made = protocol(drawn)
        references = self.references(module)
        rows = [
            self._row(made, name, value, error, better, references.get(name, {}))
            for name, value, error, better in self.score(drawn.x)
        ]
        if self.transport is not None:
            noise = NoiseStream(key(self.seed, "evaluation"), device=module.device)
            for name, (value, error) in self.transport(module, self.test.x.to(module.device), noise).items():
                rows.append(self._row(made, name, value, error, self.transport.better[name], {}))
        try:
            rows += self._likelihood(module, made, between)
        except GenlabError as error:  # one number that cannot be had must not cost the others
            print(f"genlab: no likelihood: {error}", file=sys.stderr)
        parameters = sum(p.numel() for name in module.averaged for p in module.get_submodule(name).parameters())
        costs = {"nfe": drawn.nfe, "ms_per_sample": drawn.milliseconds, "parameters": float(parameters)}
        rows += [self._row(made, name, value, None, "lower", {}) for name, value in costs.items()]
        rate = module.images_seen / seconds
        return [*rows, self._row(made, "train_images_per_second", rate, None, "higher", {})]

    def _likelihood(self, module: GenerativeModule, made: Protocol, between: Callable[[], None]) -> list[Row]:
        """Bits/dim of the test images, or nats of the test points beside the density's own entropy."""
        if module.likelihood is None or module.codec.log_volume is None:
            return []
        points = self.test.x.ndim == 2
        parts: list[dict[str, Tensor]] = []
        with counted(*(module.get_submodule(name) for name in module.averaged)) as evaluations:
            for i in range(0, len(self.test.x), self.batch):
                torch.manual_seed(key(self.seed, "likelihood", i))
                x, y = (None if v is None else v[i : i + self.batch].to(module.device) for v in self.test)
                assert x is not None
                nats = module.nats_parts(x, y)
                parts.append({k: (-v if points else module.bits(v)).cpu().double() for k, v in nats.items()})
                between()
        cost = {"kind": module.likelihood, "likelihood_nfe": evaluations.rows / len(self.test.x)}
        split = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        values = torch.stack([*split.values()]).sum(0)
        name, references = ("nll", {}) if points else ("bits_per_dim", {})
        if points and self.entropy is not None:
            references = {"entropy": {"value": self.entropy, "stderr": None, "n": None}}
        error = (values.std() / len(values) ** 0.5).item()
        row = self._row(made, name, values.mean().item(), error, "lower", references, **cost)
        if len(split) > 1:  # the rate and the distortion of a bound, in the same unit
            row["parts"] = {k: v.mean().item() for k, v in split.items()}
        return [row]

    def _row(
        self, made: Protocol, name: str, value: float, error: float | None, better: str, references: Row, **more: Any
    ) -> Row:
        return {
            "metric": name,
            "value": value,
            "stderr": error,
            "better": better,
            "evaluation": made.id,
            "references": references,
            "protocol": made.row(name, **more),
        }
