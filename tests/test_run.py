"""Checkpoints that lie, directories that are none, configurations of strangers."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL.Image import Image

from genlab.errors import GenlabError
from genlab.run import Run
from genlab.scoring import adopt


def checkpoint(images_seen: int) -> dict[str, Any]:
    return {"images_seen": images_seen, "state_dict": {"x": torch.full((1000,), images_seen / 100)}, "averages": {}}


def saved(folder: Path, count: int = 3) -> Run:
    run = Run(folder)
    for i in range(1, count + 1):
        run.save_checkpoint(checkpoint(i * 100), i * 100, keep=2)
    return run


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    run = saved(tmp_path)
    assert sorted(p.name for p in run.checkpoints.glob("*.pt")) == ["000000200.pt", "000000300.pt"]
    state = run.load_checkpoint()
    assert state is not None
    assert state["images_seen"] == 300
    assert not list(run.checkpoints.glob(".*")), "no temporary file is left"


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "garbage", "gone"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_taken(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(tmp_path)
    path = run.checkpoints / "000000300.pt"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1  # torch.load would read this without a word
    path.write_bytes({"truncated": content[:900], "empty": b"", "garbage": b"\x80" * 999}.get(damage, bytes(content)))
    if damage == "gone":
        path.unlink()
    state = run.load_checkpoint()
    assert state is not None
    assert state["images_seen"] == 200
    assert "000000300.pt is missing or damaged" in capsys.readouterr().err
    (run.checkpoints / "000000200.pt").write_bytes(b"")
    with pytest.raises(GenlabError, match="force=true"):
        run.load_checkpoint()


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match="is not a run directory"):
        Run.existing(tmp_path)


def test_a_strangers_configuration_reads_no_environment(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: ${oc.env:HOME}")
    with pytest.raises(GenlabError, match="refused"):
        _ = Run.existing(tmp_path).config
    (tmp_path / "config.yaml").write_text("a: !!python/object/apply:os.system ['true']")
    with pytest.raises(GenlabError):
        _ = Run.existing(tmp_path).config


def test_a_checkpoint_of_another_model_names_what_does_not_fit(tmp_path: Path) -> None:
    linear = torch.nn.Linear(2, 3)
    with pytest.raises(GenlabError, match=r"of another model: 1 of its tensors .*weight"):
        adopt(linear, {"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, "a")  # pyright: ignore
    with pytest.raises(GenlabError, match=r"2 of its tensors .*(bias|extra)"):
        adopt(linear, {"weight": torch.zeros(3, 2), "extra": torch.zeros(3)}, "a")  # pyright: ignore


def test_rewinding_drops_what_will_be_written_again(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for images in (100, 200, 300):
        run.append("history.jsonl", {"images_seen": images, "train/loss": float("nan")})
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"images_seen": 4')  # a crash in the middle of a line
    run.rewind(200)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert rows == [{"images_seen": 100, "train/loss": None}, {"images_seen": 200, "train/loss": None}]


def test_what_is_newer_than_a_save_belongs_to_a_training_that_was_given_up(tmp_path: Path) -> None:
    """After the newest is damaged one goes on from the one before: what is saved then is the newest, whatever its name."""
    run = saved(tmp_path)
    (run.checkpoints / "000000300.pt").write_bytes(b"")
    run.save_checkpoint(checkpoint(250), 250, keep=1)
    state = run.load_checkpoint()
    assert state is not None
    assert state["images_seen"] == 250
    assert [p.name for p in run.checkpoints.glob("*.pt")] == ["000000250.pt"]


def test_a_lost_manifest_costs_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = saved(tmp_path)
    run.save_best(checkpoint(200), 200)
    (run.checkpoints / "manifest.json").unlink()
    run.save_checkpoint(checkpoint(400), 400, keep=2)
    assert sorted(p.name for p in run.checkpoints.glob("*.pt")) == ["000000300.pt", "000000400.pt", "best-000000200.pt"]
    for which, images in (("last", 400), ("best", 200)):
        state = run.load_checkpoint(which)
        assert state is not None
        assert state["images_seen"] == images
    assert not capsys.readouterr().err


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Image, "save", full)
    for write in (
        lambda: run.write_config({}),
        lambda: run.write_status("running", 0, 1),
        lambda: run.picture("final.png", Image()),
    ):
        with pytest.raises(GenlabError, match=r"No space left on device.*free some space.*goes on"):
            write()
