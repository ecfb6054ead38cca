"""Two players, two optimizers: whose turn it is, and that neither moves the other."""

import lightning as L
import pytest
import torch

from genlab.adversarial.objectives import NonSaturating, Wasserstein
from genlab.adversarial.penalties import GradientPenalty, NoPenalty
from genlab.data.source import Batch
from genlab.networks.mlp import MLP
from genlab.noise import NoiseStream
from genlab.optimization import Optimization
from genlab.paradigms.gan import GAN

BATCH = 4


class Watch(L.Callback):
    """At each optimizer step: whose it is, its learning rate, and the gradients of generator and critic."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        player = "generator" if optimizer is trainer.optimizers[0] else "critic"
        parts = (module.generator, module.discriminator)
        gradients = [[None if p.grad is None else p.grad.clone() for p in part.parameters()] for part in parts]
        self.steps.append((trainer.global_step, player, optimizer.param_groups[0]["lr"], gradients))


@pytest.fixture
def build(common):
    def build(n_critic=1, objective=None, penalty=None, classes=0, clip_norm=None):
        torch.manual_seed(0)
        return GAN(
            generator=MLP(3, 2, 8, 2, classes),
            discriminator=MLP(2, 0, 8, 2, classes),
            objective=objective or NonSaturating(),
            penalty=penalty or NoPenalty(),
            latent=3,
            n_critic=n_critic,
            critic_optimizer=Optimization(torch.optim.SGD, lr=0.2, warmup_images=2 * BATCH, clip_norm=clip_norm),
            **common(2, classes),
        )

    return build


def batches(n, labels=False):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(BATCH) % 3 if labels else None
    return [Batch(torch.randn(BATCH, 2, generator=generator), y) for _ in range(n)]


PENALTIES = {"none": NoPenalty(), "gradient": GradientPenalty(10.0)}


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_no_step_leaves_a_gradient_with_the_other_player(build, fit, penalty):
    """The critic's first step finds the generator without any; the generator's leaves the critic's as they were."""
    watch = Watch()
    fit(build(penalty=penalty), batches(1), watch)
    (_, first, _, critic_step), (_, second, _, generator_step) = watch.steps
    assert (first, second) == ("critic", "generator")
    assert critic_step[0] == [None] * len(critic_step[0])
    assert all(g.abs().max() > 0 for g in generator_step[0])
    torch.testing.assert_close(generator_step[1], critic_step[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("n_critic", "seen", "turns"),
    [(1, 0, [0, 1, 2, 3, 4, 5, 6]), (3, 0, [2, 5]), (3, 4 * BATCH, [1, 4]), (5, 4 * BATCH, [0, 5])],
    ids=["every", "third", "third-resumed", "fifth-resumed"],
)
def test_generator_moves_at_every_nth_batch_counted_from_the_start_of_training(build, fit, n_critic, seen, turns):
    module, watch = build(n_critic), Watch()
    module.images_seen = seen
    fit(module, batches(7), watch)
    order = []
    for batch in range(7):
        order += ["critic", "generator"] if batch in turns else ["critic"]
    assert [player for _, player, *_ in watch.steps] == order
    assert module.images_seen == seen + 7 * BATCH


def test_each_player_moves_by_its_own_rule(build, fit):
    """SGD by hand, with each its learning rate; the critic's warms up over two batches."""
    module, watch = build(), Watch()
    before = [p.detach().clone() for p in module.parameters()]
    fit(module, batches(4), watch)
    rates = {player: [lr for _, who, lr, _ in watch.steps if who == player] for player in ("critic", "generator")}
    assert rates == {"critic": pytest.approx([0.0, 0.1, 0.2, 0.2]), "generator": pytest.approx([0.1] * 4)}
    count = len(list(module.generator.parameters()))
    for _, player, lr, (generator, critic) in watch.steps:
        moved, gradients = (before[:count], generator) if player == "generator" else (before[count:], critic)
        for weight, gradient in zip(moved, gradients, strict=True):
            weight -= lr * gradient
    torch.testing.assert_close([p.detach() for p in module.parameters()], before)


def test_gradients_of_the_critic_are_clipped_and_not_those_of_the_generator(build, fit):
    module = build(clip_norm=1e-4)
    fit(module, batches(1))
    critic, generator = (
        torch.stack([p.grad.norm() for p in part.parameters()]).norm().item()
        for part in (module.discriminator, module.generator)
    )
    assert critic == pytest.approx(1e-4, rel=1e-2)
    assert generator > 1e-3


def test_terms_of_the_loss_are_those_of_the_objective(build):
    module, (batch,) = build(objective=Wasserstein(), penalty=GradientPenalty(10.0)), batches(1)
    terms = module.loss(batch.x, None)
    assert terms["critic"].item() == pytest.approx((terms["fake"] - terms["real"] + terms["penalty"]).item())
    assert terms["loss"].item() == pytest.approx(-terms["fake"].item())
    assert terms["real"].item() == pytest.approx(module.discriminator(batch.x).mean().item())


def test_conditional_training_and_samples(build, fit):
    module = build(classes=3, penalty=GradientPenalty(10.0))
    fit(module, batches(2, labels=True))
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    with torch.no_grad():
        samples = module.sample(NoiseStream(0), 8, y)
        parts = module.sample(NoiseStream(0), 5, y[:5]), module.sample(NoiseStream(0, 5), 3, y[5:])
    torch.testing.assert_close(samples, torch.cat(parts))
    assert (samples - module.sample(NoiseStream(0), 8, y.flip(0))).abs().max() > 1e-6
