"""The head of PixelCNN++ against sums over every image there can be, and a single logistic."""

import itertools

import pytest
import torch

from genlab.errors import GenlabError
from genlab.likelihood_heads import DiscretizedLogistic
from genlab.mixture_head import MixtureOfLogistics


def drawn(head: MixtureOfLogistics, channels: int, *place: int, spread: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Parameters of some size, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(1, head.outputs(channels), *place, generator=generator, dtype=torch.float64)


def every_pixel(levels: int, channels: int) -> torch.Tensor:
    """(levels^C, C, 1, 1)."""
    line = torch.linspace(-1, 1, levels, dtype=torch.float64).tolist()
    return torch.tensor([*itertools.product(line, repeat=channels)], dtype=torch.float64)[:, :, None, None]


def test_ten_components_have_a_hundred_outputs_for_colour() -> None:
    """As in Salimans et al. 2017, whose networks end in 100 channels."""
    head = MixtureOfLogistics(256, 10)
    assert [head.outputs(c) for c in (1, 2, 3)] == [30, 60, 100]


@pytest.mark.parametrize(("levels", "channels"), [(2, 3), (5, 3), (17, 2), (17, 1), (256, 1)])
@pytest.mark.parametrize("spread", [1.0, 5.0])
def test_probabilities_of_all_pixels_sum_to_1(levels: int, channels: int, spread: float) -> None:
    head = MixtureOfLogistics(levels, 4)
    x = every_pixel(levels, channels)
    log_p = head.log_prob(x, drawn(head, channels, 1, 1, spread=spread).expand(len(x), -1, -1, -1))
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_the_mixture_is_the_sum_of_what_its_formula_says() -> None:
    """Component by component and channel by channel, in probabilities."""
    head, single = MixtureOfLogistics(17, 2), DiscretizedLogistic(17)
    p = drawn(head, 3, 1, 1)[0, :, 0, 0]
    pi, rest = p[:2].softmax(0), p[2:].reshape(2, 9)
    x = every_pixel(17, 3)[::97]
    expected = torch.zeros(len(x), dtype=torch.float64)
    for k in range(2):
        m, log_s, (a, b, c) = rest[k, :3], rest[k, 3:6], rest[k, 6:].tanh()
        r, g, blue = x[:, 0, 0, 0], x[:, 1, 0, 0], x[:, 2, 0, 0]
        means = (m[0].expand(len(x)), m[1] + a * r, m[2] + b * r + c * g)
        total = pi[k].expand(len(x)).clone()
        for channel, mean, s in zip((r, g, blue), means, log_s, strict=True):
            parameters = torch.stack([mean, s.expand(len(x))], dim=1)
            total *= single.log_prob(channel[:, None], parameters).exp()
        expected += total
    parameters = p[None, :, None, None].expand(len(x), -1, -1, -1)
    torch.testing.assert_close(head.log_prob(x, parameters).exp(), expected, rtol=1e-8, atol=1e-300)


def test_one_component_of_one_channel_is_a_logistic() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(17, (3, 1, 4, 4), generator=generator).double() / 8 - 1
    parameters = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    logits = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    mixed = MixtureOfLogistics(17, 1).log_prob(x, torch.cat([logits, parameters], dim=1))
    torch.testing.assert_close(mixed, DiscretizedLogistic(17).log_prob(x, parameters))


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize("log_s", [-50.0, -7.0, 0.0, 10.0])
@pytest.mark.parametrize("mu", [-30.0, 0.01, 1e6])
def test_extremes_are_finite_in_float32_and_so_are_their_gradients(levels: int, mu: float, log_s: float) -> None:
    head = MixtureOfLogistics(levels, 2)
    x = torch.linspace(-1, 1, levels)[:, None, None, None].repeat(1, 3, 1, 1)
    one = torch.tensor([mu] * 3 + [log_s] * 3 + [100.0, -100.0, 0.0])
    parameters = torch.cat([torch.tensor([80.0, -80.0]), one, one])[None, :, None, None].repeat(levels, 1, 1, 1)
    log_p = head.log_prob(x, parameters.requires_grad_())
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()
    double = head.log_prob(x.double(), parameters.detach().double())
    torch.testing.assert_close(log_p.detach().double(), double, rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize(("levels", "channels"), [(5, 1), (17, 1), (3, 2)])
def test_draws_fall_on_pixels_with_their_probabilities(levels: int, channels: int) -> None:
    n = 200_000
    head = MixtureOfLogistics(levels, 3)
    parameters = drawn(head, channels, 1, 1, seed=1)
    u = torch.rand(n, channels, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = head.sample(parameters.expand(n, -1, -1, -1), u)
    head.check(draws)
    code = ((draws[:, :, 0, 0] + 1) * (levels - 1) / 2).round().long() @ (levels ** torch.arange(channels).flip(0))
    pixels = every_pixel(levels, channels)
    p = head.log_prob(pixels, parameters.expand(len(pixels), -1, -1, -1)).exp()
    found = code.bincount(minlength=len(p)) / n
    assert ((found - p).abs() < 5 * (p * (1 - p) / n).sqrt() + 1e-6).all()


def test_the_mean_is_that_of_the_draws() -> None:
    """Where narrow logistics in the middle leave nothing to the ends: Σ x p(x) over all pixels."""
    head = MixtureOfLogistics(17, 3)
    parameters = drawn(head, 3, 1, 1, spread=0.2)
    parameters[:, 3:].unflatten(1, (3, 9))[:, :, 3:6] = -3.0
    x = every_pixel(17, 3)
    p = head.log_prob(x, parameters.expand(len(x), -1, -1, -1)).exp()
    torch.testing.assert_close(head.mean(parameters)[0], (p[:, None, None, None] * x).sum(0), rtol=0, atol=2e-3)


def test_places_do_not_mix() -> None:
    head = MixtureOfLogistics(17, 3)
    parameters = drawn(head, 2, 4, 5)
    x = torch.randint(17, (1, 2, 4, 5), generator=torch.Generator().manual_seed(0)).double() / 8 - 1
    alone = [
        head.log_prob(x[:, :, i : i + 1, j : j + 1], parameters[:, :, i : i + 1, j : j + 1])
        for i in range(4)
        for j in range(5)
    ]
    torch.testing.assert_close(head.log_prob(x, parameters), torch.stack(alone).sum(0))


def test_a_mixture_of_nothing_is_refused() -> None:
    with pytest.raises(GenlabError, match="at least 1"):
        MixtureOfLogistics(17, 0)
