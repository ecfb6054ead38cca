"""Between uint8 and the lattice, and between the plane and unit scale."""

import math

import pytest
import torch

from genlab.codec import Pixels, Tokens, Vectors


def lattice(levels):
    """Every grey level as stored: k · 255/(levels - 1), rounded."""
    return (torch.arange(levels, dtype=torch.float64) * 255 / (levels - 1)).round().to(torch.uint8)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_round_trip_is_exact(levels):
    codec, x = Pixels(levels), lattice(levels).reshape(1, 1, 1, -1)
    z = codec.encode(x)
    assert z.dtype == torch.float32
    expected = torch.linspace(-1, 1, levels, dtype=torch.float64).reshape(z.shape)
    torch.testing.assert_close(z.double(), expected, rtol=0, atol=2**-22)  # two units in the last place of 1
    assert torch.equal(codec.decode(z), x)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_decoding_takes_the_nearest_level(levels):
    """Anything within just less than half a step of a level is that level."""
    codec, x = Pixels(levels), lattice(levels).reshape(1, 1, 1, -1)
    for shift in (-0.49, 0.49):
        assert torch.equal(codec.decode(codec.encode(x) + shift * 2 / (levels - 1)), x)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_decoding_clamps_and_draws_nan_black(levels):
    z = torch.tensor([-1e9, -1.5, 1.5, 1e9, -math.inf, math.inf, math.nan])
    assert Pixels(levels).decode(z).tolist() == [0, 0, 255, 255, 0, 255, 0]


def test_images_of_256_levels_are_scaled_as_published():
    """z = x / 127.5 - 1 (DDPM, EDM)."""
    x = torch.arange(256).to(torch.uint8)
    torch.testing.assert_close(Pixels(256).encode(x), x.float() / 127.5 - 1, rtol=0, atol=1e-6)
    assert Pixels(256).log_volume == math.log(2 / 255)


def test_vectors_are_scaled_and_know_their_volume():
    codec, x = Vectors(4.0), torch.tensor([[1.0, -2.0]])
    assert codec.encode(x).tolist() == [[0.25, -0.5]]
    torch.testing.assert_close(codec.decode(codec.encode(x)), x)
    jacobian = torch.autograd.functional.jacobian(codec.encode, x[0])
    assert 2 * codec.log_volume == pytest.approx(jacobian.slogdet().logabsdet.item())


def test_a_uniform_density_has_log2_levels_bits_per_dim():
    """The offset of dequantization: cells of 2/(levels - 1), from half a cell below -1 to half a cell above 1."""
    for levels in (2, 17, 256):
        codec = Pixels(levels)
        width = 2 + 2 / (levels - 1)
        torch.manual_seed(levels)
        assert math.isclose(-(-math.log(width) + codec.log_volume) / math.log(2), math.log2(levels), rel_tol=1e-12)
        x = (torch.arange(levels) * (255 / (levels - 1))).round().to(torch.uint8).repeat(200).reshape(1, 1, -1, 1)
        z = codec.dequantize(x)
        # float32 may put a point of the cell's border on the other side of it
        assert (z - codec.encode(x)).abs().max() <= 1 / (levels - 1) + 1e-6
        assert (codec.decode(z) == x).float().mean() > 0.999


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_tokens_are_the_levels_in_their_order(levels):
    codec, x = Tokens(levels), lattice(levels).reshape(1, 1, 1, -1)
    assert codec.encode(x).flatten().tolist() == list(range(levels))
    assert torch.equal(codec.decode(codec.encode(x)), x)
    assert codec.decode(torch.tensor([-3, levels + 5])).tolist() == [0, 255]
    assert codec.log_volume == 0


def test_noise_that_scores_are_held_against_is_the_same_for_tokens_as_for_pixels():
    z = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    codec, shape = Tokens(17).of_data((1, 8, 8))
    assert shape == (1, 8, 8)
    assert torch.equal(codec.decode(z), Pixels(17).decode(z))
    assert len(codec.decode(z).unique()) > 10
