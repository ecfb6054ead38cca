"""The pictures of `genlab sample`: interpolations, the two films, and frames that are no numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genlab import sample
from genlab.codec import Pixels, Vectors
from genlab.config import preflight, run_dir
from genlab.pictures import film, picture, texts
from genlab.training import train

TINY = ["trainer.batch=16", "trainer.max_images=16", "evaluation.n=0", "logger=none"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, overrides in {
        "flow_matching": ["model.classes=10", "sampler.steps=2", "likelihood.tolerance=1e-2"],
        "vae": [],
        "hvae": [],
        "dcgan": ["optimizer.lr=0.05", "averaging=none"],  # so that samples are no grey
        "ddpm": ["sampler.steps=2"],
    }.items():
        train(preflight("train", [f"experiment=digits/{name}", *overrides, *TINY]), folder / name)
    return folder


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["genlab", *arguments])
    try:
        sample.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_truncation_is_a_choice_of_sampling(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Short for a sampler, for GANs alone, and no part of what a run is."""
    plain, *others = ["n=4"], ["n=4", "truncation=0.5"], ["n=4", "sampler=truncation", "sampler.value=0.5"]
    drawn = []
    for arguments in (plain, *others):
        assert call([str(runs / "dcgan"), *arguments, f"out={tmp_path}"], monkeypatch) == 0
        drawn.append(np.load(tmp_path / "samples.npz")["x"])
    assert (drawn[0] != drawn[1]).any()
    assert (drawn[1] == drawn[2]).all()
    for name, arguments, said in (
        ("ddpm", ["truncation=0.5"], "only a GAN's latents"),
        ("dcgan", ["truncation=0"], "truncation=0.0"),
        ("dcgan", ["truncation=nan"], "truncation=nan: it is above 0"),
        ("dcgan", ["sampler=ddim"], "DDIM is of another family than GAN"),
    ):
        assert call([str(runs / name), *arguments, f"out={tmp_path}"], monkeypatch) == 2
        assert said in capsys.readouterr().err
    folders = [run_dir(preflight("train", ["experiment=digits/dcgan", *more])) for more in ([], ["sampler=truncation"])]
    assert folders[0] == folders[1]


