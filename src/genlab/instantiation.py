"""From configuration to objects, nothing built before its `_target_` is known to be safe."""

import importlib
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genlab.config import line_of, near
from genlab.errors import GenlabError

TORCH_OPTIMIZERS = {f"torch.optim.{name}" for name in ("Adam", "AdamW", "RMSprop", "SGD")}


def locate(target: str) -> Any:
    """The object that a dotted `_target_` names; raises GenlabError where there is none, with the nearest name."""
    module, _, name = target.rpartition(".")
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError):
        raise GenlabError(f"_target_ {target}: there is no module {module!r}") from None
    if not hasattr(found, name):
        raise GenlabError(f"_target_ {target}: {module} has no {name!r}{near(name, dir(found))}")
    return getattr(found, name)


def _ours(target: str) -> bool:
    if target in TORCH_OPTIMIZERS:
        return True
    return target.startswith("genlab.") and getattr(locate(target), "__module__", "").startswith("genlab.")


def check_targets(node: Any, trust: bool = False) -> None:
    """Raise GenlabError unless every `_target_` in plain containers is genlab's own or a named torch optimizer.

    The object found decides, not its spelling: genlab.run.os.system is not genlab's. `trust` lets everything pass.
    """
    if isinstance(node, dict):
        target = node.get("_target_")
        if isinstance(target, str) and not trust and not _ours(target):
            raise GenlabError(f"_target_ {target} is not genlab's own: refused (trust=true allows it, if you trust it)")
        for child in node.values():
            check_targets(child, trust)
    elif isinstance(node, list):
        for child in node:
            check_targets(child, trust)


def build(node: Any, trust: bool = False) -> Any:
    """The object that a configuration node describes, its targets checked before anything is made."""
    plain: Any = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    check_targets(plain, trust)
    try:
        return instantiate(plain, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, GenlabError):
            raise cause from None
        raise GenlabError(f"cannot build {plain.get('_target_')}: {line_of(error)}") from error
