"""The runs of a sweep one after the other in this process, whose start would cost as much as a run in the plane.

Run: python benchmarks/mode_collapse.py SWEEP OUTPUTS [key=value ...] (key=a,b sweeps, as for `genlab sweep`). Runs land in the
directories that `genlab sweep SWEEP` takes, which finds them finished; finished ones are not repeated.
Then: python benchmarks/mode_collapse.py rows OUTPUTS/DATA... prints a JSON line for every finished run, and
python benchmarks/mode_collapse.py picture FILE.png OUTPUTS/DATA draws samples of every model over the modes.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from genlab.config import preflight, run_dir
from genlab.errors import GenlabError
from genlab.instantiation import build
from genlab.noise import NoiseStream
from genlab.report.records import find_runs, read_run
from genlab.run import Run
from genlab.scoring import load
from genlab.sweep import find, swept
from genlab.training import train


def run(sweep: str, outputs: str, overrides: list[str]) -> None:
    """Every job of a sweep that has not finished, seed by seed, so that all models have as many seeds at any time."""
    lists: dict[str, list[str]] = {}
    for choice in OverridesParser.create().parse_overrides(swept(find(sweep), overrides)):
        key, _, value = str(choice.input_line).partition("=")
        lists[key] = list(choice.sweep_string_iterator()) if choice.is_sweep_override() else [value]
    order = sorted(lists, key=lambda key: (key != "seed", key == "experiment"))
    for values in itertools.product(*(lists[key] for key in order)):
        job = [f"{key}={value}" for key, value in zip(order, values, strict=True)]
        config = preflight("train", [*job, f"outputs={outputs}", "logger=none"])
        try:
            train(config, Path(run_dir(config)))
        except GenlabError as error:  # one model that diverged is a result
            print(f"genlab: {' '.join(job)}: {error}", file=sys.stderr)


def rows(paths: list[Path]) -> None:
    """One line for every run: what it is, how it ended, and its metrics."""
    for record in map(read_run, find_runs(paths)):
        config: Any = record.config
        print(
            json.dumps(
                {
                    "data": record.data,
                    "model": record.model,
                    "run": str(Path(*record.path.parts[-3:])),
                    "seed": record.seed,
                    "state": record.status.get("state"),
                    "batch": config["trainer"]["batch"],
                    "images_seen": record.images_seen,
                    "training_seconds": round(record.status.get("seconds", 0.0), 1),
                    "metrics": {
                        name: round(m.value, 5) for name, m in record.metrics.items() if name != "ms_per_sample"
                    },
                }
            )
        )


def picture(file: str, folder: Path, most: int = 2500) -> None:
    """Samples of the worst seed of each model, by modes and then by reverse KL, over circles around the modes."""
    from matplotlib.figure import Figure

    worst: dict[str, Any] = {}
    for record in map(read_run, find_runs([folder])):
        found = record.metrics
        badness = (-found["modes"].value, found["reverse_kl"].value) if "modes" in found else None
        if badness is not None and (record.model not in worst or badness > worst[record.model][0]):
            worst[record.model] = badness, record
    columns = min(5, len(worst))
    figure = Figure(figsize=(2.6 * columns, 2.9 * -(-len(worst) // columns)), layout="constrained")
    for i, (model, (_, record)) in enumerate(sorted(worst.items())):
        module, _ = load(Run.existing(record.path), record.config, "ema", trust=False)
        with torch.no_grad():
            x = module.generate(NoiseStream(0), most).cpu()
        density = build(OmegaConf.to_container(OmegaConf.create(record.config["data"]["density"])))
        axes = figure.add_subplot(-(-len(worst) // columns), columns, i + 1, aspect="equal")
        limit = 1.25 * density.centres.abs().max().item()
        axes.scatter(*density.centres.T, s=60, facecolors="none", edgecolors="tab:orange", linewidths=0.8)
        axes.scatter(*x.T, s=1, color="tab:blue", alpha=0.4, linewidths=0)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[])
        modes, quality = (record.metrics[name].value for name in ("modes", "high_quality"))
        axes.set_title(f"{model}\n{modes:.0f} modes, {quality:.0f} %, seed {record.seed}", fontsize=8)
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["rows", *paths]:
            rows(list(map(Path, paths)))
        case ["picture", file, folder]:
            picture(file, Path(folder))
        case [sweep, outputs, *overrides]:
            run(sweep, outputs, overrides)
        case _:
            print(__doc__)
