"""The VQ-VAE's gradients by autograd, what a pass counts, and data that its codes hold exactly."""

import pytest
import torch
from torch import nn

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.noise import NoiseStream
from genlab.paradigms.vqvae import VQVAE, straight_through
from genlab.variational.codebook import Codebook

CORNERS = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


class Grid(nn.Module):
    """(B, D) -> (B, D, 1, 1) and back: points as pictures of one code."""

    def __init__(self, layer, back=False):
        super().__init__()
        self.layer, self.back = layer, back

    def forward(self, x):
        return self.layer(x[..., 0, 0]) if self.back else self.layer(x)[..., None, None]


@pytest.fixture
def build(common):
    def build(size=4, decay=0.9, revive=0.1, beta=0.25, variance=1.0, shape=(2, 1, 1), **more):
        torch.manual_seed(0)
        return VQVAE(
            encoder=Grid(nn.Linear(2, 2)),
            decoder=Grid(nn.Linear(2, 2), back=True),
            codebook=Codebook(size, 2, decay, revive),
            latent_shape=shape,
            beta=beta,
            variance=variance,
            **common(2, lr=0.02, **more),
        )

    return build


def test_the_straight_through_gradient_is_that_of_the_identity() -> None:
    """z is given e's value, and what comes after it gives z the gradient that it gives e."""
    torch.manual_seed(0)
    z, e = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
    torch.testing.assert_close(straight_through(z, e), e)
    jacobian = torch.autograd.functional.jacobian(lambda z: straight_through(z, e), z)
    torch.testing.assert_close(jacobian.reshape(15, 15), torch.eye(15))


def test_gradients_are_those_of_equation_3(build) -> None:
    """Of the encoder: J_Eᵀ (∂rec/∂e at e + β ∂commitment/∂z); the codebook moves by none."""
    vqvae, x = build(beta=0.7, variance=0.3).eval(), torch.randn(6, 2)
    vqvae.codebook.vectors.copy_(CORNERS)
    vqvae.loss(x, None)["loss"].backward()
    z = vqvae.encoder(x)
    e = vqvae.codebook(vqvae.codebook.nearest(z)).requires_grad_()
    (upstream,) = torch.autograd.grad((vqvae.decoder(e) - x).square().mean() / 0.3, e)
    upstream = upstream + 0.7 * 2 * (z - e).detach() / z.numel()
    expected = torch.autograd.grad(z, list(vqvae.encoder.parameters()), upstream)
    for parameter, gradient in zip(vqvae.encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert not list(vqvae.codebook.parameters())


def test_four_points_need_four_codes_and_come_back_exactly(build, fit) -> None:
    vqvae = build(revive=0.2, decay=0.8)
    batches = [Batch(CORNERS.repeat(8, 1), None)] * 400
    fit(vqvae, batches)
    vqvae.eval()
    torch.testing.assert_close(vqvae.reconstruct(CORNERS), CORNERS, rtol=0, atol=1e-2)
    assert sorted(vqvae.codes(CORNERS).flatten().tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(vqvae.render_codes(vqvae.codes(CORNERS)), vqvae.reconstruct(CORNERS))
    samples = vqvae.sample(NoiseStream(0), 400)
    distance = torch.cdist(samples, CORNERS)
    assert distance.min(1).values.max() < 1e-2, "a single code is a sample of the data, having no other beside it"
    assert (torch.bincount(distance.argmin(1), minlength=4) - 100).abs().max() < 40
    with torch.no_grad():
        parts = torch.cat([vqvae.sample(NoiseStream(0), 5), vqvae.sample(NoiseStream(0, 5), 3)])
        torch.testing.assert_close(vqvae.sample(NoiseStream(0), 8), parts)


@torch.no_grad()
def test_perplexity_is_of_the_whole_pass_and_not_of_its_batches(build) -> None:
    """Each batch uses one code, and the pass all four."""
    vqvae = build().eval()
    vqvae.encoder.layer.weight.copy_(torch.eye(2))
    vqvae.encoder.layer.bias.zero_()
    vqvae.codebook.vectors.copy_(CORNERS)
    for corner in CORNERS[:3]:
        terms = vqvae.validation_step(Batch(corner.expand(6, 2), None), 0)
        assert "perplexity" not in terms
    told = vqvae.validated()
    assert told["perplexity"].item() == pytest.approx(3)
    assert told["used"].item() == pytest.approx(0.75)
    vqvae.validation_step(Batch(CORNERS[:1], None), 0)
    assert vqvae.validated()["perplexity"].item() == pytest.approx(1), "nothing is left of the pass before"


@torch.no_grad()
def test_validation_leaves_the_codebook_alone(build) -> None:
    vqvae = build().eval()
    vqvae.codebook.vectors.copy_(CORNERS)
    vqvae.validation_step(Batch(torch.randn(9, 2), None), 0)
    assert torch.equal(vqvae.codebook.vectors, CORNERS)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"variance": 0.0}, "variance=0.0"),
        ({"beta": -1.0}, "beta=-1.0"),
        ({"beta": float("nan")}, "beta=nan"),
        ({"classes": 3}, "takes no labels"),
    ],
)
def test_bad_choices_are_one_line(build, choice, message) -> None:
    with pytest.raises(GenlabError, match=message):
        build(**choice)


def test_a_latent_of_another_shape_than_said_is_refused(build) -> None:
    with pytest.raises(GenlabError, match=r"makes \(2, 1, 1\), and model.latent_shape is \(3, 1, 1\)"):
        build(shape=(3, 1, 1)).encode(torch.randn(2, 2))


@torch.no_grad()
def test_slots_are_maps_of_codes_one_above_the_other(common):
    """Channels of the encoder are those of the first code of a place, then of the second; the decoder gets them so again."""
    torch.manual_seed(0)
    codebook = Codebook(5, 3, 0.9, 0.0)
    codebook.vectors.copy_(torch.randn(5, 3))
    parts = {"encoder": nn.Identity(), "decoder": nn.Identity(), "codebook": codebook}
    model = VQVAE(**parts, latent_shape=(3, 8, 2), beta=0.25, variance=1.0, slots=2, **common(2))
    x = torch.randn(7, 6, 4, 2)
    index = model.codes(x)
    assert index.shape == (7, 8, 2)
    for slot, half in enumerate(x.split(3, dim=1)):
        assert torch.equal(index[:, 4 * slot : 4 * slot + 4], codebook.nearest(half))
    rebuilt = model.render_codes(index)
    assert torch.equal(rebuilt, torch.cat([codebook(codebook.nearest(half)) for half in x.split(3, dim=1)], dim=1))
    assert torch.equal(model.render(model.encode(x)), rebuilt)
    assert model.sample(NoiseStream(0), 4).shape == (4, 6, 4, 2)
    with pytest.raises(GenlabError, match="slots=0"):
        VQVAE(**parts, latent_shape=(3, 8, 2), beta=0.25, variance=1.0, slots=0, **common(2))


def test_a_batch_in_parts_moves_weights_and_codes_as_a_whole_one_does(build, fit) -> None:
    ends = []
    for parts in (1, 2):
        vqvae = build(revive=0.0)
        vqvae.codebook.vectors.copy_(CORNERS)
        vqvae.codebook.counts.fill_(1.0)
        vqvae.codebook.sums.copy_(CORNERS)
        vqvae.accumulate = parts
        torch.manual_seed(3)
        fit(vqvae, [Batch(torch.randn(8, 2), None) for _ in range(3)])
        ends.append(vqvae.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-4, atol=1e-6, msg=name)
