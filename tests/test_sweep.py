"""`genlab sweep`: names, seeds, one check before anything starts, and a report over whatever the jobs have left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from genlab import sweep
from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.folders import conf_dir, sweeps_dir

PROGRAM = """
import json, os, sys
from pathlib import Path
import hydra

@hydra.main(config_path=str(Path(__file__).parent / "conf"), config_name="train", version_base="1.3")
def main(cfg):
    run = Path(f"outputs/{cfg.model}-s{cfg.seed}")
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(f"group: {os.environ['WANDB_RUN_GROUP']}")
    Path(os.environ["GENLAB_REPORT"]).write_text(json.dumps({"run_dir": str(run), "phase": "finished"}))
    if cfg.model == "broken":
        sys.exit("genlab: it broke")

if __name__ == "__main__":
    main()
"""

# Stands in for `genlab sweep` where training, the check of a configuration and the report are stubs.
DRIVER = """
import sys
from pathlib import Path
import genlab.sweep as sweep, program
from genlab.errors import GenlabError
from omegaconf import OmegaConf

class Report:
    def __init__(self, runs, out): self.runs, self.out = runs, out
    def show(self): print("compared", *self.runs, "into", self.out)

class Compare:
    compare = Report

def preflight(name, overrides):
    print("checked", name, *overrides)
    if "sed=1" in overrides: raise GenlabError("no key 'sed' - did you mean seed?")
    return OmegaConf.create({"outputs": "outputs"})

