"""The processes of one run on several devices: none of them outlives the first."""

import os
import signal
import threading
import time
from subprocess import Popen, TimeoutExpired

LEADER = "GENLAB_LEADER"


def follow() -> None:
    """End this process when its leader, or whoever else started it, is gone, even while it hangs in a collective."""
    leader = int(os.environ.get(LEADER, os.getppid()))

    def watch() -> None:
        while os.getppid() == leader:
            time.sleep(0.5)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="leader", daemon=True).start()


def lost(processes: list[Popen]) -> str | None:
    """What became of ranks that have ended before the first one, in words."""
    time.sleep(0.1)  # a connection closes before its process has ended
    codes = {rank: code for rank, p in enumerate(processes, 1) if (code := p.poll()) is not None}
    words = [
        f"rank {rank} was ended by {signal.Signals(-code).name}"
        if code < 0
        else f"rank {rank} ended with exit code {code}"
        for rank, code in codes.items()
    ]
    return ", ".join(words) or None


def end(processes: list[Popen], patience: float) -> None:
    """Wait for the processes of the other ranks, and kill those that take longer.

    Lightning watches the same list, and kills this process as soon as one in it ends badly: it is empty afterwards.
    """
    own = list(processes)
    processes.clear()
    deadline = time.monotonic() + patience
    for process in own:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except TimeoutExpired:
            process.kill()
            process.wait()
