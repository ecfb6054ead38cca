"""usage: genlab sample RUN [n=64] [seed=0] [y=3] [weights=ema|raw|NAME] [sampler=ddim] [sampler.steps=50] [out=FOLDER]
                      [batch=256] [devices=1]
       genlab sample RUN truncation=0.7 or temperature=0.7 [...]
       genlab sample RUN prompt="Once upon a time" [n=8] [seed=0] [sampler=nucleus] [temperature=0.8] [out=FOLDER]
       genlab sample RUN interpolate=8 [of=images|samples] [along=arc|line] [seed=0] [y=3] [weights=ema|raw|NAME] [likelihood.tolerance=1e-3] [out=FOLDER]
       genlab sample RUN arithmetic=[3,8,5] or traverse=4 [of=samples] or levels=6 [seed=0] [weights=ema|raw|NAME] [out=FOLDER]

Draws samples of a trained run: a PNG grid of the first 256, an .npz of them all, samples.json of how they were drawn,
and of the first 64 the way from noise to data as animated WebP: trajectory.webp shows x_t, denoised.webp the x̂ that the
model expects it to become. They are drawn in batches, and with devices=8 on eight devices of this machine, each its share.
Text is written to samples.txt, and prompt=TEXT is what every sample of a model of text begins with.
Sample i depends on (seed, i) alone, whatever n is. truncation=0.7 is short for sampler=truncation sampler.value=0.7, of a
GAN: styles nearer to their mean, or latents without large numbers; temperature=0.7 for sampler=tempered of a flow,
sampler=temperature of a VAE, and of a transformer the sampler.temperature that it has: likelier samples, of fewer kinds.
trust=true allows a run whose configuration names foreign classes.

With interpolate=8 it encodes pairs of test images instead, and writes interpolation.png: an image, eight steps on the
arc between the latents from its own reconstruction to that of the other, and the other. A conditional model takes the two
of a pair from one class. With of=samples the steps go from one drawn latent to another, for models that encode nothing,
such as GANs, too; along=line takes the straight line between latents, where the arc keeps the length of Gaussian ones.

With arithmetic=[3,8,5] it takes mean codes of the test images of these labels, and writes arithmetic.png: 3, 8 and the way
from 5 to 5 + 3 - 8 in the first row, and below it images of a 5 to which 3 - 8 is added step by step. With traverse=4 it
writes traversal.png: one image, of whose code the four dimensions that vary most go from -3 to 3, a row each; with
of=samples it is one sample, and the dimensions are those that change it most. With levels=6
a hierarchical model writes levels.png: an image, its reconstruction and what it becomes when some of its levels are drawn
anew, the levels in six rows, from the top of the ladder down.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genlab.checks import check_writable
from genlab.errors import GenlabError, printable
from genlab.options import overridden, parse, verb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from genlab.data.source import Batch
    from genlab.module import Frame, GenerativeModule
    from genlab.noise import NoiseStream

SHOWN, GRID = 64, 256  # samples of the animations, and of the grid
COLUMNS = 7  # of a traversal: -3, -2, ..., 3; and draws of a level


@dataclass
class Options:
    n: int = 64
    batch: int = 256
    devices: int = 1
    seed: int = 0
    y: int | None = None
    weights: str = "ema"  # "raw", or the name of another average of the run
    out: str | None = None
    trust: bool = False
    prompt: str | None = None  # read as it is, and not as YAML
    interpolate: int | None = None
    arithmetic: list[int] = field(default_factory=list)
    traverse: int | None = None
    of: str = "images"  # or "samples": what is encoded, or drawn
    along: str = "arc"  # or "line"
    truncation: float | None = None
    temperature: float | None = None
    levels: int | None = None


def sample(path: Path, options: Options, overrides: list[str]) -> Path:
    """Write samples of the run at `path`, and return their folder; raises GenlabError for what the user can mend."""
    import numpy as np
    import torch

    from genlab.distributed import gathered, mine, ranks
    from genlab.pictures import film, picture, texts

    for key in ("n", "batch"):
        if getattr(options, key) < 1:
            raise GenlabError(f"{key}={getattr(options, key)}: at least one sample is needed")
    folder, module, config = _opened(path, options, overrides)
    own, frames = {}, []
    rank, world = ranks()
    for first, count in mine(options.n, min(options.batch, -(-options.n // world))):
        own[first], steps = _batch(module, options, first, count)
        frames = frames or steps  # the first rank's first are the first of all
    parts = gathered(own)
    if rank:
        return folder
    x, y = (torch.cat([parts[first][k] for first in sorted(parts)]) for k in (0, 1))
    np.savez_compressed(folder / "samples.npz", x=x.numpy(), y=y.numpy(), seed=options.seed)
    record = {key: getattr(options, key) for key in ("seed", "n", "weights", "y", "prompt")}
    record |= {key: config["model"].get(key) for key in ("sampler", "guidance")}
    (folder / "samples.json").write_text(json.dumps(record, indent=2) + "\n")
    if x.ndim == 2 and not x.is_floating_point():
        (folder / "samples.txt").write_text("\n\n".join(f"[{i}]\n{text}" for i, text in enumerate(texts(x))) + "\n")
    else:
        picture(x if x.ndim == 2 else x[:GRID]).save(folder / "samples.png")
    film(frames, folder, 60)
    return folder


def _batch(
    module: "GenerativeModule", options: Options, first: int, count: int
) -> "tuple[tuple[Tensor, Tensor], list[Frame]]":
    """(count, ...) samples from index `first` on and their labels, none of an unconditional model; and, if these are the first,
    the way there."""
    import torch

    from genlab.noise import NoiseStream

    stream = NoiseStream(options.seed, first, module.device)
    y = None if options.y is None else torch.full((count,), options.y, device=module.device)
    with torch.no_grad():
        labels = module.labels(stream, count, y)
        x, frames = torch.empty(0), []
        for frame in _steps(module, stream, options, count, labels):
            x = frame.x_t
            if first == 0:
                frames.append(frame.shown(lambda z: module.codec.decode(z[:SHOWN])))
        x = module.codec.decode(x).cpu()
    return (x, torch.empty(0, dtype=torch.long) if labels is None else labels.cpu()), frames


def _steps(
    module: "GenerativeModule", stream: "NoiseStream", options: Options, count: int, labels: "Tensor | None"
) -> "Iterator[Frame]":
    """The steps of sampling, of what a prompt is continued by the last alone."""
    import torch

    from genlab.module import Frame

    if options.prompt is None:
        yield from module.trajectory(stream, count, labels)
        return
    if not options.prompt:
        raise GenlabError("the prompt is empty: leave it out to begin at the beginning")
    if len(module.shape) != 1:
        raise GenlabError("a prompt is for a model of text, and this run is of something else")
    given = torch.tensor([*options.prompt.encode()], dtype=torch.uint8, device=module.device)
    x = module.complete(stream, module.codec.encode(given.expand(count, -1)), labels)
    yield Frame(x)


def interpolation(path: Path, options: Options, overrides: list[str]) -> tuple[Path, float | None]:
    """Write rows from test image to test image, or from sample to sample; the file, and of images the error of the
    reconstructions in model space."""
    from genlab.data.source import Batch
    from genlab.interpolation import between_samples, interpolate
    from genlab.pictures import picture

    steps = options.interpolate or 0
    if steps < 2:
        raise GenlabError(f"interpolate={steps}: at least 2 steps are needed, the reconstructions of both ends")
    folder, module, data = _with_images(path, options, overrides)
    file = folder / "interpolation.png"
    if _of_samples(options):
        rows = between_samples(module, steps, options.seed, options.y, options.along)
        picture(rows.flatten(0, 1), columns=steps).save(file)
        return file, None
    if options.y is not None:
        if data.y is None:
            raise GenlabError(f"y={options.y}: these data have no labels")
        chosen = data.y == options.y
        data = Batch(data.x[chosen], data.y[chosen])
    rows, error = interpolate(module, data, steps, options.seed, options.along)
    picture(rows.flatten(0, 1), columns=rows.shape[1]).save(file)
    return file, error


def arithmetic(path: Path, options: Options, overrides: list[str]) -> Path:
    """Write what differences of class means do to images; the file."""
    from genlab import latents
    from genlab.pictures import picture

    if len(options.arithmetic) != 3:
        raise GenlabError("arithmetic=[A,B,C] takes three labels, for A - B + C")
    folder, module, data = _with_images(path, options, overrides)
    rows = latents.arithmetic(module, data, *options.arithmetic)
    picture(rows.flatten(0, 1), columns=rows.shape[1]).save(folder / "arithmetic.png")
    return folder / "arithmetic.png"


def traversal(path: Path, options: Options, overrides: list[str]) -> tuple[Path, list[int]]:
    """Write what single dimensions of a code do; the file, and which dimensions its rows are."""
    from genlab.latents import traverse, traverse_sample
    from genlab.pictures import picture

    folder, module, data = _with_images(path, options, overrides)
    count, seed = options.traverse or 0, options.seed
    if _of_samples(options):
        rows = traverse_sample(module, count, COLUMNS, seed, options.y)
    elif options.y is not None:
        raise GenlabError(f"y={options.y}: images have their own labels; of=samples takes one")
    else:
        rows = traverse(module, data, count, COLUMNS, seed)
    picture(rows.x.flatten(0, 1), columns=COLUMNS).save(folder / "traversal.png")
    return folder / "traversal.png", rows.dimensions


def resampled(path: Path, options: Options, overrides: list[str]) -> tuple[Path, list[tuple[int, int]]]:
    """Write what single levels of a ladder hold; the file, and which levels its rows draw anew."""
    from genlab.latents import resample
    from genlab.pictures import picture

    folder, module, data = _with_images(path, options, overrides)
    rows = resample(module, data, options.levels or 0, COLUMNS, options.seed)
    picture(rows.x.flatten(0, 1), columns=rows.x.shape[1]).save(folder / "levels.png")
    return folder / "levels.png", rows.runs


def _of_samples(options: Options) -> bool:
    if options.of not in ("images", "samples"):
        raise GenlabError(f"of={options.of}: there is images, which are encoded, and samples, whose latents are drawn")
    return options.of == "samples"


def _with_images(path: Path, options: Options, overrides: list[str]) -> tuple[Path, "GenerativeModule", "Batch"]:
    """As `_opened`, with the test split; raises GenlabError for a run of points."""
    from genlab.instantiation import build

    folder, module, config = _opened(path, options, overrides)
    if len(config["data"]["shape"]) != 3:
        raise GenlabError("interpolate, arithmetic, traverse and levels are for images, and this run is of points")
    return folder, module, build(config["data"]["source"], options.trust).split("test")


def _opened(path: Path, options: Options, overrides: list[str]) -> tuple[Path, "GenerativeModule", dict[str, Any]]:
    """The folder to write to, the module of the run with the weights asked for, and its configuration."""
    from genlab.run import Run
    from genlab.scoring import load

    run = Run.existing(path)
    folder = Path(options.out) if options.out else run.samples / f"seed{options.seed}"
    check_writable(folder, "out")
    if options.truncation is not None:
        if "generator" not in run.config["model"]:
            raise GenlabError(f"truncation={options.truncation}: only a GAN's latents can be cut")
        overrides = [*overrides, "sampler=truncation", f"sampler.value={options.truncation}"]
    if options.temperature is not None:
        model = run.config["model"]
        if "temperature" not in (model.get("sampler") or {}):  # transformers have one anyway, or the one of nucleus
            overrides = [*overrides, "sampler=tempered" if "bijection" in model else "sampler=temperature"]
        overrides = [*overrides, f"sampler.temperature={options.temperature}"]
    config = overridden(run.config, overrides)
    module, _ = load(run, config, options.weights, options.trust)
    return folder, module, config


def _act(arguments: list[str]) -> None:
    prompts = [a.removeprefix("prompt=") for a in arguments if a.startswith("prompt=")]
    words, options, overrides = parse([a for a in arguments if not a.startswith("prompt=")], Options)
    options.prompt = prompts[-1] if prompts else None
    if len(words) != 1:
        raise GenlabError(f"one RUN is needed, not {len(words)}: {' '.join(words)}")
    given = (Path(words[0]), options, overrides)
    latent = [k for k in ("interpolate", "arithmetic", "traverse", "levels") if getattr(options, k) not in (None, [])]
    if len(latent) > 1:
        raise GenlabError(f"{' and '.join(latent)}: one of them at a time")
    if options.seed < 0:
        raise GenlabError(f"seed={options.seed}: at least 0 is needed")
    if options.devices > 1 and latent:
        raise GenlabError(f"devices={options.devices}: only samples are drawn on several")
    if options.interpolate is not None:
        file, error = interpolation(*given)
        told = "" if error is None else f"; reconstruction error {error:.2g} (RMS, in model space)"
        print(f"genlab: {printable(file)}{told}")
    elif options.arithmetic:
        print(f"genlab: {printable(arithmetic(*given))}")
    elif options.traverse is not None:
        file, dimensions = traversal(*given)
        print(f"genlab: {printable(file)}; dimensions {', '.join(map(str, dimensions))}, from the top")
    elif options.levels is not None:
        file, runs = resampled(*given)
        shown = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)
        print(f"genlab: {printable(file)}; levels {shown}, from the top")
    else:
        from genlab.together import together

        with together(options.devices) as first:
            folder = sample(*given)
        if first:
            print(f"genlab: samples in {printable(folder)}")


def main() -> None:
    verb(__doc__ or "", _act)


if __name__ == "__main__":
    main()
