"""Checkpoints that lie, directories that are none, configurations of strangers."""

import json
from pathlib import Path

import pytest
import torch

from genlab.errors import GenlabError
from genlab.run import Run
from genlab.scoring import adopt


def saved(folder: Path, count: int = 3) -> Run:
    run = Run(folder)
    for i in range(1, count + 1):
        tensors = {"x": torch.full((1000,), float(i))}
        state = {"images_seen": i * 100, "state_dict": tensors, "averages": {}}
        run.save_checkpoint(state, i * 100, keep=2)
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
