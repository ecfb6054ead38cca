"""The published sizes of flows of CIFAR-10."""

import pytest
import torch
from torch import nn

from genlab.networks.coupling import DataNorm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions"),
    [("glow", 44.0), ("nsf", 11.8)],  # both in the table of images of Durkan et al. 2019, arXiv:1906.04032
)
def test_parameters_are_as_many_as_published(recipe, name: str, millions: float) -> None:
    network: nn.Module = recipe(name)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


@pytest.mark.parametrize(("dtype", "mean"), [(torch.bfloat16, 16.0), (torch.float16, 16.0), (torch.float32, 1000.0)])
def test_norm_begins_with_the_moments_of_its_first_batch(dtype: torch.dtype, mean: float) -> None:
    """E[x²] − E[x]² of what is far from 0 is not a difference of sums in the batch's own dtype."""
    x = (mean + torch.randn(16, 4, 16, 16)).to(dtype)
    z = DataNorm(4)(x).float()
    assert z.mean((0, 2, 3)).abs().max() < 0.1
    assert (z.std((0, 2, 3)) - 1).abs().max() < 0.01
