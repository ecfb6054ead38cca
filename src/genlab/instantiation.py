"""From configuration to objects, nothing built before its `_target_` is known to be safe."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genlab.errors import GenlabError
from genlab.folders import conf_dir
from genlab.hints import line_of, near

PACKAGE = Path(__file__).parent
VALUES = ("gaussian", "flows")  # of these no class or function reads, writes or calls what it is told to
SCHEMAS = {"genlab.optimization.Optimization"}  # named in schemas.py, and not in conf/
TORCH_OPTIMIZERS = {f"torch.optim.{name}" for name in ("Adam", "Adamax", "AdamW", "RMSprop", "SGD")}


@cache
def ours() -> frozenset[str]:
    """Every target that a file of conf/ names, what configurations are made of, and all that the packages of VALUES define,
    which is mathematics; no function that does things."""
    texts = (path.read_text(encoding="utf-8") for path in conf_dir().rglob("*.yaml"))
    named = {target for text in texts for target in re.findall(r"_target_: *([\w.]+)", text)}
    named = {name for name in named if name.startswith("genlab.")}
    for package in VALUES:
        for path in (PACKAGE / package).rglob("*.py"):
            module = ".".join(("genlab", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
            public = re.findall(r"^(?:class|def) ([A-Za-z]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            named |= {f"{module}.{name}" for name in public}
    return frozenset(named | TORCH_OPTIMIZERS | SCHEMAS)


def check_targets(node: Any, trust: bool = False) -> None:
    """Raise GenlabError unless every `_target_` in plain containers is one of `ours`, spelled as there.

    Being defined in genlab is not enough: genlab.sweep.multirun does whatever it is told. `trust` lets everything
    pass.
    """
    if isinstance(node, dict):
        target = node.get("_target_")
        if "_target_" in node and not trust and not (isinstance(target, str) and target in ours()):
            raise GenlabError(
                f"_target_ {target} is not genlab's own{near(str(target), sorted(ours()))}: refused (trust=true allows it, "
                "if you trust it)"
            )
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
        told = line_of(error).replace(
            ", set env var HYDRA_FULL_ERROR=1 to see chained exception.", " (is it on PYTHONPATH?)"
        )
        raise GenlabError(f"cannot build {plain.get('_target_')}: {told}") from error
