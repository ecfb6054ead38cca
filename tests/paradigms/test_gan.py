"""Two players, two optimizers: whose turn it is, and that neither moves the other."""

import copy
import json

import lightning as L
import pytest
import torch
from torch import nn

from genlab import codec
from genlab.adversarial.augment import Augmentation, DiffAugment
from genlab.adversarial.consistency import Consistency, LatentConsistency, LeCam
from genlab.adversarial.objectives import Hinge, Minimax, NonSaturating, Relativistic, Wasserstein
from genlab.adversarial.penalties import R1, GradientPenalty, Lazy, NoPenalty, Penalty, WeightClipping
from genlab.adversarial.truncation import Truncation
from genlab.config import preflight, run_dir
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.instantiation import build as instantiate
from genlab.networks.dcgan import Discriminator
from genlab.networks.mlp import MLP
from genlab.noise import NoiseStream
from genlab.optimization import Optimization
from genlab.paradigms.gan import GAN
from genlab.run import Run
from genlab.training import train

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
    def build(n_critic=1, objective=None, penalty=None, classes=0, clip_norm=None, packing=1, **more):
        torch.manual_seed(0)
        players = {"generator": MLP(3, 2, 8, 2, classes), "discriminator": MLP(2 * (packing or 1), 0, 8, 2, classes)}
        return GAN(
            packing=packing,
            objective=objective or NonSaturating(),
            penalty=penalty or NoPenalty(),
            n_critic=n_critic,
            critic_optimizer=Optimization(torch.optim.SGD, lr=0.2, warmup_images=2 * BATCH, clip_norm=clip_norm),
            **common(2, classes) | players | {"latent": 3} | more,
        )

    return build


def batches(n, labels=False):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(BATCH) % 3 if labels else None
    return [Batch(torch.randn(BATCH, 2, generator=generator), y) for _ in range(n)]


PENALTIES = {
    "none": NoPenalty(),
    "gradient": GradientPenalty(10.0),
    "r1": R1(1.0),
    "latent": LatentConsistency(1.0, 0.5, 0.1),
}


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


@pytest.mark.parametrize(("classes", "objective"), [(0, Relativistic()), (3, NonSaturating())])
def test_the_generator_may_learn_from_more_samples_than_there_are_images(build, fit, classes, objective):
    module, sizes = build(fakes=3, classes=classes, objective=objective), []
    module.generator.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    fit(module, batches(2, labels=classes > 0))
    assert sizes == [BATCH, 3 * BATCH] * 2


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


def test_a_critic_sees_dequantized_data_where_asked(build):
    """Noise over cells of 1/8, beside the lattice itself; samples are what they are."""
    for dequantize in (False, True):
        module, seen = build(dequantize=dequantize), []
        module.codec = codec.Pixels(17)
        module.discriminator.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))  # noqa: B023
        x = torch.zeros(500, 2)
        module.loss(x, None)
        shown = seen[0]
        assert shown.abs().max() <= 1 / 16
        assert shown.var().item() == pytest.approx(dequantize * 0.125**2 / 12, rel=0.1)


@torch.no_grad()
def test_samples_reach_as_far_as_dequantized_data(build):
    """Cells of 17 levels end at ±17/16, as the published code's do at ±1 for levels k/8.5 - 1 + u/8.5, u in [0, 1)."""
    module = build(dequantize=True)
    module.codec = codec.Pixels(17)
    plain, z = module.generator(torch.randn(5, module.latent)), torch.randn(5, module.latent)
    assert plain.shape == (5, 2)
    torch.testing.assert_close(module.render(z), module.generator(z) * 17 / 16)
    torch.testing.assert_close(module._drawn(z, None), module.render(z))
    white = module.codec.spread(torch.ones(1000))
    assert 1 + 0.99 / 16 < white.max() <= 17 / 16
    module.dequantize = False
    assert torch.equal(module.render(z), module.generator(z))


