"""usage: genlab export RUN [weights=ema,raw] [checkpoint=last|best] [out=FOLDER]

Writes the weights of a run as safetensors, one file for each of the weights named, to RUN/export/ unless out= says
otherwise. A file carries the model's configuration, so that it is a model by itself:

  from genlab.export import load
  from genlab.noise import NoiseStream
  x = load("ema.safetensors").generate(NoiseStream(0), n=16)    # (16, C, H, W) uint8

Loading one runs nothing that it says, as evaluating a run does not; other programs read its tensors as any safetensors.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genlab import __version__
from genlab.checks import check_writable
from genlab.errors import GenlabError, printable
from genlab.options import parse, verb

if TYPE_CHECKING:
    from genlab.module import GenerativeModule


@dataclass
class Options:
    weights: str = "ema,raw"
    checkpoint: str = "last"
    out: str | None = None
    trust: bool = False


def export(path: Path, options: Options) -> list[Path]:
    """Write the files and return them; raises GenlabError for what the user can mend."""
    from safetensors.torch import save

    from genlab.files import place
    from genlab.recorded import here
    from genlab.run import Run
    from genlab.scoring import load as loaded

    run = Run.existing(path)
    folder = Path(options.out) if options.out else path / "export"
    config = run.config
    files = []
    for weights in options.weights.split(","):
        module, seconds = loaded(run, here(config), weights, options.trust, options.checkpoint)
        check_writable(folder, "out")
        # cloned, because safetensors has no tensors that share memory
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}
        told = {
            "format": "pt",
            "genlab": __version__,
            "model": json.dumps(config["model"]),
            "model_name": str(config.get("model_name")),
            "data": str(config["data"]["name"]),
            "weights": weights,
            "checkpoint": options.checkpoint,
            "images_seen": str(module.images_seen),
            "seconds": str(seconds),
            "seed": str(config.get("seed")),
        }
        file = folder / f"{Path(weights).name}.safetensors"
        content = save(tensors, told)
        place(file, lambda opened, content=content: opened.write(content))
        files.append(file)
    return files


def load(path: str | Path, trust: bool = False) -> "GenerativeModule":
    """The model of an exported file, in evaluation mode on the CPU.

    Raises GenlabError for a file that is damaged or was not exported by genlab, and where its configuration names anything
    but genlab's own classes.
    """
    from safetensors import SafetensorError, safe_open

    from genlab.instantiation import build
    from genlab.recorded import checked, here
    from genlab.scoring import adopt

    try:
        with safe_open(str(path), framework="pt") as file:
            told: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        recipe: Any = json.loads(told["model"])
        images_seen = int(told["images_seen"])
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise GenlabError(f"{path} is no file of genlab export: {error}") from None
    module = build(here(checked(recipe, str(path))), trust)
    adopt(module, tensors, str(path))
    module.images_seen = images_seen
    return module.eval()


def _act(arguments: list[str]) -> None:
    words, options, overrides = parse(arguments, Options)
    if len(words) != 1 or overrides:
        raise GenlabError(f"one RUN is needed, and no other choices: {' '.join([*words, *overrides])}")
    for file in export(Path(words[0]), options):
        print(f"genlab: {printable(file)}")


def main() -> None:
    verb(__doc__ or "", _act)


if __name__ == "__main__":
    main()
