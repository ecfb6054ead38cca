"""sbatch, srun, sacct, scancel and scontrol of a cluster of one node, as whichever of them it is called; put first on PATH.

$SLURM_STUB is a folder: `calls` has every call, `script` what was submitted, `pids` the tasks, `state` the state of the last job.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ["SLURM_STUB"])


def flags() -> dict[str, str]:
    lines = (FOLDER / "script").read_text().splitlines()
    words = [line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH --")]
    return {name: value for name, _, value in words}


def job() -> str:
    """7, and one more for each submission after the first."""
    return str(6 + sum(line.startswith("sbatch") for line in (FOLDER / "calls").read_text().splitlines()))


def sbatch(script: str) -> None:
    (FOLDER / "script").write_text(Path(script).read_text())
    (FOLDER / "state").write_text("PENDING")
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen([sys.executable, __file__, "run"], start_new_session=True, **silent)
    print(f"Submitted batch job {job()}")


def run() -> None:
    tasks, nodes = flags()["ntasks-per-node"], flags()["nodes"]
    environment = {
        "SLURM_JOB_ID": job(), "SLURM_JOB_NAME": flags()["job-name"], "SLURM_NTASKS": tasks, "SLURM_NTASKS_PER_NODE": tasks,
        "SLURM_JOB_NUM_NODES": nodes, "SLURM_NNODES": nodes, "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0",
        "SLURM_JOB_NODELIST": "localhost",
    }  # fmt: skip
    while True:
        (FOLDER / "state").write_text("RUNNING")
        code = subprocess.run(
            ["bash", str(FOLDER / "script")], env={**os.environ, **environment}, check=False
        ).returncode
        if not (FOLDER / "requeue").exists():
            break
        (FOLDER / "requeue").unlink()
    (FOLDER / "state").write_text("FAILED" if code else "COMPLETED")


def srun(*arguments: str) -> None:
    options = {"--output": "", "--error": ""}
    rest = list(arguments)
    while rest[0].startswith("--"):
        flag = rest.pop(0)
        if flag in options:
            options[flag] = rest.pop(0)
    processes = []
    for rank in range(int(os.environ["SLURM_NTASKS"])):
        out, err = (options[name].replace("%j", job()).replace("%t", str(rank)) for name in ("--output", "--error"))
        environment = {**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        with open(out, "a") as opened, open(err or out, "a") as errors:
            processes.append(subprocess.Popen(rest, env=environment, stdout=opened, stderr=errors))
    (FOLDER / "pids").write_text(" ".join(str(process.pid) for process in processes))
    sys.exit(max(abs(process.wait()) for process in processes))


def sacct(*_: str) -> None:
    print(f"JobID|State|NodeList\n{job()}|{(FOLDER / 'state').read_text()}|localhost")


def scancel(*arguments: str) -> None:
    signum = next((int(a.partition("=")[2]) for a in arguments if a.startswith("--signal")), int(signal.SIGKILL))
    for pid in (FOLDER / "pids").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signum)


def scontrol(*_: str) -> None:
    (FOLDER / "requeue").touch()


if __name__ == "__main__":
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if arguments == ["run"]:
        name, arguments = "run", []
    with open(FOLDER / "calls", "a") as calls:
        calls.write(shlex.join([name, *arguments]) + "\n")
    globals()[name](*arguments)
