"""Samples from elsewhere, grids of choices, and the offline extractor, as a person asks for them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genlab import evaluate
from genlab.compare import compare
from genlab.config import preflight
from genlab.data.digits import Digits
from genlab.evaluate import grid
from genlab.evaluation.inception import Network
from genlab.files import sha256
from genlab.training import train

DATA = ["data=digits", "evaluation.floors=[train]"]


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["genlab", *arguments])
    try:
        evaluate.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def rows(outputs: Path) -> list[dict]:
    (path,) = outputs.rglob("metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def pngs(folder: Path, x: np.ndarray) -> Path:
    folder.mkdir()
    for i, image in enumerate(x):
        Image.fromarray(image[0]).save(folder / f"{i:04d}.png")
    return folder


def test_several_values_are_scored_one_after_the_other() -> None:
    assert grid(["RUN", "sampler=ddim,euler", "sampler.steps=5,10", "outputs=a,b"]) == [
        ["RUN", f"sampler={name}", f"sampler.steps={steps}", "outputs=a,b"]
        for name in ("ddim", "euler")
        for steps in (5, 10)
    ]
    assert grid(["RUN", "evaluation.floors=[train,noise]", "weights=ema,raw"]) == [
        ["RUN", "evaluation.floors=[train,noise]", f"weights={name}"] for name in ("ema", "raw")
    ]


def test_a_grid_of_a_run_shares_everything_but_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ["trainer.batch=16", "trainer.max_images=32", "evaluation.n=8", "evaluation.floors=[]", "logger=none"]
    train(preflight("train", ["experiment=digits/ddpm", "sampler.steps=4", *tiny]), tmp_path / "run")
    before = len(rows(tmp_path))
    chosen = ["sampler=ddim", "sampler.steps=2,3", "weights=ema,raw", "evaluation.seeds=2"]
    assert call([str(tmp_path / "run"), "frechet", *chosen], monkeypatch) == 0
    scored = [row for row in rows(tmp_path)[before:] if row["metric"] == "fd_digits"]
    assert [(row["protocol"]["nfe"], row["protocol"]["weights"]) for row in scored] == [
        (2, "ema"), (2, "raw"), (3, "ema"), (3, "raw"),
    ]  # fmt: skip
    assert len({row["fingerprint"] for row in scored}) == 1, "one column"
    assert len({row["evaluation"] for row in scored}) == 4
    assert all(len(row["values"]) == 2 and row["spread"] > 0 for row in scored)


def test_what_a_number_depends_on_is_in_its_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The levels that images are rounded to, and how many pairs a path length is measured on."""
    tiny = ["trainer.batch=16", "trainer.max_images=32", "evaluation.n=8", "evaluation.floors=[]", "logger=none"]
    prints: dict[str, set[str]] = {}
    for name, more in (("two", ["network=conv_vae_bernoulli", "data.levels=2"]), ("all", [])):
        small = ["experiment=digits/vae", "model.importance=1", *more]
        train(preflight("train", [*small, *tiny]), tmp_path / name / "run")
    counts = ["evaluation=offline_full", "evaluation.module_metrics.perceptual_path.n=4,5", "evaluation.floors=[]"]
    assert call([str(tmp_path / "all" / "run"), "perceptual_path", *counts], monkeypatch) == 0
    for row in (*rows(tmp_path / "two"), *rows(tmp_path / "all")):
        prints.setdefault(row["metric"], set()).add(row["fingerprint"])
    assert len(prints["bits_per_dim"]) == len(prints["fd_digits"]) == 2
    (lengths,) = [found for name, found in prints.items() if name.startswith("ppl") or "path" in name]
    assert len(lengths) == 2


def test_the_same_images_score_the_same_however_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = Digits().split("train").x[:400].numpy()
    np.savez(tmp_path / "theirs.npz", x=x)
    np.savez(tmp_path / "adm.npz", x.transpose(0, 2, 3, 1))  # as ADM's sampling script writes them
    folder = pngs(tmp_path / "pictures", x)
    found = []
    for path in (tmp_path / "theirs.npz", tmp_path / "adm.npz", folder):
        outputs = tmp_path / f"outputs-{path.stem}"
        assert call([str(path), "frechet", "kernel", *DATA, f"outputs={outputs}"], monkeypatch) == 0
        found.append({row["metric"]: row["value"] for row in rows(outputs)})
        (row,) = [row for row in rows(outputs) if row["metric"] == "fd_digits"]
        assert row["protocol"]["n_fake"] == 400
        assert row["references"]["train"]["value"] > 0
        (table,) = compare([outputs], tmp_path / "report").tables
        assert table.rows[0].label == path.stem
    assert found[1] == found[0]
    assert found[2] == found[0]
    assert 0 < found[0]["fd_digits"] < 15, "training images are near the test images"


