"""A job of a sweep on SLURM: one submission by submitit, whose tasks are the ranks of the run."""

import os
import runpy
import shutil
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import CompactHydraException

TIMEOUTS = 1000  # how often a job may reach the end of its time and go back into the queue
REQUEUED = -1  # with which submitit leaves what it has put back into the queue


class Task:
    """`python -m MODULE OVERRIDES` within one task of a submission, which returns its exit code.

    In a fresh process of its own anyway: Lightning finds SLURM's ranks in the environment, and starts none.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], report: str, folder: str):
        self.command, self.environment, self.report, self.folder = list(command), dict(environment), report, folder

    def __call__(self) -> int:
        os.chdir(self.folder)
        os.environ.update(self.environment)
        if int(os.environ.get("SLURM_PROCID", "0")) == 0:
            os.environ["GENLAB_REPORT"] = self.report
        _, flag, *rest = self.command
        sys.argv = rest if flag == "-m" else [flag, *rest]
        try:
            if flag == "-m":
                runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
            else:
                sys.path.insert(0, str(Path(flag).parent))
                runpy.run_path(flag, run_name="__main__")
        except SystemExit as leaving:
            if leaving.code == REQUEUED:
                raise  # without a result, the submission is not over
            return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except Exception:  # noqa: BLE001 - a task's failure is its exit code
            traceback.print_exc()
            return 1
        return 0

    def checkpoint(self) -> Any:
        """The same once more: the run goes on from its own checkpoint."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


class Submission:
    """A submitted job, with the part of Popen's interface that a launcher needs."""

    def __init__(self, task: Task, resources: Mapping[str, Any], log: Path):
        try:
            import submitit
        except ImportError:
            raise CompactHydraException("hydra/launcher=slurm needs submitit: pip install 'genlab[slurm]'") from None
        if shutil.which("sbatch") is None:
            raise CompactHydraException("hydra/launcher=slurm: there is no sbatch here; submit from a node that has it")
        self.log = log
        executor = submitit.AutoExecutor(folder=log.with_suffix(""), cluster="slurm", slurm_max_num_timeout=TIMEOUTS)
        executor.update_parameters(**{key: value for key, value in resources.items() if value is not None})
        self.job = executor.submit(task)
        with log.open("a") as file:
            file.write(f"$ sbatch: job {self.job.job_id}\n")

    def poll(self) -> int | None:
        """The exit code, as soon as every task has one; 1 where SLURM ended the job without."""
        if not self.job.done():
            return None
        self._copy_logs()
        try:
            return max(self.job.results(), key=abs)
        except Exception as error:  # noqa: BLE001 - lost, out of memory, cancelled: whatever SLURM says
            with self.log.open("a") as file:
                file.write(f"genlab: SLURM ended job {self.job.job_id} ({self.job.state}): {type(error).__name__}\n")
            return 1

    def send_signal(self, signum: int) -> None:
        """Send a signal to the tasks, and not to the script around them."""
        subprocess.run(["scancel", f"--signal={signum}", self.job.job_id], check=False)

    def kill(self) -> None:
        """Cancel the job."""
        subprocess.run(["scancel", self.job.job_id], check=False, stderr=subprocess.DEVNULL)

    def _copy_logs(self) -> None:
        folder = self.log.with_suffix("")
        with self.log.open("a") as file:
            for path in sorted(folder.glob(f"{self.job.job_id}_*_log.*")):
                lines = path.read_text(errors="replace").splitlines()
                file.writelines(f"{line}\n" for line in lines if not line.startswith("submitit "))
