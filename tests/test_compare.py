import json
import subprocess
import sys
import time

import pytest
import yaml
from PIL import Image

from genlab.compare import compare, main


def run_directory(root, data="digits", model="ddpm", seed=0, fd=3.0):
    """The least that makes a run."""
    path = root / data.replace("/", "-") / model / f"1a2b-s{seed}"
    (path / "samples").mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"data": {"name": data}, "model_name": model, "seed": seed}))
    (path / "status.json").write_text(json.dumps({"state": "finished", "images_seen": 64, "max_images": 64}))
    (path / "history.jsonl").write_text('{"images_seen": 64, "train/loss": 2.5}\n{"images_se')
    metrics = [{"metric": name, "value": v, "better": "lower"} for name, v in (("fd_digits", fd), ("nfe", 10))]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    Image.new("L", (33, 33), 40).save(path / "samples" / "final.png")
    return path


def test_a_directory_of_runs_becomes_a_report(tmp_path, capsys):
    for model, fd in (("ddpm", 3.0), ("gan", 9.0)):
        for seed in (0, 1):
            run_directory(tmp_path / "runs", model=model, seed=seed, fd=fd + seed)
    out = tmp_path / "deep" / "report"
    assert main([str(tmp_path / "runs"), f"out={out}"]) == 0
    pictures = {"samples.png", "curves.png", "cost.png"}
    texts = {"report.csv", "report.md", "report.json", "index.html"}
    assert {path.name for path in out.iterdir()} == pictures | texts
    printed = capsys.readouterr()
    assert printed.err == ""
    assert all(text in printed.out for text in ("ddpm", "gan", "3.5 ± 0.7", "index.html"))


def test_data_sets_get_figures_of_their_own(tmp_path):
    paths = [run_directory(tmp_path / "runs", data=data) for data in ("digits", "a/b")]
    report = compare(paths, tmp_path / "out")
    assert [table.data for table in report.tables] == ["digits", "a/b"]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        f"{figure}-{data}.png" for figure in ("samples", "curves", "cost") for data in ("digits", "a-b")
    }


def test_a_report_can_be_made_again(tmp_path):
    path = run_directory(tmp_path / "runs")
    first, second = (compare([path], tmp_path / "out") and (tmp_path / "out" / "index.html").read_bytes() for _ in "12")
    assert first == second


def test_a_damaged_run_costs_no_other(tmp_path, capsys):
    good, bad = (run_directory(tmp_path / "runs", model=model) for model in ("ddpm", "gan"))
    (bad / "config.yaml").write_text("a: [")
    assert main([str(tmp_path / "runs"), f"out={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(f"genlab: left out: {bad / 'config.yaml'} is not plain YAML")
    assert printed.err.count("\n") == 1
    assert "ddpm" in printed.out
    (good / "config.yaml").write_text("a: [")
    assert main([str(tmp_path / "runs"), f"out={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_start_that_failed_before_its_first_batch_is_no_row_unless_named(tmp_path, capsys):
    _, bad = (run_directory(tmp_path / "runs", model=model) for model in ("ddpm", "gan"))
    (bad / "status.json").write_text(json.dumps({"state": "failed", "images_seen": 0, "why": "lr"}))
    (bad / "history.jsonl").unlink()
    (bad / "metrics.jsonl").unlink()
    models = [row.label for row in compare([tmp_path / "runs"], tmp_path / "out").tables[0].rows]
    assert models == ["ddpm"]
    assert capsys.readouterr().err == "genlab: left out: 1 run that failed before the first batch\n"
    for paths in ([tmp_path / "runs", bad], [bad.parent]):
        assert "gan" in [row.label for row in compare(paths, tmp_path / "out").tables[0].rows]
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "no runs given"),
        (["out=somewhere"], "no runs given"),
        (["nowhere"], "nowhere is not a run directory: no such directory"),
        (["empty"], "empty is not a run directory: it has no config.yaml"),
        (["runs", "outt=x"], "does not know 'outt=x': its only option is out=DIR"),
        (["runs", "--out", "x"], "does not know '--out'"),
        (["runs", "out=file"], "cannot write the report to file"),
        (["runs", "out=file/deeper"], "cannot write the report to file/deeper"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    run_directory(tmp_path / "runs")
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("genlab: ")
    assert complaint in printed.err
    assert printed.err.count("\n") == 1


def test_help_loads_nothing_that_draws_or_trains():
    code = (
        "import sys; from genlab.compare import main; code = main(['--help']);"
        "heavy = {'torch', 'lightning', 'matplotlib', 'rich', 'PIL', 'numpy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: genlab compare RUN... [out=DIR]" in done.stdout
    assert time.monotonic() - start < 10  # 0.1 s on an idle machine


def test_a_report_needs_neither_torch_nor_lightning(tmp_path):
    path = run_directory(tmp_path / "runs")
    code = (
        f"import sys; from genlab.compare import main; code = main([{str(path)!r}, {f'out={tmp_path}/out'!r}]);"
        "heavy = {'torch', 'lightning'} & set(sys.modules); sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
