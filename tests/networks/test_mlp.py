"""The networks of the published mode-collapse settings against their formulas."""

import pytest
import torch

from genlab.errors import GenlabError
from genlab.networks.mlp import Maxout, ReLUMLP


def test_maxout_is_the_largest_of_its_pieces():
    torch.manual_seed(0)
    critic = Maxout(inputs=4, width=6, depth=2, pieces=3, classes=0)
    x = h = torch.randn(5, 4)
    for layer in critic.hidden:
        weight, bias = layer.weight.view(6, 3, -1), layer.bias.view(6, 3)
        h = torch.stack([h @ weight[:, i].T + bias[:, i] for i in range(3)]).max(0).values
    torch.testing.assert_close(critic(x), h @ critic.last.weight[0] + critic.last.bias)


def test_the_generator_of_pacgan_normalizes_over_the_batch_in_training_and_by_what_it_saw_in_sampling():
    torch.manual_seed(0)
    generator = ReLUMLP(inputs=2, outputs=3, width=16, depth=1, classes=0, batch_norm=True)
    linear, _, _, last = generator.layers
    assert linear.bias is None
    z = torch.randn(64, 2) * 3
    h = linear(z)
    normal = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-4).sqrt()
    torch.testing.assert_close(generator(z), last(normal.relu()))
    generator.eval()  # of the one batch it has seen, 5 %
    mean, variance = 0.05 * h.mean(0), 0.95 + 0.05 * h.var(0)
    torch.testing.assert_close(generator(z), last(((h - mean) / (variance + 1e-4).sqrt()).relu()))


def test_without_outputs_it_gives_one_number_for_each_sample():
    torch.manual_seed(0)
    critic = ReLUMLP(inputs=2, outputs=0, width=8, depth=2, classes=0, batch_norm=False)
    x = torch.randn(5, 2)
    first, _, second, _, last = critic.layers
    torch.testing.assert_close(critic(x), last(second(first(x).relu()).relu())[:, 0])


@pytest.mark.parametrize("std", [0.02, 0.5])
def test_weights_begin_with_the_deviation_that_is_asked_for(std):
    torch.manual_seed(0)
    for network in (
        Maxout(inputs=200, width=200, depth=2, pieces=5, classes=0, std=std),
        ReLUMLP(inputs=200, outputs=200, width=200, depth=2, classes=0, batch_norm=False, std=std),
    ):
        for layer in (module for module in network.modules() if isinstance(module, torch.nn.Linear)):
            if layer.weight.numel() > 1000:
                assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
            assert not layer.bias.any()


def test_labels_are_refused():
    for make in (
        lambda: Maxout(2, width=4, depth=1, pieces=2, classes=3),
        lambda: ReLUMLP(2, 2, width=4, depth=1, classes=3, batch_norm=True),
    ):
        with pytest.raises(GenlabError, match="classes=3"):
            make()
