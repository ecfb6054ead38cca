"""Run directories that somebody else made: none of their code runs, nothing is written elsewhere, no secret comes out."""

import ast
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from genlab import compare, evaluate, instantiation, sample
from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.files import sha256
from genlab.first_stage import Frozen
from genlab.instantiation import build, check_targets
from genlab.recorded import configuration, here
from genlab.reflow import Reflow
from genlab.run import Run, plain
from genlab.scoring import trained
from genlab.stages import weights_of
from genlab.training import train

SECRET = "canary-5f0c2e"
EVIL = "genlab-canary"
OVERRIDES = ["experiment=digits/vae", "trainer.batch=16", "trainer.max_images=32", "evaluation.n=8", "logger=none"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "run"
    train(preflight("train", [*OVERRIDES, "evaluation.floors=[]", "evaluation.likelihood=false"]), folder)
    return folder


@pytest.fixture
def theirs(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run to forge, from which the working directory is another."""
    monkeypatch.setenv("GENLAB_TEST_TOKEN", SECRET)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return Path(shutil.copytree(honest, tmp_path / "theirs"))


def forge(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def call(verb: Any, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["genlab", *arguments])
    try:
        return int(verb.main() or 0)
    except SystemExit as stop:
        return int(stop.code or 0)


def evil(canary: Path) -> dict[str, Any]:
    """Every known way to make a configuration do something, each of which would make the file `canary`."""
    touch = f"touch {canary}"
    system = {"_target_": "os.system", "command": touch}
    write = {"_target_": "genlab.files.write_atomically", "path": str(canary), "text": ""}
    return {
        "os.system": {"_target_": "os.system", "_args_": [touch]},
        "posix": {"_target_": "posix.system", "_args_": [touch]},
        "builtins": {"_target_": "builtins.eval", "_args_": [f"open({str(canary)!r}, 'w')"]},
        "open": {"_target_": "builtins.open", "_args_": [str(canary), "w"]},
        "pathlib": {"_target_": "pathlib.Path.touch", "self": str(canary)},
        "functools.partial": {"_target_": "functools.partial", "_args_": [system]},
        "subprocess": {"_target_": "subprocess.run", "args": touch, "shell": True},
        "attribute walking": {"_target_": "genlab.run.os.system", "_args_": [touch]},
        "a module's function": write,
        "any function of ours": {"_target_": "genlab.sweep.multirun", "flags": ["--config-dir=/tmp"]},
        "a builder that trusts": {"_target_": "genlab.instantiation.build", "node": {}, "trust": True},
        "hydra.utils.instantiate": {"_target_": "hydra.utils.instantiate", "config": system},
        "hydra.utils.call": {"_target_": "hydra.utils.call", "config": system},
        "hydra.utils.get_method": {"_target_": "hydra.utils.get_method", "path": "os.system"},
        "_partial_": {"_target_": "os.system", "_partial_": True, "command": touch},
        "_recursive_": {"_target_": "genlab.codec.Pixels", "_recursive_": False, "levels": system},
        "_convert_": {"_target_": "os.system", "_convert_": "none", "command": touch},
        "nested": {"_target_": "genlab.codec.Pixels", "levels": system},
        "in a list": {"_target_": "genlab.codec.Pixels", "_args_": [[{"a": [system]}]]},
        "unpickling": {"_target_": "torch.load", "f": str(canary), "weights_only": False},
        "no text": {"_target_": ["os.system"]},
        "mapping": {"_target_": {"_target_": "os.system"}},
        "spaces": {"_target_": " os.system", "command": touch},
        "case": {"_target_": "genlab.codec.pixels"},
        "a way up": {"_target_": "genlab.codec.Pixels.__init__.__globals__", "_args_": []},
    }


def test_packages_whose_all_may_be_named_are_mathematics() -> None:
    """Nothing in them opens, imports by name or runs: their imports are these, and their built-in names none of those."""
    numbers = "torch torchdiffeq zuko ot math itertools typing abc warnings"
    theirs = {*numbers.split(), "collections.abc", "genlab"}
    for package in instantiation.VALUES:
        for path in (instantiation.PACKAGE / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                named = [node.module] if isinstance(node, ast.ImportFrom) else []
                named += [name.name for name in node.names] if isinstance(node, ast.Import) else []
                assert all(name in theirs or name.split(".")[0] in theirs for name in named), path
                if isinstance(node, ast.Name):
                    assert node.id not in {"open", "eval", "exec", "__import__", "getattr", "compile"}, path
                if isinstance(node, ast.Attribute):
                    assert node.attr not in {"load", "save", "hub", "serialization", "jit"}, path


@pytest.mark.parametrize("form", list(evil(Path())))
def test_no_target_but_those_of_conf_is_called(form: str, tmp_path: Path) -> None:
    node = evil(tmp_path / EVIL)[form]
    with pytest.raises(GenlabError, match=r"_target_ .*refused"):
        build(node)
    with pytest.raises(GenlabError, match=r"_target_ .*refused"):
        check_targets({"model": {"deep": [{"er": node}]}})
    assert not (tmp_path / EVIL).exists()


@pytest.mark.parametrize(
    "key", ["model.codec", "data.source", "data.codec", "evaluation.features", "evaluation.metrics.frechet"]
)
def test_verbs_refuse_an_evil_target_wherever_it_stands(
    key: str, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(config: dict[str, Any]) -> None:
        *owners, leaf = key.split(".")
        for owner in owners:
            config = config[owner]
        config[leaf] = {"_target_": "os.system", "command": f"touch {tmp_path / EVIL}"}

    forge(theirs, change)
    used = {"model.codec": (evaluate, sample), "data.codec": (), "evaluation.metrics.frechet": (evaluate,)}
    for verb in used.get(key, (evaluate,)):
        assert call(verb, [str(theirs)], monkeypatch) == 2
        assert "os.system is not genlab's own" in capsys.readouterr().err
    if "data.source" in key:
        assert call(sample, [str(theirs), "interpolate=2"], monkeypatch) == 2
    assert not (tmp_path / EVIL).exists()


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:GENLAB_TEST_TOKEN}",
        '"\\x24{oc.env:GENLAB_TEST_TOKEN}"',
        '"\\u0024\\u007boc.env:GENLAB_TEST_TOKEN}"',
        "{a: [{b: '${oc.env:GENLAB_TEST_TOKEN}'}]}",
        "{'${oc.env:GENLAB_TEST_TOKEN}': 1}",
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "[" * 1000,
        "&a [1, *a]",
        "\x00",
    ],
)
def test_what_a_record_never_holds_is_refused_by_every_verb(
    text: str, theirs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(theirs / "config.yaml", "a") as file:
        file.write(f"model_name: {text}\n")
    for verb in (evaluate, sample, compare):
        assert call(verb, [str(theirs)], monkeypatch) == 2
        shown = capsys.readouterr().err
        assert "config.yaml" in shown
        assert shown.count("\n") == 1
        assert SECRET not in shown


def test_an_alias_bomb_costs_nothing(theirs: Path) -> None:
    rungs = [f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]" for i in range(1, 12)]
    (theirs / "config.yaml").write_text("\n".join(["b0: &b0 [lol]", *rungs]))
    with pytest.raises(GenlabError, match="alias"):
        configuration(theirs)
    (theirs / "config.yaml").write_text("a: " + "b" * (1 << 20))
    with pytest.raises(GenlabError, match="too large"):
        configuration(theirs)


def test_a_hydra_section_is_not_read(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = {"_target_": "os.system", "command": f"touch {tmp_path / EVIL}"}
    hydra = {
        "callbacks": {"a": job},
        "job_logging": {"()": "os.system"},
        "searchpath": ["file:///tmp"],
        "launcher": dict(job),
    }
    forge(theirs, lambda config: config.update(hydra=hydra | {"run": {"dir": str(tmp_path / EVIL)}}))
    assert "hydra" not in configuration(theirs)
    assert call(evaluate, [str(theirs), "frechet"], monkeypatch) == 0
    assert not (tmp_path / EVIL).exists()


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_a_pickle_bomb_is_no_checkpoint(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    run = Run(theirs)
    name = max(json.loads((run.checkpoints / "manifest.json").read_text()))
    torch.save({"state_dict": Bomb(tmp_path / EVIL)}, run.checkpoints / name)
    (run.checkpoints / "manifest.json").write_text(json.dumps({name: sha256(run.checkpoints / name)}))
    for verb in (evaluate, sample):
        assert call(verb, [str(theirs)], monkeypatch) == 2
        shown = capsys.readouterr().err
        assert name in shown
        assert "Traceback" not in shown
        assert "weights_only=False" not in shown, "advice that would run it"
    with pytest.raises(GenlabError):
        trained(str(theirs))
    assert not (tmp_path / EVIL).exists()


@pytest.mark.parametrize("how", ["target", "pickle"])
def test_a_run_that_another_one_names_is_a_strangers_too(
    how: str, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What guides, what a flow is straightened by, and an autoencoder: all that `..run=` may be."""
    if how == "target":
        job = {"_target_": "os.system", "command": f"touch {tmp_path / EVIL}"}
        forge(theirs, lambda config: config["model"].update(encoder=job))
    else:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        name = max(json.loads((Run(theirs).checkpoints / "manifest.json").read_text()))
        torch.save({"state_dict": Bomb(tmp_path / EVIL)}, Run(theirs).checkpoints / name)
        manifest = {name: sha256(Run(theirs).checkpoints / name)}
        (Run(theirs).checkpoints / "manifest.json").write_text(json.dumps(manifest))
    weights = weights_of(str(theirs))
    x = torch.zeros(2, 1, 8, 8)
    for use in (
        lambda: trained(str(theirs)),
        lambda: Frozen(str(theirs), weights, []),
        lambda: Reflow(str(theirs), 4)(x, x, None),
    ):
        with pytest.raises(GenlabError, match="refused"):
            use()
    assert not (tmp_path / EVIL).exists()


def test_pairs_that_lie_with_a_teacher_are_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"x": Bomb(tmp_path / EVIL)}, tmp_path / "pairs.pt")
    with pytest.raises(GenlabError, match="holds more than tensors"):
        plain(tmp_path / "pairs.pt")
    assert not (tmp_path / EVIL).exists()


