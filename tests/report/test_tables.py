import math
import statistics

import pytest

from genlab.report.grouping import build
from genlab.report.records import read_run
from genlab.report.tables import Column


def tables(*paths):
    return build([read_run(path) for path in paths])


def test_seeds_make_one_row_of_mean_and_sample_standard_deviation(tmp_path, fabricate, measured):
    values = [12.0, 13.0, 17.0]
    (table,) = tables(*(fabricate(tmp_path, [measured("fd_digits", v, 9.9)], seed=i) for i, v in enumerate(values)))
    (row,) = table.rows
    cell = row.cells["fd_digits"]
    assert (cell.value, cell.spread) == (statistics.mean(values), statistics.stdev(values))
    assert cell.seeds == (0, 1, 2)


def test_a_mean_over_fewer_seeds_than_there_are_says_so(tmp_path, fabricate, measured):
    lines = [[measured("fd_digits", 10.0), measured("recall", 0.5)], [measured("fd_digits", 12.0)]]
    (table,) = tables(*(fabricate(tmp_path, line, seed=i) for i, line in enumerate(lines)))
    (row,) = table.rows
    assert row.cells["fd_digits"].notes == ()
    assert row.cells["recall"].notes == ("of 1 of 2 seeds: the others have none",)


def test_one_seed_keeps_the_standard_error_of_its_estimate(tmp_path, fabricate, measured):
    (table,) = tables(fabricate(tmp_path, [measured("fd_digits", 12.0, 0.4)]))
    assert (table.rows[0].cells["fd_digits"].value, table.rows[0].cells["fd_digits"].spread) == (12.0, 0.4)


def test_an_unfinished_seed_does_not_bend_the_mean_but_is_told_of(tmp_path, fabricate, measured):
    done = fabricate(tmp_path, [measured("fd_digits", 10.0, 0.5)], seed=0)
    died = fabricate(
        tmp_path, [measured("fd_digits", 90.0)], seed=1, status={"state": "failed", "why": "NaN", "images_seen": 64}
    )
    (row,) = tables(done, died)[0].rows
    assert (row.cells["fd_digits"].value, row.cells["fd_digits"].spread) == (10.0, 0.5)
    assert row.state == "1 of 2 seeds finished; seed 1 failed: NaN"
    assert row.images_seen == [64, 2000]


def test_a_run_in_progress_shows_what_it_has_and_is_never_the_best(tmp_path, fabricate, measured):
    running = fabricate(tmp_path, [measured("fd_digits", 1.0)], model="gan", status={"state": "running"})
    others = [fabricate(tmp_path, [measured("fd_digits", v)], model=m) for m, v in (("vae", 3.0), ("ddpm", 2.0))]
    (table,) = tables(running, *others)
    assert [(row.label, row.cells["fd_digits"].best) for row in table.rows] == [
        ("gan", False),
        ("ddpm", True),
        ("vae", False),
    ]


def test_another_protocol_earns_a_footnote_that_names_the_fields_and_never_wins(tmp_path, fabricate, measured):
    usual = [fabricate(tmp_path, [measured("fd_digits", v)], model=m) for m, v in (("a", 5.0), ("b", 6.0))]
    odd = fabricate(tmp_path, [measured("fd_digits", 1.0, protocol={"n_fake": 500, "precision": "bf16"})], model="c")
    (table,) = tables(*usual, odd)
    notes = {row.label: row.cells["fd_digits"].notes for row in table.rows}
    assert notes == {"a": (), "b": (), "c": ("n_fake 500 (elsewhere 1437), precision bf16 (elsewhere null)",)}
    assert [row.label for row in table.rows if row.cells["fd_digits"].best] == ["a"]
    assert table.symbols == {notes["c"][0]: "†"}


@pytest.mark.parametrize(
    "own", [{"nfe": 10}, {"sampler": {"steps": 3}}, {"seed": 4}, {"checkpoint": {"images_seen": 7}}, {"weights": "raw"}]
)
def test_what_belongs_to_a_model_is_no_difference_of_protocol(tmp_path, own, fabricate, measured):
    paths = [fabricate(tmp_path, [measured("fd_digits", 5.0, protocol=p)], model=m) for m, p in (("a", {}), ("b", own))]
    assert not tables(*paths)[0].symbols


def test_the_machine_matters_to_timings_only(tmp_path, fabricate, measured):
    names = ("fd_digits", "ms_per_sample")
    paths = [
        fabricate(tmp_path, [measured(name, 5.0, protocol={"threads": threads}) for name in names], model=model)
        for model, threads in (("a", 1), ("b", 2))
    ]
    notes = {name: tables(*paths)[0].rows[1].cells[name].notes for name in names}
    assert notes == {"fd_digits": (), "ms_per_sample": ("threads 2 (elsewhere 1)",)}


def test_seeds_scored_with_different_samplers_do_not_pass_as_one_number(tmp_path, fabricate, measured):
    paths = [
        fabricate(tmp_path, [measured("fd_digits", 5.0, protocol={"sampler": {"steps": steps}})], seed=seed)
        for seed, steps in ((0, 100), (1, 100), (2, 10))
    ]
    (row,) = tables(*paths)[0].rows
    assert row.cells["fd_digits"].notes == ("seed 2: sampler.steps 10 (seed 0: 100)",)


