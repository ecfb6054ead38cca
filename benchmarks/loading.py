"""How fast images reach a batch: genlab from memory and from the memory map against `datasets` under a DataLoader.

Run: python benchmarks/loading.py [rounds]. The same 50,000 images of 32x32x3 in batches of 128, in random order, as uint8
tensors on the CPU; the sides take turns in one process and the medians of their rates are compared. Then: 10,000 PNGs from a
folder into the cache, and opening what is there.
"""

import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from genlab.data.cache import load
from genlab.data.images import Images
from genlab.data.loader import TrainLoader
from genlab.data.source import Batch

N, BATCH, PNGS = 50_000, 128, 10_000
IMAGES = {"ours": 4096 * BATCH, "theirs": 24 * BATCH}  # counted in one round


def ours(data: Batch) -> Callable[[], float]:
    def rate() -> float:
        count = 0
        started = time.perf_counter()
        for batch in TrainLoader(data, BATCH, 0, 0, IMAGES["ours"] // BATCH):
            count += len(batch.x)
        return count / (time.perf_counter() - started)

    return rate


def theirs(dataset: Any, workers: int) -> Callable[[], float]:
    def rate() -> float:
        batches = iter(DataLoader(dataset, BATCH, shuffle=True, num_workers=workers))
        count = len(next(batches)["image"]) * 0  # workers have started
        started = time.perf_counter()
        while count < IMAGES["theirs"]:
            count += len(next(batches)["image"])
        return count / (time.perf_counter() - started)

    return rate


def png(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "PNG")
    return buffer.getvalue()


def serving(folder: Path, rounds: int) -> dict[str, float]:
    """Median images a second of every side."""
    from datasets import Dataset, Features, Value
    from datasets import Image as Picture

    x = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    y = np.arange(N) % 10
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    images = Images("loading", [3, 32, 32], 10, str(folder), path=str(folder / "data.npz"))
    features = Features({"image": Picture(), "label": Value("int64")})
    cells = [{"bytes": png(image), "path": None} for image in x[: 2 * IMAGES["theirs"]]]
    dataset = Dataset.from_dict({"image": cells, "label": y[: len(cells)].tolist()}, features=features).with_format(
        "torch"
    )
    manifest = images.prepare("train")
    sides = {
        "genlab, memory": ours(load(images.folder, "train", manifest, mapped=False)),
        "genlab, memory map": ours(load(images.folder, "train", manifest, mapped=True)),
        "datasets, DataLoader": theirs(dataset, 0),
        "datasets, DataLoader of 2 workers": theirs(dataset, 2),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name in sides if i % 2 else reversed(sides):
            rate = sides[name]()
            rates[name] += [rate] if i else []  # the first is warming up
    return {name: statistics.median(values) for name, values in rates.items()}


def preparing(folder: Path) -> dict[str, float]:
    """Seconds of preparing a folder of PNGs, and of opening it afterwards."""
    photos = folder / "photos"
    photos.mkdir()
    for i, x in enumerate(np.random.default_rng(1).integers(0, 256, (PNGS, 32, 32, 3), dtype=np.uint8)):
        (photos / f"{i:05d}.png").write_bytes(png(x))
    seconds: list[float] = []
    for _ in range(2):
        started = time.perf_counter()
        images = Images("photos", [3, 32, 32], 0, str(folder), path=str(photos))
        count = sum(len(images.split(split).x) for split in ("train", "test"))
        seconds.append(time.perf_counter() - started)
        assert count == PNGS
    return {"PNGs": PNGS, "seconds to prepare": seconds[0], "milliseconds to open": 1000 * seconds[1]}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        rates = serving(Path(folder), rounds)
        print(json.dumps({"images/s": {name: round(rate) for name, rate in rates.items()}, "batch": BATCH}))
        best = max(rates[name] for name in rates if name.startswith("datasets"))
        ratios = {name: round(rates[name] / best, 1) for name in rates if name.startswith("genlab")}
        print(json.dumps({"times the faster of datasets": ratios}))
        print(json.dumps(preparing(Path(folder))))
    cores = {"cores": os.cpu_count(), "load of the last minute": round(os.getloadavg()[0], 2)}
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "rounds": rounds, **cores}))


if __name__ == "__main__":
    main()
