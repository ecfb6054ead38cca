"""What a network is told, and how its output is read."""

import pytest
import torch
from torch import nn

from genlab.gaussian.denoiser import Denoiser, Index, LogSigma, Time
from genlab.gaussian.parametrization import Eps, V
from genlab.gaussian.parametrization import Karras as Preconditioned
from genlab.gaussian.path import VE, VP, Karras
from genlab.gaussian.tables import Table, linear_betas


class Recorder(nn.Module):
    """Answers `output` and keeps what it was asked."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, x, c, y=None):
        self.asked = (x, c, y)
        return self.output


@pytest.mark.parametrize(
    ("path", "embedding", "t", "expected"),
    [
        (Table(linear_betas(1000, 1e-4, 0.02)), Index(), [1, 1000], [0.0, 999.0]),
        (VP(), Time(999.0), [0.001, 1.0], [0.999, 999.0]),
        (VE(0.01, 50.0), LogSigma(), [0.5, 1.0], [-0.34657359, 3.91202301]),
        (Table(linear_betas(4000, 1e-4, 0.02)), Index(0.25), [1, 4000], [0.0, 999.75]),
        (Karras(80.0), LogSigma(0.25), [0.002, 80.0], [-1.55365202, 1.09550666]),
    ],
    ids=["Index", "Time", "LogSigma", "Index-iddpm", "LogSigma-edm"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_network_is_told_the_noise_of_each_row(path, embedding, t, expected, dtype):
    x = torch.zeros(2, 3, 4, 4, dtype=dtype)
    network = Recorder(x)
    denoiser = Denoiser(network, path, Eps(), embedding)
    denoiser(x, torch.tensor(t, dtype=torch.float64), y=torch.tensor([7, 8]))
    seen, c, y = network.asked
    assert torch.equal(seen, x)
    assert y.tolist() == [7, 8]
    torch.testing.assert_close(c, torch.tensor(expected, dtype=dtype), rtol=1e-6, atol=1e-6)
    denoiser(x, torch.tensor(t[1], dtype=torch.float64))  # one time for all rows
    torch.testing.assert_close(network.asked[1], torch.tensor(expected[1:] * 2, dtype=dtype), rtol=1e-6, atol=1e-6)
    assert network.asked[2] is None


def test_sampling_in_float32_stays_in_float32():
    """Times of samplers are float64 scalars, which must not promote the images."""
    x = torch.zeros(2, 3)
    x_hat = Denoiser(Recorder(x), VP(), V(), Time(1.0))(x, torch.tensor(0.5, dtype=torch.float64))
    assert x_hat.dtype == torch.float32


def test_output_is_read_row_by_row(path):
    """A network that knows the target makes x̂ = x for rows at different times."""
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64) * path.t_max
    p = path(t, 4)
    network = Recorder(V().target(x, torch.ones_like(x), p))
    x_hat = Denoiser(network, path, V(), Time(1.0))(p.alpha * x + p.sigma, t)
    torch.testing.assert_close(x_hat, x, rtol=0, atol=1e-12)


def test_preconditioned_networks_see_unit_variance():
    """c_in = 1/√(s² + σ²) of EDM, and 1 for every other parametrization."""
    x, t = torch.full((2, 3), 2.0), torch.tensor([0.5, 80.0])
    network = Recorder(x)
    Denoiser(network, Karras(80.0), Preconditioned(0.5), LogSigma(0.25))(x, t)
    torch.testing.assert_close(network.asked[0], x / torch.tensor([[0.5], [6400.25]]).sqrt())


def test_float64_states_meet_float32_networks():
    """EDM's sampler keeps its state in float64: the network works in its own precision, and x̂ is float64 again."""
    network = nn.Linear(3, 3)

    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x, c, y=None):
            assert x.dtype == c.dtype == torch.float32
            return self.network(x)

    x_hat = Denoiser(Takes(), VP(), V(), Time(1.0))(torch.zeros(2, 3).double(), torch.tensor(0.5).double())
    assert x_hat.dtype == torch.float64


def test_learned_variance_is_the_second_half_of_the_channels():
    out = torch.randn(2, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(Recorder(out), VP(), V(), Time(1.0), learned_variance=True)
    x, t = torch.randn(2, 3, 4, 4), torch.tensor(0.5)
    plain = Denoiser(Recorder(out[:, :3]), VP(), V(), Time(1.0))
    x_hat, v = denoiser.predict(x, t)
    assert torch.equal(x_hat, plain(x, t))
    assert plain.predict(x, t).v is None
    torch.testing.assert_close(v, (out[:, 3:] + 1) / 2)


def test_augmentations_reach_a_network_only_where_there_are_some():
    class Takes(nn.Module):
        def forward(self, x, c, y=None, augmentation=None):
            return x if augmentation is None else x + augmentation[:, :1]

    denoiser, x = Denoiser(Takes(), VP(), V(), Time(1.0)), torch.zeros(2, 3)
    p = denoiser.path(torch.tensor(0.5), 2)
    assert torch.equal(denoiser.output(x, p)[0], x)
    assert torch.equal(denoiser.output(x, p, None, torch.ones(2, 9))[0], x + 1)
