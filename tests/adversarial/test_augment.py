"""Augmentations against permutations, closed forms, autograd, and published ranges."""

import colorsys
import math
from functools import cache
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from genlab.adversarial.augment import Adaptive, Augmentation, DiffAugment, Scheduled
from genlab.adversarial.objectives import Hinge, LeastSquares, NonSaturating, Relativistic, Wasserstein
from genlab.adversarial.pipe import Pipe
from genlab.config import preflight
from genlab.data.augment import Drawn, Resampled, moved, rotation
from genlab.errors import GenlabError
from genlab.instantiation import build


@cache
def composed(name: str) -> Any:
    return preflight("train", ["model=dcgan", f"critic_augment={name}"]).critic_augment


def ada(name: str = "ada", **changes: Any) -> Any:
    return build(OmegaConf.merge(composed(name), changes))


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


# ---------------------------------------------------------------------- DiffAugment


def test_nothing_asked_for_is_nothing_done() -> None:
    x = noise(8, 3, 8, 8)
    assert torch.equal(DiffAugment(0.0, 0.0, 0.0)(x), x)
    assert torch.equal(ada()(x), x)  # p = 0, exactly


def test_colours_of_diffaugment() -> None:
    """Brightness is added; saturation 0 leaves grey and 2 doubles; contrast scales about the image's mean."""
    x, zero = noise(2, 3, 4, 4), torch.zeros(2)
    coloured = DiffAugment.colored
    torch.testing.assert_close(coloured(x, zero, zero, zero), x)
    torch.testing.assert_close(coloured(x, zero + 0.3, zero, zero), x + 0.3)
    torch.testing.assert_close(coloured(x, zero, zero - 0.5, zero), x.mean(1, keepdim=True).expand_as(x))
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(coloured(x, zero, zero + 0.5, zero) - grey, 2 * (x - grey))
    mean = x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(coloured(x, zero, zero, zero + 0.25) - mean, 1.25 * (x - mean))


def test_colours_have_the_published_ranges() -> None:
    """Of an image of mean 0 whose colours are (1, 0, -1): brightness in ±½, the rest between 0 · ½ and 2 · 1½ times."""
    torch.manual_seed(0)
    x = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(20_000, 3, 2, 2)
    y = DiffAugment(1.0, 0.0, 0.0)(x)
    brightness, stretch = y[:, 1, 0, 0], (y[:, 0] - y[:, 2])[:, 0, 0] / 2
    assert brightness.abs().max() <= 0.5
    assert brightness.var().item() == pytest.approx(1 / 12, rel=0.05)
    assert 0 <= stretch.min() < 0.02
    assert 2.9 < stretch.max() <= 3
    assert stretch.var().item() == pytest.approx((1 / 3 + 1) * (1 / 12 + 1) - 1, rel=0.05)  # of the product


@pytest.mark.parametrize("share", [0.125, 0.25])
def test_translation_draws_every_shift_and_fills_with_0(share: float) -> None:
    torch.manual_seed(0)
    size = 16
    x = noise(1, 2, size, size)
    shifted = DiffAugment(0.0, share, 0.0)(x.expand(2000, -1, -1, -1))
    most = int(share * size)
    expected = {}
    padded = torch.nn.functional.pad(x[0], (most,) * 4)
    for down in range(-most, most + 1):
        for right in range(-most, most + 1):
            expected[down, right] = padded[:, most - down :, most - right :][:, :size, :size]
    choices = torch.stack(list(expected.values()))
    distances = (shifted[:, None] - choices[None]).abs().amax((2, 3, 4))
    assert (distances.min(1).values == 0).all()
    assert distances.argmin(1).unique().numel() == len(expected)


