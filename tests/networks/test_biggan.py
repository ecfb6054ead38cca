"""BigGAN: its sizes as published, orthogonal starts, spectral norms, attention, and where the parts of z go."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genlab.errors import GenlabError
from genlab.networks.biggan import Attention, Discriminator, Generator


def weights(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameters_of_imagenet_128() -> None:
    """Published: google/compare_gan, resnet_biggan_test.py, testNumberOfParameters."""
    with torch.device("meta"):
        generator = Generator(120, 3, 128, 96, [16, 16, 8, 4, 2, 1], [64], 128, 1000)
        critic = Discriminator(3, 128, 96, [1, 2, 4, 8, 16], 1, [64], 1000)
    assert (weights(generator), weights(critic)) == (70_433_988, 87_982_370)


def test_parameters_of_cifar10() -> None:
    """From StudioGAN's layers (models/big_resnet.py) by hand: z 4 x 20, label 128, 384 and 192 channels, attention at 16.

    Generator: 20 -> 16 · 384; three blocks, each of two 3 x 3, one 1 x 1 and four maps 148 -> 384; attention without
    biases and its gain; norm; 3 x 3 to colours; the labels. Critic: likewise, without norms.
    """

    def convolution(i: int, o: int, k: int) -> int:
        return k * k * i * o + o

    def attention(c: int) -> int:
        return 2 * c * (c // 8) + 2 * c * (c // 2) + 1

    block = 2 * convolution(384, 384, 3) + convolution(384, 384, 1) + 4 * 148 * 384
    generator = 21 * 16 * 384 + 3 * block + attention(384) + 2 * 384 + convolution(384, 3, 3) + 10 * 128
    flat = 2 * convolution(192, 192, 3)
    critic = convolution(3, 192, 3) + convolution(192, 192, 3) + convolution(3, 192, 1) + attention(192)
    critic += flat + convolution(192, 192, 1) + 2 * flat + 193 + 10 * 192
    with torch.device("meta"):
        pair = Generator(80, 3, 32, 96, [4] * 4, [16], 128, 10), Discriminator(3, 32, 96, [2, 2], 2, [16], 10)
    assert (weights(pair[0]), weights(pair[1])) == (generator, critic) == (9_416_196, 2_415_170)


def small(classes: int = 3, **more) -> Generator:
    torch.manual_seed(0)
    settings = {"latent": 9, "channels": 3, "size": 16, "width": 8, "multipliers": (1, 2, 1), "attention": (8,)}
    return Generator(**settings | {"shared": 4, "classes": classes} | more)


def test_weights_start_orthogonal_and_biases_at_zero() -> None:
    networks = small(), Discriminator(3, 16, 8, (1, 2), 1, (8,), 3)
    layers = [m for net in networks for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 21 + 14
    for layer in layers:
        own = dict(layer.named_parameters())
        matrix = (own["weight"] if "weight" in own else own["parametrizations.weight.original"]).flatten(1)
        gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
        assert "bias" not in own or not own["bias"].any()


def test_all_but_the_shared_labels_and_the_last_norm_is_spectrally_normalized() -> None:
    """Doubled weights are the same function; and each weight that is used has the largest singular value 1."""
    for network in (small(), Discriminator(3, 16, 8, (1, 2), 1, (8,), 3)):
        layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)}
        free = [name for name, layer in layers.items() if not hasattr(layer, "parametrizations")]
        assert free == (["label"] if isinstance(network, Generator) else [])
        for name in layers.keys() - set(free):
            original = layers[name].parametrizations.weight.original  # pyright: ignore
            with torch.no_grad():
                original.copy_(3 * torch.randn_like(original))
            for _ in range(300):
                weight = layers[name].weight
            top = torch.linalg.svdvals(weight.flatten(1))[0].item()  # pyright: ignore
            torch.testing.assert_close(top, 1.0, rtol=1e-3, atol=0)


def test_attention_by_its_formula() -> None:
    """Every position attends to the pooled ones, with weights that sum to one."""
    torch.manual_seed(0)
    attention, x = Attention(16).double().eval(), torch.randn(2, 16, 4, 6, dtype=torch.float64)
    assert torch.equal(attention(x), x)  # its gain is 0 at first
    with torch.no_grad():
        attention.gain.fill_(0.7)
    q, k, v = attention.q(x), F.max_pool2d(attention.k(x), 2), F.max_pool2d(attention.v(x), 2)
    logits = torch.einsum("bchw,bcij->bhwij", q, k).flatten(3)
    share = logits.exp() / logits.exp().sum(3, keepdim=True)
    torch.testing.assert_close(share.sum(3), torch.ones(2, 4, 6, dtype=torch.float64))
    mixed = torch.einsum("bhwn,bcn->bchw", share, v.flatten(2))
    torch.testing.assert_close(attention(x), x + 0.7 * attention.out(mixed))
    with torch.no_grad():
        attention.v.parametrizations.weight.original.zero_()  # pyright: ignore
    assert q.shape[1] == k.shape[1] == 2
    assert v.shape[1] == 8


@pytest.mark.parametrize(
    ("attention", "after"), [((8,), [True, False]), ((16,), [False, True]), ((4, 64), [False] * 2)]
)
def test_attention_stands_where_a_block_ends_at_its_resolution(attention: tuple, after: list[bool]) -> None:
    assert [isinstance(a, Attention) for a in small(attention=attention).attention] == after


def test_each_part_of_z_goes_to_its_own_block() -> None:
    """The first makes the 4 x 4, the k-th the norms of block k, beside the label."""
    generator, conditions, first = small().eval(), [], []
    for block in generator.blocks:
        block.norm1.register_forward_hook(lambda _, inputs, out: conditions.append(inputs[1]))  # pyright: ignore
    generator.project.register_forward_hook(lambda _, inputs, out: first.append(inputs[0]))
    z, y = torch.randn(2, 9), torch.tensor([1, 2])
    generator(z, y)
    assert torch.equal(first[0], z[:, :3])
    for k, condition in enumerate(conditions):
        assert torch.equal(condition, torch.cat([generator.label.weight[y], z[:, 3 + 3 * k : 6 + 3 * k]], dim=1))  # pyright: ignore


def test_z_that_cannot_be_cut_is_named() -> None:
    with pytest.raises(GenlabError, match=r"3 equal parts for images of 16 pixels.*set model.latent=9"):
        small(latent=10)
