"""The price on Lipschitz constants, against singular values."""

import pytest
import torch
from torch import nn

from genlab.errors import GenlabError
from genlab.variational.spectral import SpectralRegularization


@pytest.fixture
def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Conv2d(5, 5, 3), nn.Conv2d(5, 5, 3)
    return nn.Sequential(*layers)


def test_it_is_the_sum_of_largest_singular_values_and_norms_and_pulls_on_both(network):
    nn.init.uniform_(network[1].weight)
    price = SpectralRegularization(0.3, 50)
    price.watch(network[:2], network[2:])
    convs = [network[0], network[2], network[3]]
    exact = sum(torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2) for layer in convs) + network[1].weight.max()
    assert price().item() == pytest.approx(0.3 * exact.item(), rel=1e-4)
    price().backward()
    for layer in convs:  # dσ/dW = u vᵀ
        u, _, v = torch.linalg.svd(layer.weight.flatten(1).detach())
        torch.testing.assert_close(layer.weight.grad.flatten(1), 0.3 * torch.outer(u[:, 0], v[0]), rtol=0, atol=3e-3)
    assert network[1].weight.grad.count_nonzero() == 1


def test_where_it_stands_is_saved(network):
    """So that a resumed run goes on with the same vectors; its layers are not saved twice."""
    price = SpectralRegularization(1.0, 1)
    price.watch(network)
    assert {name: tuple(u.shape) for name, u in price.state_dict().items()} == {"u0": (1, 5), "u1": (2, 5)}
    before = price.u0.clone()
    first = price().item()
    assert not torch.equal(before, price.u0)
    assert price().item() > first  # nearer to the largest


def test_mistakes_are_one_line():
    with pytest.raises(GenlabError, match="iterations=0"):
        SpectralRegularization(1.0, 0)
