import io
import json

import pytest
from matplotlib.figure import Figure
from PIL import Image

from genlab.errors import GenlabError
from genlab.report.figures import _panel, colours, cost, curves, denoising
from genlab.report.grids import side_by_side
from genlab.report.grouping import build
from genlab.report.records import read_run


def table_of(*paths):
    return build([read_run(path) for path in paths])[0]


def test_samples_stand_side_by_side_real_data_first_and_pixels_stay_sharp(tmp_path, fabricate):
    table = table_of(*(fabricate(tmp_path, model=model) for model in ("a", "b", "c")))
    picture = Image.open(io.BytesIO(side_by_side(table) or b""))
    assert picture.width > 4 * 400
    levels = {value for _, value in picture.crop((0, 150, picture.width, 300)).convert("L").getcolors()}
    assert levels == {255, 80, 120}  # paper, final.png, data.png: nothing in between
    assert picture.convert("L").getpixel((100, 200)) == 120


def test_a_model_called_like_markup_does_not_break_a_figure(tmp_path, fabricate, measured):
    lines = [measured("fd_digits", 3.0, 0.1, floor=True), measured("nfe", 10)]
    history = json.dumps({"images_seen": 1, "train/loss": 2.0, "eval/$x": 1.0})
    table = table_of(*(fabricate(tmp_path, lines, model=m, history=history) for m in ("$x_", "$\\frac{", "_" * 90)))
    assert all(draw(table) for draw in (side_by_side, curves, cost))


@pytest.mark.parametrize("values", [(3.0, 40.0), (-0.1, 2.0), (float("nan"), 2.0)])
def test_cost_is_drawn_for_any_sign(tmp_path, values, fabricate, measured):
    runs = [
        fabricate(
            tmp_path, [measured("fd_digits", value, 0.1), measured("nfe", nfe), measured("ms_per_sample", 0.0)], model=m
        )
        for m, value, nfe in zip("ab", values, (1, 100), strict=True)
    ]
    assert cost(table_of(*runs))


def test_nothing_to_show_is_no_figure(tmp_path, fabricate):
    table = table_of(fabricate(tmp_path, [], grids=()))
    assert (side_by_side(table), curves(table), cost(table)) == (None, None, None)


@pytest.mark.parametrize(("n", "marker"), [(1, "o"), (2, "None")])
def test_a_single_point_of_a_curve_is_seen(tmp_path, n, marker, fabricate):
    lines = [json.dumps({"images_seen": i, "train/loss": 2.0}) for i in range(n)]
    ax = Figure().subplots()
    _panel(ax, "ddpm", [(read_run(fabricate(tmp_path, history="\n".join(lines))), "train/loss", {})], "grey")
    assert [line.get_marker() for line in ax.lines] == [marker]


def test_dark_and_light_differ_in_their_ground_only(tmp_path, fabricate):
    table = table_of(fabricate(tmp_path, history=json.dumps({"images_seen": 1, "train/loss": 2.0})))
    light, dark = (Image.open(io.BytesIO(curves(table, dark) or b"")).convert("L") for dark in (False, True))
    assert light.size == dark.size
    assert light.getpixel((0, 0)) > 200
    assert dark.getpixel((0, 0)) < 60


def test_a_model_keeps_its_colour_whatever_its_rank(tmp_path, fabricate, measured):
    def of(place, values):
        return colours(
            table_of(*(fabricate(tmp_path / place, [measured("fd_digits", v)], model=m) for m, v in values.items()))
        )

    assert of("x", {"a": 1.0, "b": 2.0}) == of("y", {"a": 2.0, "b": 1.0})


def test_a_broken_picture_is_named(tmp_path, fabricate):
    path = fabricate(tmp_path)
    (path / "samples" / "final.png").write_bytes(b"no picture IEND\xaeB`\x82")
    with pytest.raises(GenlabError, match=r"final\.png"):
        side_by_side(table_of(path))


def test_denoising_is_drawn_of_the_last_validation_and_only_of_models_that_denoise(tmp_path, fabricate):
    """The same picture with and without the rows before the last, and none of a model without such rows."""

    def history(*scales):
        errors = [{f"val/x_error/{k}": scale * (k + 1) for k in range(10)} for scale in scales]
        return "\n".join(json.dumps({"images_seen": i, "val/loss": 1.0, **row}) for i, row in enumerate(errors))

    pictures = [
        denoising(
            table_of(fabricate(tmp_path / str(i), history=history(*scales)), fabricate(tmp_path / str(i), model="gan"))
        )
        for i, scales in enumerate([(0.1,), (9.0, 0.1), (0.1, 9.0)])
    ]
    assert pictures[0] == pictures[1] != pictures[2]
    assert denoising(table_of(fabricate(tmp_path, model="gan"))) is None
