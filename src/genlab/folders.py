"""Where configuration lies: in an installed wheel, or in a clone."""

from pathlib import Path

from genlab.errors import GenlabError


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
