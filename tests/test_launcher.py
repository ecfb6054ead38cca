"""The launcher, on a tiny Hydra program: fresh processes, containment of failures, signals, and what is recorded."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize

from hydra_plugins.genlab_launcher import _machine

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
import hydra

def save(name):
    with open(name, "a") as file:
        file.write("saved ")
    time.sleep(0.3)
    sys.exit(130)

@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg):
    seen = {"pid": os.getpid(), "x": cfg.x, "deep": cfg.deep, "began": time.time(), "env": dict(os.environ)}
    Path("seen").mkdir(exist_ok=True)
    if cfg.x == 13:
        raise ValueError("unlucky\\nnumber")
    if cfg.patient:
        signal.signal(signal.SIGINT, lambda *_: save(f"saved-{cfg.x}"))
    Path(f"seen/{cfg.x}.json").write_text(json.dumps(seen))
    time.sleep(cfg.sleep)
    seen["ended"] = time.time()
    Path(f"seen/{cfg.x}.json").write_text(json.dumps(seen))
    report = {"run_dir": f"runs/{cfg.x}", "phase": cfg.phase, "images_seen": 9, "max_images": 9}
    Path(os.environ["GENLAB_REPORT"]).write_text(json.dumps(report | {"objective": cfg.x / 2, "why": cfg.why}))

if __name__ == "__main__":
    main()
"""

