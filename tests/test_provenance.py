"""What a run says of where it came from, that it can be started again, and that no secret is in it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from genlab import provenance, rerun
from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.redaction import redact, redacted
from genlab.run import Run
from genlab.training import train

OVERRIDES = ["experiment=digits/ddpm", "trainer.batch=16", "trainer.max_images=48", "evaluation.n=0", "logger=none"]
OVERRIDES += ["sampler.steps=3"]
SECRET = "canary-5f0c2e77"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def state(run: Path) -> dict[str, torch.Tensor]:
    loaded = Run(run).load_checkpoint()
    assert loaded is not None
    return loaded["state_dict"]


def test_every_start_is_recorded_with_all_that_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train", "experiment=digits/ddpm", f"logger.api_key={SECRET}"])
    monkeypatch.setenv("GENLAB_TEST_TOKEN", SECRET)
    for images in (32, 48):
        train(preflight("train", [*OVERRIDES, f"trainer.max_images={images}", f"logger.tags=[{SECRET}]"]), tmp_path)
    first, second = (json.loads(line) for line in (tmp_path / "environment.jsonl").read_text().splitlines())
    assert first["started"] <= second["started"]
    assert first["seed"] == 0
    assert (
        first["packages"]["torch"] == torch.__version__.split("+")[0] or first["packages"]["torch"] == torch.__version__
    )
    assert {"lightning", "hydra-core", "numpy", "genlab"} <= first["packages"].keys()
    assert "logger.api_key=(redacted)" in first["command"]
    assert {"host", "platform", "devices", "threads", "cores", "folder"} <= first.keys()
    recorded = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert recorded["logger"]["tags"] == ["(redacted)"]
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and SECRET.encode() in path.read_bytes()), path


def test_the_code_is_its_commit_and_what_is_not_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "clone" / "genlab"
    clone.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(clone / "provenance.py"))
    assert provenance.code() == (None, ""), "no repository"
    git = ["git", "-C", str(clone), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (clone / "other.py").write_text("")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    assert provenance.code() == (None, ""), "a repository that does not hold this package"
    (clone / "errors.py").write_text("a = 1\n")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "two"], check=True)
    known, diff = provenance.code()
    assert known is not None
    assert (known["changed"], known["diff"], diff) == ([], None, "")
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert known["commit"] == head
    (clone / "errors.py").write_text(f'a = 2\napi_key = "{SECRET}"\n')
    (clone / "new.py").write_text("")
    known, diff = provenance.code()
    assert known is not None
    assert "+a = 2" in diff
    assert SECRET not in diff
    assert known["diff"].endswith(".diff")
    assert [line.split() for line in known["changed"]] == [["M", "errors.py"], ["??", "new.py"]]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"api_key": "a", "hub_token": "b", "password": "c", "client.secret": "d"}, dict.fromkeys(("api_key", "hub_token", "password", "client.secret"), "(redacted)")),
        ({"key": "fid_10000", "tokens": "a", "monkey": "b", "keys": ["c"]}, None),
        ({"a": [{"url": "https://me:pass@host/x"}]}, {"a": [{"url": "https://(redacted)@host/x"}]}),
        ({"key": 1, "token": None, "secret": 3}, None),
    ],
)  # fmt: skip
def test_secrets_are_told_from_what_only_sounds_like_one(node: dict, expected: dict | None) -> None:
    assert redact(node) == (expected or node)


def test_a_command_line_loses_its_secrets_and_nothing_else() -> None:
    line = "python -m genlab.train data.source.token=abc optimizer.lr=1e-3 evaluation.metrics.fid.key=fid"
    assert redacted(line) == line.replace("abc", "(redacted)")


def test_a_run_comes_out_the_same_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "abc-s0"
    train(preflight("train", [*OVERRIDES, "trainer.deterministic=true"]), run)
    assert torch.are_deterministic_algorithms_enabled()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr("sys.argv", ["rerun", str(run)])
    rerun.main()
    assert "abc-rerun-s0: bit-equal weights after 48 images" in capsys.readouterr().out
    again = tmp_path / "abc-rerun-s0"
    for name, tensor in state(run).items():
        assert torch.equal(tensor, state(again)[name]), name
    assert {path: path.read_bytes() for path in before} == before, "the run itself is left as it is"
    history = [
        [json.loads(line)["train/loss"] for line in (r / "history.jsonl").read_text().splitlines()]
        for r in (run, again)
    ]
    assert history[0] == history[1]
    changed = rerun.rerun(run, tmp_path / "longer", ["trainer.max_images=64"])
    assert rerun.difference(run, changed) == "not comparable: 48 and 64 images seen"
    loaded = Run(again).load_checkpoint()
    assert loaded is not None
    first = next(name for name, tensor in loaded["state_dict"].items() if tensor.is_floating_point())
    loaded["state_dict"][first] += 1
    Run(again).save_checkpoint(loaded, 48, 1)
    assert rerun.difference(run, again) == "weights differ by up to 1 after 48 images"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nowhere"], "not a run directory"),
        (["RUN", "model.latent=3"], "what a run learns is the record's"),
        (["RUN", "trainer.devises=3"], "did you mean trainer.devices"),
        (["RUN", "out=RUN"], "is the run itself"),
        (["RUN", "RUN"], "one RUN is needed"),
    ],
)
def test_rerun_says_what_is_wrong(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"data": {}, "model": {}, "trainer": {"devices": 1}, "logger": {}, "evaluation": {}, "seed": 0}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.setattr("sys.argv", ["rerun", *(a.replace("RUN", str(tmp_path)) for a in arguments)])
    with pytest.raises(SystemExit) as stop:
        rerun.main()
    assert stop.value.code == 2
    assert told in "".join(capsys.readouterr())


def test_a_record_of_no_training_cannot_be_rerun(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{data: {}, seed: 0}")
    with pytest.raises(GenlabError, match="record of no training"):
        rerun.rerun(tmp_path, None, [])


@pytest.mark.gpu
def test_on_cuda_deterministic_repeats_are_bit_equal(tmp_path: Path) -> None:
    code = "import sys; from genlab.train import main; sys.exit(main())"
    for name in "ab":
        folder = f"hydra.run.dir={tmp_path / name}"
        line = [
            sys.executable,
            "-c",
            code,
            *OVERRIDES,
            "trainer.deterministic=true",
            folder,
            f"outputs={tmp_path / name}",
        ]
        subprocess.run(line, check=True, env=os.environ)
    a, b = (next((tmp_path / name).rglob("checkpoints")).parent for name in "ab")
    assert all(torch.equal(tensor, state(b)[name]) for name, tensor in state(a).items())
