"""A run sees the same images in the same order wherever its data lie, and however often it is interrupted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.config import preflight, run_dir
from genlab.data import loader
from genlab.errors import GenlabError
from genlab.training import train

TINY = ["experiment=digits/vae", "trainer.batch=480", "evaluation.n=0", "logger=none", "trainer.log_every=480"]


def weights(folder: Path, serve: str, *budgets: int) -> dict[str, torch.Tensor]:
    for budget in budgets:
        train(preflight("train", [*TINY, f"trainer.serve={serve}", f"trainer.max_images={budget}"]), folder)
    assert json.loads((folder / "status.json").read_text())["served"] == ("memory" if serve == "auto" else serve)
    return torch.load(folder / "checkpoints" / f"{budgets[-1]:09d}.pt", weights_only=True)["state_dict"]


def test_a_run_is_the_same_from_every_place_and_when_it_was_interrupted(outputs: Path) -> None:
    """1,437 images in batches of 480: the third batch straddles two epochs."""
    whole = weights(outputs / "whole", "memory", 4 * 480)
    for serve in ("auto", "map"):
        assert all(torch.equal(v, whole[k]) for k, v in weights(outputs / serve, serve, 960, 4 * 480).items()), serve


def test_where_data_lie_is_no_part_of_what_is_learned() -> None:
    configs = [preflight("train", [*TINY, *more]) for more in ((), ("trainer.serve=map", "trainer.serve_share=0.9"))]
    assert run_dir(configs[0]) == run_dir(configs[1])


def test_a_place_that_there_is_not_is_one_line(outputs: Path) -> None:
    with pytest.raises(GenlabError, match=r"trainer.serve=mapp.* - did you mean map\?") as caught:
        train(preflight("train", [*TINY, "trainer.serve=mapp"]), outputs / "run")
    assert len(str(caught.value).splitlines()) == 1


def test_images_are_mirrored_and_normalized_after_they_were_served(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the loader gives are bytes as they are stored, on the data's own device."""
    from genlab.data.digits import Digits

    served, select = list[torch.Tensor](), loader.select

    def kept(*arguments: object) -> object:
        batch = select(*arguments)  # type: ignore[arg-type]
        served.append(batch.x)
        return batch

    monkeypatch.setattr(loader, "select", kept)
    train(preflight("train", [*TINY, "data.flip=true", "trainer.max_images=960"]), outputs / "run")
    known = {x.tobytes() for x in Digits().split("train").x.numpy()}
    assert all(x.dtype == torch.uint8 for x in served)
    assert {row.tobytes() for x in served for row in np.asarray(x)} <= known
