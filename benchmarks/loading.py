"""How fast images reach a batch: genlab from memory and from the memory map against `datasets` under a DataLoader.

Run: python benchmarks/loading.py [rounds]. The same 50,000 images of 32x32x3 in batches of 128, in random order, as uint8
tensors on the CPU; the sides take turns in one process and the medians of their rates are compared. Then: 10,000 PNGs from a
folder into the cache, opening what is there, and the peak of resident memory of a process that prepares a parquet file of
4 GiB of pixels in one row group, to be larger than memory in small.
"""

import io
import json
import os
import statistics
import subprocess
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

from genlab.data.images import Images
from genlab.data.loader import TrainLoader
from genlab.data.serving import chosen
from genlab.data.source import Batch

N, BATCH, PNGS = 50_000, 128, 10_000
IMAGES = {"ours": 4096 * BATCH, "theirs": 24 * BATCH}  # counted in one round
SIDE, LARGE = 256, 2**32 // (3 * 256 * 256)  # of the images whose pixels are 4 GiB, and how many these are
CPU = torch.device("cpu")


Rate = tuple[float, float]  # images in a second, and in a second of this process's own time, which others cannot take


def ours(data: Batch, serve: str) -> Callable[[], Rate]:
    place = chosen(serve, data, CPU, 1.0)
    data = place(data, CPU)

    def rate() -> Rate:
        count = 0
        started, own = time.perf_counter(), time.process_time()
        for batch in TrainLoader(data, BATCH, 0, 0, IMAGES["ours"] // BATCH, ahead=place.ahead):
            count += len(batch.x)
        return count / (time.perf_counter() - started), count / (time.process_time() - own)

    return rate


def theirs(dataset: Any, workers: int) -> Callable[[], Rate]:
    def rate() -> Rate:
        batches = iter(DataLoader(dataset, BATCH, shuffle=True, num_workers=workers))
        count = len(next(batches)["image"]) * 0  # workers have started
        started, own = time.perf_counter(), time.process_time()
        while count < IMAGES["theirs"]:
            count += len(next(batches)["image"])
        return count / (time.perf_counter() - started), count / (time.process_time() - own)

    return rate


def png(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "PNG")
    return buffer.getvalue()


def serving(folder: Path, rounds: int) -> dict[str, list[Rate]]:
    """Rates of every side, in every round."""
    from datasets import Dataset, Features, Value
    from datasets import Image as Picture

    x = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)
    y = np.arange(N) % 10
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    images = Images("loading", [3, 32, 32], 10, str(folder), path=str(folder / "data.npz"))
    features = Features({"image": Picture(), "label": Value("int64")})
    cells = [{"bytes": png(image), "path": None} for image in x[: 2 * IMAGES["theirs"]]]
    columns = {"image": cells, "label": y[: len(cells)].tolist()}
    dataset = Dataset.from_dict(columns, features=features).with_format("torch")
    sides = {
        "genlab, memory": ours(images.split("train"), "memory"),
        "genlab, memory map": ours(images.split("train"), "map"),
        "datasets, DataLoader": theirs(dataset, 0),
        "datasets, DataLoader of 2 workers": theirs(dataset, 2),
    }
    rates: dict[str, list[Rate]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name in sides if i % 2 else reversed(sides):
            rate = sides[name]()
            rates[name] += [rate] if i else []  # the first is warming up
    return rates


def preparing(folder: Path, rounds: int) -> dict[str, float]:
    """Median seconds of preparing a folder of PNGs, and of opening it afterwards."""
    photos = folder / "photos"
    photos.mkdir()
    for i, x in enumerate(np.random.default_rng(1).integers(0, 256, (PNGS, 32, 32, 3), dtype=np.uint8)):
        (photos / f"{i:05d}.png").write_bytes(png(x))
    seconds: dict[str, list[float]] = {"prepare": [], "open": []}
    for i in range(rounds):
        for taken in seconds.values():
            started = time.perf_counter()
            images = Images("photos", [3, 32, 32], 0, str(folder / str(i)), path=str(photos))
            count = sum(len(images.split(split).x) for split in ("train", "test"))
            taken.append(time.perf_counter() - started)
            assert count == PNGS
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {"PNGs": PNGS, "seconds to prepare": median["prepare"], "milliseconds to open": 1000 * median["open"]}


def larger_than_memory(folder: Path) -> dict[str, float]:
    """The peak of resident memory of a process that prepares LARGE images from one row group of a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    coarse = np.random.default_rng(2).integers(0, 256, (64, 24, 24, 3), dtype=np.uint8)
    cells = [png(np.asarray(Image.fromarray(x).resize((SIDE, SIDE)))) for x in coarse]
    path = folder / "large.parquet"
    table = pa.table({"image": [cells[i % len(cells)] for i in range(LARGE)]})
    pq.write_table(table, path, row_group_size=LARGE, use_dictionary=False, compression="none")
    del table
    command = [sys.executable, __file__, "peak", str(path), str(folder)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"GiB of pixels": LARGE * 3 * SIDE**2 / 2**30, "MiB of the file": path.stat().st_size / 2**20, **told}


def peak(path: str, folder: str) -> dict[str, float]:
    """What the process of larger_than_memory does and tells."""
    started = time.perf_counter()
    images = Images("large", [3, SIDE, SIDE], 0, folder, path=path)
    for split in ("train", "test"):
        images.prepare(split)
    seconds = time.perf_counter() - started
    kilobytes = (
        Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    )  # getrusage tells of the parent, too
    return {"seconds": seconds, "MiB at most": int(kilobytes) / 1024}


def main() -> None:
    if sys.argv[1:2] == ["peak"]:
        print(json.dumps(peak(*sys.argv[2:])))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as folder:
        rates = serving(Path(folder), rounds)
        walls = {name: [wall for wall, _ in each] for name, each in rates.items()}
        median = {name: statistics.median(each) for name, each in walls.items()}
        spread = {name: [round(min(each)), round(max(each))] for name, each in walls.items()}
        own = {
            name: round(statistics.median(cpu for _, cpu in each)) for name, each in rates.items() if "2" not in name
        }
        print(json.dumps({"images/s": {name: round(rate) for name, rate in median.items()}, "batch": BATCH}))
        print(json.dumps({"slowest and fastest round": spread}))
        print(json.dumps({"images per second of the process's own time": own}))
        best = max(median[name] for name in median if name.startswith("datasets"))
        ratios = {name: round(median[name] / best, 1) for name in median if name.startswith("genlab")}
        print(json.dumps({"times the faster of datasets": ratios}))
        print(json.dumps(preparing(Path(folder), max(1, rounds // 2))))
        print(json.dumps(larger_than_memory(Path(folder))))
    cores = {"cores": os.cpu_count(), "load of the last minute": round(os.getloadavg()[0], 2)}
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "rounds": rounds, **cores}))


if __name__ == "__main__":
    main()
