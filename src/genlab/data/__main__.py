"""usage: genlab data list | info NAME [key=value ...] | prepare NAME [key=value ...]

The data sets that `data=NAME` takes. prepare reads, converts and decodes one into $GENLAB_CACHE/data, which training does
by itself at first use; those inside genlab are ready already. Interrupted, it goes on from where it was. info counts it,
verifies every byte and draws some of it. An offline cluster: prepare where there is network, and copy the folder that prepare
names to the same place in its cache. Your own images: folder or parquet, and where they lie.

  genlab data prepare cifar10
  genlab data prepare folder data.source.path=photos.zip data.shape=[3,64,64]
  genlab data info folder data.source.path=photos.zip data.shape=[3,64,64]
"""

import os
import shlex
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.folders import conf_dir
from genlab.hints import near
from genlab.options import verb
from genlab.printing import say

SPLITS = ("train", "test")
DRAWN, CAPTIONS = 64, 3  # images of the grid, and captions beside it


def names() -> list[str]:
    folder = conf_dir() / "data"
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("[!_]*.yaml"))


def composed(name: str, overrides: list[str]) -> DictConfig:
    """The data part of the configuration; raises GenlabError, with the nearest name, where there is none."""
    if name not in names():
        if Path(name).exists():
            raise GenlabError(f"{name} is a path: set data.source.path={name} after the name folder, or parquet")
        raise GenlabError(f"no data {name!r}{near(name, names())}; there is {', '.join(names())}")
    foreign = [o for o in overrides if not o.startswith("data.") or "=" not in o]
    if foreign:
        raise GenlabError(f"cannot read {foreign[0]!r}: data.KEY=VALUE is needed, as in data.source.path=FILE")
    return preflight("train", [f"data={name}", "network=noisy_mlp", "outputs=.", *overrides], check=False).data


def info(name: str, overrides: list[str]) -> str:
    """Counts, shape, classes and citation of a data set, and where some of it is drawn; of one not prepared, how to."""
    from genlab.instantiation import build

    config = composed(name, overrides)
    source = build(config.source)
    levels = f", {config.levels} levels" if config.levels else ""
    facts = f"shape {list(config.shape)}{levels}, {config.classes or 0} classes"
    lines = [_citation(name)] + ([f"license: {config.license}"] if config.license else [])
    if "cache" in config.source:
        prepared = {split: source.verified(split) for split in SPLITS}
        if None in prepared.values():
            command = shlex.join(["genlab", "data", "prepare", name, *overrides])
            return "\n".join([f"{config.name}: {facts}; not prepared: {command}", *lines])
        lines += _origin(source.folder, prepared)
    counts = ", ".join(f"{len(source.split(split).x)} {split}" for split in SPLITS)
    captioned = bool(config.source.get("caption"))
    return "\n".join(
        [f"{config.name}: {counts}; {facts}", *lines, *_contents(source, captioned), f"samples: {_drawn(source)}"]
    )


def _citation(name: str) -> str:
    return (conf_dir() / "data" / f"{name}.yaml").read_text().splitlines()[0].lstrip("# ")


def _origin(folder: Path, manifests: dict[str, Any]) -> list[str]:
    """Where prepared splits come from, what was left out, and how large they are."""
    lines = [f"folder: {folder}"]
    for split, manifest in manifests.items():
        revision = f" at {manifest['revision']}" if manifest["revision"] else ""
        megabytes = sum(file["bytes"] for file in manifest["files"].values()) / 1e6
        skipped = f", {len(manifest['skipped'])} skipped" if manifest["skipped"] else ""
        lines.append(f"{split}: {manifest['source']}{revision}, {manifest['split']}; {megabytes:.1f} MB{skipped}")
    return lines


def _contents(source: Any, captioned: bool) -> list[str]:
    """How many rows each class has, and what captions are like."""
    y, lines = source.split("train").y, list[str]()
    if y is not None and y.ndim == 1 and not y.is_floating_point():
        counts = y.bincount().tolist()
        lines.append(
            f"classes of train: {min(counts)} to {max(counts)} rows each, {sum(c > 0 for c in counts)} with any"
        )
    x = source.split("train").x
    if x.is_floating_point() and x.ndim == 4:
        some = x[:1024].float()
        lines.append(f"latents: mean {some.mean():.3f}, standard deviation {some.std():.3f} of the first {len(some)}")
    if captioned:
        lines += [f"caption: {caption}" for caption in source.captions("train")[:CAPTIONS]]
    return lines


def _drawn(source: Any) -> Path:
    """A picture of the first test rows, beside the prepared data."""
    from genlab.pictures import picture

    folder = Path(os.environ.get("GENLAB_CACHE", "~/.cache/genlab")).expanduser() / "data"
    path = folder / f"{source.name}.png"
    x = source.split("test").x
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture(x if x.ndim == 2 else x[:DRAWN], max(1, 128 // x.shape[-1])).save(path)
    except OSError as error:
        raise GenlabError(f"cannot write {path} ({error.strerror}): set GENLAB_CACHE=FOLDER") from None
    return path


def prepare(name: str, overrides: list[str]) -> str:
    """Make a data set ready, verify all of it, and say where it is."""
    from genlab.instantiation import build

    config = composed(name, overrides)
    source = build(config.source)
    if "cache" not in config.source:
        return f"genlab: {name} is inside genlab, nothing to prepare"
    files = {split: source.prepare(split, thorough=True)["files"][f"{split}.x"] for split in SPLITS}
    counts = ", ".join(f"{file['shape'][0]} {split}" for split, file in files.items())
    shape = "x".join(map(str, files["train"]["shape"][1:]))
    y = source.split("train").y if config.classes else None
    found = config.classes if y is None else len(y.unique())
    few = f"; only {found} of data.classes={config.classes} have rows" if (found or 0) < (config.classes or 0) else ""
    return f"genlab: {name} is prepared: {counts} of {shape} in {source.folder}{few}"


def _act(arguments: list[str]) -> None:
    match arguments:
        case ["list"]:
            width = max(map(len, names())) + 2
            say("\n".join(f"{name:{width}}{_citation(name)}" for name in names()))
        case ["info", name, *overrides]:
            say(info(name, overrides))
        case ["prepare", name, *overrides]:
            say(prepare(name, overrides))
        case _:
            raise GenlabError(f"cannot read `{' '.join(arguments)}`: genlab data list | info NAME | prepare NAME")


def main() -> None:
    verb(__doc__ or "", _act, "the same command goes on from there")


if __name__ == "__main__":
    main()
