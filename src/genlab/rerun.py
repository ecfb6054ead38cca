"""usage: genlab rerun RUN [out=FOLDER] [trust=true] [trainer.KEY=VALUE ...] [logger.KEY=VALUE ...]

Trains the recorded configuration of a run once more, in a folder of its own beside it (RUN with -rerun before its seed)
unless out= names another; RUN itself is left as it is. The same command again continues it. In the end it says whether the
weights came out bit for bit, which on one machine they do on a CPU, and on CUDA with trainer.deterministic=true.

trainer. and logger. keys may differ from the record, such as trainer.devices=2 or logger.mode=offline.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from genlab.checks import check_writable
from genlab.errors import GenlabError, printable
from genlab.hints import near
from genlab.launched import leader
from genlab.options import verb

FREE = ("trainer", "logger")  # what says how a run is run, and not what it is


def rerun(path: Path, out: Path | None, overrides: list[str], trust: bool = False) -> Path:
    """Train the configuration of the run at `path` again, and return the new run's folder; raises GenlabError for what can
    be mended."""
    from omegaconf import OmegaConf

    from genlab.recorded import here
    from genlab.run import Run
    from genlab.training import train

    run = Run.existing(path)
    recorded = here(run.config)
    missing = [key for key in ("data", "model", "trainer", "logger", "evaluation", "seed") if key not in recorded]
    if missing:
        raise GenlabError(f"{path} is the record of no training: its configuration has no {', '.join(missing)}")
    config: Any = OmegaConf.create(recorded)
    for override in overrides:
        key, _, value = override.partition("=")
        group, _, leaf = key.partition(".")
        if group not in FREE or leaf not in config[group]:
            known = [f"{group}.{name}" for group in FREE for name in config[group]]
            raise GenlabError(f"{key} cannot be set here{near(key, known)}; what a run learns is the record's")
        config[group][leaf] = OmegaConf.from_dotlist([f"value={value}"])["value"]
    config.force, config.trust = False, trust  # whatever the record says
    folder = out or path.resolve().with_name(re.sub(r"(-s\d+)?$", r"-rerun\1", path.resolve().name, count=1))
    if folder.resolve() == path.resolve():
        raise GenlabError(f"out={folder} is the run itself: name another folder")
    check_writable(folder, "out")
    train(config, folder)
    return folder


def difference(one: Path, other: Path) -> str:
    """Whether two runs ended with the same weights, in words."""
    import torch

    from genlab.run import Run

    a, b = (Run.existing(path).load_checkpoint() for path in (one, other))
    if a is None or b is None:
        return "one of the two has no checkpoint to compare"
    if a["images_seen"] != b["images_seen"]:
        return f"not comparable: {a['images_seen']} and {b['images_seen']} images seen"
    pairs = [(tensor, b["state_dict"].get(name)) for name, tensor in a["state_dict"].items()]
    if any(other is None or tensor.shape != other.shape for tensor, other in pairs):
        return "another model"
    if all(torch.equal(tensor, other) for tensor, other in pairs):
        return f"bit-equal weights after {a['images_seen']} images"
    most = max((tensor.double() - other.double()).abs().max().item() for tensor, other in pairs if tensor.numel())
    return f"weights differ by up to {most:.2g} after {a['images_seen']} images"


def versions(path: Path) -> list[str]:
    """What of the record's last environment is another one here: Python, and packages that compute."""
    from genlab.provenance import code, environment

    try:
        then = json.loads((path / "environment.jsonl").read_text().splitlines()[-1])
        now = {**environment(), "code": code()[0]}
        pairs = {"python": (then["python"], now["python"]), "devices": (then["devices"], now["devices"])}
        for name in ("genlab", "torch", "numpy", "lightning"):
            pairs[name] = (then["packages"].get(name), now["packages"].get(name))
        pairs["commit"] = tuple(where["code"] and where["code"]["commit"][:12] for where in (then, now))
        pairs["uncommitted changes"] = tuple(where["code"] and where["code"]["diff"] for where in (then, now))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ["what made it is not recorded"]
    return [f"{name} was {a}, and is {b}" for name, (a, b) in pairs.items() if a != b]


def _act(arguments: list[str]) -> None:
    words = [a for a in arguments if "=" not in a]
    places = [a.removeprefix("out=") for a in arguments if a.startswith("out=")]
    if len(words) != 1:
        raise GenlabError(f"one RUN is needed, not {len(words)}: {' '.join(words)}")
    path, out = Path(words[0]), Path(places[-1]) if places else None
    overrides = [a for a in arguments if "=" in a and not a.startswith(("out=", "trust="))]
    for line in versions(path) if leader() and (path / "config.yaml").is_file() else ():
        print(f"genlab: {printable(line)}: bits may differ", file=sys.stderr)
    folder = rerun(path, out, overrides, "trust=true" in arguments)
    if leader():  # Lightning executes this command again for every rank
        print(f"genlab: {printable(folder)}: {difference(path, folder)}")


def main() -> None:
    verb(__doc__ or "", _act, "the same command goes on")


if __name__ == "__main__":
    main()
