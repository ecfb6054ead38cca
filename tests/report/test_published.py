"""What a recipe says of its paper's numbers, below our own."""

from dataclasses import replace
from pathlib import Path

from genlab.report.grouping import build
from genlab.report.records import Measurement, RunRecord


def record(published: object) -> RunRecord:
    measured = {name: Measurement(name, value, None, "lower", {}, {}) for name, value in (("w2", 0.31), ("nfe", 20.0))}
    return RunRecord(
        Path("o/d/m/abc-s0"), "d", "m", 0, {"published": published}, {"state": "finished"}, [], {"e": measured}
    )


def entry(**more: object) -> dict[str, object]:
    return {"metric": "w2", "value": 0.3, "spread": 0.04, "protocol": "10k", "source": "A et al."} | more


def test_published_numbers_stand_below_the_model_with_their_protocol() -> None:
    (table,) = build([record([entry()])])
    ours, theirs = table.models
    assert (ours.label, theirs.label) == ("m", "m, as published")
    assert (theirs.cells["w2"].value, theirs.cells["w2"].spread) == (0.3, 0.04)
    assert list(table.symbols) == ["published: A et al.; 10k"]
    assert "nfe" not in theirs.cells


def test_the_entry_of_this_data_set_and_this_number_of_evaluations_is_taken() -> None:
    entries = [entry(value=1.0, data="other"), entry(value=2.0, nfe=50), entry(value=3.0, nfe=20)]
    assert build([record(entries)])[0].models[1].cells["w2"].value == 3.0
    assert "published: A et al.; 20 NFE; 10k" in build([record(entries)])[0].symbols
    assert len(build([record(entries[:2])])[0].models) == 1, "none of another data set or other evaluations"


def test_the_first_entry_of_a_model_of_as_many_classes_is_taken() -> None:
    entries = [entry(value=1.0, classes=10), entry(value=2.0, classes=0), entry(value=3.0)]
    for classes, value in ((10, 1.0), (0, 2.0)):
        run = record(entries)
        run = replace(run, config={**run.config, "model": {"classes": classes}})
        assert build([run])[0].models[1].cells["w2"].value == value


def test_what_is_malformed_or_measured_by_nobody_here_is_left_out() -> None:
    for odd in (None, "0.3", [1], [entry(value="0.3")], [entry(metric="fid")], {"w2": 0.3}):
        (table,) = build([replace(record(odd))])
        assert len(table.models) == 1


def test_the_best_checkpoint_stands_below_the_last_one_and_says_so() -> None:
    run = record([])
    last = {**run.metrics}
    chosen = {"checkpoint": {"which": "best", "images_seen": 4000}}
    best = {"w2": Measurement("w2", 0.2, None, "lower", {}, chosen)}
    (table,) = build([replace(run, evaluations={"a": best, "b": last})])
    ours, kept = table.models
    assert (ours.cells["w2"].value, kept.cells["w2"].value) == (0.31, 0.2)
    assert kept.label == "m, best checkpoint (4,000 images)"
    assert "chosen for its score" in next(iter(table.symbols))
    (table,) = build([replace(run, evaluations={"b": last, "a": best})])
    assert table.models[0].cells["w2"].value == 0.31, "whichever was written last"
    by = {"checkpoint": {"which": "best", "images_seen": 4000, "by": "fd"}, "n_fake": 50}
    (table,) = build([replace(run, evaluations={"b": last, "a": {"w2": replace(best["w2"], protocol=by)}})])
    assert table.models[1].cells["w2"].notes == (
        "chosen for fd in training, which flatters it",
        "n_fake 50 (elsewhere null)",
    )


def test_which_bound_it_is_stands_in_the_cell_and_is_no_difference_of_protocol() -> None:
    runs = [record([]), replace(record([]), path=Path("o/d/n/abc-s0"), model="n")]
    bits = [{"kind": "bound", "bound": "IW-64"}, {"kind": "ode"}]
    runs = [
        replace(run, evaluations={"e": {"bits_per_dim": Measurement("bits_per_dim", 2.0, None, "lower", {}, own)}})
        for run, own in zip(runs, bits, strict=True)
    ]
    (table,) = build(runs)
    assert [row.cells["bits_per_dim"].kind for row in table.rows] == ["IW-64", "ode"]
    assert not table.symbols
