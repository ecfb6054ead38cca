"""hydra/launcher=slurm against a cluster that is a stub: what is asked of it, how jobs end, and ranks that are its tasks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genlab.config import preflight

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
import hydra

@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg):
    rank = os.environ["SLURM_PROCID"]
    seen = {name: value for name, value in os.environ.items() if name.startswith(("SLURM", "WANDB", "GENLAB"))}
    Path(f"seen-{cfg.x}-{rank}.json").write_text(json.dumps(seen))
    if cfg.x == 13:
        raise ValueError("unlucky")
    if cfg.x == 14 and not Path("saved").exists():
        ours = signal.signal(signal.SIGUSR2, lambda *_: Path(f"saved").touch())
        Path(f"ready-{rank}").touch()
        while not Path("saved").exists():
            time.sleep(0.05)
        time.sleep(0.3)
        if rank == "0":
            ours(signal.SIGUSR2, None)  # as Guard does: submitit puts the job back
        sys.exit(0)
    if cfg.x == 15:
        def leave(*_):
            sys.exit(143)
        signal.signal(signal.SIGTERM, leave)
        Path(f"ready-{rank}").touch()
        time.sleep(60)
    if rank == "0":
        report = {"run_dir": f"runs/{cfg.x}", "phase": "finished", "objective": cfg.x / 2}
        Path(os.environ["GENLAB_REPORT"]).write_text(json.dumps(report))

if __name__ == "__main__":
    main()
"""

CONFIG = """
defaults: [override hydra/launcher: genlab, override hydra/job_logging: stdout, _self_]
x: 0
hydra: {run: {dir: runs}, sweep: {dir: sweep}, output_subdir: null, launcher: {jobs: 1, slurm: {
  name: genlab, nodes: 1, tasks_per_node: 2, gpus_per_node: 2, timeout_min: 30, mem_gb: null, slurm_partition: gpu,
  slurm_signal_delay_s: 60}}}
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the stub's, and the working directory."""
    stub = Path(__file__).parent / "slurm_stub.py"
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun", "sacct", "scancel", "scontrol"):
        (tmp_path / "bin" / name).write_text(f"#!{sys.executable}\n{stub.read_text()}")
        (tmp_path / "bin" / name).chmod(0o755)
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_STUB", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path


def start(*arguments: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "program.py", "-m", *arguments], **pipes)


def wait(*paths: Path) -> None:
    for _ in range(600):
        if all(path.exists() for path in paths):
            return
        time.sleep(0.1)
    pytest.fail(f"{paths} never came")


def calls(folder: Path, name: str) -> list[str]:
    return [line for line in (folder / "calls").read_text().splitlines() if line.split()[0] == name]


def record(folder: Path) -> dict:
    (job,) = json.loads((folder / "sweep" / "jobs.json").read_text())
    return job


def test_a_job_is_one_submission_whose_tasks_are_its_ranks(cluster: Path) -> None:
    process = start("x=3")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    script = (cluster / "script").read_text()
    for flag in (
        "ntasks-per-node=2",
        "gpus-per-node=2",
        "nodes=1",
        "partition=gpu",
        "job-name=genlab",
        "signal=USR2@60",
    ):
        assert f"#SBATCH --{flag}\n" in script
    assert len(calls(cluster, "sbatch")) == len(calls(cluster, "srun")) == 1
    first, second = (json.loads((cluster / f"seen-3-{rank}.json").read_text()) for rank in (0, 1))
    assert (first["SLURM_LOCALID"], second["SLURM_LOCALID"]) == ("0", "1")
    assert first["WANDB_RUN_GROUP"] == second["WANDB_RUN_GROUP"] == "sweep"
    assert "GENLAB_REPORT" in first
    assert "GENLAB_REPORT" not in second, "one rank reports"
    assert (record(cluster)["state"], record(cluster)["objective"]) == ("finished", 1.5)


def test_a_task_that_fails_fails_its_job_and_says_why(cluster: Path) -> None:
    process = start("x=13")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "ValueError: unlucky" in out
    assert "Traceback" not in err
    assert (record(cluster)["state"], record(cluster)["exit_code"]) == ("failed", 1)


@pytest.mark.slow
def test_slurms_own_signal_puts_the_job_back_once_and_the_sweep_waits_for_it(cluster: Path) -> None:
    process = start("x=14")
    wait(cluster / "ready-0", cluster / "ready-1")
    subprocess.run(["scancel", f"--signal={signal.SIGUSR2.value}", "7"], check=True)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert calls(cluster, "scontrol") == ["scontrol requeue 7"]
    assert len(calls(cluster, "srun")) == 2
    assert (record(cluster)["state"], record(cluster)["objective"]) == ("finished", 7.0)


