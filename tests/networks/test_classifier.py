"""ADM's classifier: its published sizes, and attention pooling written by hand."""

import pytest
import torch

from genlab.networks.classifier import AttentionPool, Encoder, EncoderMLP
from genlab.networks.layers import Cosinusoidal, Sinusoidal


@pytest.mark.parametrize(
    ("size", "multipliers", "blocks", "parameters"),
    [
        (64, [1, 2, 3, 4], 4, 65_438_568),
        (128, [1, 1, 2, 3, 4], 2, 42_568_040),
        (256, [1, 1, 2, 2, 4, 4], 2, 54_096_360),
        (512, [0.5, 1, 1, 2, 2, 4, 4], 2, 54_448_360),
    ],
)
def test_parameters_of_the_imagenet_classifiers(size, multipliers, blocks, parameters):
    """65M, 43M, 54M and 54M in the paper's table of classifiers."""
    with torch.device("meta"):
        network = Encoder(3, size, 128, multipliers, blocks, [32, 16, 8], 64, 0.0, 1000, Cosinusoidal(128))
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_attention_pooling():
    """The query of the mean position over all positions and itself: one head at a time."""
    torch.manual_seed(0)
    pool, x = AttentionPool(8, 3, 2, 5), torch.randn(4, 8, 3, 3)
    tokens = torch.cat([x.mean((2, 3))[:, :, None], x.reshape(4, 8, 9)], dim=2) + pool.position
    q, k, v = torch.einsum("oc,bct->bot", pool.qkv.weight[..., 0], tokens).add(pool.qkv.bias[:, None]).chunk(3, dim=1)
    heads = []
    for rows in (slice(0, 4), slice(4, 8)):
        weights = torch.einsum("bc,bct->bt", q[:, rows, 0], k[:, rows] / 2).softmax(1)
        heads.append(torch.einsum("bt,bct->bc", weights, v[:, rows]))
    torch.testing.assert_close(pool(x), pool.out(torch.cat(heads, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2,), (1, 8, 8)], ids=str)
def test_each_row_is_answered_from_itself_and_its_noise(shape):
    torch.manual_seed(0)
    if len(shape) == 1:
        network = EncoderMLP(2, 16, 2, 7, Sinusoidal(16))
    else:
        network = Encoder(1, 8, 16, [1, 2], 1, [4], 16, 0.0, 7, Cosinusoidal(16))
        for p in network.parameters():  # its residual blocks start as nothing
            torch.nn.init.normal_(p, std=0.2)
    x, c = torch.randn(5, *shape), torch.rand(5) * 999
    whole = network.eval()(x, c)
    assert whole.shape == (5, 7)
    torch.testing.assert_close(whole[2:3], network(x[2:3], c[2:3]), rtol=1e-4, atol=1e-5)
    assert (network(x, c.flip(0))[0] - whole[0]).abs().max() > 1e-3
