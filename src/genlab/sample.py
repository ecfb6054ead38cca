"""usage: genlab sample RUN [n=64] [seed=0] [y=3] [weights=ema|raw] [sampler=ddim] [sampler.steps=50] [out=FOLDER]

Draws samples of a trained run: a PNG grid, an .npz of them all, and the trajectory from noise to data as animated WebP.
Sample i depends on (seed, i) alone, whatever n is. trust=true allows a run whose configuration names foreign classes.
"""

from dataclasses import dataclass
from pathlib import Path

from genlab.config import check_writable
from genlab.errors import GenlabError
from genlab.options import overridden, parse, verb


@dataclass
class Options:
    n: int = 64
    seed: int = 0
    y: int | None = None
    weights: str = "ema"
    out: str | None = None
    trust: bool = False


def sample(path: Path, options: Options, overrides: list[str]) -> Path:
    """Write samples of the run at `path`, and return their folder; raises GenlabError for what the user can mend."""
    import numpy as np
    import torch

    from genlab.noise import NoiseStream
    from genlab.pictures import animate, picture, thinned
    from genlab.run import Run
    from genlab.scoring import load

    run = Run.existing(path)
    if options.n < 1:
        raise GenlabError(f"n={options.n}: at least one sample is needed")
    if options.weights not in ("ema", "raw"):
        raise GenlabError(f"weights={options.weights}: there is ema and raw")
    folder = Path(options.out) if options.out else run.samples / f"seed{options.seed}"
    check_writable(folder)
    module, _ = load(run, overridden(run.config, overrides), options.weights, options.trust)
    y = None
    if options.y is not None:
        if module.classes and not 0 <= options.y < module.classes:
            raise GenlabError(f"y={options.y}: the labels are 0 to {module.classes - 1}")
        y = torch.full((options.n,), options.y, device=module.device)
    stream = NoiseStream(options.seed, device=module.device)
    with torch.no_grad():
        labels = module.labels(stream, options.n, y)
        frames = [module.codec.decode(z).cpu() for z in module.trajectory(stream, options.n, labels)]
    y = torch.empty(0, dtype=torch.long) if labels is None else labels.cpu()  # no labels: an unconditional model
    np.savez_compressed(folder / "samples.npz", x=frames[-1].numpy(), y=y.numpy(), seed=options.seed)
    picture(frames[-1]).save(folder / "samples.png")
    if len(frames) > 1:
        animate([picture(x) for x in thinned(frames, 60)], folder / "trajectory.webp")
    return folder


def _act(arguments: list[str]) -> None:
    words, options, overrides = parse(arguments, Options)
    if len(words) != 1:
        raise GenlabError(f"one RUN is needed, not {len(words)}: {' '.join(words)}")
    print(f"genlab: samples in {sample(Path(words[0]), options, overrides)}")


def main() -> None:
    verb(__doc__ or "", _act)


if __name__ == "__main__":
    main()
