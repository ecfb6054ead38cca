"""Scenes of known factors: what each split holds, how it looks, and what is said of it."""

from pathlib import Path

import pytest
import torch

from genlab.data.captions import VOCABULARY, asked, text, tokens
from genlab.data.digits import Digits
from genlab.data.scenes import (
    BACKGROUNDS,
    COLOURS,
    GAP,
    GROUND,
    MARGIN,
    NAMES,
    OUTLINES,
    PAINT,
    Scenes,
    draw,
    render,
    word,
)
from genlab.data.shapes import Shapes
from genlab.data.source import Batch, digest
from genlab.errors import GenlabError
from genlab.noise import NoiseStream

SCENES = draw(NoiseStream(7), 6000, unseen=False)


def scene(**factors: float) -> Scenes:
    """One figure in the middle, a medium red circle on black, but for what is named."""
    told = {"colour": 0, "size": 1, "count": 1, "background": 2, "position": 4, "x": 0.5, "y": 0.5, "radius": 0.2}
    row = torch.tensor([[float({**told, **factors}.get(name, 0)) for name in NAMES]])
    return Scenes(row, torch.tensor([[[row[0, 6], row[0, 7]]] * 3]))


def test_a_circle_has_its_colour_its_area_and_its_place() -> None:
    """Area π r², centroid at (x, y), colour inside and background outside, exactly."""
    x = render(scene(x=0.4, y=0.6, radius=0.2), 64, NoiseStream(0))[0].float()
    inside, outside = x[:, int(0.6 * 64), int(0.4 * 64)], x[:, 0, 0]
    assert inside.tolist() == [220, 40, 40]
    assert outside.tolist() == [25, 25, 25]
    share = (x[0] - 25) / (220 - 25)
    assert share.sum().item() == pytest.approx(torch.pi * (0.2 * 64) ** 2, rel=0.01)
    axis = (torch.arange(64) + 0.5) / 64
    assert (share.sum(0) @ axis / share.sum()).item() == pytest.approx(0.4, abs=1e-3)
    assert (share.sum(1) @ axis / share.sum()).item() == pytest.approx(0.6, abs=1e-3)


def test_an_edge_is_antialiased() -> None:
    """An upright square whose edge crosses a pixel a third of the way."""
    half = 7 + 1 / 3  # pixels from the centre to an edge
    x = render(scene(shape=1, rotation=torch.pi / 4, radius=half * 2**0.5 / 32), 32, NoiseStream(0))[0, 0, 16].float()
    assert ((x[23] - 25) / 195).item() == pytest.approx(1 / 3, abs=0.02)
    assert x[22] == 220
    assert x[24] == 25


def test_the_grain_has_the_standard_deviation_it_says() -> None:
    x = render(scene(grain=8.0, background=1), 64, NoiseStream(3))[0]
    background = x[:, :12].float()
    assert background.std().item() == pytest.approx(8.0, rel=0.1)
    assert torch.equal(background[0], background[2])  # it is grey
    assert x[:, 32, 32].tolist() == [220, 40, 40]  # and not on the figure


def test_figures_neither_touch_each_other_nor_the_edge() -> None:
    radius, count = SCENES.column("radius"), SCENES.column("count")
    there = torch.arange(3) < count[:, None]
    inside = torch.minimum(SCENES.centres, 1 - SCENES.centres).amin(2) - radius[:, None]  # (N, 3)
    assert inside[there].min() >= MARGIN - 1e-6
    apart = torch.cdist(SCENES.centres, SCENES.centres) - 2 * radius[:, None, None]
    pairs = (there[:, :, None] & there[:, None]).triu(1)
    assert apart[pairs].min() >= GAP - 1e-6


