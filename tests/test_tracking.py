"""W&B holds what history.jsonl holds, read back from its own offline file."""

import json
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.tracking import Wandb
from genlab.training import train


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: LevelDB's log format, in blocks of 32 KiB after a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        crc, length, kind = struct.unpack_from("<IHB", data, at)
        body = data[at + 7 : at + 7 + length]
        if len(body) < length:
            return  # it is being written
        assert crc == zlib.crc32(body, zlib.crc32(bytes([kind])))
        at, parts = at + 7 + length, (body if kind in (1, 2) else parts + body)
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record


def finished(path: Path) -> list[Any]:
    """The records of a run, which W&B's own process goes on writing for a moment after the run has finished."""
    for _ in range(200):
        found = list(records(path))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        time.sleep(0.05)
    pytest.fail(f"{path} never came to its end")


def test_the_offline_run_equals_the_history(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_RUN_GROUP", "a-sweep")
    overrides = ["experiment=digits/vae", "trainer.batch=16", "trainer.max_images=96", "trainer.log_every=16"]
    overrides += ["trainer.validate_every=48", "trainer.sample_every=48", "evaluation.n=8", "logger.mode=offline"]
    train(preflight("train", overrides), outputs / "run")
    (path,) = (outputs / "run").glob("wandb/offline-run-*/*.wandb")
    found = finished(path)
    rows: list[dict[str, Any]] = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            rows.append({k: v for k, v in items.items() if not k.startswith("_")})
    scalars = [row for row in rows if not any(key.startswith("samples") for key in row)]
    assert scalars == [json.loads(line) for line in (outputs / "run" / "history.jsonl").read_text().splitlines()]
    pictures = [row for row in rows if any(key.startswith("samples") for key in row)]
    assert [row["images_seen"] for row in pictures] == [48, 96]
    (run,) = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    assert (run.run_group, run.job_type) == ("a-sweep", "train")
    assert {"vae", "digits"} <= set(run.tags)
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["model"]["latent"] == 32
    summary = {}
    for record in found:
        if record.WhichOneof("record_type") == "summary":
            summary |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update}
    metrics = [json.loads(line) for line in (outputs / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {row["metric"]: row["value"] for row in metrics}.items() <= summary.items()
    assert sum(record.WhichOneof("record_type") == "exit" for record in found) == 1


def test_no_key_is_one_line_and_no_crash(outputs: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(outputs / "none"))
    overrides = ["experiment=digits/vae", "trainer.batch=16", "trainer.max_images=16", "evaluation.n=0"]
    train(preflight("train", overrides), outputs / "run")
    assert capfd.readouterr().err.count("no W&B key found, logging offline") == 1
    assert len(list((outputs / "run").glob("wandb/offline-run-*"))) == 1


def test_an_unreachable_server_is_one_line_and_no_crash(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    import wandb
    from wandb.errors import CommError

    real = wandb.init

    def init(mode: str, **more: Any) -> Any:
        if mode == "online":
            raise CommError("Run initialization has timed out")
        return real(mode=mode, **more)

    monkeypatch.setattr(wandb, "init", init)
    overrides = ["experiment=digits/vae", "trainer.batch=16", "trainer.max_images=16", "evaluation.n=0"]
    train(preflight("train", [*overrides, "logger.mode=online"]), outputs / "run")
    assert capfd.readouterr().err.count("W&B is offline (Run initialization has timed out)") == 1
    assert len(list((outputs / "run").glob("wandb/offline-run-*"))) == 1


def test_a_run_that_fails_before_tracking_starts_says_why(outputs: Path) -> None:
    config = preflight("train", ["experiment=cifar10/ddpm", "network.width=32", "data.source.path=nowhere.npz"])
    with pytest.raises(GenlabError, match=r"nowhere\.npz"):
        train(config, outputs / "run")
    status = json.loads((outputs / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "nowhere.npz" in status["why"]


TINY = ["experiment=digits/vae", "trainer.batch=16", "trainer.max_images=64", "trainer.log_every=16", "evaluation.n=0"]


def exits(path: Path) -> list[int]:
    return [record.exit.exit_code for record in finished(path) if record.WhichOneof("record_type") == "exit"]


def tracked(folder: Path, **options: Any) -> Wandb:
    tracker = Wandb("p", mode="offline", **options)
    tracker.start(folder, {"model_name": "vae", "data": {"name": "digits"}, "seed": 0}, "train")
    return tracker


@pytest.mark.slow
def test_the_death_of_wandbs_process_is_one_line_and_the_run_goes_on(outputs: Path) -> None:
    """In a process of its own, which kills W&B's in the middle of training and must end in silence."""
    program = outputs / "program.py"
    program.write_text(KILLER)
    line = [sys.executable, str(program), *TINY, "logger.mode=offline", f"outputs={outputs}"]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed") == 1
    assert done.stderr.count("genlab: W&B is gone (Connection lost)") == 1
    assert "Traceback" not in done.stderr
    (history,) = outputs.glob("digits/vae/*/history.jsonl")
    assert [json.loads(row)["images_seen"] for row in history.read_text().splitlines()] == [16, 32, 48, 64]
    assert json.loads(history.with_name("status.json").read_text())["state"] == "finished"


KILLER = """
import os, signal, subprocess, sys, time
from genlab.callbacks.history import History
from genlab.train import main

write = History.write

def killing(self, module, row, final=False):
    write(self, module, row, final)
    if module.images_seen == 32:
        for line in subprocess.run(["ps", "-wweo", "pid,args"], capture_output=True, text=True).stdout.splitlines():
            if "wandb-core" in line and f"--pid {os.getpid()}" in line:
                os.kill(int(line.split()[0]), signal.SIGKILL)
                print("killed")
        time.sleep(0.3)

History.write = killing
sys.exit(main())
"""


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wandb").write_text("a file")
    tracker = tracked(tmp_path)
    tracker.log({"a": 1.0})
    tracker.summarize({"a": 1.0})
    tracker.finish(0)
    assert capfd.readouterr().err.count("genlab: W&B is gone") == 1


def test_without_wandb_is_one_line_and_no_crash(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    train(preflight("train", [*TINY, "logger.mode=offline"]), outputs / "run")
    assert capfd.readouterr().err.count("genlab: W&B is gone") == 1
    rows = (outputs / "run" / "history.jsonl").read_text().splitlines()
    assert [json.loads(row)["images_seen"] for row in rows] == [16, 32, 48, 64]


@pytest.mark.parametrize("code", [0, 1, 143])
def test_a_run_ends_with_its_exit_code(code: int, tmp_path: Path) -> None:
    tracked(tmp_path).finish(code)
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert exits(path) == [code]


def test_a_failed_run_ends_with_1(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genlab.callbacks.history.History.write", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(preflight("train", [*TINY, "logger.mode=offline"]), outputs / "run")
    (path,) = (outputs / "run").glob("wandb/offline-run-*/*.wandb")
    assert exits(path) == [1]


def test_an_offline_run_goes_on_as_another_of_its_group(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "1a2b-s3"
    folder.mkdir()
    ids = []
    for _ in range(2):
        tracker = tracked(folder)
        ids.append(tracker.run.id)
        tracker.finish(0)
    assert ids[0] != ids[1]
    assert f"W&B run {ids[0]} goes on as {ids[1]}, of the group 1a2b" in capfd.readouterr().err
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: ids.index(path.stem.split("-")[-1]))
    runs = [next(r.run for r in finished(path) if r.WhichOneof("record_type") == "run") for path in paths]
    assert [run.run_group for run in runs] == ["1a2b", "1a2b"]
    configured = [r.config.update for r in finished(paths[1]) if r.WhichOneof("record_type") == "config"]
    assert any(item.key == "resumed_from" and ids[0] in item.value_json for update in configured for item in update)


class Fake:
    """Stands in for an online run."""

    def __init__(self, identity: str):
        self.id, self.config, self.summary = identity, {}, {}

    def define_metric(self, *_: Any, **__: Any) -> None:
        pass

    def finish(self, exit_code: int) -> None:
        pass


def test_an_online_run_goes_on_under_its_id_and_an_agents_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb
    from wandb.errors import CommError

    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> Fake:
        asked.append(options)
        if options["mode"] == "online" and away:
            raise CommError("no route")
        return Fake(options.get("id", f"fresh{len(asked)}"))

    away = False
    monkeypatch.setattr(wandb, "init", init)

    def start() -> dict[str, Any]:
        tracker = Wandb("p", mode="online")
        tracker.start(tmp_path, {"model_name": "vae", "data": {"name": "digits"}, "seed": 0}, "train")
        assert tracker.run is not None
        return asked[-1]

    assert "id" not in start()
    again = start()
    assert (again["id"], again["resume"]) == ("fresh1", "allow")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    assert "id" not in start()
    monkeypatch.delenv("WANDB_SWEEP_ID")
    away = True
    assert start()["mode"] == "offline"
    away = False
    assert "id" not in start(), "the id of an offline run is nobody's on the server"


def test_no_secret_reaches_wandb(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "canary-5f0c2e77"
    monkeypatch.setenv("GENLAB_TEST_TOKEN", secret)
    monkeypatch.setattr("sys.argv", ["train", f"logger.tags=[{secret}]"])
    train(
        preflight("train", [*TINY, "logger.mode=offline", "logger.tags=['${oc.env:GENLAB_TEST_TOKEN}']"]),
        outputs / "run",
    )
    (path,) = (outputs / "run").glob("wandb/offline-run-*/*.wandb")
    assert finished(path)
    for file in (outputs / "run").rglob("*"):
        assert not (file.is_file() and secret.encode() in file.read_bytes()), file
