"""One command as several processes on one machine, each with a device of its own and its share of the samples."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from subprocess import Popen

from genlab import processes
from genlab.errors import GenlabError

MEETING = "GENLAB_MEETING"
TIMEOUT = timedelta(minutes=30)  # that they wait for each other


@contextmanager
def together(n: int) -> Iterator[bool]:
    """Within, this command runs n times over as one group; whether this is the first, who alone writes and prints.

    Raises GenlabError for devices that there are not, and where one of the others is lost.
    """
    import torch
    import torch.distributed as dist

    cards = torch.cuda.device_count()
    if n < 1:
        raise GenlabError(f"devices={n}: at least 1 is needed")
    if cards and n > cards:
        raise GenlabError(f"devices={n}: this machine has {cards}")
    if n == 1:
        yield True
        return
    if cards == 0:
        torch.set_num_threads(max(1, torch.get_num_threads() // n))
    first = MEETING not in os.environ
    with tempfile.TemporaryDirectory() as folder:
        others = _started(n, Path(folder)) if first else []
        if first:
            os.environ[MEETING] = folder
        else:
            processes.follow()
        rank = int(os.environ.get("LOCAL_RANK", "0"))
        if cards:
            torch.cuda.set_device(rank)
        try:
            meeting = f"file://{os.environ[MEETING]}/meeting"
            backend = "nccl" if cards else "gloo"
            dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=n, timeout=TIMEOUT)
            yield first
        except RuntimeError as error:
            told = [*_said(Path(folder)), processes.lost(others), str(error)] if first else [str(error)]
            raise GenlabError(next(line for line in told if line)) from error
        finally:
            processes.end(others, 30 if sys.exc_info()[0] is None else 0)
            if dist.is_initialized():
                dist.destroy_process_group()
            if first:
                del os.environ[MEETING]


def _started(n: int, folder: Path) -> list[Popen]:
    """The same command for ranks 1 to n - 1, what they have to say in files."""
    shared = {**os.environ, MEETING: str(folder), processes.LEADER: str(os.getpid())}
    command, started = [sys.executable, *sys.orig_argv[1:]], []
    for rank in range(1, n):
        with (folder / f"{rank}.err").open("w") as stderr:
            started.append(Popen(command, env={**shared, "LOCAL_RANK": str(rank)}, stdout=stderr, stderr=stderr))
    return started


def _said(folder: Path) -> list[str]:
    """The last line of every other rank that has said something, as errors are."""
    words = [path.read_text().strip() for path in sorted(folder.glob("*.err"))]
    return [word.splitlines()[-1].removeprefix("genlab: ") for word in words if word]
