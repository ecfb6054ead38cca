import csv
import io
import json
import math

import pytest
from rich.console import Console

from genlab.report.formats import markdown, number, to_csv, to_json
from genlab.report.grouping import build
from genlab.report.records import read_run
from genlab.report.terminal import rendered


@pytest.mark.parametrize(
    ("value", "spread", "text"),
    [
        (12.3456, 0.4123, "12.3 ± 0.4"),
        (12.3456, 0.1234, "12.35 ± 0.12"),
        (1234.5, 210.0, "1,234 ± 210"),
        (0.00123, 0.0002, "0.00123 ± 0.00020"),
        (3e-6, 1e-6, "3.00e-06 ± 1.0e-06"),
        (12.3456, None, "12.35"),
        (12.3456, 0.0, "12.35"),
        (100, None, "100"),
        (35_746_307, None, "35.75 M"),
        (12_345.6, None, "12,346"),
        (0.0, None, "0"),
        (math.nan, 0.1, "nan"),
        (math.inf, None, "inf"),
    ],
)
def test_numbers_have_the_digits_that_their_spread_supports(value, spread, text):
    assert number(value, spread) == text


@pytest.fixture
def tables(tmp_path, fabricate, measured):
    def run(model, seed, fd, **more):
        lines = [measured("fd_digits", fd, 0.25, floor=True), measured("nfe", 100)]
        lines += [measured("bits_per_dim", 3.1, protocol={"kind": "bound"})]
        return read_run(fabricate(tmp_path, lines, model=model, seed=seed, **more))

    failed = {"state": "failed", "why": "NaN|NaN"}
    return build([run("ddpm", 0, 1 / 3), run("ddpm", 1, 2 / 3), run("g*n", 0, math.inf, status=failed)])


def test_csv_parses_back_to_the_same_numbers(tables):
    lines = list(csv.DictReader(io.StringIO(to_csv(tables))))
    floor, ceiling, ddpm, gan = lines
    assert (floor["row"], float(floor["fd_digits"]), floor["n"]) == ("reference", 1.0, "1437")
    assert float(ceiling["fd_digits"]) == 300.0
    cell = tables[0].rows[0].cells["fd_digits"]
    assert (float(ddpm["fd_digits"]), float(ddpm["fd_digits_spread"])) == (cell.value, cell.spread)
    assert (ddpm["seeds"], ddpm["fd_digits_seeds"], ddpm["bits_per_dim_kind"]) == ("2", "2", "bound")
    assert (gan["state"], float(gan["fd_digits"])) == ("failed: NaN|NaN", math.inf)


def test_json_holds_the_means_and_every_seed_with_its_protocol(tables):
    (table,) = json.loads(to_json(tables), parse_constant=pytest.fail)
    ddpm, gan = table["rows"]
    cell = tables[0].rows[0].cells["fd_digits"]
    assert (ddpm["cells"]["fd_digits"]["value"], ddpm["cells"]["fd_digits"]["spread"]) == (cell.value, cell.spread)
    assert [run["metrics"]["fd_digits"]["value"] for run in ddpm["runs"]] == [1 / 3, 2 / 3]
    assert ddpm["runs"][0]["metrics"]["fd_digits"]["protocol"]["n_fake"] == 1437
    assert gan["cells"]["fd_digits"]["value"] is None


def test_markdown_keeps_its_columns_whatever_a_run_says(tables):
    text = markdown(tables, {"digits": ["cost.png"]})
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {7}
    assert "g\\*n<br>failed: NaN\\|NaN" in text
    assert "![cost of digits](cost.png)" in text
    assert "3.100 bound" in text or "3.1 bound" in text


def wide(tmp_path, fabricate, measured):
    names = ["fd_digits", "is_digits", "kd_digits", "precision", "recall", "density", "coverage", "bits_per_dim"]
    names += ["nfe", "ms_per_sample", "train_images_per_second", "parameters"]
    lines = [measured(name, 12.345, 0.123, floor=True) for name in names]
    models = ["ddpm", "ncsn", "score_sde", "flow_matching", "gan", "vae", "flow", "autoregressive"]
    return build([read_run(fabricate(tmp_path, lines, model=model)) for model in models])[0]


def printed(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(rendered(table, width))
    return console.file.getvalue()


def test_the_terminal_shows_what_fits_and_names_the_rest(tmp_path, fabricate, measured):
    text = printed(wide(tmp_path, fabricate, measured), 100)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert all(name in text for name in ("fd_digits", "12.35 ± 0.12", "NFE", "ms/sample", "bits/dim"))
    assert "in the files only:" in text
    assert "parameters" in text.split("in the files only:")[1]
    assert "…" not in text


def test_a_narrow_terminal_gives_up_the_count_of_seeds_before_the_leading_metric(tmp_path, fabricate, measured):
    text = printed(wide(tmp_path, fabricate, measured), 40)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 40
    assert "12.35" in text
    assert "in the files only: seeds" in " ".join(text.split())


def test_a_wide_terminal_shows_everything(tmp_path, fabricate, measured):
    text = printed(wide(tmp_path, fabricate, measured), 240)
    assert "in the files only" not in text
    assert "params" in text


def test_the_terminal_shows_millions_of_parameters_as_such(tmp_path, fabricate, measured):
    run = fabricate(tmp_path, [measured("fd_digits", 5.0), measured("parameters", 35_746_307.0)])
    assert "35.75 M" in printed(build([read_run(run)])[0], 240)


def test_the_terminal_prints_markup_of_a_run_as_text(tmp_path, fabricate):
    (table,) = build([read_run(fabricate(tmp_path, model="[red]x[/red]", data="[/b]"))])
    assert "[red]x[/red]" in printed(table, 100)