sys.modules["genlab.train"], sys.modules["genlab.compare"] = program, Compare
sweep.sweeps_dir, sweep.preflight = lambda: Path("sweeps").absolute(), preflight
sys.exit(sweep.main())
"""

MINE = """
defaults: [train, override hydra/launcher: genlab, _self_]
hydra: {mode: MULTIRUN, sweeper: {params: {model: 'vae, ddpm', seed: 0}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "program.py": PROGRAM,
        "driver.py": DRIVER,
        "sweeps/mine.yaml": MINE,
        "conf/train.yaml": "defaults: [_self_]\nmodel: vae\nseed: 0\nhydra: {run: {dir: runs}, output_subdir: null}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def genlab_sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "driver.py", *arguments]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_sweep_runs_every_job_and_compares_their_runs(folder: Path) -> None:
    done = genlab_sweep(folder, "mine", "seeds=2")
    assert done.returncode == 0, done.stderr
    assert "checked train model=vae, ddpm seed=0,1" in done.stdout
    runs = [f"outputs/{model}-s{seed}" for model in ("vae", "ddpm") for seed in (0, 1)]
    assert f"compared {' '.join(runs)} into outputs/sweeps/mine/report" in done.stdout
    jobs = json.loads((folder / "outputs/sweeps/mine/jobs.json").read_text())
    assert [job["run_dir"] for job in jobs] == runs
    assert (folder / "outputs/vae-s0/config.yaml").read_text() == "group: mine"


def test_a_failed_job_fails_the_sweep_and_the_others_are_compared(folder: Path) -> None:
    done = genlab_sweep(folder, "sweeps/mine.yaml", "model=broken,vae")
    assert done.returncode == 1
    assert "failed model=broken, exit code 1: genlab: it broke" in done.stdout
    assert "compared outputs/broken-s0 outputs/vae-s0 into" in done.stdout
    assert (
        "1 of 2 runs failed; the same command tries them again\n  model=broken: genlab: it broke (log: " in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_a_typing_error_is_told_once_before_any_job_starts(folder: Path) -> None:
    done = genlab_sweep(folder, "mine", "sed=1")
    assert (done.returncode, done.stderr) == (2, "genlab: no key 'sed' - did you mean seed?\n")
    assert not (folder / "outputs").exists()


def test_what_hydra_refuses_is_not_reported_as_an_earlier_sweep(folder: Path) -> None:
    (folder / "outputs/sweeps/mine").mkdir(parents=True)
    (folder / "outputs/sweeps/mine/jobs.json").write_text('[{"run_dir": "outputs"}]')
    done = genlab_sweep(folder, "mine", "nothing=1")
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert "compared" not in done.stdout


def test_what_lies_beside_a_sweep_of_ones_own_is_no_group(folder: Path) -> None:
    (folder / "own.yaml").write_text(MINE)
    (folder / "model").mkdir()
    (folder / "seed").mkdir()
    done = genlab_sweep(folder, "own.yaml", "model=vae")
    assert done.returncode == 0, done.stderr


def test_a_sweep_of_something_else_leaves_the_records_of_the_first(folder: Path) -> None:
    for arguments in ([], ["model=vae"], ["nothing=1"]):
        genlab_sweep(folder, "mine", *arguments)
    assert len(json.loads((folder / "outputs/sweeps/mine/jobs.json").read_text())) == 2
    names = {sweep.folder("mine", a.split()) for a in ("", "seeds=3", "hydra.launcher.jobs=1 outputs=o")}
    assert names == {"mine"}
    assert sweep.folder("mine", ["a=1", "b=2", "hydra.sweeper.trials=9"]) == sweep.folder("mine", ["b=2", "a=1"])
    assert sweep.folder("mine", ["a=1"]) != sweep.folder("mine", ["a=1", "hydra/sweeper=optuna"]) != "mine"


def test_an_unknown_sweep_names_its_nearest(folder: Path) -> None:
    done = genlab_sweep(folder, "mina")
    assert done.returncode == 2
    assert done.stderr.startswith("genlab: no sweep 'mina' - did you mean mine?")
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_no_yaml_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("hydra: {sweeper: {")
    with pytest.raises(GenlabError, match=r"cannot read .*own\.yaml: [^\n]*$"):
        sweep.swept(tmp_path / "own.yaml", [])


def test_seeds_count_from_zero() -> None:
    assert sweep.expanded(["seeds=3", "a.b=1,2"]) == ["seed=0,1,2", "a.b=1,2"]
    assert sweep.expanded(["seeds=1"]) == ["seed=0"]


@pytest.mark.parametrize("argument", ["seeds=0", "seeds=-1", "seeds=two", "seeds=", "--multirun", "vae"])
def test_arguments_that_mean_nothing_are_refused(argument: str) -> None:
    with pytest.raises(GenlabError, match=argument):
        sweep.expanded([argument])


def test_help_lists_the_sweeps_without_loading_anything_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "genlab.sweep", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usage: genlab sweep NAME" in shown.stdout
    assert "sweeps: digits" in shown.stdout
    assert not {"torch", "lightning", "matplotlib"} & {
        line.split("|")[-1].strip() for line in shown.stderr.splitlines()
    }


@pytest.mark.parametrize("file", [sweeps_dir() / f"{name}.yaml" for name in sweep.available()], ids=lambda f: f.stem)
def test_the_sweeps_that_come_with_genlab_name_experiments_that_exist(file: Path) -> None:
    params = dict(item.split("=", 1) for item in sweep.swept(file, []))
    names = [name.strip() for name in params["experiment"].split(",")]
    assert [name for name in names if not (conf_dir() / f"experiment/{name}.yaml").is_file()] == []


def test_a_search_is_checked_at_one_of_its_values(monkeypatch: pytest.MonkeyPatch) -> None:
    log = "optimizer.lr=tag(log,interval(1e-5,1e-2))"
    assert preflight("train", [log, "hydra/sweeper=optuna", "hydra.sweeper.trials=3"]).optimizer.lr == 1e-5
    with pytest.raises(GenlabError, match=r"no key 'optimizer\.lrr' - did you mean optimizer\.lr"):
        preflight("train", [log.replace("lr=", "lrr="), "hydra/sweeper=optuna"])


WANDB = sorted(sweeps_dir().glob("wandb_*.yaml"))


@pytest.mark.parametrize("file", WANDB, ids=lambda file: file.stem)
def test_the_commands_of_wandbs_sweeps_are_runs_of_genlab(file: Path) -> None:
    """As W&B's agent writes them for the values that its server draws."""
    from wandb.sdk.launch.sweeps import utils

    config = yaml.safe_load(file.read_text())
    drawn = {k: v.get("value", v.get("min", v.get("values", [None])[0])) for k, v in config["parameters"].items()}
    words = utils.create_sweep_command_args({"args": {k: {"value": v} for k, v in drawn.items()}})
    words |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [config["program"]]}
    line = [
        w for c in utils.create_sweep_command(config["command"]) for w in words.get(c[2:-1] if c[0] == "$" else "", [c])
    ]
    assert line[:4] == ["/usr/bin/env", "python", "-m", "genlab.train"]
    composed = preflight("train", line[4:], check=False)
    for key, value in drawn.items():
        assert OmegaConf.select(composed, key) == value or key == "experiment"
    assert composed.model_name == "ddpm"
    run = {"metric": "fd_digits", "better": "lower"}  # as metrics.jsonl has it, and summarize() with it
    assert (config["metric"]["name"], config["metric"]["goal"]) == (run["metric"], "minimize")


def test_wandbs_sweeps_are_not_taken_for_ours() -> None:
    assert WANDB
    assert not any(name.startswith("wandb") for name in sweep.available())
    with pytest.raises(GenlabError, match="wandb sweep"):
        sweep.find(str(WANDB[0]))
    with pytest.raises(GenlabError, match="no sweep 'wandb_digits'"):
        sweep.find("wandb_digits")
