"""What a run directory records, which somebody else may have written: plain YAML, read without doing anything it says."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from genlab.errors import GenlabError

LARGEST = 1 << 20  # bytes; a recorded configuration has some thousands
OWN_CACHE = "~/.cache/genlab"  # as conf/ has it


class _Plain(yaml.SafeLoader):
    """YAML without aliases, ten lines of which can stand for a billion values; what genlab records has none."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it holds an alias, {self.get_event().anchor}")
        return super().compose_node(parent, index)


def configuration(run: Path) -> dict[str, Any]:
    """The configuration of a run as it was recorded; raises GenlabError for a file that leads elsewhere or is none."""
    enclosed(run)
    path = run / "config.yaml"
    try:
        if path.stat().st_size > LARGEST:
            raise GenlabError(f"{path} is too large for a configuration: refused")
        config = yaml.load(path.read_text(encoding="utf-8"), _Plain)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        raise GenlabError(f"{path} is not plain YAML: {error}") from None
    return checked(config, str(path))


def checked(config: Any, origin: str) -> dict[str, Any]:
    """What was read at `origin`, a `hydra` section left out.

    Raises GenlabError for what a record never has: an interpolation, which could read the environment, however it is
    written, and a name that is a way to another folder.
    """
    if not isinstance(config, dict):
        raise GenlabError(f"{origin} is not a configuration")
    config.pop("hydra", None)
    for key, text in _texts(config):
        if "${" in text:
            raise GenlabError(
                f"{origin} holds an interpolation '${{' in {key}: refused, a recorded configuration has none"
            )
        if key in ("name", "names", "model_name") and leads_out(text):
            raise GenlabError(f"{origin} holds a {key} that leads out of its folder: refused ({text})")
    return config


def leads_out(name: str) -> bool:
    """Whether a name of a folder is a way out of the one that it stands in."""
    return name.startswith(("/", "~")) or ".." in name.split("/")


def here(config: dict[str, Any]) -> dict[str, Any]:
    """A recorded configuration for this machine: caches are where this one keeps them, whatever the record says."""
    own = os.environ.get("GENLAB_CACHE", OWN_CACHE)
    return _replaced(config, own)


def enclosed(run: Path) -> None:
    """Raise GenlabError if a link in a run directory leads out of it: through one, reading and writing happen elsewhere."""
    root = run.resolve()
    for folder in (run, run / "samples", run / "checkpoints", *run.glob("samples/*/")):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise GenlabError(f"{path} is a link out of the run directory: refused")


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string below a node, keys included, with the key that it stands under."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield key, str(name)
            yield from _texts(child, str(name))
    elif isinstance(node, list):
        for child in node:
            yield from _texts(child, key)
    elif isinstance(node, str):
        yield key, node


def _replaced(node: Any, cache: str) -> Any:
    if isinstance(node, dict):
        return {k: cache if k == "cache" and isinstance(v, str) else _replaced(v, cache) for k, v in node.items()}
    return [_replaced(child, cache) for child in node] if isinstance(node, list) else node
