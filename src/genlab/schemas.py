"""Schemas of the shared groups: a wrong type or a missing value is an error before anything is imported."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class DataConfig:
    name: str = MISSING
    shape: list[int] = MISSING
    classes: int | None = MISSING  # 0 or null where there are no labels
    levels: int | None = None
    flip: bool = False
    source: dict[str, Any] = MISSING
    codec: dict[str, Any] = MISSING
    density: dict[str, Any] | None = None
    prior: dict[str, Any] | None = None  # where transport to these data begins; null is N(0, 1)
    license: str | None = None


@dataclass
class OptimizerConfig:
    _target_: str = "genlab.optimization.Optimization"
    algorithm: dict[str, Any] = MISSING
    lr: float = MISSING
    warmup_images: int = 0
    clip_norm: float | None = None
    replace_nan: bool = False
    decay_images: int | None = None


@dataclass
class TrainerConfig:
    max_images: int = MISSING  # budget, in real images consumed
    batch: int = MISSING  # of all devices together
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    precision: str = "32-true"
    tf32: bool | None = None  # on CUDA; null leaves it to torch, which has it on for convolutions alone
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
    transport: dict[str, Any] | None = None  # a metric of the way from noise to samples


@dataclass
class TrainConfig:
    data: DataConfig = field(default_factory=DataConfig)
    network: Any = None
    sampler: Any = None
    guidance: Any = None
    likelihood: Any = None
    augment: Any = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    averaging: Any = None
    coupling: Any = None
    model: Any = None
    model_name: str = "${hydra:runtime.choices.model}"  # an experiment may have its own
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    published: Any = None
    seed: int = 0
    outputs: str = "outputs"
    force: bool = False
