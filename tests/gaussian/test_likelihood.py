"""The probability flow's log-density against densities that are known."""

import math

import pytest
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Denoiser, Time
from genlab.gaussian.likelihood import Exact, Hutchinson, ProbabilityFlow
from genlab.gaussian.parametrization import X
from genlab.gaussian.path import VE, VP, GaussianPath, Linear, Table, linear_betas

MEAN, STD = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([0.6, 1.5], dtype=torch.float64)
# so much noise at t_max that the prior N(0, σ_T²) is right to six digits
PATHS = {"VP": VP(0.1, 60.0), "VE": VE(1e-4, 1e6), "Linear": Linear()}


class Known(nn.Module):
    """E[x | x_t] of data N(MEAN, STD²)."""

    def __init__(self, path: GaussianPath):
        super().__init__()
        self.path = path

    def forward(self, x_t: torch.Tensor, c: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        p = self.path(c, 2)
        gain = p.alpha * STD**2 / (p.alpha**2 * STD**2 + p.sigma**2)
        return MEAN + gain * (x_t - p.alpha * MEAN)


def denoiser(path: GaussianPath) -> Denoiser:
    return Denoiser(Known(path), path, X(), Time(1.0))


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_the_density_of_a_gaussian_to_four_digits(path: GaussianPath) -> None:
    law = torch.distributions.Normal(MEAN, STD)
    x = law.sample(torch.Size([64]))
    found = ProbabilityFlow(Exact(), 1e-5, 1e-8).log_prob(denoiser(path), x)
    torch.testing.assert_close(found, law.log_prob(x).sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_hutchinson_is_unbiased(path: GaussianPath) -> None:
    """The field's Jacobian is diagonal, so that ±1 probes have no variance at all: eᵀJe = tr J."""
    x = torch.distributions.Normal(MEAN, STD).sample(torch.Size([32]))
    exact = ProbabilityFlow(Exact(), 1e-5, 1e-8).log_prob(denoiser(path), x)
    torch.testing.assert_close(ProbabilityFlow(Hutchinson(), 1e-5, 1e-8).log_prob(denoiser(path), x), exact)


def test_hutchinson_of_a_full_jacobian_averages_to_the_trace() -> None:
    matrix = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    x = torch.randn(20_000, 4, dtype=torch.float64).requires_grad_()
    probe = Hutchinson()
    probe.start(x)
    found = probe(x @ matrix.T, x)
    error = found.std() / math.sqrt(len(x))
    assert abs(found.mean() - matrix.trace()) < 4 * error
    torch.testing.assert_close(Exact()(x @ matrix.T, x), matrix.trace().expand(len(x)))


def test_refusals() -> None:
    flow = ProbabilityFlow(Exact(), 1e-5, 1e-8, most=10)
    with pytest.raises(GenlabError, match="use the path VP"):
        flow.check(Table(linear_betas(10, 1e-4, 0.02)))
    with pytest.raises(GenlabError, match="more than 10 evaluations"):
        flow.log_prob(denoiser(VP()), torch.zeros(2, 2, dtype=torch.float64))
    with pytest.raises(GenlabError, match="cannot be integrated"):
        ProbabilityFlow(Exact(), 1e-5, 1e-8).log_prob(denoiser(VP()), torch.full((2, 2), torch.nan))
