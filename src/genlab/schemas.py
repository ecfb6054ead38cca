"""Schemas of the shared groups: a wrong type or a missing value is an error before anything is imported."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class DataConfig:
    name: str = MISSING
    shape: list[int] = MISSING
    classes: int = MISSING
    levels: int | None = None
    source: dict[str, Any] = MISSING
    codec: dict[str, Any] = MISSING
    density: dict[str, Any] | None = None


@dataclass
class OptimizerConfig:
    _target_: str = "genlab.optimization.Optimization"
    algorithm: dict[str, Any] = MISSING
    lr: float = MISSING
    warmup_images: int = 0
    clip_norm: float | None = None


@dataclass
class TrainerConfig:
    max_images: int = MISSING  # budget, in real images consumed
    batch: int = MISSING  # of all devices together
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"
    threads: int | None = None  # CPU threads; null leaves it to torch
    log_every: int = MISSING  # cadences in images; 0 is never
    validate_every: int = 0
    sample_every: int = 0
    checkpoint_every: int = 0
    keep: int = 2


@dataclass
class LoggerConfig:
    _target_: str = MISSING
    project: str = "genlab"
    entity: str | None = None
    group: str | None = None
    mode: str = "auto"
    tags: list[str] = field(default_factory=list)


@dataclass
class EvaluationConfig:
    n: int = MISSING  # generated samples; 0 is no evaluation after training
    batch: int = MISSING
    seed: int = 0
    features: dict[str, Any] = MISSING
    metrics: dict[str, Any] = MISSING


@dataclass
class TrainConfig:
    data: DataConfig = field(default_factory=DataConfig)
    network: Any = None
    sampler: Any = None
    likelihood: Any = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: Any = None
    model_name: str = MISSING
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    published: Any = None
    seed: int = 0
    outputs: str = "outputs"
    force: bool = False