@pytest.mark.slow
def test_stopping_the_sweep_stops_its_jobs(cluster: Path) -> None:
    process = start("x=15")
    wait(cluster / "ready-0", cluster / "ready-1")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert calls(cluster, "scancel")[0] == f"scancel --signal={signal.SIGTERM.value} 7"
    assert record(cluster)["state"] == "preempted"


def test_tasks_per_node_equal_the_devices() -> None:
    config = preflight("train", ["hydra/launcher=slurm", "trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2"])
    assert config.trainer.devices == 4
    from hydra import compose, initialize_config_dir

    from genlab.folders import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        whole = compose(
            "train", ["hydra/launcher=slurm", "trainer.devices=4", "trainer.num_nodes=2"], return_hydra_config=True
        )
        slurm = whole.hydra.launcher.slurm
        assert (slurm.tasks_per_node, slurm.gpus_per_node, slurm.nodes) == (4, 4, 2)


@pytest.mark.slow
def test_a_run_of_two_ranks_on_slurm_is_one_run(cluster: Path) -> None:
    """The whole of genlab, its ranks being SLURM's tasks."""
    tiny = [
        "experiment=digits/vae",
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.batch=32",
        "trainer.max_images=96",
    ]
    tiny += ["evaluation.n=8", "evaluation.floors=[]", "evaluation.likelihood=false", "logger=none", "outputs=out"]
    line = [
        sys.executable,
        "-m",
        "genlab.train",
        "-m",
        *tiny,
        "hydra/launcher=slurm",
        "hydra.launcher.slurm.gpus_per_node=null",
    ]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    logs = "".join(path.read_text() for path in cluster.glob("out/sweeps/train/*.log"))
    assert done.returncode == 0, done.stderr + logs
    (status,) = cluster.glob("out/digits/vae/*/status.json")
    assert json.loads(status.read_text())["state"] == "finished"
    assert json.loads(status.read_text())["images_seen"] == 96
    history = (status.parent / "history.jsonl").read_text().splitlines()
    assert len({json.loads(row)["images_seen"] for row in history}) == len(history), "one rank writes"
    assert len((status.parent / "environment.jsonl").read_text().splitlines()) == 1
    again = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stderr
    logs = "".join(path.read_text() for path in cluster.glob("out/sweeps/train/*.log"))
    assert logs.count("already finished") == 2, "both ranks leave at once"


@pytest.mark.slow
def test_slurms_signal_in_a_batch_saves_requeues_and_goes_on(cluster: Path) -> None:
    """The whole of genlab: all ranks leave at one batch, the job is put back once, and the second time it comes to its end."""
    (cluster / "calls").write_text(
        "sbatch\n" * 100
    )  # the ranks' port is made of the job's number, and other tests have job 7
    tiny = [
        "experiment=digits/vae",
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.batch=32",
        "trainer.max_images=32000",
    ]
    tiny += ["trainer.log_every=320", "trainer.validate_every=0", "evaluation.n=0", "logger=none", "outputs=out"]
    more = ["hydra/launcher=slurm", "hydra.launcher.slurm.gpus_per_node=null"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-m", "genlab.train", "-m", *tiny, *more], **pipes)
    for _ in range(600):
        if [*cluster.glob("out/digits/vae/*/history.jsonl")]:
            break
        time.sleep(0.1)
    subprocess.run(["scancel", f"--signal={signal.SIGUSR2.value}", "107"], check=True)
    _, err = process.communicate(timeout=300)
    logs = "".join(path.read_text() for path in cluster.glob("out/sweeps/train/*.log"))
    assert process.returncode == 0, err + logs
    assert calls(cluster, "scontrol") == ["scontrol requeue 107"]
    assert len(calls(cluster, "srun")) == 2
    (status,) = cluster.glob("out/digits/vae/*/status.json")
    found = json.loads(status.read_text())
    assert (found["state"], found["images_seen"]) == ("finished", 32000)
    assert len((status.parent / "environment.jsonl").read_text().splitlines()) == 2, "it was started twice"
    seen = [json.loads(row)["images_seen"] for row in (status.parent / "history.jsonl").read_text().splitlines()]
    assert seen == list(range(320, 32001, 320)), "nothing is missing, and nothing is there twice"
