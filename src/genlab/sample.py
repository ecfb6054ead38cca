"""usage: genlab sample RUN [n=64] [seed=0] [y=3] [weights=ema|raw|NAME] [sampler=ddim] [sampler.steps=50] [out=FOLDER]
       genlab sample RUN interpolate=8 [seed=0] [y=3] [weights=ema|raw|NAME] [likelihood.tolerance=1e-3] [out=FOLDER]

Draws samples of a trained run: a PNG grid, an .npz of them all, and of the first 64 the way from noise to data as
animated WebP: trajectory.webp shows x_t, denoised.webp the x̂ that the model expects it to become.
Sample i depends on (seed, i) alone, whatever n is. trust=true allows a run whose configuration names foreign classes.

With interpolate=8 it encodes pairs of test images instead, and writes interpolation.png: an image, eight steps on the
arc between the latents from its own reconstruction to that of the other, and the other. A conditional model takes the two
of a pair from one class.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genlab.config import check_writable
from genlab.errors import GenlabError
from genlab.options import overridden, parse, verb

if TYPE_CHECKING:
    from genlab.module import GenerativeModule

SHOWN = 64  # samples of the animations


@dataclass
class Options:
    n: int = 64
    seed: int = 0
    y: int | None = None
    weights: str = "ema"  # "raw", or the name of another average of the run
    out: str | None = None
    trust: bool = False
    interpolate: int | None = None


def sample(path: Path, options: Options, overrides: list[str]) -> Path:
    """Write samples of the run at `path`, and return their folder; raises GenlabError for what the user can mend."""
    import numpy as np
    import torch

    from genlab.module import Frame
    from genlab.noise import NoiseStream
    from genlab.pictures import film, picture

    if options.n < 1:
        raise GenlabError(f"n={options.n}: at least one sample is needed")
    folder, module, _ = _opened(path, options, overrides)
    y = None if options.y is None else torch.full((options.n,), options.y, device=module.device)
    stream = NoiseStream(options.seed, device=module.device)
    with torch.no_grad():
        labels = module.labels(stream, options.n, y)
        x, frames = torch.empty(0), []
        for frame in module.trajectory(stream, options.n, labels):
            x = frame.x_t
            frames.append(Frame(*(module.codec.decode(z[:SHOWN]).cpu() for z in frame)))
        x = module.codec.decode(x).cpu()
    y = torch.empty(0, dtype=torch.long) if labels is None else labels.cpu()  # no labels: an unconditional model
    np.savez_compressed(folder / "samples.npz", x=x.numpy(), y=y.numpy(), seed=options.seed)
    picture(x).save(folder / "samples.png")
    film(frames, folder, 60)
    return folder


def interpolation(path: Path, options: Options, overrides: list[str]) -> tuple[Path, float]:
    """Write rows from test image to test image; their folder, and the error of the reconstructions in model space."""
    from genlab.data.source import Batch
    from genlab.instantiation import build
    from genlab.interpolation import interpolate
    from genlab.pictures import picture

    steps = options.interpolate or 0
    if steps < 2:
        raise GenlabError(f"interpolate={steps}: at least 2 steps are needed, the reconstructions of both ends")
    folder, module, config = _opened(path, options, overrides)
    if len(module.shape) != 3:
        raise GenlabError("interpolate=N is for images, and this run is of points")
    data = build(config["data"]["source"], options.trust).split("test")
    if options.y is not None:
        if data.y is None:
            raise GenlabError(f"y={options.y}: these data have no labels")
        chosen = data.y == options.y
        data = Batch(data.x[chosen], data.y[chosen])
    rows, error = interpolate(module, data, steps, options.seed)
    picture(rows.flatten(0, 1), columns=rows.shape[1]).save(folder / "interpolation.png")
    return folder, error


def _opened(path: Path, options: Options, overrides: list[str]) -> tuple[Path, "GenerativeModule", dict[str, Any]]:
    """The folder to write to, the module of the run with the weights asked for, and its configuration."""
    from genlab.run import Run
    from genlab.scoring import load

    run = Run.existing(path)
    folder = Path(options.out) if options.out else run.samples / f"seed{options.seed}"
    check_writable(folder)
    config = overridden(run.config, overrides)
    module, _ = load(run, config, options.weights, options.trust)
    return folder, module, config


def _act(arguments: list[str]) -> None:
    words, options, overrides = parse(arguments, Options)
    if len(words) != 1:
        raise GenlabError(f"one RUN is needed, not {len(words)}: {' '.join(words)}")
    if options.interpolate is None:
        print(f"genlab: samples in {sample(Path(words[0]), options, overrides)}")
        return
    folder, error = interpolation(Path(words[0]), options, overrides)
    print(f"genlab: {folder / 'interpolation.png'}; reconstruction error {error:.2g} (RMS, of pixels in [-1, 1])")


def main() -> None:
    verb(__doc__ or "", _act)


if __name__ == "__main__":
    main()
