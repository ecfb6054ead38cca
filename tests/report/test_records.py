import json
import math

import pytest
from PIL import Image

from genlab.errors import GenlabError
from genlab.report.records import find_runs, flat, read_run


def test_a_half_written_history_is_read_up_to_where_it_is_whole(tmp_path, fabricate):
    path = fabricate(tmp_path, history='{"images_seen": 64, "train/loss": 2.5}\n{"images_seen": 128, "train/lo')
    assert read_run(path).history == [{"images_seen": 64, "train/loss": 2.5}]


def test_what_a_resumed_run_repeats_replaces_what_it_had_logged(tmp_path, fabricate):
    logged = [(64, 5.0), (128, 4.0), (192, 3.0), (128, 4.5), (192, 3.5)]
    lines = "".join(json.dumps({"images_seen": seen, "train/loss": loss}) + "\n" for seen, loss in logged)
    history = read_run(fabricate(tmp_path, history=lines)).history
    assert [point["images_seen"] for point in history] == [64, 128, 128, 192]
    assert history[-1]["train/loss"] == 3.5


def test_losses_that_left_the_real_numbers_are_still_numbers(tmp_path, fabricate):
    history = read_run(fabricate(tmp_path, history='{"images_seen": 64, "train/loss": NaN, "note": "x"}')).history
    assert math.isnan(history[0]["train/loss"])
    assert "note" not in history[0]


def test_each_metric_is_its_newest_of_the_checkpoint_that_was_scored_last(tmp_path, fabricate, measured):
    """A likelihood that is measured later takes nothing away; what a run was before it went on is no number of it."""
    early, late = ({"checkpoint": {"images_seen": n, "which": "last"}} for n in (1, 2))
    lines = [
        measured("precision", 0.4, evaluation="before", protocol=early),
        measured("fd_digits", 9.0, evaluation="old", protocol=late),
        measured("recall", 0.5, evaluation="old", protocol=late),
        measured("fd_digits", 8.0, evaluation="new", protocol=late),
    ]
    run = read_run(fabricate(tmp_path, lines))
    assert {name: m.value for name, m in run.metrics.items()} == {"fd_digits": 8.0, "recall": 0.5}
    assert list(run.evaluations) == ["before", "old", "new"]


@pytest.mark.parametrize("other", [{"weights": "raw"}, {"sampler": {"steps": 3}}, {"guidance": {"scale": 2}}])
def test_another_sampler_or_other_weights_replace_no_number_of_the_runs_own(tmp_path, fabricate, measured, other):
    lines = [
        measured("fd_digits", 9.0, evaluation="own"),
        measured("fd_digits", 8.0, evaluation="other", protocol=other),
        measured("recall", 0.5, evaluation="other", protocol=other),
    ]
    run = read_run(fabricate(tmp_path, lines))
    assert {name: m.value for name, m in run.metrics.items()} == {"fd_digits": 9.0, "recall": 0.5}


def test_an_evaluation_that_is_repeated_stays_the_first(tmp_path, fabricate, measured):
    lines = [
        measured("fd_digits", 9.0, evaluation="own"),
        measured("recall", 0.4, evaluation="own"),
        measured("recall", 0.5, evaluation="other", protocol={"weights": "raw"}),
        measured("fd_digits", 7.0, evaluation="own"),
    ]
    run = read_run(fabricate(tmp_path, lines))
    assert {name: m.value for name, m in run.metrics.items()} == {"fd_digits": 7.0, "recall": 0.4}


@pytest.mark.parametrize("line", ["[" * 100_000, '{"metric": "m", "value": 1' + "0" * 5000 + "}"])
def test_a_line_that_nothing_can_read_is_left_out(tmp_path, fabricate, line):
    path = fabricate(tmp_path)
    with (path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    assert list(read_run(path).metrics) == ["fd_digits"]


def test_a_metric_without_a_value_is_no_metric(tmp_path, fabricate, measured):
    lines = [measured("fd_digits", None), measured("recall", "<b>"), measured("precision", 0.5)]  # type: ignore[arg-type]
    assert list(read_run(fabricate(tmp_path, lines)).metrics) == ["precision"]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({}, "finished"),
        ({"state": "running", "images_seen": 680}, "running, 34 %"),
        ({"state": "failed", "why": "the loss\nis \x1b[31mNaN"}, "failed: the loss is [31mNaN"),
    ],
)
def test_the_state_in_words(tmp_path, status, state, fabricate):
    assert read_run(fabricate(tmp_path, status=status)).state == state


@pytest.mark.parametrize("content", ["", '{"state": "runn'])
def test_a_half_written_status_is_an_unknown_state(tmp_path, content, fabricate):
    path = fabricate(tmp_path)
    (path / "status.json").write_text(content)
    assert read_run(path).state == "unknown: no readable status.json"


def test_frames_are_ordered_and_end_with_the_final_grid(tmp_path, fabricate):
    run = read_run(fabricate(tmp_path, grids=("000000500.png", "000002000.png", "final.png", "data.png")))
    assert [(seen, path.name) for seen, path in run.frames] == [(500, "000000500.png"), (2000, "final.png")]
    on = read_run(fabricate(tmp_path / "on", grids=("000000500.png", "final.png"), status={"state": "running"}))
    assert [path.name for _, path in on.frames] == ["000000500.png"], "final.png is of where it ended before"


def test_a_grid_that_is_still_being_written_is_left_out(tmp_path, fabricate):
    path = fabricate(tmp_path)
    grid = path / "samples" / "000001000.png"
    grid.write_bytes(grid.read_bytes()[:-20])
    assert [seen for seen, _ in read_run(path).frames] == [2000]
    film = path / "samples" / "trajectory.webp"
    frame = Image.effect_noise((40, 40), 50)
    frame.save(film, save_all=True, append_images=[frame])
    assert read_run(path).picture("trajectory.webp") == film
    film.write_bytes(film.read_bytes()[:-20])
    assert read_run(path).picture("trajectory.webp") is None


def test_seeds_share_a_group_and_configurations_do_not(tmp_path, fabricate):
    runs = [read_run(fabricate(tmp_path, name=name, seed=seed)) for name, seed in [("ab", 0), ("ab", 17), ("cd", 0)]]
    assert runs[0].group == runs[1].group != runs[2].group


def test_runs_are_found_below_a_directory_and_each_only_once(tmp_path, fabricate):
    paths = [fabricate(tmp_path, seed=seed) for seed in (0, 1)]
    (paths[0] / ".hydra").mkdir()
    (paths[0] / ".hydra" / "config.yaml").write_text("{}")
    assert find_runs([tmp_path, paths[1]]) == paths


@pytest.mark.parametrize("content", ["a: [", "- 1", "", "\x00", "x: !!python/object/apply:os.system [ls]"])
def test_a_configuration_that_is_none_is_named(tmp_path, content, fabricate):
    path = fabricate(tmp_path)
    (path / "config.yaml").write_text(content)
    with pytest.raises(GenlabError, match=r"config\.yaml"):
        read_run(path)


def test_flat_keeps_empty_branches():
    assert flat({"a": {"b": {"c": 1}, "d": {}}, "e": [2]}) == {"a.b.c": 1, "a.d": {}, "e": [2]}


def test_the_history_is_ahead_of_the_status_while_a_run_goes_on(tmp_path, fabricate):
    status = {"state": "running", "images_seen": 0}
    run = read_run(fabricate(tmp_path, status=status, history='{"images_seen": 500, "train/loss": 1}'))
    assert (run.images_seen, run.state) == (500, "running, 25 %")
