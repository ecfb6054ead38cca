"""What is said of a place comes from places before it, with and without a memory; sizes as published."""

import pytest
import torch

from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.instantiation import build
from genlab.networks.pixelcnn import PixelCNN
from genlab.networks.transformer import Axial, Block, Colours, Rotary, Transformer, Words

SHAPE, CLASSES = (3, 4, 4), 3


def transformer(embedding, position, outputs):
    return Transformer(embedding, position, outputs, 16, 2, 2, 24, 0.0, CLASSES, inner=8)


NETWORKS = {
    "pixels": lambda: transformer(Colours(3, 16), Axial((4, 4), 16), 20),
    "channels": lambda: transformer(Words(5, 16), Axial(SHAPE, 16), 5),
    "rotary": lambda: transformer(Words(5, 16), Rotary(48), 5),
    "pixelcnn": lambda: PixelCNN(3, 4, 20, 8, 1, 2, 0.0, CLASSES),
    "pixelcnn of 3 resolutions": lambda: PixelCNN(3, 4, 20, 8, 2, 3, 0.0, CLASSES),
}
every = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture
def made():
    """A network in float64 with weights far from 0, a sequence for it, and labels."""

    def made(name):
        torch.manual_seed(0)
        network = NETWORKS[name]().double().eval()
        for parameter in network.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        joint = name == "pixels" or name.startswith("pixelcnn")
        s = torch.rand(2, 3, 16).double() if joint else torch.randint(5, (2, 1, 48))
        return network, s, torch.tensor([2, 0])

    return made


@every
def test_what_is_said_of_a_place_depends_on_all_before_it_and_on_none_after(name, made):
    """By gradient with respect to what is embedded, or to the pixels themselves."""
    network, s, y = made(name)
    if s.is_floating_point():
        given = s.requires_grad_()
    else:  # tokens have no gradient, their vectors have
        given = network.embedding(s).detach().transpose(1, 2).requires_grad_()
        network.embedding = Through()
    said = network(given, y)
    for i in range(said.shape[2]):
        (slope,) = torch.autograd.grad(said[:, :, i].square().sum(), given, retain_graph=True, allow_unused=True)
        reached = torch.zeros_like(given) if slope is None else slope
        assert reached[:, :, i:].abs().max() == 0, "d logit_i / d x_j = 0 for j >= i"
        assert (reached[:, :, :i].abs().sum((0, 1)) > 0).all(), "and nothing before i is overlooked"


class Through(torch.nn.Module):
    def forward(self, s):
        return s.transpose(1, 2)


@every
@pytest.mark.parametrize("prompt", [0, 5])
def test_with_a_memory_the_same_is_said(name, prompt, made):
    network, s, y = made(name)
    with torch.no_grad():
        whole, memory = network(s, y), network.memory()
        parts = [network(s[:, :, :prompt], y, memory)]
        parts += [network(s[:, :, i : i + 1], y, memory) for i in range(prompt, s.shape[2] - 1)]
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, rtol=0, atol=1e-12)


@every
def test_a_label_reaches_every_place(name, made):
    network, s, y = made(name)
    with torch.no_grad():
        assert ((network(s, y) - network(s, y.flip(0))).abs().amax((0, 1)) > 0).all()


def test_rotated_products_depend_on_the_distance_alone():
    """qᵢ · kⱼ of the same vectors at i and j is that at i + 7 and j + 7."""
    torch.manual_seed(0)
    rotary, q, k = Rotary(64).double(), torch.randn(1, 1, 5, 8).double(), torch.randn(1, 1, 5, 8).double()
    here = rotary.turned(q, 0) @ rotary.turned(k, 0).mT
    there = rotary.turned(q, 7) @ rotary.turned(k, 7).mT
    torch.testing.assert_close(here, there, rtol=0, atol=1e-5)  # angles are float32
    assert (here - q @ k.mT).abs().max() > 0.1
    torch.testing.assert_close(rotary.turned(q, 3).norm(dim=3), q.norm(dim=3))


def test_attention_is_that_of_torch():
    torch.manual_seed(0)
    block = Block(12, 12, 3, 24, 0.0).double()
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    theirs.load_state_dict(
        {"in_proj_weight": block.qkv.weight, "in_proj_bias": block.qkv.bias}
        | {"out_proj.weight": block.out.weight, "out_proj.bias": block.out.bias}
    )
    h = torch.randn(2, 6, 12).double()
    mask = torch.ones(6, 6).triu(1).bool()
    expected = theirs(h, h, h, attn_mask=mask, need_weights=False)[0]
    torch.testing.assert_close(block.attention(h, Axial((6,), 12), None), expected)


@pytest.mark.parametrize(
    ("shape", "place"), [((2, 3, 4), (1, 2, 1)), ((3, 4), (1, 2)), ((9,), (5,))], ids=["image", "codes", "text"]
)
def test_a_position_is_the_sum_of_its_axes(shape, place):
    """Of images the channel is the fastest axis, of codes the column."""
    axial = Axial(shape, 4)
    sizes = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    index = 0
    for size, i in zip(sizes, place, strict=True):
        index = index * size + i
    expected = sum(axis[i] for axis, i in zip(axial.axes, place, strict=True))
    torch.testing.assert_close(axial.embedded(torch.zeros(1, 1, 4), index)[0, 0], expected)


def test_what_does_not_fit_is_refused():
    network = transformer(Words(5, 16), Rotary(6), 5)
    with pytest.raises(GenlabError, match="sequence of 7, and this transformer has 6 positions"):
        network(torch.zeros(1, 1, 7, dtype=torch.long))
    memory = network.memory()
    network(torch.zeros(1, 1, 5, dtype=torch.long), None, memory)
    with pytest.raises(GenlabError, match="sequence of 7"):
        network(torch.zeros(1, 1, 1, dtype=torch.long), None, memory)
    with pytest.raises(GenlabError, match="3 heads do not divide"):
        Transformer(Words(5, 16), Rotary(6), 5, 16, 1, 3, 16, 0.0, 0)
    with pytest.raises(GenlabError, match="heads have 3 channels"):
        Rotary(6).turned(torch.zeros(1, 1, 2, 3), 0)
    with pytest.raises(GenlabError, match="divisible by 4"):
        PixelCNN(1, 6, 3, 8, 1, 3, 0.0, 0)


def test_pixelcnnpp_has_the_size_that_is_published():
    """53M, as the tables of PixelSNAIL and Sparse Transformers have it."""
    config = preflight("train", ["experiment=cifar10/pixelcnnpp"])
    with torch.device("meta"):
        network = build(config.model.network)
    assert sum(p.numel() for p in network.parameters()) == 53_659_080
