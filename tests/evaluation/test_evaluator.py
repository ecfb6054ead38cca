import dataclasses
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

from genlab.data.digits import Digits
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.evaluation.banks import chunks
from genlab.evaluation.evaluator import Evaluator
from genlab.evaluation.features import Activations
from genlab.evaluation.frechet import FrechetDistance
from genlab.evaluation.manifold import Manifold
from genlab.evaluation.memorization import Memorization
from genlab.evaluation.protocol import Protocol
from genlab.evaluation.reference import References, imported

CPU = torch.device("cpu")


class Pixels:
    """An extractor whose features are some pixels, and which counts what it sees."""

    name, fingerprint, layer, resize = "pixels", "0", "all", "none"

    def __init__(self, *width: int):
        self.seen, self.width = 0, slice(*width)

    def __call__(self, x: torch.Tensor) -> Activations:
        self.seen += len(x)
        return Activations(x.flatten(1).float()[:, self.width])


def evaluator(cache: Path, split: str = "test", extractor: Pixels | None = None, **more: object) -> Evaluator:
    references = References(Digits(), extractor or Pixels(10, 30), str(cache), 100, CPU)
    metrics = {"frechet": FrechetDistance("pixels"), "memorization": Memorization()}
    return Evaluator(references, split, metrics, {"of": "a test"}, 200, 64, floors=["train", "test", "noise"], **more)


def sets(count: int) -> list[Batch]:
    train = Digits().split("train")
    return [Batch(train.x[i::count][:200], train.y[i::count][:200]) for i in range(count)]


def test_the_value_is_the_mean_over_sets_beside_their_spread(tmp_path: Path) -> None:
    judge, three = evaluator(tmp_path), sets(3)
    each = [judge.score([chunks(data, 50)], 200)["fd_pixels"] for data in three]
    together = judge.score([chunks(data, 70) for data in three], 200)["fd_pixels"].row
    values = [score.row["value"] for score in each]
    assert together["values"] == pytest.approx(values, rel=1e-9)
    assert together["value"] == pytest.approx(statistics.mean(values))
    assert together["spread"] == pytest.approx(statistics.stdev(values))
    errors = [score.row["stderr"] for score in each]
    assert together["stderr"] == pytest.approx(sum(e * e for e in errors) ** 0.5 / 3)
    assert each[0].row["spread"] is None, "one set has none"


def test_floors_are_computed_once_and_are_scores_of_the_other_split(tmp_path: Path) -> None:
    first, again = evaluator(tmp_path), evaluator(tmp_path)
    made = first.floor(lambda z: (z * 0 + 128).to(torch.uint8), (1, 8, 8))
    before = again.references.extractor.seen
    assert again.floor(lambda z: (z * 0 + 128).to(torch.uint8), (1, 8, 8)) == made
    assert again.references.extractor.seen == before, "from the cache"
    other = again.floor(lambda z: (z * 0).to(torch.uint8), (1, 8, 8))
    assert other["fd_pixels"]["noise"] != made["fd_pixels"]["noise"], "another codec makes other noise"
    assert other["fd_pixels"]["train"] == made["fd_pixels"]["train"]
    assert {name: row["n"] for name, row in made["fd_pixels"].items()} == {"train": 200, "noise": 200}
    assert made["fd_pixels"]["train"]["value"] < made["fd_pixels"]["noise"]["value"] / 10
    assert {*made["nn_ratio"], *made["auth_pct"]} == {"noise"}, "of training samples they say no more than: copies"


def test_held_against_the_train_split_the_floor_is_the_test_split(tmp_path: Path) -> None:
    made = evaluator(tmp_path, "train").floor(lambda z: (z * 0).to(torch.uint8), (1, 8, 8))
    assert set(made["fd_pixels"]) == set(made["nn_ratio"]) == {"test", "noise"}
    assert 0 < made["fd_pixels"]["test"]["value"] < made["fd_pixels"]["noise"]["value"]


