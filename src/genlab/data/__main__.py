"""usage: genlab data list | info NAME | prepare NAME

The data sets that `data=NAME` takes. prepare makes one ready for training; those inside genlab are ready already.
"""

from omegaconf import DictConfig

from genlab.config import conf_dir, near, preflight
from genlab.errors import GenlabError
from genlab.options import verb


def names() -> list[str]:
    folder = conf_dir() / "data"
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("[!_]*.yaml"))


def composed(name: str) -> DictConfig:
    """The data part of the configuration; raises GenlabError, with the nearest name, where there is none."""
    if name not in names():
        raise GenlabError(f"no data {name!r}{near(name, names())}; there is {', '.join(names())}")
    return preflight("train", [f"data={name}", "network=noisy_mlp", "outputs=."], check=False).data


def info(name: str) -> str:
    """Counts, shape and classes of a data set."""
    from genlab.instantiation import build

    config = composed(name)
    source = build(config.source)
    counts = ", ".join(f"{len(source.split(split).x)} {split}" for split in ("train", "test"))
    levels = f", {config.levels} levels" if config.levels else ""
    citation = (conf_dir() / "data" / f"{name}.yaml").read_text().splitlines()[0].lstrip("# ")
    return f"{config.name}: {counts}; shape {list(config.shape)}{levels}, {config.classes} classes\n{citation}"


def _act(arguments: list[str]) -> None:
    match arguments:
        case ["list"]:
            print("\n".join(names()))
        case ["info", name]:
            print(info(name))
        case ["prepare", name]:
            info(name)
            print(f"genlab: {name} is inside genlab, nothing to prepare")
        case _:
            raise GenlabError(f"cannot read `{' '.join(arguments)}`: genlab data list | info NAME | prepare NAME")


def main() -> None:
    verb(__doc__ or "", _act)


if __name__ == "__main__":
    main()
