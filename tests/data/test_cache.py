"""What is served is what was written, or it is written again."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.data.cache import intact, load, mapped, prepared
from genlab.data.loader import TrainLoader
from genlab.data.texts import Captions, packed
from genlab.data.writing import Block, Blocks, Manifest
from genlab.errors import GenlabError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (10, 3, 4, 4), dtype=np.uint8)
Y = np.arange(10, dtype=np.int64)


CAPTIONS = ["a", "größer", "ein 猫", "", "\n", "x" * 300, "é", "b", "c", "d"]


class Make:
    """A source of ten images that counts how often it is opened, and which of its rows are read."""

    def __init__(self, y: np.ndarray | None = Y, fail: BaseException | None = None, wait: float = 0.0):
        self.y, self.fail, self.wait, self.calls, self.read = y, fail, wait, 0, list[int]()
        self.record: Manifest = {"source": "ten"}

    def __call__(self) -> tuple[Manifest, Blocks]:
        self.calls += 1
        return self.record, self.blocks

    def blocks(self, done: int) -> Iterator[Block]:
        for i in range(done, 10, 4):
            time.sleep(self.wait)
            if self.fail is not None and i == 8:
                raise self.fail
            self.read += range(i, min(i + 4, 10))
            y = {} if self.y is None else {"y": self.y[i : i + 4]}
            captions = packed(CAPTIONS[i : i + 4])
            yield Block(len(X[i : i + 4]), {"x": X[i : i + 4], **y, **captions}, [f"row {i} is odd"])


@pytest.mark.parametrize(
    "y",
    [None, Y, RNG.random((10, 5), np.float32), RNG.integers(0, 999, (10, 7)), RNG.random((10, 2, 3)) > 0.5],
    ids=["none", "labels", "factors", "tokens", "masks"],
)
def test_what_is_written_is_served(tmp_path: Path, y: np.ndarray | None, recwarn: pytest.WarningsRecorder) -> None:
    batch = load(tmp_path, "train", prepared(tmp_path, "train", Make(y)))
    assert torch.equal(batch.x, torch.from_numpy(X))
    if y is None:
        assert batch.y is None
    else:
        assert batch.y.dtype == torch.from_numpy(y).dtype
        assert torch.equal(batch.y, torch.from_numpy(y))
        rows = next(iter(TrainLoader(batch, 3, 0, 0, 1)))
        where = [next(i for i in range(10) if np.array_equal(X[i], x)) for x in rows.x]
        assert torch.equal(rows.y, torch.from_numpy(y[where]))
    assert torch.equal(batch.x.index_select(0, torch.tensor([7, 0])), torch.from_numpy(X[[7, 0]]))
    assert not recwarn.list


def test_captions_are_read_back(tmp_path: Path) -> None:
    manifest = prepared(tmp_path, "train", Make())
    captions = Captions(*(mapped(tmp_path, f"train.{name}", manifest) for name in ("text", "lengths")))
    assert list(captions) == CAPTIONS
    assert (captions[-1], captions[2:5], len(captions)) == ("d", CAPTIONS[2:5], 10)
    with pytest.raises(IndexError):
        captions[10]


# ---------------------------------------------------------------------- interruption


def interrupted(folder: Path) -> dict[str, bytes]:
    """What is left in a folder of a preparation that was stopped after eight rows of ten."""
    with pytest.raises(KeyboardInterrupt):
        prepared(folder, "train", Make(fail=KeyboardInterrupt()))
    assert intact(folder, "train") is None
    assert not (folder / "train.x").exists()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def finished(folder: Path, make: Make) -> None:
    """Prepare, and check that all is as if it had never been interrupted."""
    manifest = prepared(folder, "train", make)
    whole = prepared(folder / "whole", "train", Make())
    for name, told in whole["files"].items():
        assert (folder / name).read_bytes() == (folder / "whole" / name).read_bytes()
        assert manifest["files"][name]["sha256"] == told["sha256"]
    assert manifest["skipped"] == whole["skipped"] == [f"row {i} is odd" for i in (0, 4, 8)]
    assert {path.name for path in folder.iterdir()} == {*whole["files"], "train.json", ".lock", "whole"}


def test_an_interrupted_preparation_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(tmp_path)
    make = Make()
    finished(tmp_path, make)
    assert make.read == [8, 9]
    assert "going on after row 8" in capsys.readouterr().err


@pytest.mark.parametrize("name", [".train.x.partial", ".train.progress"])
def test_what_was_being_written_is_written_again(tmp_path: Path, name: str) -> None:
    """Bytes after the last block are dropped, and a line that was cut off counts for nothing."""
    left = interrupted(tmp_path)
    (tmp_path / name).write_bytes(left[name] + b'{"rows": 10, "files')
    make = Make()
    finished(tmp_path, make)
    assert make.read == [8, 9]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / ".train.x.partial").unlink(),
        lambda folder: os.truncate(folder / ".train.x.partial", 100),
        lambda folder: flip_a_bit(folder / ".train.y.partial", keep_time=True),
        lambda folder: (folder / ".train.progress").write_text('{"source": "ten"}\n{"rows": 8}\n'),
        lambda folder: (folder / ".train.progress").write_text(""),
        lambda folder: (folder / ".train.progress").unlink(),
    ],
    ids=["missing", "truncated", "flipped", "strange", "empty", "unknown"],
)
def test_a_damaged_beginning_is_not_gone_on_with(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    interrupted(tmp_path)
    damage(tmp_path)
    make = Make()
    finished(tmp_path, make)
    assert make.read == list(range(10))


def test_the_beginning_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    interrupted(tmp_path)
    make = Make()
    make.record = {"source": "ten", "revision": "another"}
    assert prepared(tmp_path, "train", make)["revision"] == "another"
    assert make.read == list(range(10))


def test_a_killed_process_leaves_what_the_next_one_goes_on_with(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_cache as t; from pathlib import Path; import time;"
        "m = t.Make(wait=0.05); b = m.blocks;"
        "m.blocks = lambda done: (print(k, flush=True) or x for k, x in enumerate(b(done)));"
        f"t.prepared(Path({str(tmp_path)!r}), 'train', m)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["0\n", "1\n"]  # the second block is asked for
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert intact(tmp_path, "train") is None
    make = Make()
    finished(tmp_path, make)
    assert make.read in ([4, 5, 6, 7, 8, 9], [8, 9])


# ---------------------------------------------------------------------- what is there, and what is not


def test_a_prepared_split_is_not_read_again(tmp_path: Path) -> None:
    make = Make()
    for _ in range(2):
        prepared(tmp_path, "train", make)
    prepared(tmp_path, "test", make)
    assert make.calls == 2


def test_a_half_written_split_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match="row 8"):
        prepared(tmp_path, "train", Make(fail=GenlabError("row 8 is bad")))
    assert intact(tmp_path, "train") is None
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    make = Make()
    assert prepared(tmp_path, "train", make)["files"]["train.x"]["shape"] == [10, 3, 4, 4]
    assert make.read == list(range(10))


def test_a_split_that_fails_leaves_the_other_one(tmp_path: Path) -> None:
    prepared(tmp_path, "train", Make())
    with pytest.raises(GenlabError):
        prepared(tmp_path, "test", Make(fail=GenlabError("row 8 is bad")))
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
    assert prepared(tmp_path, "train", make)["files"]["train.x"]["shape"] == [10, 3, 4, 4]
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
        prepared(tmp_path, "test", lambda: ({"source": "ten"}, lambda done: iter(())))


@pytest.mark.parametrize("left", [0, 300, 460])
def test_a_full_disk_is_one_line(tmp_path: Path, left: int) -> None:
    """A limit on the size of files stands for it: the kernel refuses the write in the same place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, hard))
    try:
        with pytest.raises(GenlabError, match=r"cannot write in .* free some space"):
            prepared(tmp_path, "train", Make())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert prepared(tmp_path, "train", Make())["files"]["train.x"]["shape"][0] == 10


def test_a_disk_that_is_full_at_last_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(GenlabError, match=r"No space left on device\): free some space"):
        prepared(tmp_path, "train", Make())
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GenlabError, match="set GENLAB_CACHE"):
        prepared(tmp_path / "file" / "folder", "train", Make())


def _prepare(folder: Path, calls: Path) -> None:
    make = Make(wait=0.05)
    assert prepared(folder, "train", make)["files"]["train.x"]["shape"] == [10, 3, 4, 4]
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
