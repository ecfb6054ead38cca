"""W&B holds what history.jsonl holds, read back from its own offline file."""

import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genlab.config import preflight
from genlab.errors import GenlabError
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
