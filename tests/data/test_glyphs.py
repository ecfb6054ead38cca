"""Characters under random affine maps."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from genlab.data import glyphs
from genlab.data.glyphs import CHARACTERS, Glyphs
from genlab.errors import GenlabError


@pytest.fixture(scope="module")
def source() -> Glyphs:
    return Glyphs(train=1500, test=300)


def test_images_and_labels_have_the_types_of_a_batch(source: Glyphs) -> None:
    x, y = source.split("train")
    assert (x.dtype, tuple(x.shape)) == (torch.uint8, (1500, 1, 32, 32))
    assert (y.dtype, len(y), y.min(), y.max()) == (torch.int64, 1500, 0, 61)


def test_the_classes_are_those_of_nist_and_equally_likely(source: Glyphs) -> None:
    assert CHARACTERS == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    counts = source.rows("train", 0, 6200)[1].bincount().float()
    assert (((counts - 100).square() / 100).sum() - 61).abs() < 5 * math.sqrt(122)  # χ² of 61 degrees of freedom


def test_fonts_without_the_characters_are_left_out(source: Glyphs) -> None:
    """DejaVu in twelve cuts, STIX in four, and six of Computer Modern; no sizes of brackets, no symbols, no placeholders."""
    assert source.templates.shape == (22, 62, 96, 96)
    flat = source.templates.flatten(2)
    assert (flat.amax(2) > 200).all()
    for font in flat:
        assert len(font.unique(dim=0)) == 62


def test_no_character_leaves_the_image_and_none_is_faint(source: Glyphs) -> None:
    x = source.split("train").x
    assert max(x[:, :, edge].max() for edge in (0, -1)) == 0
    assert max(x[..., edge].max() for edge in (0, -1)) == 0
    assert x.amax((1, 2, 3)).min() > 180


def test_small_letters_stay_smaller_than_capitals(source: Glyphs) -> None:
    """The height of o at its largest is below that of O at its smallest, in every font."""
    extent = source.templates.amax(3) > 0  # (fonts, 62, 96): rows with ink
    height = extent.sum(2).float()
    o, capital = (height[:, CHARACTERS.index(c)] for c in "oO")
    assert (o * (1 + glyphs.SCALE) < capital * (1 - glyphs.SCALE)).all()


def test_the_jitter_is_the_affine_map_it_says() -> None:
    """Back and forth through scale · rotation · shear · x + shift written out as matrices."""
    u = torch.tensor([[0.7, -0.4, 0.5, 1.0, -0.3]], dtype=torch.float64)
    angle, shear, scale = glyphs.ROTATION * 0.7, glyphs.SHEAR * -0.4, 1 + glyphs.SCALE * 0.5
    rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = scale * rotation @ torch.tensor([[1.0, shear], [0.0, 1.0]])
    shift = torch.tensor([1.0, -0.3]) * glyphs.SHIFT / 16  # in halves of the side
    forth = torch.eye(3, dtype=torch.float64)
    forth[:2, :2], forth[:2, 2] = linear, shift
    torch.testing.assert_close(glyphs._inverse(u)[0], forth.inverse()[:2], atol=1e-7, rtol=1e-6)


def test_without_jitter_a_character_is_its_template(source: Glyphs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picture reduced by Pillow, up to the blur of two resamplings."""
    for name in ("ROTATION", "SHEAR", "SCALE", "SHIFT"):
        monkeypatch.setattr(glyphs, name, 0.0)
    x, y = source.rows("train", 0, 40)
    for image, label in zip(x[:, 0].float(), y, strict=True):
        pages = [Image.fromarray(page.byte().numpy()) for page in source.templates[:, label]]
        small = torch.stack([torch.frombuffer(bytearray(p.reduce(3).tobytes()), dtype=torch.uint8) for p in pages])
        error = (small.view(-1, 32, 32).float() - image).abs().mean((1, 2))
        assert error.min() < 1.5


def test_an_image_is_a_function_of_seed_split_and_index(source: Glyphs) -> None:
    x = source.split("train").x
    for n in (1, 2, 7, 100):
        assert torch.equal(source.rows("train", 700, n)[0], x[700 : 700 + n])
    assert torch.equal(Glyphs(train=20, test=5).split("train").x, x[:20])
    assert not torch.equal(source.split("test").x[:20], x[:20])
    assert not torch.equal(Glyphs(seed=1, train=20, test=5).split("train").x, x[:20])


def test_the_manifest_names_what_draws_them(source: Glyphs) -> None:
    manifest = source.prepare("test")
    assert {"pillow", "matplotlib", "torch", "seed", "fonts"} <= manifest.keys()


def test_bad_options_are_one_line(source: Glyphs, tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match=r"no font in .* has all of 0123"):
        Glyphs(train=5, test=5, fonts=str(tmp_path)).split("train")
    with pytest.raises(GenlabError, match=r"data\.source\.test=0"):
        Glyphs(test=0)
    with pytest.raises(GenlabError, match="no split 'unseen': use train, test"):
        source.split("unseen")
