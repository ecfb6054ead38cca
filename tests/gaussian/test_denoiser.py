"""What a network is told, and how its output is read."""

import pytest
import torch
from torch import nn

from genlab.gaussian.denoiser import Denoiser, Index, LogSigma, Time
from genlab.gaussian.parametrization import Eps, V
from genlab.gaussian.path import VE, VP, Table, linear_betas


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
    ],
    ids=["Index", "Time", "LogSigma"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_network_is_told_the_noise_of_each_row(path, embedding, t, expected, dtype):
    x = torch.zeros(2, 3, 4, 4, dtype=dtype)
    network = Recorder(x)
    denoiser = Denoiser(network, path, Eps(), embedding)
    denoiser(x, torch.tensor(t, dtype=torch.float64), y=torch.tensor([7, 8]))
    seen, c, y = network.asked
    assert seen is x
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