def test_a_seed_of_another_protocol_is_named(tmp_path, fabricate, measured):
    paths = [
        fabricate(tmp_path, [measured("fd_digits", 5.0, protocol={"n_fake": n})], seed=seed)
        for seed, n in enumerate((1437, 500, 1437))
    ]
    (row,) = tables(*paths)[0].rows
    assert row.cells["fd_digits"].notes == ("seed 1: n_fake 500 (elsewhere 1437)",)


def test_references_come_once_with_the_n_they_state(tmp_path, fabricate, measured):
    small = {"train": {"value": 3.0, "stderr": 0.2, "n": 500}}
    paths = [fabricate(tmp_path, [measured("fd_digits", 5.0, floor=True)], seed=seed) for seed in (0, 1)]
    odd = measured("fd_digits", 6.0, references=small, protocol={"n_fake": 500})
    (table,) = tables(*paths, fabricate(tmp_path, [odd], model="gan"))
    found = [
        (row.label, row.size, row.cells["fd_digits"].value, len(row.cells["fd_digits"].notes))
        for row in table.references
    ]
    assert found == [
        ("train vs test (floor)", "n = 1,437", 1.0, 0),
        ("train vs test (floor)", "n = 500", 3.0, 1),
        ("noise vs test (ceiling)", "n = 1,437", 300.0, 0),
    ]


def test_rows_are_ordered_by_the_first_frechet_distance_and_what_lacks_it_comes_last(tmp_path, fabricate, measured):
    recall = measured("recall", 0.9, better="higher")
    paths = [
        fabricate(tmp_path, [recall, *lines], model=model)
        for model, lines in {"none": [], "b": [measured("fd_digits", 7.0)], "a": [measured("fd_digits", 9.0)]}.items()
    ]
    (table,) = tables(*paths)
    assert [column.metric for column in table.columns] == ["fd_digits", "recall"]
    assert [row.label for row in table.rows] == ["b", "a", "none"]


def test_costs_stand_at_the_end_in_their_own_order(tmp_path, fabricate, measured):
    names = ["parameters", "nfe", "bits_per_dim", "fd_digits"]
    (table,) = tables(fabricate(tmp_path, [measured(name, 1.0) for name in names]))
    assert [column.metric for column in table.columns] == ["fd_digits", "bits_per_dim", "nfe", "parameters"]


def test_data_sets_do_not_share_a_table(tmp_path, fabricate):
    assert [t.data for t in tables(fabricate(tmp_path), fabricate(tmp_path, data="shapes"))] == ["digits", "shapes"]


def test_configurations_of_one_model_are_told_apart_by_what_differs(tmp_path, fabricate):
    paths = [
        fabricate(tmp_path, name=name, config={"optimizer": {"lr": lr, "beta": 0.9}, "logger": name})
        for name, lr in (("ab", 0.1), ("cd", 0.2))
    ]
    assert {row.label for row in tables(*paths)[0].rows} == {"ddpm (lr=0.1)", "ddpm (lr=0.2)"}


def test_a_label_says_one_thing_once_and_in_four_digits_where_these_suffice(tmp_path, fabricate):
    def labels(place, *rates):
        settings = [{"optimizer": {"lr": lr}, "model": {"optimizer": {"lr": lr}}} for lr in rates]
        paths = [fabricate(tmp_path / place, name=f"r{i}", config=config) for i, config in enumerate(settings)]
        return {row.label for row in tables(*paths)[0].rows}

    assert labels("a", 0.0024825113, 0.1) == {"ddpm (lr=0.002483)", "ddpm (lr=0.1)"}
    assert labels("b", 0.0024825113, 0.0024825114) == {"ddpm (lr=0.0024825113)", "ddpm (lr=0.0024825114)"}


def test_one_configuration_in_two_places_is_told_apart_by_its_place(tmp_path, fabricate):
    labels = [row.label for row in tables(fabricate(tmp_path / "old"), fabricate(tmp_path / "new"))[0].rows]
    assert len(set(labels)) == 2
    assert all(str(tmp_path) in label for label in labels)


@pytest.mark.parametrize(
    ("better", "best", "arrow"), [("lower", 1.0, "↓"), ("higher", 4.0, "↑"), ("closer to 2.1", 2.0, "→ 2.1")]
)
def test_best_follows_the_direction_of_the_metric(tmp_path, better, best, arrow, fabricate, measured):
    values = {"a": 1.0, "b": 2.0, "c": 4.0}
    paths = [fabricate(tmp_path, [measured("m", v, better=better)], model=m) for m, v in values.items()]
    (table,) = tables(*paths)
    assert [row.cells["m"].value for row in table.rows if row.cells["m"].best] == [best]
    assert table.columns[0].arrow == arrow


def test_without_a_direction_nothing_is_best(tmp_path, fabricate, measured):
    paths = [fabricate(tmp_path, [measured("parameters", 1.0, better=None)], model=m) for m in ("a", "b")]
    assert not any(row.cells["parameters"].best for row in tables(*paths)[0].rows)
    assert math.isnan(Column("parameters", None).badness(3.0))


def test_a_diverged_number_is_shown_and_ranks_last(tmp_path, fabricate, measured):
    paths = [
        fabricate(tmp_path, [measured("fd_digits", v)], model=m)
        for m, v in (("a", math.nan), ("b", math.inf), ("c", 3.0), ("d", 4.0))
    ]
    (table,) = tables(*paths)
    assert [row.label for row in table.rows] == ["c", "d", "b", "a"]
    assert [row.label for row in table.rows if row.cells["fd_digits"].best] == ["c"]
