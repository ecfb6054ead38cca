"""Autoregressive models over alphabets so small that every image can be listed."""

import itertools
import math

import pytest
import torch

from genlab.averaging import Constant
from genlab.categorical_head import Categorical
from genlab.codec import Pixels, Tokens
from genlab.decoding import Decoding
from genlab.errors import GenlabError
from genlab.mixture_head import MixtureOfLogistics
from genlab.networks.pixelcnn import PixelCNN
from genlab.networks.transformer import Axial, Colours, Rotary, Transformer, Words
from genlab.noise import NoiseStream
from genlab.optimization import Optimization
from genlab.paradigms.autoregressive import Autoregressive

LAW = Decoding(1.0, None, 1.0)


def module(shape, levels, kind, classes=0, sampler=LAW):
    """A small model with weights far from 0: of tokens, of pixels, or a PixelCNN++."""
    torch.manual_seed(1)
    joint = kind != "tokens"
    head = MixtureOfLogistics(levels, 2) if joint else Categorical(levels)
    outputs = head.outputs(shape[0] if joint else 1)
    if kind == "pixelcnn":
        network = PixelCNN(shape[0], shape[1], outputs, 8, 1, 2, 0.0, classes)
    else:
        embedding = Colours(shape[0], 8) if joint else Words(levels, 8)
        position = Axial(shape[1:] if joint else shape, 8)
        network = Transformer(embedding, position, outputs, 8, 2, 2, 16, 0.0, classes)
    for parameter in network.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return Autoregressive(
        network=network,
        head=head,
        joint=joint,
        sampler=sampler,
        codec=Pixels(levels) if joint else Tokens(levels),
        shape=shape,
        optimizer=Optimization(torch.optim.SGD, lr=0.1),
        averaging=Constant(0.9),
        classes=classes,
    )


def everything(shape, levels):
    """(levels^D, *shape) uint8: every image there is."""
    grey = torch.arange(levels, dtype=torch.float64) * 255 / (levels - 1)
    rows = list(itertools.product(grey.round().tolist(), repeat=math.prod(shape)))
    return torch.tensor(rows).to(torch.uint8).reshape(-1, *shape)


@pytest.mark.parametrize(
    ("shape", "levels", "kind"),
    [
        *[((1, 2, 2), 5, "tokens"), ((3, 1, 2), 2, "tokens"), ((2, 3), 3, "tokens"), ((6,), 3, "tokens")],
        *[((1, 2, 2), 5, "pixels"), ((3, 1, 2), 3, "pixels"), ((1, 2, 2), 5, "pixelcnn"), ((2, 2, 2), 2, "pixelcnn")],
    ],
)
def test_the_probabilities_of_all_images_sum_to_1_and_are_those_of_samples(shape, levels, kind):
    model = module(shape, levels, kind).eval()
    z = model.codec.encode(everything(shape, levels))
    with torch.no_grad():
        p = model.log_prob(z).exp()
    assert p.double().sum().item() == pytest.approx(1, abs=1e-5)
    assert p.max() < 0.95, "or there is little to be seen"
    n = 6000
    with torch.no_grad():
        drawn = model.sample(NoiseStream(0), n)
    index = torch.cdist(drawn.flatten(1).double(), z.flatten(1).double()).argmin(1)
    share, big = index.bincount(minlength=len(p)) / n, p * n >= 5
    deviation = ((share - p)[big] / (p[big] * (1 - p[big]) / n).sqrt()).square()
    # squares of k numbers of variance 1 each: their mean is 1 ± √(2/k)
    assert deviation.mean().item() < 1 + 5 * math.sqrt(2 / len(deviation))


def test_a_uniform_model_has_exactly_8_bits_a_dimension():
    """The offset of 8-bit data: no more and no less, of images and of text."""
    for shape in ((3, 4, 4), (7,)):
        model = module(shape, 256, "tokens").double()
        for parameter in model.network.last.parameters():
            parameter.data.zero_()
        x = torch.randint(256, (5, *shape), dtype=torch.uint8)
        torch.testing.assert_close(model.bits_per_dim(x), torch.full((5,), 8.0).double(), rtol=0, atol=1e-12)


