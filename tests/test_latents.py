"""Differences of class means and single dimensions, in a model whose code is a known map of the image."""

import pytest
import torch
from torch import Tensor

from genlab.codec import Pixels
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.latents import arithmetic, encoded, resample, traverse, traverse_sample
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream

CODEC = Pixels(256)


class Halved:
    """z = x/2 in model space, flattened."""

    codec, classes, device = CODEC, 0, "cpu"
    levels: tuple[int, ...] = ()

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) / 2

    def render(self, z: Tensor) -> Tensor:
        return 2 * z.unflatten(1, (1, 2, 3))


@pytest.fixture
def data() -> Batch:
    """Images of three classes around 90, 120 and 150, pixel i with a spread of its own."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(90) % 3
    spread = torch.tensor([2.0, 9.0, 1.0, 4.0, 0.0, 15.0])
    x = 90 + 30 * y[:, None] + spread * torch.randn(90, 6, generator=generator).clamp(-2, 2)
    return Batch(x.round().byte().reshape(90, 1, 2, 3), y)


def test_arithmetic_adds_the_difference_of_class_means(data: Batch) -> None:
    rows = arithmetic(Halved(), data, 2, 0, 1)  # type: ignore[arg-type]
    assert rows.shape == (9, 7, 1, 2, 3)
    means = torch.stack([data.x[data.y == label].float().mean(0) for label in range(3)])
    torch.testing.assert_close(rows[0, :3].float(), means[[2, 0, 1]], rtol=0, atol=0.51)  # a grey level is whole
    torch.testing.assert_close(rows[0, -1].float(), means[2] - means[0] + means[1], rtol=0, atol=0.51)
    images = data.x[data.y == 1][:8]
    assert torch.equal(rows[1:, 0], images)
    for step in range(6):
        expected = images + step / 5 * (means[2] - means[0])
        torch.testing.assert_close(rows[1:, 1 + step].float(), expected, rtol=0, atol=0.51)


def test_a_traversal_moves_the_dimensions_that_vary_most_and_no_other(data: Batch) -> None:
    data = Batch(data.x[data.y == 0], None)
    found = traverse(Halved(), data, 3, 5, seed=0)  # type: ignore[arg-type]
    assert found.dimensions == [5, 1, 3]
    deviation = CODEC.encode(data.x).flatten(1).std(0) / 2
    assert found.deviations == pytest.approx(deviation[[5, 1, 3]].tolist(), rel=1e-5)
    x = found.x.flatten(2)  # (3, 5, 6)
    for row, i in enumerate(found.dimensions):
        others = [j for j in range(6) if j != i]
        assert (x[row, :, others] == x[row, :1, others]).all()
        assert any(torch.equal(x[row, 0, others], image) for image in data.x.flatten(1)[:, others])
        assert x[row, :, i].tolist() == CODEC.decode(2 * torch.linspace(-3, 3, 5)).tolist()


@pytest.mark.parametrize("rows", [0, 7])
def test_there_are_as_many_rows_as_dimensions_at_most(data: Batch, rows: int) -> None:
    with pytest.raises(GenlabError, match="6 latent dimensions"):
        traverse(Halved(), data, rows, 5, seed=0)  # type: ignore[arg-type]


def test_labels_must_be_there(data: Batch) -> None:
    with pytest.raises(GenlabError, match="label 4"):
        arithmetic(Halved(), data, 0, 1, 4)  # type: ignore[arg-type]
    with pytest.raises(GenlabError, match="no labels"):
        arithmetic(Halved(), Batch(data.x, None), 0, 1, 2)  # type: ignore[arg-type]
    with pytest.raises(GenlabError, match="several labels"):
        arithmetic(Halved(), Batch(data.x, data.y[:, None].expand(-1, 3)), 0, 1, 2)  # type: ignore[arg-type, index]


def test_a_conditional_model_is_refused(data: Batch) -> None:
    model = Halved()
    model.classes = 3
    with pytest.raises(GenlabError, match="unconditional"):
        encoded(model, data)  # type: ignore[arg-type]


class Ladder(Halved):
    """Levels of one, two and three pixels."""

    levels = (1, 2, 3)


def test_a_level_drawn_anew_leaves_the_others_bit_for_bit(data: Batch) -> None:
    """And what is drawn is N(0, 1): x = 2 z, in grey levels 255 z."""
    images, runs = resample(Ladder(), data, 3, 7, seed=1)  # type: ignore[arg-type]
    assert runs == [(0, 0), (1, 1), (2, 2)]
    assert images.shape == (3, 9, 1, 2, 3)
    flat = images.flatten(2)
    noise = NoiseStream(1)
    assert any(torch.equal(images[0, 0], image) for image in data.x)
    for row, level in enumerate(((0, 1), (1, 3), (3, 6))):
        own = torch.zeros(6, dtype=torch.bool)
        own[slice(*level)] = True
        assert torch.equal(flat[row, 1:, ~own], flat[row, :1, ~own].expand(8, -1))
        assert torch.equal(flat[row, 1], flat[row, 0])
        assert (flat[row, 2:, own] != flat[row, :1, own]).any(0).all()
        drawn = CODEC.decode(2 * noise.normal((7, level[1] - level[0])))  # in the place of the code, not added to it
        assert torch.equal(flat[row, 2:, own], drawn)
    assert torch.equal(resample(Ladder(), data, 3, 7, seed=1).x, images)  # type: ignore[arg-type]
    assert resample(Ladder(), data, 2, 7, seed=1).runs == [(0, 0), (1, 2)]  # type: ignore[arg-type]
    assert resample(Ladder(), data, 1, 7, seed=1).runs == [(0, 2)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "rows", "message"), [(Halved, 2, "no levels"), (Ladder, 4, "3 levels"), (Ladder, 0, "levels=0")]
)
def test_what_has_no_such_levels_is_one_line(model: type[Halved], rows: int, message: str, data: Batch) -> None:
    with pytest.raises(GenlabError, match=message):
        resample(model(), data, rows, 7, seed=0)  # type: ignore[arg-type]


class Weighted:
    """No encoder, and an image each of whose pixels is told by one number of the latent, more or less."""

    codec, classes, choices, device = CODEC, 3, 3, "cpu"
    weights = torch.tensor([0.01, 0.1, 0.02, 0.3, 0.0, 0.05])
    labels = GenerativeModule.labels

    def latents(self, noise: NoiseStream, n: int) -> Tensor:
        return 0.3 * noise.normal((n, 6))

    def render(self, z: Tensor, y: Tensor) -> Tensor:
        return (self.weights * z + y[:, None] / 10).unflatten(1, (1, 2, 3))


def test_of_a_sample_the_dimensions_are_traversed_that_change_it_most() -> None:
    found = traverse_sample(Weighted(), 3, 5, seed=0, y=2)  # type: ignore[arg-type]
    assert found.dimensions == [3, 1, 5]
    moved = 127.5 * Weighted.weights[[3, 1, 5]] / 6**0.5  # the root mean square over six pixels of one that moves
    assert found.deviations == pytest.approx(moved.tolist(), abs=0.3)
    for row, i in zip(found.x.flatten(2), found.dimensions, strict=True):
        expected = CODEC.decode(Weighted.weights[i] * torch.linspace(-3, 3, 5) + 0.2)
        assert row[:, i].tolist() == expected.tolist()
        assert all((row[:, j] == row[0, j]).all() for j in range(6) if j != i)
    with pytest.raises(GenlabError, match="traverse=7 of=6 latent dimensions"):
        traverse_sample(Weighted(), 7, 5, seed=0)  # type: ignore[arg-type]
