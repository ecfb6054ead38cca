"""Consistency and LeCam of critics for which they are known in closed form."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genlab.adversarial.consistency import Consistency, LatentConsistency, LeCam
from genlab.adversarial.objectives import Hinge, Relativistic, Wasserstein
from genlab.adversarial.penalties import Lazy, Sum
from genlab.errors import GenlabError

Shown = Callable[..., Any]


class Image(nn.Module):
    """The generator z -> a z."""

    def __init__(self, a: float):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return self.a * z


@pytest.mark.parametrize(("real", "fake"), [(10.0, 0.0), (0.0, 7.0), (1.0, 2.0)])
def test_consistency_of_a_linear_critic(real: float, fake: float, linear: Any, pair: Tensor, shown: Shown) -> None:
    """T(x) = 2x: D(x) - D(T(x)) = -D(x)."""
    term = Consistency(lambda x: 2 * x, real, fake).critic(shown(linear, *pair))
    d = [linear(a).square().mean().item() for a in pair]
    assert term.item() == pytest.approx(real * d[0] + fake * d[1])
    term.backward()
    assert linear.w.grad.abs().max() > 0


def test_a_change_that_the_critic_does_not_see_costs_nothing(quadratic: Any, pair: Tensor, shown: Shown) -> None:
    assert Consistency(lambda x: x.flip(3), 10.0, 10.0).critic(shown(quadratic, *pair)).item() == pytest.approx(0)


def test_each_image_of_a_pack_is_changed_by_itself(linear: Any, pair: Tensor, shown: Shown) -> None:
    """T takes an image's mean off, and D(x) - D(T(x)) = w·mean."""
    term = Consistency(lambda x: x - x.mean((1, 2, 3), keepdim=True), 1.0, 0.0)
    x, w = pair[0], linear.w.detach()
    apart, whole = ((w * mean).flatten(1).sum(1) for mean in (x.mean((2, 3), keepdim=True), x.mean((1, 2, 3), True)))
    seen = shown(linear, *pair)
    assert term.critic(seen._replace(packing=3)).item() == pytest.approx(apart.square().mean().item())
    assert term.critic(seen).item() == pytest.approx(whole.square().mean().item())


def test_latent_consistency_of_linear_players(linear: Any, shown: Shown) -> None:
    """D(G(z)) - D(G(z + δ)) = -a w·δ, of variance (a σ |w|)²; and |G(z) - G(z + δ)|² is a² σ² for each number."""
    torch.manual_seed(0)
    z = torch.randn(4000, 3, 4, 4, dtype=torch.float64)
    generator, term = Image(1.7), LatentConsistency(20.0, 0.5, 0.1)
    seen = shown(linear, z, 1.7 * z, generator=generator)._replace(z=z)
    expected = 20 * (1.7 * 0.1) ** 2 * linear.w.detach().square().sum().item()
    assert term.critic(seen).item() == pytest.approx(expected, rel=0.1)
    apart = term.generator(seen._replace(fake=generator(z)))
    assert apart.item() == pytest.approx(-0.5 * (1.7 * 0.1) ** 2, rel=0.02)
    apart.backward()
    assert generator.a.grad is not None
    assert generator.a.grad.item() == pytest.approx(2 * apart.item() / 1.7)  # further apart is what is wanted
    assert LatentConsistency(20.0, 0.5, 0.1).generator(seen).requires_grad


def test_lecam_holds_each_side_to_the_running_mean_of_the_other(linear: Any, pair: Tensor, shown: Shown) -> None:
    term = LeCam(0.3, 0.9, 0)
    means = torch.zeros(2, dtype=torch.float64)
    for n in range(1, 6):
        seen = shown(linear, pair[0] + 0.1 * n, pair[1])
        real, fake = seen.real_value.detach(), seen.fake_value.detach()
        means = 0.9 * means + 0.1 * torch.stack([real.mean(), fake.mean()])
        alpha_real, alpha_fake = means / (1 - 0.9**n)
        expected = 0.3 * ((real - alpha_fake).clamp_min(0) ** 2 + (alpha_real - fake).clamp_min(0) ** 2).mean()
        assert term.critic(seen).item() == pytest.approx(expected.item(), rel=1e-5)
    assert term.state_dict()["batches"] == 5
    before = term.means.clone()
    term.eval()
    term.critic(seen)
    assert torch.equal(term.means, before)  # validation leaves no trace


def test_lecam_waits_and_remembers_meanwhile(linear: Any, pair: Tensor, shown: Shown) -> None:
    term = LeCam(0.3, 0.9, 2)
    terms = [term.critic(shown(linear, *pair, turn=turn)).item() for turn in range(4)]
    assert terms[:2] == [0, 0]
    assert min(terms[2:]) > 0
    assert term.batches == 4


def test_lecam_is_refused_where_values_are_only_compared() -> None:
    term = Sum({"lecam": Lazy(LeCam(0.3, 0.9, 0), 2)})
    term.check(Hinge(), (1, 8, 8))
    term.check(Wasserstein(), (1, 8, 8))
    with pytest.raises(GenlabError, match="LeCam holds values of the critic, and Relativistic sees their differences"):
        term.check(Relativistic(), (1, 8, 8))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Consistency(lambda x: x, -1.0, 0.0),
        lambda: Consistency(lambda x: x, 0.0, -1.0),
        lambda: LatentConsistency(1.0, -0.5, 0.1),
        lambda: LeCam(-0.3, 0.9, 0),
    ],
)
def test_weights_below_zero_are_refused(build: Callable[[], Any]) -> None:
    with pytest.raises(GenlabError, match="must be 0 or more"):
        build()


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_means_that_nothing_moves_or_that_run_away_are_refused(decay: float) -> None:
    with pytest.raises(GenlabError, match="penalty decay="):
        LeCam(0.3, decay, 0)
