"""One command as several processes on one machine, each with a device of its own and its share of the samples."""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from subprocess import Popen

from genlab import distributed, processes
from genlab.errors import GenlabError

MEETING, RANK = "GENLAB_MEETING", "GENLAB_RANK"
TIMEOUT = timedelta(minutes=30)  # that they wait for each other


@contextmanager
def together(n: int) -> Iterator[bool]:
    """Within, this command runs n times over as one group; whether this is the first, who alone writes and prints.

    Raises GenlabError for devices that there are not. Where one of the others is lost, the first ends with its words.
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
    rank, place = int(os.environ.get(RANK, "0")), os.environ.get(MEETING)
    with tempfile.TemporaryDirectory() if place is None else nullcontext(place) as folder:
        others = _started(n, Path(folder)) if place is None else []
        if place is None:
            threading.Thread(target=_watch, args=(others, Path(folder)), name="others", daemon=True).start()
        else:
            processes.follow()
        if cards:
            torch.cuda.set_device(rank)
        try:
            backend = "nccl" if cards else "gloo"
            meeting = f"file://{folder}/meeting"
            dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=n, timeout=TIMEOUT)
            yield place is None
            dist.barrier()
        except RuntimeError:
            time.sleep(2)  # one of the others may be gone, which `_watch` has better words for
            raise
        finally:
            whole = sys.exc_info()[0] is None
            distributed.leave(whole)
            processes.end(others, 30 if whole else 0)


def _started(n: int, folder: Path) -> list[Popen]:
    """The same command for ranks 1 to n - 1, what they have to say in files."""
    shared = {**os.environ, MEETING: str(folder), processes.LEADER: str(os.getpid())}
    command, started = [sys.executable, *sys.orig_argv[1:]], []
    for rank in range(1, n):
        with (folder / f"{rank}.err").open("w") as said:
            started.append(Popen(command, env={**shared, RANK: str(rank)}, stdout=said, stderr=said))
    return started


def _watch(others: list[Popen], folder: Path) -> None:
    """End the command when one of the others has ended badly, even while a collective waits for it."""
    while others:
        time.sleep(0.2)
        for rank, process in enumerate([*others], 1):
            if process.poll():
                said = (folder / f"{rank}.err").read_text().strip().splitlines()
                print(said[-1] if said else f"genlab: {processes.lost([*others])}", file=sys.stderr)
                processes.end(others, 0)
                for file in folder.iterdir():
                    file.unlink()
                folder.rmdir()
                os._exit(2)