@torch.no_grad()
@pytest.mark.parametrize("sampler", [None, Truncation(0.7)])
def test_layers_that_add_noise_add_one_of_each_samples_own(build, sampler):
    """What becomes of a latent has always the same; a sample's is of its row of the stream, after its latent."""

    class Noisy(nn.Module):
        noises = 2

        def forward(self, z, y=None, noise=None, truncation=1.0):
            return truncation * z + (0 if noise is None else noise)

        style = None

    module = build(generator=Noisy(), latent=2, sampler=sampler)
    z, noise = (stream := NoiseStream(0)).normal((8, 2)), stream.normal((8, 2))
    samples = module.sample(NoiseStream(0), 8)
    torch.testing.assert_close(samples, (0.7 if sampler else 1.0) * z + noise)
    assert torch.equal(module.render(z), (0.7 if sampler else 1.0) * z)
    assert torch.equal(samples[5:], module.sample(NoiseStream(0, 5), 3))


def test_conditional_training_and_samples(build, fit):
    module = build(classes=3, penalty=GradientPenalty(10.0))
    fit(module, batches(2, labels=True))
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    with torch.no_grad():
        samples = module.sample(NoiseStream(0), 8, y)
        parts = module.sample(NoiseStream(0), 5, y[:5]), module.sample(NoiseStream(0, 5), 3, y[5:])
    torch.testing.assert_close(samples, torch.cat(parts))
    assert (samples - module.sample(NoiseStream(0), 8, y.flip(0))).abs().max() > 1e-6


# ---------------------------------------------------------------------- what the critic is shown


class Recorder(Penalty):
    """Keeps the rounds it is asked about."""

    def __init__(self):
        super().__init__()
        self.rounds = []

    def critic(self, seen):
        self.rounds.append(seen)
        return seen.x.new_zeros(())


