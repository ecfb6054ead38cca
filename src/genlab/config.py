"""Configuration: where it lies, hints for typing errors, and the run directory that it means.

Nothing here imports torch, so that `--help` and a typing error answer at once.
"""

import difflib
import hashlib
import json
import os
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
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

from genlab.errors import GenlabError
from genlab.recorded import leads_out
from genlab.schemas import TrainConfig
from genlab.stages import recorded, weights_of

# ---------------------------------------------------------------------- where configuration lies


def _folder(name: str, witness: str) -> Path:
    package = Path(__file__).parent
    for candidate in (package / name, package.parents[1] / name):  # an installed wheel, or a clone
        if (candidate / witness).is_file():
            return candidate
    raise GenlabError(f"no {name}/{witness} in {package}: the installation is incomplete")


def conf_dir() -> Path:
    """The folder of Hydra groups."""
    return _folder("conf", "train.yaml")


def sweeps_dir() -> Path:
    """The folder of primary configurations that launch many runs."""
    return _folder("sweeps", "digits.yaml")


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


def register() -> None:
    """Make the schemas and the resolvers known to Hydra."""
    ConfigStore.instance().store(name="train_schema", node=TrainConfig)
    resolvers = {
        "run_dir": lambda *, _root_: run_dir(_root_),
        "teacher": lambda *, _root_: teacher_dir(_root_),
        "codec": lambda own=None, *, _root_: codec(_root_, own),
        "shape": lambda *, _root_: codec(_root_).get("shape") or _root_.data.shape,  # of model space
        "levels": lambda *, _root_: codec(_root_).get("size") or _root_.data.levels,  # of tokens
        "coarse": lambda shape, factor, channels: OmegaConf.create([channels, *(side // factor for side in shape[1:])]),
        "plane": lambda shape: OmegaConf.create(list(shape[1:])),
        "weights": weights_of,
        "recorded": lambda run, key: OmegaConf.create({"found": recorded(run, key)}).found,
        "times": lambda a, b: a * b,
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(f"genlab.{name}", resolver, replace=True)


register()


# ---------------------------------------------------------------------- composing, with hints


def preflight(name: str, overrides: Sequence[str], searchpath: Sequence[str] = (), check: bool = True) -> DictConfig:
    """Compose conf/<name>.yaml and check it before anything heavy is imported; of a sweep, its first job.

    Raises GenlabError in one line, with the nearest key or option where something is mistyped.
    """
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
                if said := _unknown(group, value, searchpath):
                    raise GenlabError(said)
    if searchpath:
        first.append(f"hydra.searchpath=[{','.join(f'file://{path}' for path in searchpath)}]")
    config = _compose(name, first)
    _refuse_mistyped(name, first, searchpath)
    if check:
        _check(config)
    return config


def _first(override: Override) -> str:
    """The override with a sweep replaced by its first choice."""
    if not override.is_sweep_override():
        return str(override.input_line)
    key, value = str(override.input_line).split("=", 1)[0], override.value()
    if isinstance(value, IntervalSweep):
        return f"{key}={value.start}"
    return f"{key}={next(iter(override.sweep_string_iterator()))}"


def _compose(name: str, overrides: list[str]) -> DictConfig:
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
        raise GenlabError(_explain(name, overrides, error)) from None
    finally:
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
    assert isinstance(resolved, DictConfig)
    return resolved


def _explain(name: str, overrides: list[str], error: Exception) -> str:
    """The one line that a mistyped override deserves."""
    known = known_keys(name)
    for text in overrides:
        key = text.split("=", 1)[0].lstrip("+~").split("@")[0]
        if (conf_dir() / key).is_dir() and "=" in text:
            if said := _unknown(key, text.split("=", 1)[1]):
                return said
        elif key not in known and not key.startswith("hydra") and not text.startswith("+"):
            return f"no key {key!r}{near(key, known)}"
    if isinstance(error, AssertionError):  # OmegaConf's own, of a key within one that is null
        within = [text for text in overrides if text.split("=", 1)[0].count(".") > 1]
        return f"{', '.join(within)}: what should hold this is null here"
    return line_of(error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error)


def _unknown(group: str, value: str, searchpath: Sequence[str] = ()) -> str | None:
    """What to say of a choice that a group does not have; None of one that it has."""
    folders = [Path(root) / group for root in (conf_dir(), *searchpath)]
    options = sorted({str(p.relative_to(f).with_suffix("")) for f in folders for p in f.rglob("[!_]*.yaml")})
    if value in options or value == "null" or any((f / f"{value}.yaml").is_file() for f in folders):
        return None
    beside = [option for option in options if "/" in value and option.startswith(value.partition("/")[0] + "/")]
    return f"no {group} {value!r}{near(value, options)}; there is {', '.join(beside or options)}"


def _refuse_mistyped(name: str, overrides: list[str], searchpath: Sequence[str]) -> None:
    """Raise GenlabError for a key that is added with + where nothing would read it: one that is nearly one that there is,
    one more of a group whose keys are settled, or one of its own that no other override and no file of the user's names."""
    additions = [text for text in overrides if text.startswith("+")]
    known = known_keys(name) if additions else []
    for text in additions:
        key = text.split("=", 1)[0].lstrip("+").split("@")[0]
        if (
            key in known
            or "/" in key
            or key.split(".")[0] == "hydra"
            or any((Path(p) / key).is_dir() for p in searchpath)
        ):
            continue
        top, nested, _ = key.partition(".")
        files = (path.read_text(errors="replace") for root in searchpath for path in Path(root).rglob("*.yaml"))
        own_key = top not in {k.split(".")[0] for k in known}
        named = own_key and any(re.search(rf"\$\{{[^}}]*\b{top}\b", t) for t in (*overrides, *files) if t != text)
        if (own_key and not named) or (nested and key.rpartition(".")[0] in SETTLED):
            raise GenlabError(f"no key {key!r}{near(key, known)}: nothing would read what + adds there")
        owner, dot, own = key.rpartition(".")
        siblings = [k[len(owner + dot) :] for k in known if k.rpartition(".")[0] == owner]
        close = difflib.get_close_matches(own, siblings, n=1, cutoff=0.8)
        if close and own not in siblings and not named:
            raise GenlabError(f"no key {key!r}, which + would add for nothing - did you mean {owner}{dot}{close[0]}?")


def known_keys(name: str) -> list[str]:
    """Every dotted key of the default configuration, its groups, and the keys of every option of a group."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose(name)
    keys = set(_flatten(config, ""))
    for path in conf_dir().rglob("*.yaml"):
        loaded = OmegaConf.load(path)
        if isinstance(loaded, DictConfig) and path.parent != conf_dir():
            keys.update(_flatten(loaded, _place(path)))
    return sorted(keys | {p.name for p in conf_dir().iterdir() if p.is_dir()})


def _place(path: Path) -> str:
    """What the keys of an option begin with: `variational.objective.` in variational/objective/beta.yaml, `sampler.` in
    sampler/digits/heun.yaml, and nothing in an experiment."""
    folder, prefix = conf_dir(), ""
    for part in path.relative_to(conf_dir()).parts[:-1]:
        folder, prefix = folder / part, f"{prefix}{part}."
        if any(folder.glob("*.yaml")):
            break
    return "" if prefix.startswith("experiment.") else prefix


def _flatten(node: DictConfig, prefix: str) -> Iterator[str]:
    for key in node:
        if key != "defaults":
            yield f"{prefix}{key}"
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
                yield from _flatten(child, f"{prefix}{key}.")


def near(word: str, words: Sequence[str]) -> str:
    """— did you mean X?, comparing whole words first and last parts of dotted keys next."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.7)
    if not close:
        last = {w.rsplit(".", 1)[-1]: w for w in reversed(words)}
        close = [last[m] for m in difflib.get_close_matches(word.rsplit(".", 1)[-1], list(last), n=1, cutoff=0.6)]
    return f" - did you mean {close[0]}?" if close else ""


def line_of(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    full_key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    message = " ".join(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
    ours = message.partition("GenlabError raised while resolving interpolation: ")[2]
    if ours:
        return ours
    if "is not in struct" in message:  # a key of another option of its group
        return f"no key {full_key!r} in what was chosen there"
    if whole := re.search(r"Value '(\d+)\.0' of type 'float' could not be converted to Integer", message):
        message += f": write {whole[1]}"
    return f"{full_key}: {message}" if full_key else message


def _check(config: DictConfig) -> None:
    """The values no schema can refuse."""
    missing = [str(key) for key in OmegaConf.missing_keys(config)]
    if missing:
        raise GenlabError(f"no value for {', '.join(sorted(missing))}")
    if config.sampler is None and {"denoiser", "joint"} & config.model.keys():  # others have a prior
        raise GenlabError(f"model={config.model_name} needs some sampler: choose sampler=OPTION")
    if not config.model_name or leads_out(config.model_name):
        raise GenlabError(f"model_name={config.model_name}: a name of a folder within outputs is needed")
    if config.seed < 0:
        raise GenlabError(f"seed={config.seed}: at least 0 is needed")
    trainer = config.trainer
    for key in ("max_images", "batch", "accumulate", "devices", "num_nodes", "keep", "log_every"):
        if trainer[key] < 1:
            raise GenlabError(f"trainer.{key}={trainer[key]}: at least 1 is needed")
    if trainer.precision not in PRECISIONS:
        raise GenlabError(
            f"trainer.precision={trainer.precision}{near(trainer.precision, PRECISIONS)}; there is {', '.join(PRECISIONS)}"
        )
    if trainer.strategy not in ("ddp", "fsdp"):
        raise GenlabError(f"trainer.strategy={trainer.strategy}: there is ddp and fsdp")
    if trainer.strategy == "fsdp" and trainer.precision == "16-mixed":
        raise GenlabError("trainer=fsdp cannot scale the losses of 16-mixed: set trainer.precision=bf16-mixed")
    for name in trainer.requeue_signals:
        if name not in signal.Signals.__members__ or name in ("SIGINT", "SIGTERM", "SIGKILL", "SIGSTOP"):
            raise GenlabError(
                f"trainer.requeue_signals: {name} is no signal that a job can be queued again by (SIGUSR1)"
            )
    check_evaluation(config.evaluation)
    for key in _flatten(config.network, "network.") if config.network else ():
        if key.endswith("width") and isinstance(width := OmegaConf.select(config, key), int) and width < 1:
            raise GenlabError(f"{key}={width}: at least 1 is needed")
    if config.guidance is not None and "guidance" not in config.model:
        raise GenlabError(f"model={config.model_name} takes no guidance: only diffusion models are guided")
    for group in ("objective", "penalty", "critic_augment"):
        if config[group] is not None and group not in config.model:
            raise GenlabError(f"model={config.model_name} takes no {group}: only GANs do")
        if group != "critic_augment" and group in config.model and config.model[group] is None:
            raise GenlabError(f"model={config.model_name} needs some {group}: choose {group}=OPTION, as penalty=none")
    if config.sampler is not None and "sampler" not in config.model:
        raise GenlabError(f"model={config.model_name} takes no sampler: leave it out")
    if config.dequantization is not None and "dequantization" not in config.model:
        raise GenlabError(f"model={config.model_name} takes no dequantization: only flows do")
    if (classes := config.model.get("classes")) and classes != config.data.classes:
        raise GenlabError(
            f"model.classes={classes}: the labels of {config.data.name} are of {config.data.classes or 'no'} classes, "
            f"so it is {f'{config.data.classes} or ' if config.data.classes else ''}0"
        )
    if classes and (condition := config.data.source.get("condition", "label")) != "label":
        told = "null" if condition is None else condition
        raise GenlabError(
            f"model.classes={classes}: data.source.condition={told} serves no labels: set it to label, or model.classes=0"
        )
    check_writable(Path(run_dir(config)))


SETTLED = ("data", "optimizer", "trainer", "logger", "evaluation", "evaluation.reference")  # by schemas.py
NEEDED = ("data", "network", "optimizer", "model", "trainer", "logger", "evaluation")  # some option of each
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")  # others would round noise schedules and likelihoods too
FLOORS = ("train", "train_full", "test", "test_full", "noise")


def check_evaluation(options: Mapping[str, Any]) -> None:
    """The same of a protocol, whoever brought it."""
    for key, least in (("n", 0), ("batch", 1), ("seeds", 1)):
        if not isinstance(options[key], int) or options[key] < least:
            none = " (no evaluation)" if least == 0 else ""
            raise GenlabError(f"evaluation.{key}={options[key]}: a whole number of at least {least}{none} is needed")
    for name in options["floors"] or ():
        if name not in FLOORS:
            raise GenlabError(f"evaluation.floors: no floor {name!r}{near(name, FLOORS)}; there is {', '.join(FLOORS)}")


def check_writable(path: Path) -> None:
    """Raise GenlabError if `path` is no folder that can be made and written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GenlabError(f"cannot make the folder {path} ({error.strerror}): set outputs=FOLDER") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise GenlabError(f"cannot write in the folder {path}: set outputs=FOLDER")