CONFIG = """
defaults:
  - override hydra/launcher: genlab
  - override hydra/job_logging: stdout
  - _self_
x: 0
deep: 1
sleep: 0
patient: false
phase: finished
why: null
hydra:
  run: {dir: runs}
  sweep: {dir: sweep}
  output_subdir: null
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def start(folder: Path, *arguments: str, program: str = "program.py", **environment: str) -> subprocess.Popen[str]:
    # tests that were started in the background of a script would make it deaf to Ctrl-C
    listen = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-c", listen, sys.executable, *program.split(), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes)


def sweep(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    process = start(folder, "-m", *arguments, **environment)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def records(folder: Path) -> list[dict]:
    return json.loads((folder / "sweep" / "jobs.json").read_text())


def seen(folder: Path, x: int) -> dict:
    return json.loads((folder / "seen" / f"{x}.json").read_text())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_job_is_a_fresh_process_that_takes_itself_for_no_rank(program: Path) -> None:
    ranks = dict.fromkeys(("LOCAL_RANK", "RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_PORT", "PL_GLOBAL_SEED"), "1")
    code, out, err = sweep(program, "x=1,2", "deep=7", "hydra.launcher.threads=3", **ranks)
    assert code == 0, err
    first, second = seen(program, 1), seen(program, 2)
    assert first["pid"] != second["pid"]
    assert not ranks.keys() & first["env"].keys()
    assert (first["env"]["OMP_NUM_THREADS"], first["env"]["MKL_NUM_THREADS"]) == ("3", "3")
    assert first["env"]["WANDB_RUN_GROUP"] == "sweep"
    assert first["deep"] == 7
    assert out.count("started") == 2
    assert out.count("finished") == 2


def test_what_the_sweeps_own_primary_config_sets_reaches_the_jobs(program: Path) -> None:
    (program / "sweeps").mkdir()
    sweeper = "{mode: MULTIRUN, sweeper: {params: {x: '4,5'}}}"
    (program / "sweeps" / "mine.yaml").write_text(f"defaults: [train, _self_]\ndeep: 99\nhydra: {sweeper}\n")
    process = start(program, "--config-dir=sweeps", "--config-name=mine", program="-m program")
    assert process.wait(timeout=60) == 0
    assert [seen(program, x)["deep"] for x in (4, 5)] == [99, 99]
    assert " -m program --config-name=mine " in (program / "sweep" / "0-x-4.log").read_text()


def test_a_failing_job_stops_no_other_and_fails_the_sweep(program: Path) -> None:
    code, out, err = sweep(program, "x=13,1", "hydra.launcher.jobs=1")
    assert code == 1
    assert "failed x=13, exit code 1: ValueError: unlucky (log: sweep/0-x-13.log)" in out
    assert "Traceback" not in err
    assert [(job["state"], job["exit_code"]) for job in records(program)] == [("failed", 1), ("finished", 0)]
    assert "ValueError: unlucky" in (program / "sweep" / "0-x-13.log").read_text()


def test_a_job_that_reports_failure_has_failed_whatever_its_exit_code(program: Path) -> None:
    code, out, _ = sweep(program, "x=1", "phase=failed", "why=diverged")
    assert code == 1
    assert "failed x=1" in out
    assert "diverged" in out


def test_a_job_whose_run_was_trained_further_says_so_in_its_line(program: Path) -> None:
    _, out, _ = sweep(program, "x=1", "why='trained to 48 images'")
    assert ", objective 0.5, trained to 48 images\n" in out


def test_jobs_json_tells_all_of_every_job(program: Path) -> None:
    sweep(program, "x=1,2", "deep=3")
    job = records(program)[1]
    assert job.pop("seconds") > 0
    assert job == {
        "name": "x=2",
        "overrides": ["x=2", "deep=3"],
        "run_dir": "runs/2",
        "state": "finished",
        "exit_code": 0,
        "why": None,
        "log": "sweep/1-x-2.log",
        "objective": 1.0,
    }


def test_as_many_jobs_at_once_as_asked_for(program: Path) -> None:
    sweep(program, "x=1,2,3", "sleep=0.5", "hydra.launcher.jobs=2")
    spans = [(seen(program, x)["began"], seen(program, x)["ended"]) for x in (1, 2, 3)]
    assert max(spans[0][0], spans[1][0]) < min(spans[0][1], spans[1][1])
    assert spans[2][0] > min(spans[0][1], spans[1][1])


@pytest.mark.parametrize("patient", [True, False])
def test_an_interrupt_reaches_every_job_once_and_leaves_no_orphan(program: Path, patient: bool) -> None:
    process = start(program, "-m", "x=1,2,3", "sleep=60", f"patient={patient}", "hydra.launcher.jobs=2")
    while not all((program / "seen" / f"{x}.json").is_file() for x in (1, 2)):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert not any(alive(seen(program, x)["pid"]) for x in (1, 2))
    assert not (program / "seen" / "3.json").exists()
    assert [job["state"] for job in records(program)] == ["preempted", "preempted"]
    assert [path.read_text() for path in program.glob("saved-*")] == ["saved "] * 2 * patient


def test_a_job_that_does_not_leave_is_killed(program: Path) -> None:
    text = (program / "program.py").read_text()
    deaf = text.replace(
        "    time.sleep(cfg.sleep)", "    signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    )
    impatient = "import hydra_plugins.genlab_launcher._job as job\njob.PATIENCE = 0.5\n"
    (program / "program.py").write_text(impatient + deaf)
    process = start(program, "-m", "x=1")
    while not (program / "seen" / "1.json").is_file():
        time.sleep(0.05)
    time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143
    assert not alive(seen(program, 1)["pid"])


def test_no_jobs_at_once_is_refused_in_words(program: Path) -> None:
    code, _, err = sweep(program, "x=1,2", "hydra.launcher.jobs=0")
    assert code == 1
    assert "hydra.launcher.jobs must be at least 1" in err


def test_the_plugin_is_found_by_hydra() -> None:
    with initialize(version_base="1.3"):
        config = compose(overrides=["hydra/launcher=genlab"], return_hydra_config=True)
    assert config.hydra.launcher == {
        "_target_": "hydra_plugins.genlab_launcher.launcher.GenlabLauncher",
        "jobs": None,
        "threads": None,
        "slurm": None,
    }


def cards(monkeypatch: pytest.MonkeyPatch, visible: str, jobs: int | None, wanted: int) -> list[str | None]:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    return [place.get("CUDA_VISIBLE_DEVICES") for place in _machine.slots(jobs, None, wanted)]


def test_jobs_share_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cards(monkeypatch, "4,5", None, 9) == ["4", "5"]
    assert cards(monkeypatch, "4,5,6,7", 2, 9) == ["4,6", "5,7"]
    assert cards(monkeypatch, "4,5", 3, 9) == ["4", "5", "4"]
    assert cards(monkeypatch, "4,5,6,7", None, 1) == ["4"]


def test_without_a_card_jobs_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_machine, "cores", lambda: 8)
    assert cards(monkeypatch, "", None, 20) == [None] * 8
    assert [place["OMP_NUM_THREADS"] for place in _machine.slots(2, None, 20)] == ["4", "4"]
    assert [place["OMP_NUM_THREADS"] for place in _machine.slots(None, None, 1)] == ["8"]
