"""Exported weights are the run's, load back as the same model, and run nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from genlab import export
from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.noise import NoiseStream
from genlab.run import Run
from genlab.scoring import load as loaded
from genlab.training import train

OVERRIDES = ["experiment=digits/ddpm", "sampler.steps=3", "trainer.batch=16", "trainer.max_images=48", "evaluation.n=0"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    train(preflight("train", [*OVERRIDES, "logger=none"]), folder)
    return folder


def test_both_weights_load_back_as_the_model_that_they_are_of(run: Path, tmp_path: Path) -> None:
    files = export.export(run, export.Options(out=str(tmp_path)))
    assert [file.name for file in files] == ["ema.safetensors", "raw.safetensors"]
    for file, weights in zip(files, ("ema", "raw"), strict=True):
        module = export.load(file)
        theirs = loaded(Run(run), Run(run).config, weights, trust=False)[0].cpu()
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(module.state_dict()[name], tensor), name
        assert module.images_seen == 48
        assert not module.training
        with torch.no_grad():
            assert torch.equal(module.generate(NoiseStream(0), n=4), theirs.generate(NoiseStream(0), n=4))
    ema, raw = (export.load(file).state_dict() for file in files)
    assert any(not torch.equal(ema[name], raw[name]) for name in ema)
    with safe_open(str(files[0]), framework="pt") as file:
        told = file.metadata()
    assert (told["weights"], told["images_seen"], told["data"], told["model_name"]) == ("ema", "48", "digits", "ddpm")


def test_a_file_that_was_forged_is_refused(run: Path, tmp_path: Path) -> None:
    (file,) = export.export(run, export.Options(weights="ema", out=str(tmp_path)))
    with safe_open(str(file), framework="pt") as opened:
        told = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    canary = tmp_path / "canary"
    model = json.loads(told["model"])
    for forged in (
        model | {"codec": {"_target_": "os.system", "command": f"touch {canary}"}},
        model | {"codec": {"_target_": "genlab.codec.Pixels", "levels": "${oc.env:HOME}"}},
        ["no", "model"],
    ):
        save_file(tensors, str(file), told | {"model": json.dumps(forged)})
        with pytest.raises(GenlabError, match=r"refused|not a configuration"):
            export.load(file)
    assert not canary.exists()
    save_file(tensors, str(file), {})
    with pytest.raises(GenlabError, match="no file of genlab export"):
        export.load(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(GenlabError, match="no file of genlab export"):
        export.load(file)
    some = {name: tensors[name] for name in list(tensors)[1:]}
    save_file(some, str(file), told)
    with pytest.raises(GenlabError, match="of another model"):
        export.load(file)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["RUN", "weights=emma"], "did you mean ema"),
        (["RUN", "checkpoint=best"], "no best checkpoint"),
        (["RUN", "checkpoint=foo"], "checkpoint=foo: there is last and best"),
        (["RUN", "x"], "one RUN"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    told: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["export", *(a.replace("RUN", str(run)) for a in arguments), f"out={tmp_path}"])
    with pytest.raises(SystemExit) as stop:
        export.main()
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert told in shown
    assert shown.count("\n") == 1