def test_the_loss_is_minus_the_log_probability_by_dimension():
    model = module((3, 2, 2), 4, "tokens")
    x = torch.randint(4, (6, 3, 2, 2))
    torch.testing.assert_close(model.loss(x, None)["loss"], -model.log_prob(x).mean() / 12)
    bits = model.bits_per_dim((x * 85).to(torch.uint8)).mean()
    torch.testing.assert_close(bits * math.log(2), model.loss(x, None)["loss"])


@pytest.mark.parametrize("kind", ["tokens", "pixels", "pixelcnn"])
def test_a_sample_depends_on_seed_and_index_alone(kind):
    model = module((1, 4, 4), 5, kind, classes=3).eval()
    with torch.no_grad():
        whole = model.generate(NoiseStream(7), 6)
        parts = [model.generate(NoiseStream(7, start), 2) for start in (0, 2, 4)]
        other = model.generate(NoiseStream(8), 6)
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, other)


def test_pixels_come_row_by_row_and_their_channels_one_after_the_other():
    model = module((3, 2, 2), 256, "tokens")
    x = torch.arange(12).reshape(1, 3, 2, 2)  # channel, row, column
    assert model._sequence(x).flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert torch.equal(model._arranged(model._sequence(x)), x)
    joint = module((3, 2, 2), 256, "pixels")
    assert joint._sequence(x)[0, :, 1].tolist() == [1, 5, 9]
    assert torch.equal(joint._arranged(joint._sequence(x)), x)


@pytest.mark.parametrize("kind", ["tokens", "pixels"])
def test_the_trajectory_shows_a_row_more_at_a_time(kind):
    model = module((3, 4, 2), 5, kind).eval()
    with torch.no_grad():
        frames = [frame.x_t for frame in model.trajectory(NoiseStream(3), 2)]
        final = model.sample(NoiseStream(3), 2)
    assert len(frames) == 4
    for i, frame in enumerate(frames):
        assert torch.equal(frame[:, :, : i + 1], final[:, :, : i + 1])
        assert frame[:, :, i + 1 :].abs().sum() == 0


def test_a_prompt_is_continued_as_the_sample_that_begins_with_it():
    """Same noise: what was drawn, given back up to any place, is drawn on as it was."""
    model = module((9,), 4, "tokens", classes=2).eval()
    y = torch.tensor([0, 1, 1])
    with torch.no_grad():
        x = model.sample(NoiseStream(5), 3, y)
        for k in (1, 4, 8):
            assert torch.equal(model.complete(NoiseStream(5), x[:, :k], y), x)
        other = 3 - x[:, :4]
        assert torch.equal(model.complete(NoiseStream(5), other, y)[:, :4], other)


def test_the_likeliest_token_is_all_that_is_left_at_top_1_and_towards_temperature_0():
    draws = []
    for sampler in (Decoding(1.0, 1, 1.0), Decoding(1e-4, None, 1.0), Decoding(1.0, None, 1e-6)):
        model = module((6,), 4, "tokens", sampler=sampler).eval()
        with torch.no_grad():
            draws += [model.sample(NoiseStream(seed), 2) for seed in (0, 1)]
            before, x = model.network(draws[0][:, None])[:, :, :].argmax(1), draws[0]
        assert torch.equal(before, x)
    assert all(torch.equal(draw, draws[0]) for draw in draws)


def test_what_cannot_be_is_said_in_one_line():
    model = module((6,), 4, "tokens").eval()
    with pytest.raises(GenlabError, match="alphabet is 0 to 3"):
        model.loss(torch.full((1, 6), 4), None)
    with pytest.raises(GenlabError, match="prompt of 6, and this model has 6 positions"):
        model.complete(NoiseStream(0), torch.zeros(1, 6, dtype=torch.long))
    with pytest.raises(GenlabError, match="alphabet"):
        model.complete(NoiseStream(0), torch.full((1, 2), 9))
    model.network.last.bias.data[0] = math.nan
    with pytest.raises(GenlabError, match="nan or inf"):
        model.sample(NoiseStream(0), 1)
    narrow = Transformer(Words(4, 8), Rotary(6), 3, 8, 1, 2, 8, 0.0, 0)
    with pytest.raises(GenlabError, match="the network has 3 outputs, and Categorical on 1 channels needs 4"):
        Autoregressive(
            network=narrow,
            head=Categorical(4),
            joint=False,
            sampler=LAW,
            codec=Tokens(4),
            shape=(6,),
            optimizer=Optimization(torch.optim.SGD, lr=0.1),
            averaging=Constant(0.9),
        )