def test_cutout_is_a_square_of_half_the_side_cut_by_the_border() -> None:
    torch.manual_seed(0)
    hidden = (DiffAugment(0.0, 0.0, 0.5)(torch.ones(3000, 1, 8, 8)) == 0)[:, 0]
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.sum((1, 2)), rows * columns)  # a rectangle
    assert rows.max() == columns.max() == 4
    # centres 0 ... 8 of a square of 4 whose first row is centre - 2: 2, 3, 4, 4, 4, 4, 4, 3, 2 rows are inside
    assert rows.double().mean().item() == pytest.approx(30 / 9, rel=0.02)
    assert len(hidden.unique(dim=0)) == 9 * 9  # across and down do not depend on each other


@pytest.mark.parametrize("reflect", [True, False])
def test_moving_by_whole_pixels(reflect: bool) -> None:
    x = torch.arange(1.0, 6.0).view(1, 1, 1, 5).expand(3, 1, 2, 5)
    y = moved(x, torch.tensor([0, 0, 0]), torch.tensor([0, 2, -1]), reflect)
    rows = (
        [[1, 2, 3, 4, 5], [3, 2, 1, 2, 3], [2, 3, 4, 5, 4]]
        if reflect
        else [[1, 2, 3, 4, 5], [0, 0, 1, 2, 3], [2, 3, 4, 5, 0]]
    )
    assert y[:, 0, 0].tolist() == rows


# ---------------------------------------------------------------------- ADA


def test_colours_of_ada_turn_about_the_grey_axis() -> None:
    """A third of a circle permutes red, green and blue; flips mirror the grey part; saturation scales the rest."""
    x = noise(2, 3, 4, 4)
    none = {"brightness": torch.zeros(2), "contrast": torch.ones(2), "flip": torch.zeros(2, dtype=torch.bool)}
    none |= {"hue": torch.zeros(2), "saturation": torch.ones(2)}
    coloured = Pipe.colored
    torch.testing.assert_close(coloured(x, **none), x)
    third = coloured(x, **none | {"hue": torch.full((2,), 2 * math.pi / 3)})
    torch.testing.assert_close(third, x.roll(1, 1))
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(coloured(x, **none | {"flip": ~none["flip"]}), x - 2 * grey)
    torch.testing.assert_close(coloured(x, **none | {"saturation": torch.full((2,), 3.0)}), 3 * x - 2 * grey)
    torch.testing.assert_close(
        coloured(x, **none | {"brightness": torch.ones(2), "contrast": torch.full((2,), 2.0)}), 2 * x + 2
    )
    one = x[:, :1]
    torch.testing.assert_close(coloured(one, **none | {"hue": torch.ones(2), "saturation": torch.zeros(2)}), one)
    torch.testing.assert_close(coloured(one, **none | {"flip": ~none["flip"]}), -one)
    assert colorsys.rgb_to_hsv(*third[0, :, 0, 0].sigmoid().tolist())[2] == pytest.approx(
        x[0, :, 0, 0].sigmoid().max().item()
    )


def blits(p: float = 1.0, **only: Any) -> Adaptive:
    """ADA at p = 1 without geometry and colour but what is named."""
    still = {"xflip": 0.0, "scale": 0.0, "aniso": 0.0, "translate_frac": 0.0}
    grey = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    return ada(p=p, pipe={"shift": 0.0, "rotate": 0.0, **grey, "geometric": still} | only)


def test_blitting_draws_every_quarter_turn_alike_and_no_pixel_is_resampled() -> None:
    torch.manual_seed(0)
    x = noise(1, 1, 6, 6).expand(4000, -1, -1, -1)
    pipe = blits()
    pipe.pipe.colored = lambda x, **_: x  # hue and flips have no width to set to 0
    y = pipe(x)
    choices = torch.stack([x[0].rot90(k, (1, 2)) for k in range(4)])
    distances = (y[:, None] - choices[None]).abs().amax((2, 3, 4))
    assert (distances.min(1).values == 0).all()
    assert (distances.argmin(1).bincount() / 4000 - 0.25).abs().max() < 4 * (3 / 16 / 4000) ** 0.5
    wide = pipe(noise(1, 1, 4, 6).expand(2000, -1, -1, -1))
    assert len(wide.unique(dim=0)) == 2  # as it is, and upside down


