"""The search, on a tiny Hydra program: what is drawn, what is told, what survives, and that time decides nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose, initialize
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_plugins.genlab_sweeper._study import Study, distribution

PROGRAM = """
import json, os, sys, time
from pathlib import Path
import hydra

@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg):
    with open("ran", "a") as file:
        file.write(json.dumps([os.getpid(), cfg.x, cfg.kind]) + "\\\\n")
    if cfg.kind == "broken":
        raise ValueError("it broke")
    time.sleep(cfg.sleep)
    report = {"run_dir": f"runs/{cfg.x}", "phase": "finished", "objective": None if cfg.blind else (cfg.x - 3) ** 2}
    Path(os.environ["GENLAB_REPORT"]).write_text(json.dumps(report))

if __name__ == "__main__":
    main()
"""

CONFIG = """
defaults: [override hydra/launcher: genlab, override hydra/sweeper: random, override hydra/job_logging: stdout, _self_]
x: 0.0
kind: good
sleep: 0
blind: false
hydra: {run: {dir: runs}, sweep: {dir: sweep}, output_subdir: null, launcher: {jobs: 2}}
"""

SAMPLER = {"_target_": "optuna.samplers.TPESampler", "multivariate": True, "constant_liar": True, "n_startup_trials": 4}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM.replace("\\\\n", "\\n"))
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "program.py", "-m", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, **pipes)


def search(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def trials(folder: Path) -> list[dict]:
    return json.loads((folder / "sweep" / "study.json").read_text())


def ran(folder: Path) -> list[list]:
    return [json.loads(line) for line in (folder / "ran").read_text().splitlines()]


def swept(*texts: str) -> list:
    return OverridesParser.create().parse_overrides(list(texts))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=interval(1e-5,1e-2)", FloatDistribution(1e-5, 1e-2)),
        ("a=tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=int(tag(log,interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("a=range(2,9,3)", IntDistribution(2, 8, step=3)),  # 9 is not among 2, 5, 8
        ("a=range(2,9)", IntDistribution(2, 8)),
        ("a=range(0,1,0.25)", CategoricalDistribution(["0.0", "0.25", "0.5", "0.75"])),
        ("a=ddpm,edm", CategoricalDistribution(["ddpm", "edm"])),
        ("a=[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
        ("a=1e-3,'two words'", CategoricalDistribution(["0.001", "'two words'"])),
    ],
)
def test_hydras_grammar_says_what_is_drawn(text: str, expected: object) -> None:
    assert distribution(swept(text)[0]) == expected


@pytest.mark.parametrize("text", ["a=interval(2,1)", "a=tag(log,interval(0,1))", "a=range(3,3)"])
def test_what_cannot_be_drawn_from_is_refused(text: str) -> None:
    with pytest.raises(CompactHydraException, match="a="):
        distribution(swept(text)[0])


def objectives(folder: Path, n: int, parallel: int, seed: int = 0, stop: Sequence[int] = ()) -> list[float]:
    """x of each trial of a search for the least (x - 3)², its process dying after the batches in `stop`, untold."""
    batches = 0
    while True:
        with Study(folder, swept("x=interval(0,10.0)"), ["a=1"], "minimize", seed, SAMPLER) as study:
            while batch := study.batch(n, parallel):
                batches += 1
                if batches in stop:
                    break
                for trial in batch:
                    study.tell(trial, (trial.params["x"] - 3) ** 2, "", f"runs/{trial.number}")
            else:
                return [t.params["x"] for t in study.study.trials]


def test_a_study_depends_on_its_seed_and_nothing_else(tmp_path: Path) -> None:
    whole = objectives(tmp_path / "a", 14, 2)
    assert objectives(tmp_path / "b", 14, 2) == whole
    assert objectives(tmp_path / "c", 14, 2, stop=(1, 4, 5)) == whole, "nor on where it was interrupted"
    assert objectives(tmp_path / "d", 6, 2) == whole[:6]
    assert objectives(tmp_path / "d", 14, 2) == whole, "nor on having been extended"
    assert objectives(tmp_path / "e", 14, 2, seed=1) != whole
    assert len(set(whole)) == 14, "no sampler that starts anew repeats itself"


def test_the_search_searches(tmp_path: Path) -> None:
    found = objectives(tmp_path / "a", 24, 2)
    assert sum(abs(x - 3) for x in found[-10:]) < sum(abs(x - 3) for x in found[:10]) / 2


def test_another_question_is_another_study(tmp_path: Path) -> None:
    for fixed in (["a=1"], ["a=2"]):
        with Study(tmp_path, swept("x=interval(0,1)"), fixed, "minimize", 0, SAMPLER) as study:
            assert study.ended == 0
            (trial,) = study.batch(1, 5)
            study.tell(trial, 1.0, "", None)
    with Study(tmp_path, swept("x=interval(0,1)"), ["a=2"], "minimize", 0, SAMPLER) as study:
        assert study.ended == 1


def test_a_journal_whose_last_line_was_cut_off_and_a_lock_that_was_left_are_no_end(tmp_path: Path) -> None:
    objectives(tmp_path, 3, 1)
    with open(tmp_path / "study.journal", "a") as file:
        file.write('{"op_code": 5, "worker')
    (tmp_path / "study.journal.lock").touch()
    assert len(objectives(tmp_path, 5, 1)) == 5


def test_two_searches_in_one_folder_are_refused(tmp_path: Path) -> None:
    arguments = (tmp_path, swept("x=interval(0,1)"), [], "minimize", 0, SAMPLER)
    with Study(*arguments), pytest.raises(CompactHydraException, match="another process"), Study(*arguments):
        pass


def test_a_failed_trial_is_told_as_failed_and_the_others_go_on(program: Path) -> None:
    code, out, err = search(program, "x=interval(0.0,10.0)", "kind=good,broken", "hydra.sweeper.trials=6")
    assert code == 1
    states = {(t["params"]["kind"], t["state"]) for t in trials(program)}
    assert states == {("good", "complete"), ("broken", "failed")}
    assert len(trials(program)) == 6
    broken = sum(t["state"] == "failed" for t in trials(program))
    assert f"{broken} of 6 trials failed" in err
    assert err.count("ValueError: it broke") == broken
    assert "Traceback" not in err
    best = min((t["objective"], t["number"]) for t in trials(program) if t["objective"] is not None)
    assert f"best of 6 trials: {best[1]}, objective {best[0]:g}" in out
    before = len(ran(program))
    assert search(program, "x=interval(0.0,10.0)", "kind=good,broken", "hydra.sweeper.trials=6")[0] == 1
    assert len(ran(program)) == before, "nothing is run again"


@pytest.mark.slow
def test_a_stopped_search_goes_on_where_it_was(program: Path) -> None:
    arguments = ["x=interval(0.0,10.0)", "hydra.sweeper.trials=4"]
    process = start(program, *arguments, "sleep=interval(2,2.01)")
    while not (program / "ran").exists() or len(ran(program)) < 4:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=40)
    assert process.returncode == 143
    assert len(ran(program)) == 4
    code, out, err = search(program, *arguments, "sleep=interval(2,2.01)")
    assert code == 0, err
    assert "2 of 4 trials have ended already" in out
    xs = [x for _, x, _ in ran(program)]
    assert set(xs[:2]) == {t["params"]["x"] for t in trials(program)[:2]}, "two at once, whichever began first"
    assert set(xs[4:]) == set(xs[2:4]), "the interrupted ones again, with their values, and no others"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["kind=good"], "nothing to search"),
        (["x=1,2", "hydra.sweeper.trials=0"], "at least 1"),
        (["x=1,2", "hydra.sweeper.direction=down"], "minimize and maximize"),
        (["x=interval(0,1)", "blind=true", "hydra.sweeper.trials=2"], "no objective"),
    ],
)
def test_what_is_wrong_is_said(program: Path, arguments: list[str], told: str) -> None:
    code, _, err = search(program, *arguments)
    assert code == 1
    assert told in err
    assert "Traceback" not in err


def test_the_plugins_are_found_by_hydra_without_optuna() -> None:
    for name in ("optuna", "random"):
        with initialize(version_base="1.3"):
            config = compose(overrides=[f"hydra/sweeper={name}"], return_hydra_config=True)
        assert config.hydra.sweeper.sampler._target_.startswith("optuna.samplers.")
    code = "import sys, genlab.config; genlab.config.preflight('train', []); sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
