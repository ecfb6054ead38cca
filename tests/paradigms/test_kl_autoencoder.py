"""The KL autoencoder's terms, weights and turns against autograd, torch's own divergence, and closed forms."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from genlab.adversarial.objectives import Hinge, Relativistic
from genlab.adversarial.perceptual import DiscriminatorFeatures
from genlab.codec import Vectors
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.noise import NoiseStream
from genlab.optimization import Optimization
from genlab.paradigms.kl_autoencoder import KLAutoencoder, adaptive_weight


class Decoder(nn.Module):
    """x̂ = W tanh(z)."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 3)

    def forward(self, z):
        return self.last(z.tanh())


class Critic(nn.Module):
    """Two stages, and a value."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 1)])

    def features(self, x):
        found = []
        for stage in self.stages:
            x = stage(x).sin()
            found.append(x)
        return found

    def forward(self, x):
        return self.features(x)[-1]


@pytest.fixture
def build(common):
    def build(lr=0.05, classes=0, **choice):
        torch.manual_seed(0)
        given = {
            "encoder": nn.Linear(3, 4),
            "decoder": Decoder(),
            "discriminator": Critic(),
            "objective": Hinge(),
            "perceptual": DiscriminatorFeatures(),
            "latent_shape": (2,),
            "kl_weight": 0.3,
            "adversarial_weight": 0.5,
            "perceptual_weight": 2.0,
            "start": 0,
            "critic_optimizer": Optimization(torch.optim.SGD, lr),
        }
        return KLAutoencoder(**given | choice, **common(3, codec=Vectors(), lr=lr, classes=classes))

    return build


def test_the_adaptive_weight_is_a_quotient_of_two_gradients() -> None:
    """Of L_rec = a·W b and L_adv = c·W d they are the outer products a bᵀ and c dᵀ, as long as their factors."""
    torch.manual_seed(0)
    last = torch.randn(4, 3, requires_grad=True)
    a, b, c, d = torch.randn(4), torch.randn(3), torch.randn(4), torch.randn(3)
    weight = adaptive_weight(a @ last @ b, c @ last @ d, last)
    assert weight.item() == pytest.approx((a.norm() * b.norm() / (c.norm() * d.norm() + 1e-4)).item(), rel=1e-5)
    assert not weight.requires_grad
    assert adaptive_weight(1e9 * (a @ last @ b), 0 * (c @ last @ d), last).item() == 1e4


def test_both_terms_pull_at_the_last_layer_as_their_weights_say(build) -> None:
    module, x = build(kl_weight=0.0), torch.randn(8, 3)
    torch.manual_seed(1)
    terms = module._turn(x, None)
    last = module.decoder.last.weight
    rec, adv, both = (
        torch.autograd.grad(term, last, retain_graph=True)[0]
        for term in (terms["likelihood"], terms["adversarial"], terms["loss"])
    )
    torch.testing.assert_close(both, rec + 0.5 * adv * rec.norm() / (adv.norm() + 1e-4))
    assert (both - rec).norm().item() == pytest.approx(0.5 * rec.norm().item(), rel=1e-2)


def test_terms_are_what_they_are_called(build) -> None:
    module, x = build(start=1), torch.randn(40_000, 3)  # the discriminator has not begun
    torch.manual_seed(1)
    terms = module.loss(x, None)
    mean, log_variance = module.encoder(x).chunk(2, dim=1)
    rate = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(terms["rate"], rate)
    torch.manual_seed(1)
    x_hat = module.render(
        Normal(mean, (log_variance / 2).exp()).mean + (log_variance / 2).exp() * torch.randn(mean.shape)
    )
    torch.testing.assert_close(terms["likelihood"], (x - x_hat).abs().sum(1).mean())
    torch.testing.assert_close(terms["reconstruction"], (x - x_hat).square().mean())
    torch.testing.assert_close(terms["loss"], terms["likelihood"] + 0.3 * rate)
    assert "perceptual" not in terms
    torch.testing.assert_close(module.encode(x), mean)


def test_the_perceptual_distance_is_of_features_and_moves_the_image_alone(build) -> None:
    critic = build().discriminator
    x, x_hat = torch.randn(5, 3), torch.randn(5, 3, requires_grad=True)
    distance = DiscriminatorFeatures()(critic, x, x_hat)
    first, second = (
        (a - b).abs().mean() for a, b in zip(critic.features(x)[:2], critic.features(x_hat)[:2], strict=True)
    )
    torch.testing.assert_close(distance, (first + second) / 2)
    assert DiscriminatorFeatures()(critic, x, x).item() == 0
    critic.requires_grad_(False)
    (gradient,) = torch.autograd.grad(distance, x_hat)
    assert gradient.abs().min() > 0


def test_it_counts_in_the_likelihood_once_the_discriminator_plays(build) -> None:
    module, x = build(), torch.randn(6, 3)
    terms, x_hat = module._terms_of(x)
    distance = (x - x_hat).abs().mean() + 2.0 * DiscriminatorFeatures()(module.discriminator, x, x_hat)
    torch.testing.assert_close(terms["likelihood"], 3 * distance)
    assert "perceptual" not in build(perceptual=None)._terms_of(x)[0]


def test_each_turn_moves_its_own_network_and_the_discriminator_waits(build, fit) -> None:
    module = build(start=16)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def moved() -> set[str]:
        return {
            name.split(".")[0] for name, value in module.state_dict().items() if not torch.equal(value, before[name])
        }

    fit(module, [Batch(torch.randn(8, 3), None)] * 2)
    assert moved() == {"encoder", "decoder"}
    fit(module, [Batch(torch.randn(8, 3), None)])
    assert moved() == {"encoder", "decoder", "discriminator"}


def test_the_critic_learns_by_its_own_loss_alone(build, fit) -> None:
    """One step of plain descent down the hinge loss at the reconstructions of the autoencoder that has just moved."""
    module, x = build(lr=0.05, kl_weight=0.0), torch.randn(8, 3)
    seen = {}

    def judged(x, y, turn=module._critic_turn):
        seen["weights"] = [p.clone() for p in module.discriminator.parameters()]
        seen["terms"] = turn(x, y)
        seen["gradients"] = torch.autograd.grad(
            seen["terms"]["critic"], list(module.discriminator.parameters()), retain_graph=True
        )
        return seen["terms"]

    module._critic_turn = judged
    fit(module, [Batch(x, None)])
    for after, weight, gradient in zip(
        module.discriminator.parameters(), seen["weights"], seen["gradients"], strict=True
    ):
        torch.testing.assert_close(after, weight - 0.05 * gradient)


def test_a_slight_penalty_leaves_the_reconstruction_and_a_heavy_one_the_prior(build, fit) -> None:
    torch.manual_seed(2)
    data = torch.randn(64, 2) @ torch.tensor([[1.0, 0.5, 0.0], [0.0, -0.5, 1.0]]) / 2
    left = {}
    for weight in (1e-6, 30.0):
        module = build(kl_weight=weight, start=10**9, lr=0.1 if weight < 1 else 0.01)
        fit(module, [Batch(data, None)] * 400)
        with torch.no_grad():
            left[weight] = module.eval().loss(data, None)
    assert left[1e-6]["reconstruction"] < 0.2 * data.square().mean()
    assert left[30.0]["rate"] < 0.01
    assert left[1e-6]["rate"] > 1


@torch.no_grad()
def test_a_sample_depends_on_its_row_alone_and_is_rendered_from_the_prior(build) -> None:
    module = build().eval()
    parts = torch.cat([module.sample(NoiseStream(0), 5), module.sample(NoiseStream(0, 5), 3)])
    torch.testing.assert_close(module.sample(NoiseStream(0), 8), parts)
    torch.testing.assert_close(module.sample(NoiseStream(0), 8), module.render(NoiseStream(0).normal((8, 2))))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"latent_shape": (0, 4, 4)}, "network.latent=0"),
        ({"kl_weight": -1.0}, "kl_weight=-1.0"),
        ({"kl_weight": float("nan")}, "kl_weight=nan"),
        ({"perceptual_weight": -1.0}, "perceptual_weight=-1.0"),
        ({"objective": Relativistic()}, "no pairs"),
        ({"classes": 3}, "takes no labels"),
    ],
)
def test_bad_choices_are_one_line(build, choice, message) -> None:
    with pytest.raises(GenlabError, match=message):
        build(**choice)


def test_a_latent_of_another_shape_than_said_is_refused(build) -> None:
    with pytest.raises(GenlabError, match=r"makes \(2,\), and model.latent_shape is \(3,\)"):
        build(latent_shape=(3,)).encode(torch.randn(2, 3))