@pytest.mark.parametrize("p", [0.3, 0.8])
def test_each_change_is_as_probable_as_p(p: float) -> None:
    """Flips, of probability p/2, of an image that is otherwise left alone."""
    torch.manual_seed(0)
    pipe = blits(p, geometric={**dict.fromkeys(("scale", "aniso", "translate_frac"), 0.0), "xflip": 1.0})
    pipe.pipe._blit = lambda x, p: (x, torch.zeros(len(x), 2, dtype=torch.long))  # type: ignore[method-assign]
    pipe.pipe.colored = lambda x, **_: x
    x = noise(1, 1, 4, 4).expand(4000, -1, -1, -1)
    share = (pipe(x) != x).flatten(1).any(1).double().mean().item()
    assert abs(share - p / 2) < 4 * (p / 2 * (1 - p / 2) / 4000) ** 0.5


def test_what_a_shift_moves_out_of_the_image_comes_back_with_geometry() -> None:
    """Two pixels to the left, and back by as many: the whole image, and without the second half of it a reflection."""
    geometric = ada().pipe.geometric
    x, shift, zero = noise(3, 2, 6, 8), torch.tensor([[-2, 0], [0, 1], [3, -2]]), torch.zeros(3)
    still = Drawn(*[zero] * 6, shift=torch.zeros(3, 2))
    back = still._replace(shift=-shift / (geometric.translate_std * torch.tensor([8, 6])))
    torch.testing.assert_close(geometric.apply(x, back, shift), x, rtol=0, atol=1e-5)
    assert torch.equal(geometric.apply(x, still, shift), moved(x, shift[:, 1], shift[:, 0], reflect=True))
    assert torch.equal(geometric.apply(x, still), x)