def test_errors_do_not_follow_the_order_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class after class in turn, each tenth of the samples is one class."""
    x, y = Digits().split("train")
    order = torch.stack([(y == k).nonzero()[:100, 0] for k in range(10)], dim=1).flatten()
    errors = []
    for name, rows_ in (("turns", order), ("mixed", order[torch.randperm(len(order))])):
        np.savez(tmp_path / f"{name}.npz", x=x[rows_].numpy())
        outputs = tmp_path / f"outputs-{name}"
        assert call([str(tmp_path / f"{name}.npz"), "frechet", *DATA, f"outputs={outputs}"], monkeypatch) == 0
        errors.append(rows(outputs)[0]["stderr"])
    assert errors[0] == pytest.approx(errors[1], rel=0.7)


def test_images_are_held_against_other_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = Digits().split("test").x.numpy()
    same, other = pngs(tmp_path / "same", x[:150]), pngs(tmp_path / "other", 255 - x[150:300])
    values = []
    for path in (same, other):
        outputs = tmp_path / f"outputs-{path.name}"
        pair = [str(path), "frechet", f"against={same}", "data=digits"]
        assert call([*pair, f"outputs={outputs}"], monkeypatch) == 0
        values.append(rows(outputs)[0]["value"])
    assert abs(values[0]) < 1e-6
    assert values[1] > 10


def test_the_floors_of_samples_from_elsewhere_are_those_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in one cache, so noise must be decoded as a model's is."""
    x = Digits().split("train").x[:33].numpy()
    np.savez(tmp_path / "theirs.npz", x=x)
    outputs = f"outputs={tmp_path / 'outputs'}"
    assert call([str(tmp_path / "theirs.npz"), "frechet", "data=digits", outputs], monkeypatch) == 0
    noise = rows(tmp_path / "outputs")[0]["references"]["noise"]["value"]
    pixels = np.random.default_rng(0).normal(size=(33, 1, 8, 8)).clip(-1, 1)  # what Pixels makes of N(0, 1)
    np.savez(tmp_path / "noise.npz", x=((pixels + 1) * 127.5).round().astype(np.uint8))
    outputs = f"outputs={tmp_path / 'noisy'}"
    assert call([str(tmp_path / "noise.npz"), "frechet", "data=digits", outputs], monkeypatch) == 0
    assert rows(tmp_path / "noisy")[0]["value"] == pytest.approx(noise, rel=0.25)


def test_a_name_that_states_a_number_follows_it() -> None:
    config = preflight("train", ["evaluation=quick", "evaluation.n=3000"], check=False)
    assert config.evaluation.metrics.fid.key == "fid_3000"


@pytest.mark.slow
def test_published_protocols_run_with_a_weight_file_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inception of random weights: every metric but those that need more samples than these."""
    torch.manual_seed(0)
    torch.save(Network().state_dict(), tmp_path / "inception.pth")
    theirs = [
        f"evaluation.features.weights.path={tmp_path / 'inception.pth'}",
        f"evaluation.features.weights.sha256={sha256(tmp_path / 'inception.pth')}",
    ]
    x = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", x=x[:20])
    np.savez(tmp_path / "b.npz", x=x[20:])
    pair = [str(tmp_path / "a.npz"), f"against={tmp_path / 'b.npz'}", f"outputs={tmp_path / 'outputs'}"]
    assert call([*pair, "evaluation=quick", "evaluation.metrics.kid.size=6", *theirs], monkeypatch) == 0
    found = {row["metric"]: row for row in rows(tmp_path / "outputs")}
    assert set(found) == {"is", "is_spread", "kid", "kid_spread", "precision", "recall", "density", "coverage"}
    assert "20 samples are not enough for a fid" in capsys.readouterr().err, "neither fid_20 nor sfid_20"
    protocol = found["kid"]["protocol"]
    assert (protocol["n_fake"], protocol["n_real"], protocol["layer"]) == (20, 20, "pool3")
    assert "TF1" in protocol["resize"]
    assert call([*pair, "fid", "evaluation=fid50k_test", *theirs], monkeypatch) == 2
    assert "20 samples are not enough for a fid" in capsys.readouterr().err
    theirs[1] = "evaluation.features.weights.sha256=" + 64 * "0"
    assert call([*pair, "fid", "evaluation=clean", *theirs], monkeypatch) == 2
    assert "inception.pth" in capsys.readouterr().err


def test_the_extractor_is_trained_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["--train-extractor", "data=digits"], monkeypatch) == 0
    assert "digits-classifier" in capsys.readouterr().out
    assert call(["--train-extractor"], monkeypatch) == 2
    assert call(["--train-extractor", "data=digit"], monkeypatch) == 2
    assert "did you mean digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "holds no image"),
        (["corrupt"], "0001.png"),
        (["large"], "16x16"),
        (["one"], "at least 2 samples"),
        (["good", "frechett"], "did you mean frechet"),
        (["good", "sampler.steps=3"], "samples that are made already"),
        (["good", "evaluation.reference.statistics=x.npz"], "say what"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    x = Digits().split("test").x.numpy()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    pngs(tmp_path / "one", x[:1])
    pngs(tmp_path / "good", x[:20])
    pngs(tmp_path / "large", np.kron(x[:3], np.ones((1, 1, 2, 2), np.uint8)))
    (pngs(tmp_path / "corrupt", x[:3]) / "0001.png").write_bytes(b"no picture")
    assert call([*arguments, *DATA], monkeypatch) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("metrics.jsonl")), "nothing half-written counts as a result"


def test_an_interruption_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    folder = pngs(tmp_path / "pictures", Digits().split("test").x[:20].numpy())
    monkeypatch.setattr("genlab.evaluation.frechet.FrechetDistance.replicates", interrupt)
    assert call([str(folder), "frechet", *DATA, f"outputs={tmp_path / 'outputs'}"], monkeypatch) == 130
    assert capsys.readouterr().err.startswith("genlab: interrupted")
    assert not list(tmp_path.rglob("metrics.jsonl"))
