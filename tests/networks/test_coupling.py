"""The published sizes of flows of CIFAR-10."""

import pytest
from torch import nn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions"),
    [("glow", 44.0), ("nsf", 11.8)],  # both in the table of images of Durkan et al. 2019, arXiv:1906.04032
)
def test_parameters_are_as_many_as_published(recipe, name: str, millions: float) -> None:
    network: nn.Module = recipe(name)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