def test_a_packed_critic_sees_samples_side_by_side(build, fit):
    penalty = Recorder()
    module, (batch,) = build(penalty=penalty, packing=2), batches(1)
    fit(module, [batch])
    (seen,) = penalty.rounds
    torch.testing.assert_close(seen.x, torch.cat([batch.x[::2], batch.x[1::2]], dim=1))
    assert seen.fake.shape == (BATCH // 2, 4)
    assert seen.real_value.shape == (BATCH // 2,)


def test_images_are_packed_in_channels(build):
    module = build(packing=2)
    x = torch.randn(4, 3, 5, 5)
    packed = module._packed(x)
    assert packed.shape == (2, 6, 5, 5)
    torch.testing.assert_close(packed[1, 3:], x[3])


def test_validation_fills_the_last_pack_from_the_first_samples(build):
    module = build(packing=3)
    x = batches(1)[0].x
    terms = module.loss(x, None)
    torch.testing.assert_close(terms["real"], module.discriminator(x[[0, 1, 2, 3, 0, 1]].view(2, 6)).mean())


def test_batches_seen_are_counted_from_the_start_of_training(build, fit):
    penalty = Recorder()
    module = build(penalty=penalty)
    module.images_seen = 7 * BATCH
    fit(module, batches(3))
    assert [seen.turn for seen in penalty.rounds] == [7, 8, 9]


def test_a_lazy_penalty_comes_at_the_same_batches_after_resuming(build, fit):
    module = build(penalty=Lazy(R1(1.0), 4))
    module.images_seen = 6 * BATCH
    penalties = []

    class Terms(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, *_):
            penalties.append(outputs["penalty"].item())

    fit(module, batches(7), Terms())
    assert [p > 0 for p in penalties] == [False, False, True, False, False, False, True]


def test_weights_are_clipped_after_every_step_of_the_critic(build, fit):
    class Largest(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            assert max(p.abs().max() for p in pl_module.discriminator.parameters()) <= torch.tensor(0.05)
            assert max(p.abs().max() for p in pl_module.generator.parameters()) > 0.05

    fit(build(objective=Wasserstein(), penalty=WeightClipping(0.05)), batches(3), Largest())


class Brighter(Augmentation):
    """x + 1, counting its calls."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x):
        self.calls.append(x)
        return x + 1

    def observe(self, certainty, images):
        self.calls.append(certainty)

    def adapt(self, turn):
        self.calls.append(turn)


class Pixels(nn.Module):
    """z -> one image of one channel of 2 x 2."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, z, y=None):
        return self.linear(z).view(-1, 1, 2, 2)


class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, x, y=None):
        return self.weight * x.mean((1, 2, 3))


def test_data_and_samples_are_augmented_in_both_turns_and_penalties_differentiate_by_what_was_before(
    build, fit, common
):
    augment, penalty = Brighter(), Recorder()
    module = build(penalty=penalty, critic_augment=augment, generator=Pixels(), discriminator=Mean(), shape=(1, 2, 2))
    x = torch.randn(BATCH, 1, 2, 2)
    before = copy.deepcopy(module.discriminator)
    fit(module, [Batch(x, None)])
    real, fake, certainty, turn, samples = augment.calls
    torch.testing.assert_close(real, x)
    assert turn == 0
    torch.testing.assert_close(certainty, before(x + 1))
    assert samples.requires_grad  # the generator learns through it
    (seen,) = penalty.rounds
    torch.testing.assert_close(seen.x, x)
    torch.testing.assert_close(seen.real_value, before(x + 1))
    torch.testing.assert_close(fake, seen.fake)


def test_an_augmentation_moves_float32_samples_in_both_turns(build):
    """In bfloat16 its places would be pixels off, and those of the generator's turn are made by autocast."""
    augment = Brighter()
    module = build(critic_augment=augment, generator=Pixels(), discriminator=Mean(), shape=(1, 2, 2))
    with torch.autocast("cpu", torch.bfloat16):
        module.loss(torch.randn(BATCH, 1, 2, 2), None)
    shown = [seen for seen in augment.calls if seen.ndim == 4]
    assert len(shown) == 3
    assert all(seen.dtype == torch.float32 for seen in shown)


def test_the_generator_of_a_relativistic_pair_is_told_of_data(build):
    module, (batch,) = build(objective=Relativistic()), batches(1)
    torch.manual_seed(3)
    terms = module.loss(batch.x, None)
    torch.manual_seed(3)
    fakes = [module.generator(torch.randn(BATCH, 3)) for _ in range(2)]
    real, first, second = (module.discriminator(a) for a in (batch.x, *fakes))
    torch.testing.assert_close(terms["critic"], nn.functional.softplus(first - real).mean())
    # the critic's terms come second in the dictionary, and its samples are drawn first
    torch.testing.assert_close(terms["loss"], nn.functional.softplus(real - first).mean())
    assert not torch.equal(first, second)


def test_the_generator_pays_what_a_penalty_asks_of_it(build):
    """zCR with δ = 0 costs nothing, and otherwise rewards what is apart: the loss is lower."""
    (batch,) = batches(1)

    def loss(std):
        torch.manual_seed(3)
        return build(penalty=LatentConsistency(0.0, 100.0, std)).loss(batch.x, None)["loss"].item()

    assert loss(0.0) == pytest.approx(build().loss(batch.x, None)["loss"].item(), rel=1e-5)
    assert loss(1.0) < loss(0.0) - 0.1


def test_held_out_values_are_named_so(build):
    module, (batch,) = build(), batches(1)
    terms = module.validation_step(batch, 0)
    torch.testing.assert_close(terms["held_out"], module.discriminator(batch.x).mean())
    assert "real" not in terms


# ---------------------------------------------------------------------- a batch in parts, and half of the bits


class Outputs(L.Callback):
    def __init__(self):
        self.terms = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.terms.append({name: term.item() for name, term in outputs.items()})


@pytest.mark.parametrize("objective", [Wasserstein(), Relativistic()])
def test_a_batch_in_parts_moves_both_players_as_the_whole_does(build, fit, objective):
    """Latents being a function of data, so that parts draw what the whole draws; gradients are clipped, too."""
    found = []
    for accumulate in (1, 2, 4):
        watch, outputs = Watch(), Outputs()
        module = build(n_critic=2, objective=objective, penalty=R1(0.5), clip_norm=0.5)
        module._latents = lambda x: x @ torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 3.0]])
        module.accumulate = accumulate
        fit(module, batches(6), watch, outputs)
        assert [player for _, player, *_ in watch.steps] == 3 * ["critic", "critic", "generator"]
        found.append(([p.detach() for p in module.parameters()], outputs.terms))
    (whole, terms), *others = found
    for weights, own in others:
        torch.testing.assert_close(weights, whole)
        for a, b in zip(own, terms, strict=True):
            a.pop("diversity", None)  # of the pairs within a part
            b = {name: b[name] for name in a}
            assert a == pytest.approx(b, rel=1e-4, abs=1e-6)