def test_discrete_factors_are_uniform_and_independent() -> None:
    """χ² of every marginal and of pairs, within five standard deviations of its mean, the degrees of freedom."""
    shape, colour, size = (SCENES.column(name) for name in ("shape", "colour", "size"))
    other = (colour - shape) % 7 - 1  # which of the six colours that are not held out
    tables = [column.bincount().float() for column in (shape, other, size, SCENES.column("background"))]
    tables += [SCENES.column("count").bincount()[1:].float(), SCENES.column("position").bincount()[:5].float()]
    tables += [(6 * shape + other).bincount().float(), (3 * shape + size).bincount().float()]
    for observed in tables:
        expected, free = observed.mean(), len(observed) - 1
        chi2 = ((observed - expected).square() / expected).sum().item()
        assert abs(chi2 - free) < 5 * (2 * free) ** 0.5


def test_rotation_is_uniform_within_the_period_of_the_shape() -> None:
    for s, outline in enumerate(OUTLINES.values()):
        rotation = SCENES.column("rotation")[SCENES.column("shape") == s]
        assert ((rotation >= 0) & (rotation <= outline.period)).all()
        assert rotation.mean().item() == pytest.approx(outline.period / 2, abs=0.06)


def test_the_position_is_the_word_for_x_and_y_and_stays_so_nearby() -> None:
    """A pixel of 32 off in any direction is read as the same word."""
    position, count = SCENES.column("position"), SCENES.column("count")
    x, y = SCENES.column("x"), SCENES.column("y")
    for angle in torch.arange(8) * torch.pi / 4:
        moved = word(count, x + angle.cos() * 0.9 / 32, y + angle.sin() * 0.9 / 32)
        assert torch.equal(moved, position)


def test_every_colour_stands_out_from_every_background() -> None:
    assert torch.cdist(PAINT, GROUND).min() > 90  # grey levels
    assert len(COLOURS) == 7
    assert len(BACKGROUNDS) == 4


def test_an_image_is_a_function_of_seed_split_and_index(tmp_path: Path) -> None:
    """Neither of how many there are nor of what it is rendered with; other seeds and splits have others."""
    few, many = Shapes(train=40, test=8), Shapes(train=300, test=8)
    assert torch.equal(few.split("train").x, many.split("train").x[:40])
    for n in (1, 2, 7, 100):
        assert torch.equal(many.rows("train", 133, n)[0], many.split("train").x[133 : 133 + n])
    assert not torch.equal(few.split("train").x[:8], few.split("test").x)
    assert not torch.equal(few.split("train").x, Shapes(seed=1, train=40, test=8).split("train").x)


def test_other_sizes_show_the_same_scenes() -> None:
    """At half the size each pixel is the mean of four, up to rounding and what an edge's ramp leaves."""
    plain = SCENES.factors.clone()[:64]
    plain[:, NAMES.index("grain")] = 0
    large, small = (render(Scenes(plain, SCENES.centres[:64]), size, NoiseStream(0)).float() for size in (64, 32))
    error = (torch.nn.functional.avg_pool2d(large, 2) - small).abs()
    assert error.max() < 25
    assert error.mean() < 0.3


def test_unseen_combinations_are_in_their_own_split_alone() -> None:
    source = Shapes(train=3000, test=400)
    pairs = {
        split: 7 * source.scenes(split).column("shape") + source.scenes(split).column("colour")
        for split in source.counts
    }
    unseen = {8 * k for k in range(6)}  # the k-th shape in the k-th colour
    assert set(pairs["unseen"].tolist()) == unseen
    assert set(pairs["train"].tolist()) == set(range(42)) - unseen
    assert not set(pairs["test"].tolist()) & unseen


def test_y_is_what_the_condition_says() -> None:
    y = {c: Shapes(train=30, test=50, condition=c).split("test").y for c in ("label", "factors", "tokens", None)}
    scenes = Shapes(train=30, test=50).scenes("test")
    assert torch.equal(y["label"], scenes.column("shape"))
    assert torch.equal(y["factors"], scenes.factors)
    assert y["factors"].dtype == torch.float32
    assert torch.equal(y["tokens"], tokens(scenes))
    assert y["tokens"].dtype == torch.int64
    assert y[None] is None


