"""`devices=2`: two processes of one verb draw and score what one does, and none is left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genlab import evaluate, sample
from genlab.config import preflight
from genlab.training import train

TINY = ["trainer.batch=16", "trainer.max_images=16", "evaluation.n=0", "logger=none", "sampler.steps=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(preflight("train", ["experiment=digits/ddpm_conditional", *TINY]), folder)
    return folder


def call(verb: str, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """The verb in a process of its own, in which `before` has been executed."""
    start = f"import sys; sys.argv[0] = 'genlab'; {before}\nfrom genlab.{verb} import main; main()"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RANK": "1", "LOCAL_RANK": "1"}  # of somebody else's group
    command = [sys.executable, "-c", start, *arguments]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_two_processes_draw_and_score_what_one_does(run: Path, tmp_path: Path) -> None:
    drawn = []
    for devices in (1, 2):
        done = call("sample", str(run), "n=70", "batch=20", f"devices={devices}", f"out={tmp_path}/{devices}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [f"genlab: samples in {tmp_path}/{devices}"]
        drawn.append(np.load(tmp_path / str(devices) / "samples.npz"))
    assert drawn[0]["x"].shape == (70, 1, 8, 8)
    for name in ("x", "y"):
        assert (drawn[0][name] == drawn[1][name]).all()
    assert (tmp_path / "1" / "trajectory.webp").read_bytes() == (tmp_path / "2" / "trajectory.webp").read_bytes()
    rows = []
    for devices in (1, 2):
        done = call("evaluate", str(run), "frechet", "evaluation.n=70", "evaluation.batch=20", f"devices={devices}")
        assert done.returncode == 0, done.stderr
        rows += [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]]
    assert len(rows[1]) == 2 * len(rows[0]), "the first process alone writes"
    one, two = (next(row for row in reversed(found) if row["metric"] == "fd_digits") for found in rows)
    assert two["value"] == pytest.approx(one["value"], rel=1e-5)
    assert two["protocol"] == one["protocol"]


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_others_with_its_words(run: Path, tmp_path: Path) -> None:
    fail = (
        "import os\nfrom genlab import sample\nfrom genlab.errors import GenlabError\n"
        "def batch(*_):\n    raise GenlabError('nothing but nan')\n"
        "if os.environ.get('GENLAB_RANK'): sample._batch = batch"
    )
    done = call("sample", str(run), "n=70", "batch=20", "devices=2", f"out={tmp_path}", before=fail)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["genlab: nothing but nan"]
    assert not (tmp_path / "samples.npz").exists()
    early = "import os\nif os.environ.get('GENLAB_RANK'): os._exit(3)"
    done = call("sample", str(run), "n=70", "devices=2", f"out={tmp_path}", before=early)
    assert (done.returncode, done.stderr) == (2, "genlab: rank 1 ended with exit code 3\n"), "before they ever met"
    done = call("sample", str(run), "n=70", "devices=2", "weights=average", f"out={tmp_path}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_several_devices_are_for_samples_and_scores_of_runs(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, arguments, said in (
        (sample, ["devices=2", "interpolate=4"], "devices=2: only samples are drawn on several"),
        (evaluate, ["devices=2", "data=digits"], "devices=2: only a run is scored on several"),
        (sample, ["devices=0"], "devices=0: at least 1 is needed"),
        (sample, ["batch=0"], "batch=0: at least one sample is needed"),
    ):
        monkeypatch.setattr("sys.argv", ["genlab", str(run), *arguments])
        with pytest.raises(SystemExit, match="2"):
            verb.main()
        assert said in capsys.readouterr().err
