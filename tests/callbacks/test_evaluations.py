"""Scores during training: they change nothing, and choose a checkpoint."""

import json
from pathlib import Path

import pytest
import torch

from genlab.callbacks.evaluations import Evaluations
from genlab.callbacks.guard import Preempted
from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.evaluate import Options, rescore
from genlab.options import parse
from genlab.run import Run
from genlab.training import train

TINY = ["trainer.batch=16", "trainer.log_every=32", "evaluation.n=16", "evaluation.floors=[]", "logger=none"]
FAMILIES = {
    "vae": ["experiment=digits/vae"],
    "gan": ["experiment=digits/dcgan"],
    "diffusion": ["experiment=digits/ddpm", "sampler.steps=2"],
}


def run(folder: Path, *overrides: str, family: str = "vae") -> Run:
    train(preflight("train", [*FAMILIES[family], *TINY, "trainer.max_images=96", *overrides]), folder)
    return Run(folder)


def history(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("family", ["gan", *(pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES if f != "gan")])
def test_training_is_the_same_with_and_without_them(family: str, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", "evaluation.n=0", family=family)
    scored = run(tmp_path / "scored", "trainer.evaluate_every=32", "evaluation.during=8", family=family)
    ours, theirs = (r.load_checkpoint() for r in (scored, plain))
    assert ours is not None
    assert theirs is not None
    for kind in ("state_dict", "averages"):
        for name, value in theirs[kind].items():
            pairs = zip(ours[kind][name].values(), value.values(), strict=True) if kind == "averages" else [(ours[kind][name], value)]  # fmt: skip
            assert all(torch.equal(a, b) for a, b in pairs), name
    rows = [row for row in history(scored) if "eval/fd_digits" in row]
    assert [row["images_seen"] for row in rows] == [32, 64, 96]
    assert all(row["eval/seconds"] > 0 for row in rows)


def test_the_best_checkpoint_is_kept_and_scored_beside_the_last(tmp_path: Path) -> None:
    monitored = ["trainer.evaluate_every=32", "evaluation.monitor=is_digits", "trainer.keep=1"]
    done = run(tmp_path / "run", *monitored)
    points = {row["images_seen"]: row["eval/is_digits"] for row in history(done) if "eval/is_digits" in row}
    best = max(points, key=lambda seen: points[seen])
    state = done.load_checkpoint("best")
    assert state is not None
    assert (state["images_seen"], state["best"]["value"]) == (best, points[best])
    last = done.load_checkpoint()
    assert last is not None
    assert last["images_seen"] == 96
    rows = [json.loads(line) for line in (done.path / "metrics.jsonl").read_text().splitlines()]
    which = [row["protocol"]["checkpoint"]["which"] for row in rows if row["metric"] == "fd_digits"]
    assert which == (["last"] if best == 96 else ["best", "last"])
    words = ["checkpoint=best", "evaluation.n=8", "evaluation.monitor=null"]  # another protocol watches another metric
    _, options, overrides = parse(words, Options)
    for row in rescore(done.path, ["frechet"], options, overrides):
        assert row["protocol"]["checkpoint"] == {"images_seen": best, "which": "best", "by": "is_digits"}


def test_a_better_one_replaces_it_and_a_resumed_run_remembers(tmp_path: Path) -> None:
    first = run(tmp_path / "run", "trainer.evaluate_every=32", "trainer.max_images=64")
    before = first.load_checkpoint("best")
    assert before is not None
    path = next(iter(first.checkpoints.glob("best-*")))
    again = run(tmp_path / "run", "trainer.evaluate_every=32", "trainer.max_images=128")
    values = {row["images_seen"]: row["eval/fd_digits"] for row in history(again) if "eval/fd_digits" in row}
    assert list(values) == [32, 64, 96, 128]
    after = again.load_checkpoint("best")
    assert after is not None
    assert after["best"]["value"] == min(values.values())
    assert len(list(again.checkpoints.glob("best-*"))) == 1
    if min(values.values()) < before["best"]["value"]:
        assert not path.exists()


def test_a_metric_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match="did you mean fd_digits"):
        run(tmp_path / "run", "trainer.evaluate_every=32", "evaluation.monitor=fid_digits")
    assert not (tmp_path / "run" / "config.yaml").exists(), "it is told before training begins"


def test_a_signal_ends_the_scoring_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint of that moment is kept, with the raw weights in their place."""
    original, seen = Evaluations.on_train_batch_end, []

    def signalled(self: Evaluations, trainer, module, *more) -> None:  # type: ignore[no-untyped-def]
        if module.images_seen == 32:
            guard = next(c for c in trainer.callbacks if hasattr(c, "signum"))
            guard.signum = 15
            seen.append({k: v.clone() for k, v in module.state_dict().items()})
        original(self, trainer, module, *more)

    monkeypatch.setattr(Evaluations, "on_train_batch_end", signalled)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", "trainer.evaluate_every=32", "evaluation.batch=4")
    assert stop.value.code == Preempted(15).exit_code
    assert not any("eval/fd_digits" in row for row in history(Run(tmp_path / "run")))
    state = Run(tmp_path / "run").load_checkpoint()
    assert state is not None
    assert state["images_seen"] == 32
    assert all(torch.equal(value, state["state_dict"][name]) for name, value in seen[0].items())


def test_samples_that_are_no_numbers_have_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding would show them as black images, which have a score."""
    monkeypatch.setattr(
        "genlab.paradigms.vae.VAE.sample", lambda self, noise, n, y=None: torch.full((n, 1, 8, 8), torch.nan)
    )
    with pytest.raises(GenlabError, match="nan or inf"):
        run(tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert Run(tmp_path / "run").status["state"] == "failed"


def test_a_best_checkpoint_that_cannot_be_written_is_not_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, refused = Run.save_best, []

    def full(self: Run, state: dict, images_seen: int) -> Path:
        if not refused:
            refused.append(images_seen)
            raise GenlabError("cannot write: no space")
        return original(self, state, images_seen)

    monkeypatch.setattr(Run, "save_best", full)
    monitored = ["trainer.evaluate_every=32", "evaluation.monitor=is_digits", "trainer.save_failures=1"]
    done = run(tmp_path / "run", *monitored)
    assert "warning at 32 images: cannot write: no space" in capsys.readouterr().err
    points = {row["images_seen"]: row["eval/is_digits"] for row in history(done) if "eval/is_digits" in row}
    left = {seen: value for seen, value in points.items() if seen not in refused}
    state = done.load_checkpoint("best")
    assert state is not None
    assert state["best"]["value"] == max(left.values())
