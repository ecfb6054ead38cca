"""What is served is what was written, or it is written again."""

import json
import multiprocessing
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.data.cache import Blocks, Manifest, intact, load, prepared
from genlab.errors import GenlabError

X = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 4), dtype=np.uint8)
Y = np.arange(10, dtype=np.int64)


class Make:
    """A source of ten images that counts how often it is read."""

    def __init__(self, labels: bool = True, fail: bool = False, wait: float = 0.0):
        self.labels, self.fail, self.wait, self.calls = labels, fail, wait, 0

    def __call__(self) -> tuple[Manifest, Blocks]:
        self.calls += 1
        return {"source": "ten"}, self.blocks()

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for i in (0, 4, 8):
            time.sleep(self.wait)
            if self.fail and i == 8:
                raise GenlabError("row 8 is bad")
            yield X[i : i + 4], Y[i : i + 4] if self.labels else None


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_what_is_written_is_served(
    tmp_path: Path, mapped: bool, labels: bool, recwarn: pytest.WarningsRecorder
) -> None:
    batch = load(tmp_path, "train", prepared(tmp_path, "train", Make(labels)), mapped)
    assert torch.equal(batch.x, torch.from_numpy(X))
    assert torch.equal(batch.y, torch.from_numpy(Y)) if labels else batch.y is None
    assert torch.equal(batch.x.index_select(0, torch.tensor([7, 0])), torch.from_numpy(X[[7, 0]]))
    assert not recwarn.list


def test_a_prepared_split_is_not_read_again(tmp_path: Path) -> None:
    make = Make()
    for _ in range(2):
        prepared(tmp_path, "train", make)
    prepared(tmp_path, "test", make)
    assert make.calls == 2


def test_a_half_written_split_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match="row 8"):
        prepared(tmp_path, "train", Make(fail=True))
    assert intact(tmp_path, "train") is None
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    make = Make()
    assert prepared(tmp_path, "train", make)["shape"] == [10, 3, 4, 4]
    assert make.calls == 1


def test_a_split_that_fails_leaves_the_other_one(tmp_path: Path) -> None:
    prepared(tmp_path, "train", Make())
    with pytest.raises(GenlabError):
        prepared(tmp_path, "test", Make(fail=True))
    assert intact(tmp_path, "train") is not None


def flip_a_bit(path: Path, keep_time: bool) -> None:
    state, data = path.stat(), bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + (0 if keep_time else 10**9)))


@pytest.mark.parametrize("name", ["train.x", "train.y"])
def test_a_corrupted_byte_is_found_on_opening(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make = Make()
    prepared(tmp_path, "train", make)
    flip_a_bit(tmp_path / name, keep_time=False)
    batch = load(tmp_path, "train", prepared(tmp_path, "train", make))
    assert f"{name} is not what was written there" in capsys.readouterr().err
    assert make.calls == 2
    assert torch.equal(batch.x, torch.from_numpy(X))
    assert torch.equal(batch.y, torch.from_numpy(Y))


def test_a_silent_corruption_is_found_when_all_is_read(tmp_path: Path) -> None:
    make = Make()
    prepared(tmp_path, "train", make)
    flip_a_bit(tmp_path / "train.x", keep_time=True)
    assert intact(tmp_path, "train") is not None
    assert intact(tmp_path, "train", thorough=True) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": {"train.x": {}}}'])
def test_a_manifest_that_is_none_is_written_again(tmp_path: Path, text: str) -> None:
    make = Make()
    prepared(tmp_path, "train", make)
    (tmp_path / "train.json").write_text(text)
    assert prepared(tmp_path, "train", make)["shape"] == [10, 3, 4, 4]
    assert make.calls == 2


def test_truncated_and_missing_files_are_written_again(tmp_path: Path) -> None:
    make = Make()
    prepared(tmp_path, "train", make)
    os.truncate(tmp_path / "train.x", 100)
    prepared(tmp_path, "train", make)
    (tmp_path / "train.y").unlink()
    prepared(tmp_path, "train", make)
    assert make.calls == 3


def test_a_shorter_file_of_the_same_time_is_written_again(tmp_path: Path) -> None:
    make = Make()
    prepared(tmp_path, "train", make)
    state = (tmp_path / "train.x").stat()
    os.truncate(tmp_path / "train.x", 100)
    os.utime(tmp_path / "train.x", ns=(state.st_atime_ns, state.st_mtime_ns))
    prepared(tmp_path, "train", make)
    assert make.calls == 2


def test_a_copied_folder_is_verified_once_and_served(tmp_path: Path) -> None:
    make = Make()
    prepared(tmp_path / "here", "train", make)
    for path in (tmp_path / "here").iterdir():
        os.utime(path, (0, 0))
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copyfile)
    prepared(tmp_path / "there", "train", make)
    assert make.calls == 1
    recorded = json.loads((tmp_path / "there" / "train.json").read_text())["files"]["train.x"]["mtime_ns"]
    assert recorded == (tmp_path / "there" / "train.x").stat().st_mtime_ns


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match="the test split of ten has no image"):
        prepared(tmp_path, "test", lambda: ({"source": "ten"}, iter(())))


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the kernel refuses the write in the same place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(GenlabError, match=r"cannot write the prepared data .* free some space"):
            prepared(tmp_path, "train", Make())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GenlabError, match="set GENLAB_CACHE"):
        prepared(tmp_path / "file" / "folder", "train", Make())


def _prepare(folder: Path, calls: Path) -> None:
    make = Make(wait=0.05)
    assert prepared(folder, "train", make)["shape"] == [10, 3, 4, 4]
    with open(calls, "a") as file:
        file.write(f"{make.calls}\n")


def test_of_two_processes_one_prepares_and_one_waits(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_prepare, args=(tmp_path / "data", tmp_path / "calls")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted((tmp_path / "calls").read_text().split()) == ["0", "1"]