def test_parts_that_do_not_divide_a_batch_are_refused(build, fit):
    module = build()
    module.accumulate = 3
    with pytest.raises(GenlabError, match=r"trainer\.accumulate=3 does not divide the 4 images"):
        fit(module, batches(1))
    module = build(packing=2)
    module.accumulate = 4
    with pytest.raises(GenlabError, match=r"model\.packing=2 does not divide a batch of 1"):
        fit(module, batches(1))


OBJECTIVES = ("minimax", "non_saturating", "reverse_kl", "least_squares", "hinge", "wasserstein", "relativistic")
SMOOTH = ("none", "gradient", "gradient_one_sided", "dragan", "r1", "r2", "r1_r2", "r1_lazy", "zero_centred")
HELD = ("consistency", "latent_consistency", "lecam", "weight_clipping")


@pytest.mark.parametrize("penalty", SMOOTH + HELD)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_in_bfloat16_are_those_of_float32_but_for_its_eight_bits(objective, penalty):
    """Of critic and generator, the penalty's second derivatives included, of convolutions; losses stay float32."""
    if (objective, penalty) == ("relativistic", "lecam"):
        return  # refused
    width = ["network.generator.width=8", "network.discriminator.width=8"]
    choices = [f"objective={objective}", f"penalty={penalty}", *width]
    torch.manual_seed(0)
    module = instantiate(preflight("train", ["model=dcgan", "network=wgan_gp", *choices]).model).train()
    with torch.no_grad():
        for weight in module.discriminator.parameters():
            weight.mul_(4)  # so that slopes are near 1, and penalties weigh
    x, found = torch.rand(16, 1, 8, 8) * 2 - 1, []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16, cache_enabled=False):
            terms = module.loss(x, None)
        assert all(term.dtype == torch.float32 for term in terms.values())
        players = (("critic", module.discriminator), ("loss", module.generator))
        gradients = [
            torch.autograd.grad(terms[name], list(player.parameters()), retain_graph=True, materialize_grads=True)
            for name, player in players
        ]
        found.append((terms, [torch.cat([g.flatten() for g in own]) for own in gradients]))
    (exact, true), (rough, near) = found
    assert rough["penalty"].item() == pytest.approx(exact["penalty"].item(), rel=0.02, abs=1e-4)
    for a, b in zip(true, near, strict=True):
        assert torch.cosine_similarity(a, b, dim=0) > 0.99
        assert b.norm().item() == pytest.approx(a.norm().item(), rel=0.05)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("dcgan", "wgan_gp", "hinge_gan")]


@pytest.mark.parametrize("recipe", ["relativistic_gan", *SLOW])
def test_training_in_bf16_mixed_ends_near_training_in_float32(outputs, recipe):
    """After eight batches at a small rate: closer to each other than a tenth of the way that both went."""
    weights = []
    for precision in ("32-true", "bf16-mixed"):
        small = ["trainer.batch=32", "trainer.max_images=256", "evaluation.n=0", "logger=none", "trainer.log_every=64"]
        rate = ["optimizer.algorithm._target_=torch.optim.SGD", "~optimizer.algorithm.betas", "optimizer.lr=1e-3"]
        config = preflight("train", [f"experiment=digits/{recipe}", *small, *rate, f"trainer.precision={precision}"])
        for budget in (0, 256) if not weights else (256,):
            config.trainer.max_images = budget or 32
            config.optimizer.lr = config.model.optimizer.lr = config.model.critic_optimizer.lr = 1e-3 * (budget > 0)
            folder = outputs / f"{precision}-{budget}"
            train(config, folder)
            state = Run(folder).load_checkpoint()["state_dict"]
            parts = [state[name].flatten() for name, _ in instantiate(config.model).named_parameters()]
            weights.append(torch.cat(parts))
    start, exact, near = weights
    assert (near - exact).norm() < 0.1 * (exact - start).norm()


# ---------------------------------------------------------------------- collapse


class Terms(L.Callback):
    def __init__(self):
        self.diversity = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.diversity.append(outputs["diversity"].item())


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_diversity_is_relative_to_the_data(build, fit, scale):
    """A generator that draws scale · z in two dimensions, of data from N(0, I)."""
    module, terms = build(), Terms()
    module.generator = nn.Linear(3, 2, bias=False)
    module.generator.forward = lambda z, y=None: scale * z[:, :2] + 0 * module.generator.weight.sum()
    fit(module, [Batch(torch.randn(400, 2), None) for _ in range(5)], terms)
    assert sum(terms.diversity) / 5 == pytest.approx(scale, rel=0.1)
    assert (module.warning({"diversity": terms.diversity[0]}) is not None) == (scale < 0.1)


