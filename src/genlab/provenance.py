"""Where a run came from: enough to say what code, machine and command made it, and to start it again."""

import hashlib
import os
import platform
import shlex
import socket
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from genlab.redaction import redacted

LARGEST = 1 << 20  # characters of a diff that is kept
TOLD = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID", "SLURM_RESTART_COUNT", "CUBLAS_WORKSPACE_CONFIG")


def environment() -> dict[str, Any]:
    """The command, the machine, the devices and the version of everything that is installed, secrets blanked."""
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": redacted(shlex.join([sys.executable, *_program(), *sys.argv[1:]])),
        "folder": os.getcwd(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": cards or ["cpu"],
        "cuda": torch.version.cuda if cards else None,
        "cudnn": torch.backends.cudnn.version() if cards else None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "variables": {name: os.environ[name] for name in TOLD if name in os.environ},
        "packages": dict(sorted({d.name: d.version for d in distributions()}.items(), key=lambda p: p[0].lower())),
    }


def code() -> tuple[dict[str, Any] | None, str]:
    """(commit, branch, changed files of genlab's own clone, the diff of what is not committed); (None, "") where there is
    none, as of an installed wheel. Files that git does not know are named, and are not in the diff."""
    package = Path(__file__).parent
    if _git(package, "ls-files", "--error-unmatch", "errors.py") is None:  # some other repository's folder, or none
        return None, ""
    diff = redacted(_git(package, "diff", "HEAD") or "")[:LARGEST]
    return {
        "commit": (_git(package, "rev-parse", "HEAD") or "").strip(),
        "branch": (_git(package, "rev-parse", "--abbrev-ref", "HEAD") or "").strip(),
        "changed": [line for line in (_git(package, "status", "--porcelain") or "").splitlines() if line],
        "diff": f"code-{hashlib.sha256(diff.encode()).hexdigest()[:10]}.diff" if diff else None,
    }, diff


def _program() -> list[str]:
    """`-m genlab.train`, or the script that was started."""
    spec = sys.modules["__main__"].__spec__
    return ["-m", spec.name] if spec else [sys.argv[0]]


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