def test_caches_are_this_machines_own(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"

    def change(config: dict[str, Any]) -> None:
        config["evaluation"]["cache"] = config["evaluation"]["features"]["cache"] = str(elsewhere)

    forge(theirs, change)
    assert call(evaluate, [str(theirs), "frechet"], monkeypatch) == 0
    assert not elsewhere.exists()
    config = here(configuration(theirs))
    assert config["evaluation"]["cache"] == config["evaluation"]["features"]["cache"] == os.environ["GENLAB_CACHE"]


@pytest.mark.parametrize("name", ["../../../up", "/abs", "a/../../up", "~/home"])
def test_names_are_no_way_out(name: str, theirs: Path) -> None:
    forge(theirs, lambda config: config["data"]["source"].update(name=name))
    with pytest.raises(GenlabError, match="leads out of its folder"):
        configuration(theirs)


@pytest.mark.parametrize(
    "link", ["metrics.jsonl", "samples", "samples/final.png", "samples/seed0", "checkpoints/x.pt", "config.yaml"]
)
def test_a_link_out_of_the_directory_is_refused(
    link: str, theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(theirs, outside)
    path = theirs / link
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(outside / link)
    before = {p: p.stat().st_mtime_ns for p in outside.rglob("*")}
    for verb in (evaluate, sample, compare):
        assert call(verb, [str(theirs)], monkeypatch) == 2
        assert "link out of the run directory" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in outside.rglob("*")} == before


def test_what_strangers_write_moves_no_terminal_and_tells_no_secret(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escapes in names, paths, reasons and metrics; and no file that is written holds what the environment holds."""
    escape = "\x1b]0;owned\x07\x1b[2J\r\u202e<script>alert(1)</script>"
    run = Path(shutil.copytree(theirs, tmp_path / f"a{escape.replace('/', '')}"))
    forge(run, lambda config: config.update(model_name=f"vae{escape}"))
    forge(run, lambda config: config["evaluation"]["metrics"]["frechet"].update(key=f"fd_digits{escape}"))
    (run / "status.json").write_text(json.dumps({"state": f"failed{escape}", "why": escape, escape: escape}))
    with open(run / "history.jsonl", "a") as file:
        file.write(json.dumps({"images_seen": 64, f"train/{escape}": 1.0, "val/loss": escape}) + "\n")
    assert call(evaluate, [str(run), "frechet", "evaluation.n=80"], monkeypatch) == 0
    assert call(evaluate, [str(run), f"frechet{escape}"], monkeypatch) == 2
    assert call(sample, [str(run), "n=2"], monkeypatch) == 0
    assert call(compare, [str(run), f"out={tmp_path / 'report'}"], monkeypatch) == 0
    shown = "".join(capsys.readouterr())
    assert "fd" in shown
    assert not set(shown) & set("\x1b\x07\r\u202e")
    pages = [(tmp_path / "report" / name).read_text() for name in ("index.html", "report.md")]
    assert all("<script>alert" not in page for page in pages)
    for path in (*run.rglob("*"), *(tmp_path / "report").rglob("*")):
        assert not (path.is_file() and SECRET.encode() in path.read_bytes()), path


def test_a_class_of_ones_own_that_is_not_found() -> None:
    with pytest.raises(GenlabError, match=r"'nowhere\.Net' \(is it on PYTHONPATH\?\)$"):
        build({"_target_": "nowhere.Net"}, trust=True)