def test_captions_say_what_a_scene_shows() -> None:
    one = scene(shape=1, size=2, background=1, position=0, x=0.3)
    assert text(tokens(one)[0]) == "a large red square on a grey background, left"
    assert (
        text(tokens(scene(shape=4, colour=3, count=3, position=5))[0])
        == "three medium green crosses on a black background"
    )
    source = Shapes(train=30, test=50)
    assert source.caption("test", 7) == text(tokens(source.scenes("test"))[7])


def test_conditions_say_what_they_ask_for() -> None:
    """Read back from factors and from captions; of several figures a caption says that they are scattered."""
    discrete = SCENES.factors[:, :6].long()
    assert torch.equal(asked(SCENES.factors), discrete)
    assert torch.equal(asked(tokens(SCENES)), discrete)
    assert asked(torch.tensor([3])).tolist() == [[3, -1, -1, -1, -1, -1]]
    ids = tokens(SCENES)
    assert ids.max() < len(VOCABULARY)
    assert len({text(row) for row in ids[:500]}) == len({tuple(row.tolist()) for row in ids[:500]})


@pytest.mark.parametrize("y", [torch.zeros(3, 4), torch.zeros(3, 9).long(), torch.full((3, 10), 99)])
def test_conditions_of_other_data_are_refused(y: torch.Tensor) -> None:
    with pytest.raises(GenlabError, match="says nothing of shapes"):
        asked(y)


def test_the_second_opening_reads_what_the_first_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Shapes(train=30, test=5, cache=str(tmp_path))
    told = first.prepare("train")
    assert told["source"] == "genlab.data.shapes"
    assert (told["size"], told["seed"]) == (32, 0)
    monkeypatch.setattr(Shapes, "rows", None)  # nothing is rendered again
    again = Shapes(train=30, test=5, cache=str(tmp_path))
    assert torch.equal(again.split("train").x, first.split("train").x)
    assert again.sha256("train") == first.sha256("train")


def test_a_damaged_split_is_rendered_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Shapes(train=30, test=5, cache=str(tmp_path))
    x = source.split("train").x.clone()
    path = source.folder / "train.x"
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(Shapes(train=30, test=5, cache=str(tmp_path)).split("train").x, x)
    assert "damaged" in capsys.readouterr().err


def test_the_hash_covers_data_condition_type_and_shape() -> None:
    x, y = torch.arange(12, dtype=torch.uint8).view(3, 4), torch.tensor([0, 1, 2])
    others = [
        Batch(x.flip(0), y),
        Batch(x, y.flip(0)),
        Batch(x, None),
        Batch(x.view(4, 3), y),
        Batch(x, y.int()),
    ]
    assert len({digest(batch) for batch in [Batch(x, y), *others]}) == 6
    assert Digits().sha256("train") != Digits().sha256("test")
    assert digest(Batch(x, y)) == digest(Batch(x.t().contiguous().t(), y.clone()))
    label, tokens_ = (Shapes(train=30, test=5, condition=c).sha256("test") for c in ("label", "tokens"))
    assert label != tokens_


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"size": 16}, "data.source.size=16: shapes need at least 24 pixels"),
        ({"train": 0}, "data.source.train=0: a split has at least one image"),
        ({"test": -1}, "data.source.test=-1"),
        ({"condition": "word"}, "condition=word: there is label, factors, tokens and null"),
    ],
)
def test_bad_options_are_one_line(arguments: dict, line: str) -> None:
    with pytest.raises(GenlabError, match=line):
        Shapes(**arguments)


def test_bad_questions_are_one_line() -> None:
    source = Shapes(train=30, test=5)
    with pytest.raises(GenlabError, match="no split 'validation': use train, test, unseen"):
        source.split("validation")
    with pytest.raises(GenlabError, match="captions 0 to 4, and no 5"):
        source.caption("test", 5)
    with pytest.raises(GenlabError, match="no -1"):
        source.caption("test", -1)
