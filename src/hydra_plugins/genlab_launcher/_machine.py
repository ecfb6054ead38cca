"""What this machine offers to the jobs of a sweep: cores, CUDA devices, and slots made of them."""

import os
import shutil
import subprocess


def cores() -> int:
    """Cores that this process may use, which on a shared machine are fewer than it has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[str]:
    """Visible CUDA devices, named as CUDA_VISIBLE_DEVICES names them, found without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listing = subprocess.run(["nvidia-smi", "-L"], check=False, capture_output=True, text=True, timeout=30).stdout
    return [str(index) for index, _ in enumerate(line for line in listing.splitlines() if line.startswith("GPU "))]


def slots(jobs: int | None, threads: int | None, wanted: int) -> list[dict[str, str]]:
    """The environment of each place where a job can run: its share of the cores and of the devices."""
    cards = devices()
    at_once = jobs or len(cards) or cores()
    places = []
    for index in range(min(at_once, wanted)):
        share = str(threads or max(1, cores() // min(at_once, wanted)))
        place = {"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share}
        if cards:
            # Fewer jobs than cards: several cards for each. More jobs than cards: they take turns in sharing one.
            place["CUDA_VISIBLE_DEVICES"] = ",".join(cards[index::at_once] or [cards[index % len(cards)]])
        places.append(place)
    return places