@pytest.mark.parametrize(
    ("name", "choice"), [("vae", ["sampler=temperature"]), ("realnvp", ["sampler=tempered"]), ("transformer", [])]
)
def test_temperature_is_short_for_the_sampler_of_the_family(
    name: str, choice: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(preflight("train", [f"experiment=digits/{name}", *TINY]), tmp_path / "run")
    drawn = []
    for arguments in (["temperature=0.5"], [*choice, "sampler.temperature=0.5"], []):
        assert call([str(tmp_path / "run"), "n=2", *arguments, f"out={tmp_path / 'out'}"], monkeypatch) == 0
        drawn.append(np.load(tmp_path / "out" / "samples.npz")["x"])
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    assert call([str(tmp_path / "run"), "temperature=nan", f"out={tmp_path / 'out'}"], monkeypatch) == 2


@pytest.mark.parametrize("name", ["flow_matching", "vae"])
def test_interpolation_begins_and_ends_with_the_images_themselves(
    name: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([str(runs / name), "interpolate=3", "seed=1", "y=4", f"out={tmp_path}"], monkeypatch) == 0
    error = float(capsys.readouterr().out.split("reconstruction error ")[1].split()[0])
    sheet = np.asarray(Image.open(tmp_path / "interpolation.png"))[::4, ::4]  # a pixel is 4 by 4 of the screen
    cells = sheet[1:, 1:].reshape(8, 9, 5, 9)[:, :8, :, :8].transpose(0, 2, 1, 3)  # (8 rows, 1 + 3 + 1, 8, 8)
    from genlab.data.digits import Digits

    test = Digits().split("test")
    fours = {image.tobytes() for image in test.x[test.y == 4, 0].numpy()}
    ends = [np.ascontiguousarray(cells[:, side]) for side in (0, -1)]
    assert all(image.tobytes() in fours for images in ends for image in images)
    levels = np.stack([cells[:, 0], cells[:, -1]]) / 127.5, np.stack([cells[:, 1], cells[:, -2]]) / 127.5
    drawn = float(np.square(levels[0] - levels[1]).mean() ** 0.5)
    if name == "flow_matching":  # an ODE is undone, trained or not
        assert error < 0.05
        assert drawn == pytest.approx(error, abs=0.06)  # drawing rounds to one of 17 levels
    else:
        assert error == pytest.approx(drawn, abs=0.06)
        assert error > 0.2


def test_sheets_of_attributes_and_of_dimensions(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 9 rows and 7 columns, and of 4 rows; the images that the attribute is added to are fives of the test split."""
    assert call([str(runs / "vae"), "arithmetic=[3,8,5]", f"out={tmp_path}"], monkeypatch) == 0
    assert call([str(runs / "vae"), "traverse=4", f"out={tmp_path}"], monkeypatch) == 0
    assert len(set(capsys.readouterr().out.split("dimensions ")[1].split(", from")[0].split(", "))) == 4
    assert call([str(runs / "hvae"), "levels=3", f"out={tmp_path}"], monkeypatch) == 0
    assert "levels 0, 1, 2-3, from the top" in capsys.readouterr().out
    assert np.asarray(Image.open(tmp_path / "levels.png"))[::4, ::4].shape == (3 * 9 + 1, 9 * 9 + 1)
    sheet = np.asarray(Image.open(tmp_path / "arithmetic.png"))[::4, ::4]
    assert sheet.shape == (9 * 9 + 1, 7 * 9 + 1)
    assert np.asarray(Image.open(tmp_path / "traversal.png"))[::4, ::4].shape == (4 * 9 + 1, 7 * 9 + 1)
    from genlab.data.digits import Digits

    test = Digits().split("test")
    fives = {image.tobytes() for image in test.x[test.y == 5, 0].numpy()}
    assert all(np.ascontiguousarray(sheet[10 + 9 * i : 18 + 9 * i, 1:9]).tobytes() in fives for i in range(8))


def test_mistakes_are_one_line(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, arguments, message in (
        ("dcgan", ["interpolate=4"], "a GAN has no encoder"),
        ("ddpm", ["interpolate=4"], "train on the path VP"),
        ("vae", ["interpolate=1"], "at least 2 steps"),
        ("vae", ["interpolate=4", "y=11"], "no two test images"),
        ("dcgan", ["traverse=4"], "a GAN has no encoder"),
        ("vae", ["traverse=33"], "32 latent dimensions"),
        ("vae", ["arithmetic=[3,8]"], "three labels"),
        ("vae", ["levels=2"], "no levels of latents"),
        ("hvae", ["levels=7"], "4 levels"),
        ("vae", ["arithmetic=[3,8,10]"], "label 10"),
        ("flow_matching", ["arithmetic=[3,8,5]"], "unconditional"),
    ):
        assert call([str(runs / name), *arguments, f"out={tmp_path}"], monkeypatch) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1


def test_films_of_many_steps_and_of_none(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After training and on demand; the last x_t of an ODE is x̂ of its last step, as on every path that ends at σ = 0."""
    assert {"trajectory.webp", "denoised.webp"} <= {
        path.name for path in (runs / "flow_matching" / "samples").iterdir()
    }
    for name in ("ddpm", "vae"):
        assert call([str(runs / name), "n=4", f"out={tmp_path / name}"], monkeypatch) == 0
    films = {name: Image.open(tmp_path / "ddpm" / f"{name}.webp") for name in ("trajectory", "denoised")}
    frames = {}
    for name, opened in films.items():
        assert opened.n_frames == 2  # type: ignore[attr-defined]
        opened.seek(1)
        frames[name] = np.asarray(opened.convert("L"))
    np.testing.assert_array_equal(frames["trajectory"], frames["denoised"])
    np.testing.assert_array_equal(frames["trajectory"], np.asarray(Image.open(tmp_path / "ddpm" / "samples.png")))
    assert not (tmp_path / "vae" / "trajectory.webp").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_frames_that_are_no_numbers_are_drawn(value: float, tmp_path: Path) -> None:
    """Images as black or white, points outside of the frame."""
    image = picture(Pixels(17).decode(torch.full((1, 1, 2, 2), value)))
    assert image.getpixel((6, 6)) == (255 if value > 0 else 0)
    points = Vectors(2.0).decode(torch.full((5, 2), value))
    assert picture(points).getextrema() == (255, 255)
    good = torch.zeros(5, 2)
    film([(good, points), (points, good)], tmp_path, 10)
    assert (tmp_path / "trajectory.webp").exists()


def test_points_are_drawn_on_the_smallest_doubling_of_the_same_square_that_holds_them():
    centre = torch.tensor([[0.0, 0.0]])
    for far, where in ((2.9, 3.0), (3.1, 6.0), (13.0, 24.0)):
        x = torch.cat([centre.expand(50, 2), torch.tensor([[far, -far]]).expand(50, 2)])
        ink = 255 - np.asarray(picture(x), dtype=int)
        rows, columns = np.nonzero(ink)
        assert len(rows) == 2
        assert columns.max() == int((far + where) / (2 * where) * 256)
        assert rows.max() == columns.max()
    assert picture(torch.full((5, 2), torch.nan)).size == (256, 256)


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("the cat sat on the mat\n" * 60)
    small = [
        "data.source.length=24",
        "data.source.stride=5",
        "network.width=32",
        "network.depth=1",
        f"data.source.path={folder / 'text.txt'}",
    ]
    overrides = [*small, "trainer.max_images=320", "optimizer.lr=0.02", "evaluation.batch=7", "logger=none"]
    train(preflight("train", ["experiment=text/transformer", *overrides, "averaging=none"]), folder / "run")
    return folder / "run"


def test_text_is_trained_scored_in_bits_a_byte_and_written_as_text(
    text_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {row["metric"]: row for row in map(json.loads, (text_run / "metrics.jsonl").read_text().splitlines())}
    assert rows["bits_per_dim"]["protocol"]["kind"] == "exact"
    assert rows["bits_per_dim"]["value"] < 5, "of 8 that a uniform law has"
    assert (text_run / "samples" / "final.png").is_file()
    assert call([str(text_run), "n=3", f"out={tmp_path}"], monkeypatch) == 0
    drawn = np.load(tmp_path / "samples.npz")["x"]
    assert (drawn.shape, drawn.dtype) == ((3, 24), np.uint8)
    assert (tmp_path / "samples.txt").read_text().count("[") >= 3
    assert not (tmp_path / "samples.png").exists()


def test_a_prompt_is_continued_and_read_as_it_is(
    text_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for prompt in ("the c", "a: [b", "é=1", "null"):
        assert call([str(text_run), f"prompt={prompt}", "n=2", f"out={tmp_path}"], monkeypatch) == 0
        drawn = np.load(tmp_path / "samples.npz")["x"]
        assert all(bytes(row).startswith(prompt.encode()) for row in drawn)
        assert f"[0]\n{prompt}" in (tmp_path / "samples.txt").read_text()
        assert len({bytes(row) for row in drawn}) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prompt="], "the prompt is empty"),
        (["prompt=" + 24 * "x"], "a prompt of 24, and this model has 24 positions"),
        (["prompt=x", "sampler.top_p=0"], "sampler.top_p=0"),
        (["sampler.top_k=0"], "sampler.top_k=0"),
        (["sampler.temperature=0"], "sampler.temperature=0"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_one_line(
    text_run: Path,
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call([str(text_run), *arguments, f"out={tmp_path}"], monkeypatch) == 2
    assert said in capsys.readouterr().err


def test_a_prompt_is_for_text(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([str(runs / "vae"), "prompt=x", f"out={tmp_path}"], monkeypatch) == 2
    assert "a prompt is for a model of text" in capsys.readouterr().err


def test_a_page_shows_text_line_by_line() -> None:
    """Black on white, as many lines as there are, whatever the bytes."""
    rows = torch.tensor([[*b"one\ntwo\n"], [*range(248, 256)]], dtype=torch.uint8)
    page = np.asarray(picture(rows))
    inked = [bool((page[15 * i : 15 * i + 15] < 128).any()) for i in range(7)]
    assert inked == [True, True, False, False, True, False, False]
    assert texts(rows)[0] == "one\ntwo\n"


@pytest.mark.parametrize("name", ["dcgan", "vae", "flow_matching"])
def test_walks_between_samples_are_drawn_for_every_model_of_latents(
    name: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """GANs have no encoder, and say so where one is needed."""
    here = [str(runs / name), f"out={tmp_path}"]
    assert call([*here, "interpolate=5", "of=samples", "along=line"], monkeypatch) == 0
    assert np.asarray(Image.open(tmp_path / "interpolation.png"))[::4, ::4].shape == (8 * 9 + 1, 5 * 9 + 1)
    assert call([*here, "traverse=3", "of=samples"], monkeypatch) == 0
    assert np.asarray(Image.open(tmp_path / "traversal.png"))[::4, ::4].shape == (3 * 9 + 1, 7 * 9 + 1)
    assert call([*here, "interpolate=5", "of=nothing"], monkeypatch) == 2
    capsys.readouterr()
    code = call([*here, "interpolate=5"], monkeypatch)
    said = capsys.readouterr().err
    assert (code, "has no encoder" in said) == ((2, True) if name == "dcgan" else (0, False))


@pytest.mark.parametrize("asked", ["interpolate=3", "traverse=2"])
def test_a_path_without_an_ode_has_no_latents_to_walk_between(
    asked: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([str(runs / "ddpm"), asked, "of=samples", f"out={tmp_path}"], monkeypatch) == 2
    assert "discrete and has no ODE" in capsys.readouterr().err
