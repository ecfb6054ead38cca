"""Where the training data lie while they are served: as near to the model as they fit."""

import ctypes
import mmap
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.hints import near


def _on_device(x: Tensor, device: torch.device) -> Tensor:
    return x.to(device)


def _in_memory(x: Tensor, device: torch.device) -> Tensor:
    return x.clone()  # of a memory map: read whole


def _at_random(x: Tensor, device: torch.device) -> Tensor:
    advise(x, mmap.MADV_RANDOM)
    return x


def advise(x: Tensor, advice: int) -> None:
    """Tell the kernel how the memory of x will be read: at random it fetches no more of a file than is asked for."""
    page = x.data_ptr() % mmap.PAGESIZE  # a memory map begins with a page
    madvise = ctypes.CDLL(None).madvise
    madvise(ctypes.c_void_p(x.data_ptr() - page), ctypes.c_size_t(x.nbytes + page), ctypes.c_int(advice))


AHEAD = 8  # as many reads wait for the disk at once


@dataclass(frozen=True)
class Place:
    """One place: how data come to lie there, and how batches are taken from it."""

    name: str
    lay: Callable[[Tensor, torch.device], Tensor]
    ahead: int = 0  # batches read before they are asked for, by as many threads
    pins: bool = False  # batches are gathered into pinned memory, from which they cross over while the device computes

    def __call__(self, data: Batch, device: torch.device) -> Batch:
        """The data there; the order of rows and every byte stay."""
        return Batch(self.lay(data.x, device), None if data.y is None else self.lay(data.y, device))


DEVICE = Place("device", _on_device)
PINNED = Place("pinned", _in_memory, pins=True)
MEMORY = Place("memory", _in_memory)
MAP = Place("map", _at_random, ahead=AHEAD)
MAP_PINNED = Place("map", _at_random, ahead=AHEAD, pins=True)


def chosen(serve: str, data: Batch, device: torch.device, share: float, ranks: int = 1) -> Place:
    """The place called `serve`; of "auto" the first in which the data fit: device, memory (pinned for CUDA), memory map.

    They fit if they take at most `share` of what is free there; the host's memory is shared by `ranks` processes. Raises
    GenlabError for a place that there is not.
    """
    cuda = device.type == "cuda"
    places = {"device": DEVICE, "memory": MEMORY, "map": MAP_PINNED if cuda else MAP}
    places |= {"pinned": PINNED} if cuda else {}
    if serve in places:
        return places[serve]
    if serve != "auto":
        without = "" if cuda else "; pinned memory is for CUDA"
        raise GenlabError(
            f"trainer.serve={serve}{near(serve, list(places))}; there is auto, {', '.join(places)}{without}"
        )
    size = sum(t.nbytes for t in data if t is not None)
    if cuda and size <= share * torch.cuda.mem_get_info(device)[0]:
        return DEVICE
    if size <= share * free_memory() / ranks:
        return PINNED if cuda else MEMORY
    return places["map"]


def free_memory() -> int:
    """Bytes of memory that this machine, or its container, can give without swapping."""
    try:
        found = re.search(r"MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text())
        free = 1024 * int(found[1]) if found else 0
    except OSError:  # not Linux
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return free
