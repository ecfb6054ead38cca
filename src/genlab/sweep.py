"""genlab sweep: many runs, each a process of its own, and one report over them.

usage: genlab sweep NAME [seeds=K] [key=value ...]

  genlab sweep digits                            the runs of sweeps/digits.yaml
  genlab sweep digits seeds=3                    each of them with seeds 0, 1 and 2
  genlab sweep digits trainer.max_images=20000   what `genlab train` takes, for every run; a,b sweeps over a and b
  genlab sweep digits experiment=digits/vae      only this one
  genlab sweep digits hydra.launcher.jobs=1      one run at a time (otherwise one for each CUDA device or core)
  genlab sweep my/own.yaml                       a sweep of your own

A search draws values in place of running all of them; hydra/sweeper=random draws without learning from the results:

  genlab sweep digits experiment=digits/ddpm hydra/sweeper=optuna hydra.sweeper.trials=20 \\
      'optimizer.lr=tag(log,interval(1e-5,1e-2))' 'network.width=16,32'

Runs that are finished are not repeated, and interrupted ones continue: the same command resumes a sweep, or a search.
outputs/sweeps/NAME, or NAME-HASH where the command line changes what is swept (all but seeds=K), holds jobs.json, a log for
each run, and report/index.html; of a search, study.json and its journal.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.folders import sweeps_dir
from genlab.hints import near
from genlab.printing import say

STOPPED = (129, 130, 143)  # 128 + SIGHUP, SIGINT, SIGTERM


def find(name: str) -> Path:
    """The YAML file of a sweep, given by its name or by its path."""
    if name.endswith(".yaml"):
        if not Path(name).is_file():
            raise GenlabError(f"there is no file {name}")
        if Path(name).stem.startswith("wandb_"):
            raise GenlabError(f"{name} is for W&B's server: `wandb sweep {name}`, then `wandb agent ID`")
        return Path(name).absolute()
    names = available()
    if name not in names:
        raise GenlabError(
            f"no sweep {name!r}{near(name, names)}; there is {', '.join(names)}, or a path to a YAML file"
        )
    return sweeps_dir() / f"{name}.yaml"


def available() -> list[str]:
    """The names of the sweeps that come with genlab."""
    return sorted(path.stem for path in sweeps_dir().glob("*.yaml") if not path.stem.startswith("wandb_"))


def expanded(arguments: Sequence[str]) -> list[str]:
    """The overrides of a command line, seeds=K written as the sweep over seeds that it means."""
    overrides = []
    for argument in arguments:
        if argument.startswith("-") or "=" not in argument:
            raise GenlabError(f"sweep does not know {argument!r}: after the name come seeds=K and key=value")
        key, _, value = argument.partition("=")
        if key == "seeds":
            if not value.isdecimal() or int(value) < 1:
                raise GenlabError(f"seeds={value}: how many seeds, at least 1?")
            argument = f"seed={','.join(map(str, range(int(value))))}"
        overrides.append(argument)
    return overrides


def swept(file: Path, overrides: Sequence[str]) -> list[str]:
    """What the sweeper will make jobs of: the params of the file, replaced or joined by the command line."""
    try:
        params = OmegaConf.select(OmegaConf.load(file), "hydra.sweeper.params") or {}
    except yaml.YAMLError as error:
        raise GenlabError(f"cannot read {file}: {' '.join(str(error).split())}") from None
    items = [*(f"{key}={value}" for key, value in params.items()), *overrides]
    return list({item.partition("=")[0]: item for item in items}.values())


def multirun(flags: Sequence[str]) -> int:
    """Run the sweep through Hydra, within this process, and return its exit code."""
    from genlab import train

    # The jobs are processes of their own, so nothing ever executes this command line again.
    sys.argv[1:] = flags
    try:
        return train.main() or 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)


def folder(name: str, arguments: Sequence[str]) -> str:
    """The name of a sweep, and where its command line changes what is swept a hash of that; more seeds are the same sweep."""
    where = ("seeds=", "outputs=", "hydra.", "hydra/launcher=")
    changes = sorted(argument for argument in arguments if not argument.startswith(where))
    return f"{name}-{hashlib.sha256(json.dumps(changes).encode()).hexdigest()[:8]}" if changes else name


def records(sweep: Path) -> list[Path]:
    """What the launcher and a search write of the jobs, as far as it is there."""
    return [path for path in (sweep / "jobs.json", sweep / "study.json") if path.is_file()]


def report(sweep: Path, files: Sequence[Path]) -> None:
    """Compare the runs that the jobs in the records of a sweep have left."""
    from genlab.compare import compare

    jobs = [job for path in files for job in json.loads(path.read_text())]  # those of a study that ended before as well
    runs = list(dict.fromkeys(Path(job["run_dir"]) for job in jobs if job["run_dir"]))
    runs = [run for run in runs if (run / "config.yaml").is_file()]
    if not runs:
        raise GenlabError(f"no job left a run to compare: see the logs in {sweep}")
    compare(runs, sweep / "report").show()


def failures(files: Sequence[Path]) -> list[str]:
    """A line for each job that failed."""
    jobs = [job for path in files if path.name == "jobs.json" for job in json.loads(path.read_text())]
    failed = [job for job in jobs if job["state"] == "failed"]
    lines = [f"  {job['name']}: {job['why']} (log: {job['log']})" for job in failed]
    return (
        [f"genlab: {len(failed)} of {len(jobs)} runs failed; the same command tries them again", *lines]
        if lines
        else []
    )


def run(name: str, arguments: Sequence[str]) -> int:
    """Run a sweep to its report, and return its exit code."""
    file, overrides = find(name), expanded(arguments)
    config = preflight("train", swept(file, overrides))
    sweep = Path(config.outputs) / "sweeps" / folder(file.stem, arguments)
    earlier = {path: path.stat().st_mtime_ns for path in records(sweep)}
    alone = sweep / "config"  # folders beside the file would be groups to Hydra
    alone.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, alone / file.name)
    flags = [f"--config-dir={alone.absolute()}", f"--config-name={file.stem}", "--multirun"]
    code = multirun([*flags, *overrides, f"hydra.sweep.dir='{sweep}'"])
    written = [path for path in records(sweep) if path.stat().st_mtime_ns != earlier.get(path)]
    if code in STOPPED:
        print("genlab: stopped; the same command continues the sweep", file=sys.stderr)
    elif written:  # or Hydra refused a job's configuration
        report(sweep, written)
        for line in failures(written):
            print(line, file=sys.stderr)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """The verb: returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not arguments or {"-h", "--help"} & set(arguments):
            say(f"{(__doc__ or '').strip()}\n\nsweeps: {', '.join(available())}")
            return 0
        return run(arguments[0], arguments[1:])
    except GenlabError as error:
        print(f"genlab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the jobs, or after them
        return 130


if __name__ == "__main__":
    sys.exit(main())
