"""Which of a run's processes this is, as whoever launched it says: Lightning, torchrun or SLURM; before there is a group."""

import os

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")


def leader() -> bool:
    """Whether this process writes the run's files: of no rank but 0, on no node but the first."""
    return all(int(os.environ.get(name) or 0) == 0 for name in RANKS)


def local_rank() -> int:
    """The number of this process on its node, and of its device."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)