@pytest.mark.parametrize(("classes", "expected"), [(0, 1.0), (3, 0.01)])
def test_one_image_for_each_label_is_no_diversity(build, fit, classes, expected):
    """Points on three places far apart, samples a hundredth as far from these as data: seen among those of a label alone."""
    module, terms = build(classes=classes), Terms()
    y = torch.arange(400) % 3
    places = 50 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])[y]
    module.generator = nn.Linear(3, 2, bias=False)
    module.generator.forward = lambda z, y=None: places + 0.01 * z[:, :2] + 0 * module.generator.weight.sum()
    fit(module, [Batch(places + torch.randn(400, 2), y) for _ in range(5)], terms)
    assert sum(terms.diversity) / 5 == pytest.approx(expected, rel=0.1)


def test_labels_of_which_none_is_there_twice_are_no_labels_to_diversity(build):
    x = torch.randn(5, 2)
    distances = [build()._distance(x, y) for y in (None, torch.arange(5))]
    torch.testing.assert_close(*distances)


def test_a_collapse_is_said_once_and_recorded_every_time(outputs, capsys):
    small = ["trainer.batch=16", "trainer.log_every=32", "evaluation.n=0", "logger=none", "trainer.max_images=96"]
    experiment = ["experiment=digits/dcgan", *small]
    train(preflight("train", [*experiment, "model.collapse=1000"]), outputs / "collapsed")
    assert capsys.readouterr().err.count("the generator has collapsed") == 1
    rows = [json.loads(line) for line in (outputs / "collapsed" / "history.jsonl").read_text().splitlines()]
    assert [row["train/alarm"] for row in rows] == [1.0] * 3
    train(preflight("train", [*experiment, "model.collapse=0"]), outputs / "diverse")
    assert "collapsed" not in capsys.readouterr().err
    assert "train/alarm" not in (outputs / "diverse" / "history.jsonl").read_text()


def test_what_walks_through_latents_walks_through_truncated_ones(build):
    module = build(sampler=Truncation(0.5))
    z = module.latents(NoiseStream(0), 64)
    assert z.abs().max() <= 0.5
    assert torch.equal(module.sample(NoiseStream(0), 64), module.render(z))


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "count"),
    [("n_critic", 0), ("n_critic", 1.5), ("latent", 0), ("latent", 1.5), ("packing", 0), ("fakes", 0)],
)
def test_counts_that_are_none_are_refused(build, name, count):
    with pytest.raises(GenlabError, match=rf"model\.{name}={count}: at least 1 is needed, and a whole number"):
        build(**{name: count})


def test_an_alarm_below_nothing_is_refused(build):
    with pytest.raises(GenlabError, match=r"model\.collapse=-1: a share"):
        build(collapse=-1)


def test_images_that_are_not_square_are_refused(build):
    """Networks are told one side: some would draw another shape than the data's, and learn."""
    with pytest.raises(GenlabError, match="the data are 2 x 4"):
        build(generator=Pixels(), discriminator=Mean(), shape=(1, 2, 4))


def test_packs_that_do_not_divide_a_batch_are_refused(build, fit):
    with pytest.raises(GenlabError, match=r"model\.packing=3 does not divide a batch of 4"):
        fit(build(packing=3), batches(1))
    with pytest.raises(GenlabError, match=r"model\.packing=2: a pack has no label"):
        build(packing=2, classes=3)


def test_data_out_of_reach_of_the_generator_are_refused(build, fit):
    """A generator that ends in tanh would never draw them; those at its very edge are no reason."""
    module = build(generator=Bounded())
    fit(module, [Batch(torch.tensor([[1.0, -1.0]] * BATCH), None)])
    with pytest.raises(GenlabError, match=r"the data reach 1\.5 in model space, and a .*draws within ±1"):
        fit(module, [Batch(torch.tensor([[1.0, -1.5]] * BATCH), None)])


class Bounded(nn.Linear):
    bound = 1.0

    def __init__(self):
        super().__init__(3, 2)

    def forward(self, z, y=None):
        return super().forward(z).tanh()