def test_held_against_the_train_split_copies_are_told_from_fresh_draws(tmp_path: Path) -> None:
    """The distance that is usual is that of held-out images: those of train are 0 from themselves."""
    judge = evaluator(tmp_path, "train")
    train, test = (Batch(Digits().split(name).x[:200], None) for name in ("train", "test"))
    ratios = [judge.score([chunks(x, 50)], 200)["nn_ratio"].row["value"] for x in (test, train)]
    assert ratios == [pytest.approx(1, abs=0.2), 0]


def test_another_seed_or_recipe_has_floors_of_its_own(tmp_path: Path) -> None:
    values = [
        evaluator(tmp_path, seed=seed).floor(lambda z: (z * 0).to(torch.uint8), (1, 8, 8))["fd_pixels"]["train"][
            "value"
        ]
        for seed in (0, 1)
    ]
    assert values[0] != values[1]


def test_statistics_of_another_extractor_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(7), sigma=np.eye(7))
    judge = evaluator(tmp_path, brought=imported(tmp_path / "theirs.npz", 100))
    with pytest.raises(GenlabError, match="7 features and pixels has 20"):
        judge.score([chunks(sets(1)[0], 50)], 200)


def test_statistics_brought_are_what_samples_are_held_against(tmp_path: Path) -> None:
    x = Digits().split("test").x.flatten(1)[:, 17:23].double()  # without pixels that are always 0
    np.savez(tmp_path / "theirs.npz", mu=x.mean(0).numpy(), sigma=x.T.cov().numpy())
    sample = sets(2)[1]
    ours = evaluator(tmp_path, extractor=Pixels(17, 23)).score([chunks(sample, 50)], 200)["fd_pixels"].row["value"]
    brought = imported(tmp_path / "theirs.npz", 360)
    references = References(Digits(), Pixels(17, 23), str(tmp_path), 100, CPU)
    judge = Evaluator(references, "test", {"fd": FrechetDistance("pixels")}, {}, 200, 64, brought=brought)
    assert judge.score([chunks(sample, 50)], 200)["fd_pixels"].row["value"] == pytest.approx(ours, rel=1e-9)


def test_a_number_that_cannot_be_had_does_not_cost_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = References(Digits(), Pixels(0, 64), str(tmp_path), 100, CPU)
    metrics = {"fid": FrechetDistance("pixels", key="fid"), "memorization": Memorization()}
    judge = Evaluator(references, "test", metrics, {}, 40, 64)
    few = Batch(sets(1)[0].x[:40], None)
    assert set(judge.score([chunks(few, 50)], 40)) == {"nn_ratio", "auth_pct"}
    assert "40 samples are not enough for a fid" in capsys.readouterr().err
    judge = Evaluator(references, "test", {"fid": metrics["fid"]}, {}, 40, 64)
    with pytest.raises(GenlabError, match="not enough"):
        judge.score([chunks(few, 50)], 40)


def test_floors_are_strict_json(tmp_path: Path) -> None:
    judge = evaluator(tmp_path)
    judge.floor(lambda z: (z * 0).to(torch.uint8), (1, 8, 8))
    (path,) = judge.references.folder("test").glob("floors-*.json")
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))


def test_what_a_metric_was_made_with_is_in_its_record_and_in_what_it_is_compared_by(tmp_path: Path) -> None:
    references = References(Digits(), Pixels(17, 23), str(tmp_path), 100, CPU)
    lines = []
    for k in (3, 5):
        recipe = {"metrics": {"manifold": {"_target_": "Manifold", "k": k, "name": "x", "features": {"cache": "y"}}}}
        judge = Evaluator(references, "test", {"manifold": Manifold(k, 5)}, recipe, 200, 64)
        lines.append(judge.score([chunks(sets(1)[0], 50)], 200)["precision"].options)
    assert lines == [{"k": 3}, {"k": 5}]


def test_options_of_a_metric_make_another_fingerprint() -> None:
    fields = {f.name: 0 for f in dataclasses.fields(Protocol)} | {"sampler": {}, "guidance": {}, "checkpoint": {}}
    made = Protocol(**fields)  # type: ignore[arg-type]
    prints = {made.line("w2", {}, options=options)["fingerprint"] for options in ({}, {"most": 100}, {"most": 1000})}
    assert len(prints) == 3
    assert len({made.line("nll", {}, kind=kind)["fingerprint"] for kind in ("ode", "bound")}) == 1
