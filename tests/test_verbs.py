"""sample, evaluate and data, as a person calls them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import genlab.data.__main__ as data
from genlab import evaluate, sample
from genlab.config import preflight
from genlab.options import overridden
from genlab.run import Run
from genlab.training import train

TINY = ["trainer.batch=16", "trainer.max_images=32", "evaluation.n=8", "logger=none"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    train(
        preflight(
            "train", ["experiment=digits/ddpm", "model.classes=10", "sampler.steps=4", "averaging=constant", *TINY]
        ),
        folder,
    )
    return folder


def call(verb: object, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["genlab", *arguments])
    try:
        verb.main()  # type: ignore[attr-defined]
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_sample_draws_the_same_whatever_n(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in (3, 5):
        assert call(sample, [str(run), f"n={n}", "seed=7", "y=3", f"out={tmp_path / str(n)}"], monkeypatch) == 0
    few, many = (np.load(tmp_path / str(n) / "samples.npz") for n in (3, 5))
    assert many["x"].dtype == np.uint8
    assert many["x"].shape == (5, 1, 8, 8)
    assert (many["y"] == 3).all()
    np.testing.assert_array_equal(few["x"], many["x"][:3])
    record = json.loads((tmp_path / "5" / "samples.json").read_text())
    assert {key: record[key] for key in ("seed", "n", "weights", "y")} == {"seed": 7, "n": 5, "weights": "ema", "y": 3}
    assert (record["sampler"]["steps"], record["guidance"]) == (4, None)
    assert Image.open(tmp_path / "5" / "samples.png").size > (0, 0)
    assert Image.open(tmp_path / "5" / "trajectory.webp").n_frames == 4  # type: ignore[attr-defined]


def test_another_sampler_is_recorded_with_the_number(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(evaluate, [str(run), "frechet", "sampler=ddim", "sampler.steps=3", "evaluation.n=6"], monkeypatch) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in reversed(rows) if row["metric"] == "fd_digits")
    assert row["protocol"]["sampler"]["_target_"].endswith("DDIM")
    assert (row["protocol"]["nfe"], row["protocol"]["n_fake"]) == (3, 6)
    assert row["evaluation"] != rows[0]["evaluation"]


def test_a_choice_leaves_the_keys_that_were_typed_before_it(run: Path) -> None:
    config = overridden(Run(run).config, ["sampler.steps=3", "sampler=ddim", "evaluation.n=9", "evaluation=offline"])
    assert config["model"]["sampler"]["_target_"].endswith("DDIM")
    assert (config["model"]["sampler"]["steps"], config["evaluation"]["n"]) == (3, 9)


def test_raw_and_averaged_weights_differ(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(evaluate, [str(run), "frechet", "weights=raw"], monkeypatch) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    values = {row["protocol"]["weights"]: row["value"] for row in rows if row["metric"] == "fd_digits"}
    assert values["raw"] != values["ema"]


@pytest.mark.parametrize(
    ("verb", "arguments", "message"),
    [
        (sample, ["nowhere"], "nowhere is not a run directory"),
        (sample, ["RUN", "n=0"], "n=0: at least one sample"),
        (sample, ["RUN", "n=two"], "n: Value 'two'"),
        (sample, ["RUN", "seed=-1"], "seed=-1: at least 0 is needed"),
        (sample, ["RUN", "levels=6", "traverse=4"], "traverse and levels: one of them at a time"),
        (sample, ["RUN", "seeed=1"], "did you mean seed?"),
        (sample, ["RUN", "y=10"], "the labels are 0 to 9"),
        (sample, ["RUN", "sampler=dimm"], "did you mean ddim?"),
        (sample, ["RUN", "sampler.stps=3"], "did you mean steps?"),
        (sample, ["RUN", "steps=3"], "did you mean sampler.steps?"),
        (sample, ["RUN", "sampler.steps=nan"], "sampler.steps=nan: at least one step is needed, and a whole number"),
        (sample, ["RUN", "sampler.steps=2.5"], "sampler.steps=2.5: at least one step is needed, and a whole number"),
        (sample, ["RUN", "sampler=ddim", "sampler.eta=nan"], "sampler.eta=nan"),
        (evaluate, ["RUN", "sampler=ddim", "sampler.eta=-inf"], "sampler.eta=-inf"),
        (evaluate, ["RUN", "sacle=2"], "did you mean guidance.scale?"),
        (sample, ["RUN", "weights=best"], "there is ema and raw"),
        (sample, ["RUN", "out=/proc/x"], "cannot make the folder /proc/x (No such file or directory): set out=FOLDER"),
        (sample, ["a", "b"], "one RUN is needed"),
        (evaluate, ["RUN", "frechett"], "did you mean frechet?"),
        (evaluate, ["RUN", "evaluation.n=1"], "at least 2 samples"),
        (evaluate, ["nowhere"], "nowhere is not a run directory"),
        (evaluate, ["RUN", "fid"], "no metric 'fid' in this protocol, but in evaluation=clean, fid50k_test"),
        (data, ["info", "digit"], "did you mean digits?"),
        (data, ["info", "moons"], "did you mean planar/moons?"),
        (data, ["lst"], "cannot read `lst`"),
    ],
)
def test_mistakes_are_one_line(
    verb: object,
    arguments: list[str],
    message: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(verb, [str(run) if a == "RUN" else a for a in arguments], monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(data, ["list"], monkeypatch) == 0
    assert {"digits", "planar/ring"} <= set(capsys.readouterr().out.split())
    assert call(data, ["info", "digits"], monkeypatch) == 0
    assert "1437 train, 360 test" in capsys.readouterr().out
    assert call(data, ["prepare", "planar/ring"], monkeypatch) == 0
    assert "nothing to prepare" in capsys.readouterr().out
