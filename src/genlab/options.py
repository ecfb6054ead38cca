"""Command lines of the verbs that work on a run: RUN, words, and key=value pairs checked against a dataclass."""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genlab.checks import check_evaluation
from genlab.config import register
from genlab.errors import GenlabError
from genlab.folders import conf_dir
from genlab.hints import known_keys, line_of, near, unknown
from genlab.printing import say
from genlab.recorded import here

RECORDED = {
    "sampler": "model.sampler",
    "guidance": "model.guidance",
    "likelihood": "model.density",
    "evaluation": "evaluation",
}  # groups that may differ from the run's own

register()  # the resolvers that options are written with


def verb(usage: str, act: Callable[[list[str]], None], interrupted: str = "nothing was written") -> None:
    """Print the usage where it is asked for, or act on the command line; a GenlabError is one line and exit code 2, an
    interruption the line that says what it left and 130."""
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        say(usage)
        return
    try:
        act(arguments)
    except GenlabError as error:
        print(f"genlab: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"genlab: interrupted: {interrupted}", file=sys.stderr)
        sys.exit(130)


def parse(arguments: Sequence[str], schema: type) -> tuple[list[str], Any, list[str]]:
    """(words, options, overrides of the recorded configuration) of a command line."""
    words = [a for a in arguments if "=" not in a]
    pairs = [a for a in arguments if "=" in a]
    overrides = [a for a in pairs if a.split("=")[0].split(".")[0] in RECORDED]
    options = OmegaConf.structured(schema)
    for pair in pairs:
        key = pair.split("=", 1)[0]
        if pair in overrides:
            continue
        if key not in options:
            within = [k for k in known_keys("train") if k.split(".")[0] in RECORDED and k.count(".") == 1]
            raise GenlabError(f"no key {key!r}{near(key, [*map(str, options), *RECORDED, *within])}")
        try:
            options = OmegaConf.merge(options, OmegaConf.from_dotlist([pair]))
        except OmegaConfBaseException as error:
            raise GenlabError(line_of(error)) from None
    return words, OmegaConf.to_object(options), overrides


def overridden(recorded: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A recorded configuration with other choices of the groups in RECORDED: `sampler=ddim`, `sampler.steps=50`."""
    config = OmegaConf.create(here(recorded))
    for override in sorted(overrides, key=lambda override: "." in override.split("=", 1)[0]):  # choices first, as Hydra
        key, value = override.split("=", 1)
        group, _, rest = key.partition(".")
        owner, _, leaf = RECORDED[group].rpartition(".")
        node = OmegaConf.select(config, owner) if owner else config
        if leaf not in node:
            raise GenlabError(f"this model takes no {group}")
        if rest and node[leaf] is None:
            raise GenlabError(f"{override}: this run has no {group}; name one before, as {group}=NAME")
        if rest:
            _set(config, f"{RECORDED[group]}.{rest}", override)
        else:
            OmegaConf.update(config, RECORDED[group], _option(group, value), merge=False, force_add=True)
    plain: Any = OmegaConf.to_container(config, resolve=True)
    if any(override.startswith("evaluation.") for override in overrides):
        check_evaluation(plain["evaluation"])
    return plain


def _set(config: DictConfig, path: str, override: str) -> None:
    parent, _, leaf = path.rpartition(".")
    node = OmegaConf.select(config, parent)
    if not isinstance(node, DictConfig) or leaf not in node:
        known = list(map(str, node)) if isinstance(node, DictConfig) else []
        raise GenlabError(f"no key {override.split('=')[0]!r}{near(leaf, known)}")
    value = re.sub(r"^([+-]?)(nan|inf)$", r"\1.\2", override.split("=", 1)[1])  # YAML's numbers, as Hydra reads them
    node[leaf] = OmegaConf.from_dotlist([f"value={value}"])["value"]


def _option(group: str, value: str) -> Any:
    """The node of a group's option, as Hydra composes it, its interpolations left for the recorded configuration."""
    if value == "null":
        return None
    if said := unknown(group, value):
        raise GenlabError(said)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(overrides=[f"+{group}={value}"])[group]


def protocols(metric: str) -> list[str]:
    """The options of evaluation that have this metric."""
    names = sorted(path.stem for path in (conf_dir() / "evaluation").glob("[!_]*.yaml"))
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = {name: compose(overrides=[f"+evaluation={name}"]).evaluation for name in names}
    return [name for name, node in composed.items() if metric in [*node.metrics, *(node.module_metrics or ())]]
