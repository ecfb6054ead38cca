"""Configuration: the run directory that it means, and its composition, with one line for what is wrong in it.

Nothing here imports torch, so that `--help` and a typing error answer at once.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genlab.checks import check_values, check_writable
from genlab.errors import GenlabError
from genlab.folders import conf_dir
from genlab.hints import explain, line_of, refuse_mistyped, unknown
from genlab.schemas import TrainConfig
from genlab.stages import recorded, weights_of

# ---------------------------------------------------------------------- run directories


def learned(config: DictConfig) -> dict[str, Any]:
    """What changes the learned model: not the budget, the devices, the loggers, how it is sampled or when the log warns."""
    model: Any = OmegaConf.to_container(config.model, resolve=True)
    model = {k: v for k, v in model.items() if k not in ("sampler", "density", "guidance", "collapse")}
    model["codec"].pop("run", None)  # an autoencoder is the sha256 of its weights
    if "run" in (model.get("coupling") or {}):  # a teacher is who it is wherever it lies, and of whichever seed
        model["coupling"]["run"] = re.sub(r"-s\d+$", "", Path(model["coupling"]["run"]).name)
    data: Any = OmegaConf.to_container(config.data, resolve=True)
    data = {k: v for k, v in data.items() if k != "license"}
    data["source"] = {k: v for k, v in data["source"].items() if k != "cache"}  # where this machine keeps it
    return {"data": data, "model": model, "batch": config.trainer.batch, "precision": config.trainer.precision}


def run_dir(config: DictConfig) -> str:
    """outputs/<data>/<model>/<hash of what is learned>-s<seed>: the same configuration is always the same folder."""
    text = json.dumps(learned(config), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return f"{config.outputs}/{config.data.name}/{config.model_name}/{digest}-s{config.seed}"


def teacher_dir(config: DictConfig) -> str:
    """The run that differs from this one in its coupling alone, which is independent."""
    teacher = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.set_struct(teacher, False)
    teacher.coupling, teacher.model_name = None, "${hydra:runtime.choices.model}"
    return run_dir(teacher)


def codec(config: DictConfig, own: DictConfig | None = None) -> DictConfig:
    """What stands between data and model: an autoencoder where one is chosen, or the model's own, or the data's."""
    return config.codec or own or config.data.codec


def option(config: DictConfig, group: str) -> DictConfig | None:
    """What was chosen of a group, or None where nothing was, whatever an experiment sets of its keys."""
    return config[group] if "_target_" in (config[group] or {}) else None


def register() -> None:
    """Make the schemas and the resolvers known to Hydra."""
    ConfigStore.instance().store(name="train_schema", node=TrainConfig)
    resolvers = {
        "run_dir": lambda *, _root_: run_dir(_root_),
        "teacher": lambda *, _root_: teacher_dir(_root_),
        "codec": lambda own=None, *, _root_: codec(_root_, own),
        "option": lambda group, *, _root_: option(_root_, group),
        "shape": lambda *, _root_: codec(_root_).get("shape") or _root_.data.shape,  # of model space
        "levels": lambda *, _root_: codec(_root_).get("size") or _root_.data.levels,  # of tokens
        "coarse": lambda shape, factor, channels, stacked=1: OmegaConf.create(
            [channels, stacked * (shape[1] // factor), shape[2] // factor]
        ),
        "plane": lambda shape: OmegaConf.create(list(shape[1:])),
        "weights": weights_of,
        "recorded": lambda run, key: OmegaConf.create({"found": recorded(run, key)}).found,
        "times": lambda a, b: a * b,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"genlab.{name}", resolver, replace=True)


register()

NEEDED = ("data", "network", "optimizer", "model", "trainer", "logger", "evaluation")  # some option of each


# ---------------------------------------------------------------------- composing


def preflight(name: str, overrides: Sequence[str], searchpath: Sequence[str] = (), check: bool = True) -> DictConfig:
    """Compose conf/<name>.yaml and check it before anything heavy is imported; of a sweep, its first job.

    Raises GenlabError in one line, with the nearest key or option where something is mistyped.
    """
    for place in searchpath:
        if not Path(place).is_dir():
            raise GenlabError(f"--config-dir {place}: there is no such folder")
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        first = [_first(o) for o in parsed]
    except HydraException as error:
        raise GenlabError(f"cannot read the override: {line_of(error)}") from None
    for override in parsed:
        group = override.key_or_group
        if group in NEEDED and (override.is_delete() or override.value() is None):
            raise GenlabError(f"{override.input_line}: some {group} is needed: choose {group}=OPTION")
        if override.value() is None and not override.is_delete() and (conf_dir() / group).is_dir():
            hint = ", and for a model that needs one, sampler=OPTION" if group == "sampler" else ""
            raise GenlabError(f"{group}=null: none of a group is written ~{group}{hint}")
        if override.is_sweep_override() and (conf_dir() / group).is_dir():
            for value in () if isinstance(override.value(), IntervalSweep) else override.sweep_string_iterator():
                if said := unknown(group, value, searchpath):
                    raise GenlabError(said)
    if searchpath:
        first.append(f"hydra.searchpath=[{','.join(f'file://{path}' for path in searchpath)}]")
    config = _compose(name, first, searchpath)
    refuse_mistyped(name, first, searchpath)
    if check:
        check_values(config)
        check_writable(Path(run_dir(config)))
    return config


def _first(override: Override) -> str:
    """The override with a sweep replaced by its first choice."""
    if not override.is_sweep_override():
        return str(override.input_line)
    key, value = str(override.input_line).split("=", 1)[0], override.value()
    if isinstance(value, IntervalSweep):
        return f"{key}={value.start}"
    return f"{key}={next(iter(override.sweep_string_iterator()))}"


def _compose(name: str, overrides: list[str], searchpath: Sequence[str] = ()) -> DictConfig:
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose(name, overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        body = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        OmegaConf.set_struct(body, False)
        resolved = OmegaConf.create(OmegaConf.to_container(body, resolve=True))
    except (HydraException, OmegaConfBaseException, AssertionError) as error:
        GlobalHydra.instance().clear()
        raise GenlabError(explain(name, overrides, error, searchpath)) from None
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
    assert isinstance(resolved, DictConfig)
    return resolved