def test_what_an_objective_cannot_use_is_refused(build):
    with pytest.raises(GenlabError, match="LeCam"):
        build(objective=Relativistic(), penalty=LeCam(0.3, 0.9, 0))
    with pytest.raises(GenlabError, match="these data are none"):
        build(critic_augment=DiffAugment(1.0, 0.125, 0.5))
    with pytest.raises(GenlabError, match="penalty=consistency changes images"):
        build(penalty=Consistency(DiffAugment(0.0, 0.125, 0.0), 1.0, 1.0))
    with pytest.raises(GenlabError, match="of another family than GAN"):
        build(sampler=object())


@pytest.mark.parametrize(
    ("player", "n_critic"), [("optimizer", 1), ("model.critic_optimizer", 1), ("model.critic_optimizer", 1000)]
)
def test_one_player_that_is_no_number_any_more_ends_the_run_and_finite_weights_are_kept(outputs, player, n_critic):
    """Also where the generator, whose loss would say so, has no turn."""
    small = ["trainer.batch=16", "trainer.log_every=64", "evaluation.n=0", "logger=none", f"model.n_critic={n_critic}"]
    calm = ["experiment=digits/dcgan", *small, "optimizer.warmup_images=0", "trainer.checkpoint_every=16"]
    train(preflight("train", [*calm, "trainer.max_images=16"]), outputs / "run")
    other = "model.critic_optimizer" if player == "optimizer" else "optimizer"
    wild = [*calm, "trainer.max_images=640", f"{player}.lr=1e30", f"{other}.lr=1e-4", "trainer.checkpoint_every=0"]
    with pytest.raises(GenlabError, match=r"is no number at .* images, for 11 batches in a row, .*optimizer\.lr"):
        train(preflight("train", wild), outputs / "run")
    state = Run(outputs / "run").load_checkpoint()
    assert state is not None
    assert state["images_seen"] == 16
    assert all(value.isfinite().all() for value in state["state_dict"].values())


# ---------------------------------------------------------------------- choices


def test_each_player_may_have_its_own_rate_and_both_decay():
    model = preflight("train", ["model=dcgan", "model.critic_optimizer.lr=0.25", "optimizer.decay_images=100"]).model
    assert (model.optimizer.lr, model.critic_optimizer.lr) == (2e-4, 0.25)
    assert model.optimizer.decay_images == model.critic_optimizer.decay_images == 100


def test_when_the_log_warns_is_no_matter_of_what_is_learned():
    runs = {run_dir(preflight("train", ["model=dcgan", *more])) for more in ([], ["model.collapse=0.5"])}
    assert len(runs) == 1


def test_steps_of_both_players_are_left_out_by_their_norm():
    model = preflight("train", ["model=dcgan", "optimizer.skip_norm=5"]).model
    assert model.optimizer.skip_norm == model.critic_optimizer.skip_norm == 5


@pytest.mark.parametrize("group", ["objective", "penalty"])
def test_a_gan_without_an_objective_or_a_penalty_is_refused(group):
    with pytest.raises(GenlabError, match=rf"model=dcgan needs some {group}: .*penalty=none"):
        preflight("train", ["model=dcgan", f"~{group}"])


def test_a_penalty_without_a_gan_is_refused():
    with pytest.raises(GenlabError, match="model=ddpm takes no penalty"):
        preflight("train", ["model=ddpm", "penalty=r1"])


def test_spectral_norm_makes_the_critic_of_dcgan_lipschitz_layer_by_layer():
    torch.manual_seed(0)
    critic = Discriminator(channels=1, size=8, width=8, classes=3, batch_norm=False, spectral_norm=True)
    x, y = torch.randn(16, 1, 8, 8), torch.arange(16) % 3
    for _ in range(200):
        critic(x, y)
    layers = [m for m in critic.modules() if hasattr(m, "parametrizations")]
    assert len(layers) == 4
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=2e-3)


@pytest.mark.parametrize("objective", [Minimax(), Hinge(), Relativistic()])
def test_every_objective_trains(build, fit, objective):
    module = build(objective=objective, penalty=R1(1.0))
    before = [p.detach().clone() for p in module.parameters()]
    fit(module, batches(3))
    pairs = zip(before, module.parameters(), strict=True)
    assert all(not torch.equal(a, b) for a, b in pairs if a.ndim > 1)  # a constant may not matter to a critic