def test_a_rotation_before_the_stretching_and_one_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either with probability p together, as published: R(a) S R(b) takes a place in the result to where it came from."""
    torch.manual_seed(0)
    pipe, p, n = ada(pipe={"geometric": {"aniso": 2.0}}).pipe, 0.5, 8000
    drawn: list[Drawn] = []
    monkeypatch.setattr(pipe.geometric, "apply", lambda x, d, shift: drawn.append(d) or x)
    pipe._move(torch.zeros(n, 1, 2, 2), torch.tensor(p), torch.zeros(n, 2))
    ((angle, axis, aniso),) = [(d.angle, d.axis, d.aniso) for d in drawn]
    still = ((angle == 0) & (axis == 0)).double().mean().item()
    assert still == pytest.approx(1 - p, abs=4 * 0.5 / n**0.5)
    either = 1 - math.sqrt(1 - p)
    for turned in (axis != 0, (angle - axis).abs() > 1e-6):
        assert turned.double().mean().item() == pytest.approx(either, abs=4 * 0.5 / n**0.5)
    assert axis[axis != 0].abs().mean().item() == pytest.approx(math.pi / 2, rel=0.05)
    before = angle - axis
    r = (-0.2 * aniso).exp2()
    expected = rotation(before) @ torch.diag_embed(torch.stack([r, 1 / r], dim=1)) @ rotation(axis)
    alone = drawn[0]._replace(scale=torch.zeros(n), shift=torch.zeros(n, 2))
    torch.testing.assert_close(pipe.geometric.inverse(alone, 2, 2)[:, :, :2], expected, rtol=0, atol=1e-5)


def test_cutout_hides_a_square_of_half_the_side_as_often_as_asked_for() -> None:
    torch.manual_seed(0)
    pipe, n = blits(cutout=0.5).pipe, 6000
    hidden = (pipe._hide(torch.ones(n, 1, 16, 16), torch.tensor(0.8)) == 0)[:, 0]
    rows, columns = hidden.any(2).sum(1), hidden.any(1).sum(1)
    assert torch.equal(hidden.sum((1, 2)), rows * columns)  # a rectangle
    assert hidden.any(2).any(1).double().mean().item() == pytest.approx(0.4, abs=4 * 0.5 / n**0.5)
    assert rows.max() == columns.max() == 8
    # of a centre that is uniform over the side half of the square is outside for a quarter of the places at either end
    assert rows[rows > 0].double().mean().item() == pytest.approx(16 * (0.5 - 2 * 0.25**2 / 2), rel=0.02)
    inside = torch.stack([rows, columns])[:, rows > 0].double()
    assert inside.corrcoef()[0, 1].abs() < 4 / inside.shape[1] ** 0.5  # across and down do not depend on each other


def test_colours_of_ada_have_the_published_widths() -> None:
    """Each with probability p: normal brightness 0.2, log₂ contrast 0.5 and log₂ saturation 1, any hue, luma flipped or not."""
    torch.manual_seed(0)
    pipe, p, n, drawn = ada().pipe, 0.5, 20_000, {}
    pipe.colored = lambda x, **colours: drawn.update(colours) or x  # type: ignore[method-assign]
    pipe(torch.zeros(n, 1, 2, 2), torch.tensor(p))
    widths = {"brightness": (drawn["brightness"], 0.2), "contrast": (drawn["contrast"].log2(), 0.5)}
    widths |= {"saturation": (drawn["saturation"].log2(), 1.0), "hue": (drawn["hue"], math.pi / 3**0.5)}
    for name, (values, width) in widths.items():
        moved_by = values[values != 0]
        assert len(moved_by) / n == pytest.approx(p, abs=4 * 0.5 / n**0.5), name
        assert moved_by.mean().item() == pytest.approx(0, abs=4 * width / len(moved_by) ** 0.5), name
        assert moved_by.std().item() == pytest.approx(width, rel=0.04), name
    assert drawn["hue"].abs().max() <= math.pi
    assert drawn["flip"].double().mean().item() == pytest.approx(p / 2, abs=4 * 0.5 / n**0.5)


def test_colours_may_be_rarer_than_the_rest() -> None:
    torch.manual_seed(0)
    pipe, x, n = blits(color=0.5, brightness=1.0, contrast=0.0, saturation=0.0).pipe, noise(1, 1, 4, 4), 6000
    pipe._blit = lambda x, p: (x, torch.zeros(len(x), 2, dtype=torch.long))  # type: ignore[method-assign]
    share = (pipe(x.expand(n, -1, -1, -1), torch.tensor(0.8)) != x).flatten(1).any(1).double().mean().item()
    assert share == pytest.approx(1 - 0.6 * 0.8, abs=4 * 0.5 / n**0.5)  # brightness, or half of the luma flips


def test_a_scheduled_probability_follows_progress_whatever_the_objective() -> None:
    augment = ada("r3gan")
    assert isinstance(augment, Scheduled)
    x = noise(8, 3, 8, 8)
    assert torch.equal(augment(x), x)  # p = 0, exactly
    for seen, p in ((10_000_000, 0.275), (20_000_000, 0.55), (10**9, 0.55)):
        augment.begin(seen)
        assert augment.p.item() == pytest.approx(p)
    assert not torch.equal(augment(x), x)
    for objective in (NonSaturating(), Wasserstein(), Relativistic()):
        augment.check(objective)
    assert (augment.pipe.color, augment.pipe.cutout) == (0.5, 1.0)


AUGMENTATIONS: dict[str, Augmentation] = {
    "color": DiffAugment(1.0, 0.0, 0.0),
    "translation": DiffAugment(0.0, 0.25, 0.0),
    "cutout": DiffAugment(0.0, 0.0, 0.5),
    "ada": ada(p=0.9),
    "cutout of ada": ada(p=0.9, pipe={"cutout": 1.0}),
}


@pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_gradients_pass_twice(augment: Augmentation) -> None:
    """Once to the generator, twice to R1: against finite differences, the same being drawn each time."""
    augment = augment.double()
    x = noise(2, 3, 4, 4, dtype=torch.float64).requires_grad_()

    def drawn(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return augment(x) ** 2

    assert torch.autograd.gradcheck(drawn, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(drawn, x, fast_mode=True)


def test_resampling_has_torchs_own_first_derivative() -> None:
    x, places = (
        noise(2, 3, 6, 6).requires_grad_(),
        torch.rand(2, 5, 4, 2, generator=torch.Generator().manual_seed(1)) * 3 - 1.5,
    )
    ours: Tensor = Resampled.apply(x, places)
    theirs = torch.nn.functional.grid_sample(x, places, "bicubic", "reflection", True)
    assert torch.equal(ours, theirs)
    weights = noise(*ours.shape)
    torch.testing.assert_close(
        torch.autograd.grad(ours, x, weights), torch.autograd.grad(theirs, x, weights), rtol=0, atol=0
    )


def test_p_follows_the_sign_of_how_sure_the_critic_is_of_data() -> None:
    """The mean of signs over 4 batches of 10 against 0.6; each move is 40 of 1000 images."""
    pipe, sure, unsure = ada(images=1000, p=0.5), torch.full((10,), 2.0), torch.full((10,), -2.0)
    half = torch.cat([sure[:8], unsure[:2]])  # mean sign 0.6, and 0.6 is not above 0.6
    moves = []
    for batch in range(16):
        before = pipe.p.item()
        certainty = (sure, unsure, half, sure)[batch // 4] if batch != 15 else unsure
        for part in certainty.chunk(1 + batch % 2):  # of an accumulated batch
            pipe.observe(part, len(part))
        pipe.adapt(batch)
        moves.append(round(pipe.p.item() - before, 6))
    assert moves[3] == 0.04
    assert moves[7] == -0.04
    assert abs(moves[11]) in (0, 0.04)  # at the target rounding decides
    assert moves[15] == -0.04  # (30 - 10)/40 = 0.5
    assert all(move == 0 for batch, move in enumerate(moves) if batch % 4 != 3)


def test_p_moves_by_images_though_critics_of_packs_have_fewer_values() -> None:
    for packing in (1, 2, 4):
        pipe = ada(images=1000, every=1)
        pipe.observe(torch.ones(32 // packing), 32)
        pipe.adapt(0)
        assert pipe.p.item() == pytest.approx(0.032)


def test_p_stays_within_0_and_1_and_is_state() -> None:
    pipe = ada(images=4, every=1)
    for turn, sign in enumerate((-1, 1)):
        pipe.observe(sign * torch.ones(10), 10)
        pipe.adapt(turn)
        assert pipe.p == (sign > 0)
    other = ada()
    other.load_state_dict(pipe.state_dict())
    assert other.p == 1
    assert set(pipe.state_dict()) == {"p", "signs"}


def test_ada_is_refused_where_values_have_no_zero() -> None:
    for objective in (NonSaturating(), Hinge(), LeastSquares(0.0, 1.0, 1.0)):
        ada().check(objective)
    for objective in (Wasserstein(), Relativistic()):
        with pytest.raises(GenlabError, match="have no zero"):
            ada().check(objective)


def test_bad_choices_are_refused() -> None:
    with pytest.raises(GenlabError, match="DiffAugment"):
        DiffAugment(1.0, 0.125, 1.5)
    with pytest.raises(GenlabError, match="every=0"):
        ada(every=0)
    with pytest.raises(GenlabError, match="target=2: it is held against a mean of signs"):
        ada(target=2)
    with pytest.raises(GenlabError, match="1 or 3 channels, not 2"):
        ada()(torch.zeros(1, 2, 4, 4))
