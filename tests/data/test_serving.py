"""Where data lie is chosen by what is free there, and changes nothing of what is served."""

import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.data import serving
from genlab.data.loader import TrainLoader
from genlab.data.serving import chosen, free_memory
from genlab.data.source import Batch
from genlab.errors import GenlabError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)  # 2,400 bytes
DATA = Batch(torch.from_numpy(X), torch.arange(50))  # and 400
CPU, CUDA, META = (torch.device(name) for name in ("cpu", "cuda", "meta"))


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes that are free on a pretended GPU and on this machine."""
    free = {"device": 10_000, "host": 10_000}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free["device"], 10**9))
    monkeypatch.setattr(serving, "free_memory", lambda: free["host"])
    return free


@pytest.mark.parametrize(
    ("device", "on_device", "on_host", "ranks", "expected"),
    [
        (CUDA, 11_200, 0, 1, "device"),  # 2,800 bytes are a quarter of 11,200
        (CUDA, 11_199, 11_200, 1, "pinned"),
        (CUDA, 11_199, 11_199, 1, "map"),
        (CUDA, 11_199, 22_400, 2, "pinned"),
        (CUDA, 11_199, 22_399, 2, "map"),
        (CPU, 10**9, 11_200, 1, "memory"),
        (CPU, 10**9, 11_199, 1, "map"),
    ],
)
def test_the_first_place_in_which_the_data_fit(
    free: dict[str, int], device: torch.device, on_device: int, on_host: int, ranks: int, expected: str
) -> None:
    free |= {"device": on_device, "host": on_host}
    place = chosen("auto", DATA, device, 0.25, ranks)
    assert place.name == expected
    assert place.pins == (device is CUDA and expected != "device")
    assert bool(place.ahead) == (expected == "map"), "threads read ahead of a memory map alone"


def test_the_share_is_what_is_asked_for(free: dict[str, int]) -> None:
    assert chosen("auto", DATA, CUDA, 0.28, 1).name == "device"
    assert chosen("auto", DATA, CUDA, 0.27, 1).name == "map"
    assert chosen("auto", DATA._replace(y=None), CUDA, 0.24, 1).name == "device"


@pytest.mark.parametrize("serve", ["device", "pinned", "memory", "map"])
def test_a_place_may_be_named(free: dict[str, int], serve: str) -> None:
    free |= {"device": 0, "host": 0}
    assert chosen(serve, DATA, CUDA, 0.25).name == serve


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        ("pined", r"trainer.serve=pined; there is auto, device, memory, map; pinned memory is for CUDA"),
        ("pinned", "pinned memory is for CUDA"),
        ("memroy", "did you mean memory"),
    ],
)
def test_a_place_that_there_is_not(serve: str, message: str) -> None:
    with pytest.raises(GenlabError, match=message):
        chosen(serve, DATA, CPU, 0.25)


def on_disk(folder: Path) -> Batch:
    X.tofile(folder / "x")
    return DATA._replace(x=torch.from_numpy(np.memmap(folder / "x", np.uint8, "c", shape=X.shape)))


@pytest.mark.parametrize("serve", ["device", "memory", "map"])
@pytest.mark.parametrize("start", [0, 3])
def test_every_place_serves_the_same_from_wherever_a_run_stands(tmp_path: Path, serve: str, start: int) -> None:
    place = chosen(serve, DATA, CPU, 0.25)
    served = TrainLoader(place(on_disk(tmp_path), CPU), 16, 0, start, 9, ahead=place.ahead)
    expected = list(TrainLoader(DATA, 16, 0, 0, 9))[start:]
    for ours, theirs in zip(served, expected, strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)
        assert ours.x.dtype == torch.uint8, "normalized by the codec, on the device"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_kernel_is_told_how_a_map_is_read(tmp_path: Path) -> None:
    """At random while it is served: reading 128 KiB around each row is what makes cold maps slow."""

    def flags(x: torch.Tensor) -> list[str]:
        lines = Path("/proc/self/smaps").read_text().splitlines()
        first = next(i for i, line in enumerate(lines) if line.startswith(f"{x.data_ptr():x}-"))
        return next(line for line in lines[first:] if line.startswith("VmFlags")).split()

    (tmp_path / "x").write_bytes(bytes(10**6))
    x = torch.from_numpy(np.memmap(tmp_path / "x", np.uint8, "c"))
    assert "rr" not in flags(x)
    chosen("map", Batch(x, None), CPU, 0.25)(Batch(x, None), CPU)
    assert "rr" in flags(x)
    serving.advise(x, mmap.MADV_NORMAL)
    assert "rr" not in flags(x)


def test_what_lies_in_memory_is_the_disks_no_more(tmp_path: Path) -> None:
    data = on_disk(tmp_path)
    copied, mapped = chosen("memory", data, CPU, 0.25)(data, CPU), chosen("map", data, CPU, 0.25)(data, CPU)
    assert copied.x.data_ptr() != data.x.data_ptr()
    assert mapped.x.data_ptr() == data.x.data_ptr()


def test_batches_of_data_on_a_device_are_gathered_there() -> None:
    """The rows are drawn on the CPU as for every device, and taken where the data are."""
    place = chosen("device", DATA, META, 0.25)
    loader = TrainLoader(place(DATA, META), 16, 0, 0, 9)
    assert {index.device for index in loader._indices()} == {META}
    assert all(batch.x.device == batch.y.device == META for batch in loader)
    assert {tuple(batch.x.shape) for batch in loader} == {(16, 3, 4, 4)}


def test_batches_for_cuda_are_gathered_into_pinned_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of their own, since the one before may still be on its way to the device."""
    made, empty = list[torch.Tensor](), torch.empty

    def pinned(*size: object, dtype: torch.dtype, pin_memory: bool) -> torch.Tensor:
        assert pin_memory
        made.append(empty(*size, dtype=dtype))
        return made[-1]

    monkeypatch.setattr(
        torch, "empty", lambda *size, **more: (pinned if "pin_memory" in more else empty)(*size, **more)
    )
    batches = list(TrainLoader(DATA, 16, 0, 0, 9, pin=True))
    assert [t.data_ptr() for batch in batches for t in batch] == [t.data_ptr() for t in made]
    for ours, theirs in zip(batches, TrainLoader(DATA, 16, 0, 0, 9), strict=True):
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.y, theirs.y)


def test_free_memory_is_that_of_this_machine() -> None:
    assert 0 < free_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.gpu
@pytest.mark.parametrize("serve", ["device", "pinned", "memory", "map"])
def test_every_place_serves_a_gpu_the_same(tmp_path: Path, serve: str) -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    place = chosen(serve, DATA, device, 0.25)
    served = TrainLoader(place(on_disk(tmp_path), device), 16, 0, 0, 9, ahead=place.ahead, pin=place.pins)
    for ours, theirs in zip(served, TrainLoader(DATA, 16, 0, 0, 9), strict=True):
        assert ours.x.is_cuda == (serve == "device")
        assert ours.x.is_pinned() == (serve in ("pinned", "map"))
        assert torch.equal(ours.x.to(device, non_blocking=True).cpu(), theirs.x)
        assert torch.equal(ours.y.to(device, non_blocking=True).cpu(), theirs.y)
