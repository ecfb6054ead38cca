"""Schemas of the shared groups: a wrong type or a missing value is an error before anything is imported."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class DataConfig:
    name: str = MISSING
    shape: list[int] = MISSING  # of one row in the data's own format
    classes: int | None = MISSING  # 0 or null where there are no labels
    levels: int | None = None  # of grey; null where rows are no images
    flip: bool = False  # mirror half of the images in training, on the device
    source: dict[str, Any] = (
        MISSING  # what is read; it is served as trainer.serve says, which is not part of the run's hash
    )
    codec: dict[str, Any] = MISSING  # from there to what a model trains on
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
    schedule: dict[str, Any] | None = None  # a factor of lr
    beta2: dict[str, Any] | None = None  # what β₂ of Adam is at each time
    skip_norm: float | None = None  # steps with longer gradients are left out


@dataclass
class TrainerConfig:
    max_images: int = MISSING  # budget, in real images consumed
    batch: int = MISSING  # of one step, on all devices together
    accumulate: int = 1  # in how many parts, one after the other, each device computes its share of a batch
    sync_batchnorm: bool = False  # batch norm over the batches of all devices together
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "ddp"  # of several devices: ddp, each with all weights; fsdp, each with a part of them
    precision: str = "32-true"
    deterministic: bool = (
        False  # bit-equal repeats on one machine, at some cost on CUDA; an operation that cannot is an error
    )
    tf32: bool | None = None  # on CUDA; null leaves it to torch, which has it on for convolutions alone
    threads: int | None = None  # CPU threads; null leaves it to torch
    serve: str = "auto"  # where the training data lie: device, pinned (CUDA), memory, map; auto: the first they fit in
    serve_share: float = 0.25  # of what is free there, that they may take
    log_every: int = MISSING  # cadences in images; 0 is never
    validate_every: int = 0
    sample_every: int = 0
    evaluate_every: int = 0
    checkpoint_every: int = 0
    checkpoint_minutes: float = 0.0  # also when so long ago was the last
    keep: int = 2
    save_failures: int = 0  # checkpoints in a row that may fail to be written before that ends the run
    skip_nonfinite: int = 10  # batches in a row that may be skipped since their loss or gradient is no number
    timeout: float = 1800.0  # seconds that ranks wait for each other
    requeue_signals: list[str] = field(
        default_factory=lambda: ["SIGUSR1", "SIGUSR2"]
    )  # of SLURM: save, and queue again


@dataclass
class LoggerConfig:
    _target_: str = MISSING
    project: str = "genlab"
    entity: str | None = None
    group: str | None = None
    mode: str = "auto"
    tags: list[str] = field(default_factory=list)


@dataclass
class ReferenceConfig:
    split: str = "test"  # of the data
    statistics: str | None = None  # an .npz that somebody else made, instead of what genlab computes
    of: str | None = None  # in words, what they are of
    n: int | None = None  # from how many samples they were made


@dataclass
class EvaluationConfig:
    n: int = MISSING  # generated samples; 0 is no evaluation after training
    batch: int = MISSING
    seed: int = 0
    seeds: int = 1  # sets of n samples: the value is their mean, beside their spread
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    floors: list[str] = field(default_factory=list)  # what the values are held against, of checks.FLOORS
    features: dict[str, Any] = MISSING
    metrics: dict[str, Any] = MISSING
    module_metrics: dict[str, Any] | None = None  # of the model itself, such as of its way from noise to samples
    likelihood: bool = True  # bits/dim or nats of the test split, of models that have one
    during: int | None = None  # samples of an evaluation during training (trainer.evaluate_every); null is n
    monitor: str | None = None  # the metric by which the best checkpoint is kept; null is the first
    cache: str = MISSING  # of reference statistics


@dataclass
class TrainConfig:
    data: DataConfig = field(default_factory=DataConfig)
    codec: Any = None  # an autoencoder between data and model, in place of the data's own codec
    network: Any = None
    sampler: Any = None
    guidance: Any = None
    likelihood: Any = None
    augment: Any = None
    variational: Any = None  # the objective, posterior and prior of a VAE
    dequantization: Any = None  # of a flow; null is uniform
    objective: Any = None  # of a GAN
    penalty: Any = None
    critic_augment: Any = None
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
    trust: bool = False  # build classes that are not genlab's own; of this command alone, and never recorded
