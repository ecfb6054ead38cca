import io
import json
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from genlab.compare import compare
from genlab.report.formats import markdown
from genlab.report.grouping import build
from genlab.report.records import find_runs, read_run
from genlab.report.terminal import rendered

HISTORY = "".join(
    json.dumps({"images_seen": 500 * i, "train/loss": 1 / (i + 1), "val/loss": 1.1 / (i + 1), "eval/fd_digits": 9.0})
    + "\n"
    for i in range(4)
)


class Elements(HTMLParser):
    """Every element of a page, and the text of its scripts apart from other text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.scripts, self.text = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        (self.scripts if self.open[-1:] == ["script"] else self.text).append(data)


def page_of(tmp_path, *paths):
    compare([*paths] or [tmp_path / "runs"], tmp_path / "report")
    return (tmp_path / "report" / "index.html").read_text()


def test_nothing_is_fetched_from_anywhere(tmp_path, fabricate, measured):
    lines = [measured("fd_digits", 3.0, 0.1), measured("nfe", 10), measured("ms_per_sample", 0.5)]
    for model in ("ddpm", "gan"):
        fabricate(tmp_path / "runs", lines, model=model, history=HISTORY)
    text = page_of(tmp_path)
    elements = Elements(text).found
    sources = [attrs[key] for _, attrs in elements for key in ("src", "srcset", "href") if key in attrs]
    assert sources
    assert all(source.startswith(("data:image/", "#data-")) for source in sources)
    assert not re.search(r"https?:|url\(|@import|//[a-z]", re.sub(r"data:[^\"]*", "", text))
    policy = next(attrs["content"] for _, attrs in elements if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@pytest.mark.parametrize("evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$title $data $$"])
def test_what_a_run_says_is_text_and_never_markup(tmp_path, evil, fabricate, measured):
    line = measured(f"fd{evil}", 3.0, better=f"closer to {evil}", protocol={evil: evil, "kind": evil}, evaluation=evil)
    line["references"] = {evil: {"value": 1.0, "n": 5}}
    odd = measured(f"fd{evil}", 4.0, protocol={evil: "other"})
    status = {"state": f"failed{evil}", "why": evil, evil: evil}
    runs = tmp_path / "runs"
    fabricate(
        runs, [line], model=evil, status=status, config={evil: {"a": evil}, "data": {"name": evil}}, history=HISTORY
    )
    fabricate(runs, [odd], model="b", config={"data": {"name": evil}}, history=HISTORY)
    page = Elements(page_of(tmp_path))
    assert [tag for tag, _ in page.found].count("script") == 1
    assert not any(name.startswith("on") for _, attrs in page.found for name in attrs)
    assert "alert(1)" not in "".join(page.scripts)
    assert any(evil in text for text in page.text)
    assert not re.search("<(script|img)", (tmp_path / "report" / "report.md").read_text())


def test_every_picture_has_a_text_and_every_control_a_name(tmp_path, fabricate):
    fabricate(tmp_path / "runs", history=HISTORY)
    elements = Elements(page_of(tmp_path)).found
    assert all(attrs.get("alt") for tag, attrs in elements if tag == "img")
    assert all(attrs.get("aria-label") for tag, attrs in elements if tag == "input")
    assert sum(tag == "th" and attrs.get("scope") == "col" for tag, attrs in elements) == 4


def test_the_leading_metric_stands_beside_the_model(tmp_path, fabricate, measured):
    fabricate(tmp_path / "runs", [measured("fd_digits", 5.25), measured("recall", 0.5)])
    table = re.search(r'<table class="metrics">.*?</table>', page_of(tmp_path), re.DOTALL)[0]
    assert re.findall(r"<button[^>]*>([^<]*)", table) == ["model", "fd_digits ↓", "seeds", "images seen", "recall ↓"]
    line = table[table.index('<tbody class="models">') :]
    assert re.findall(r'<t[hd][^>]*data-value="([^"]*)"', line) == ["ddpm", "5.25", "1", "2000", "0.5"]


def test_the_grids_of_all_models_share_one_slider_over_training(tmp_path, fabricate):
    fabricate(tmp_path / "runs", grids=("000000500.png", "000001000.png", "final.png", "data.png"))
    fabricate(tmp_path / "runs", model="gan", grids=("000000800.png",))
    elements = Elements(page_of(tmp_path)).found
    (slider,) = [attrs for tag, attrs in elements if tag == "input"]
    assert json.loads(slider["data-steps"]) == [500, 800, 1000, 2000]
    frames = [(attrs["data-seen"], "hidden" in attrs) for tag, attrs in elements if "data-seen" in attrs]
    assert frames == [("500", True), ("1000", True), ("2000", False), ("800", False)]


def test_failed_and_running_models_and_their_protocols_are_in_the_page(tmp_path, fabricate):
    fabricate(tmp_path / "runs", [], status={"state": "failed", "why": "out of memory"}, grids=())
    fabricate(tmp_path / "runs", model="gan", status={"state": "running", "images_seen": 680})
    text = page_of(tmp_path)
    assert "failed: out of memory" in text
    assert "running, 34 %" in text
    assert "<dt>n_fake</dt><dd>1437</dd>" in text
    assert "<dt>trainer.batch</dt><dd>64</dd>" in text


def test_a_collapse_is_told_beside_the_model_and_below_the_table(tmp_path, fabricate):
    """With where it began and ended and the worst of it, in the page, in Markdown and in the terminal."""
    diversity = {500: 0.6, 1000: 0.08, 1500: 0.03, 2000: 0.07}
    points = [
        {"images_seen": n, "train/diversity": d} | ({"train/alarm": 1.0} if d < 0.1 else {})
        for n, d in diversity.items()
    ]
    fabricate(tmp_path / "runs", model="gan", seed=3, history="".join(json.dumps(p) + "\n" for p in points))
    fabricate(tmp_path / "runs", model="vae", history=json.dumps({"images_seen": 500, "train/diversity": 0.5}) + "\n")
    said = "gan, seed 3: collapse alarm at 1,000 to 2,000 images (3 points of its history): its samples were 0.03 times"
    assert said in page_of(tmp_path)
    assert page_of(tmp_path).count('<span class="state">collapse alarm</span>') == 1
    tables = build([read_run(path) for path in find_runs([tmp_path / "runs"])])
    console = Console(width=400, file=io.StringIO())
    console.print(rendered(tables[0], 400))
    assert said in console.file.getvalue()
    assert said in markdown(tables, {"digits": []})


def test_a_run_that_has_only_begun_makes_a_page(tmp_path, fabricate):
    path = fabricate(tmp_path / "runs", [], grids=(), status={"state": "running", "images_seen": 0})
    for name in ("history.jsonl", "metrics.jsonl"):
        (path / name).unlink()
    assert "running, 0 %" in page_of(tmp_path)


def test_a_collapsed_posterior_is_an_alarm_too(tmp_path, fabricate):
    rows = [{"images_seen": 500 * i, "val/loss": 1.0} | ({"val/alarm": 1.0} if i in (2, 3) else {}) for i in range(5)]
    fabricate(tmp_path / "runs", model="vae", history="".join(json.dumps(row) + "\n" for row in rows))
    text = " ".join(Elements(page_of(tmp_path)).text)
    assert "vae, seed 0: collapse alarm at 1,000 to 1,500 images (2 points of its history)" in text
