"""The softmax over tokens against torch.distributions; what top-k and top-p leave, against their definitions; decoding."""

import itertools
import math

import pytest
import torch

from genlab.categorical_head import Categorical
from genlab.decoding import Decoding
from genlab.errors import GenlabError
from genlab.mixture_head import MixtureOfLogistics

P = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15]).double()
LOGITS = (P.log() + 3.0)[None, :, None]  # (1, 5, 1), to any constant


def kept(parameters):
    """The tokens that may be drawn, and their law."""
    p = parameters.softmax(1)[0, :, 0]
    return p.nonzero()[:, 0].tolist(), p[p > 0]


def test_probabilities_are_those_of_torch():
    torch.manual_seed(0)
    parameters, x = torch.randn(3, 7, 4), torch.randint(7, (3, 1, 4))
    theirs = torch.distributions.Categorical(logits=parameters.transpose(1, 2)).log_prob(x[:, 0]).sum(1)
    torch.testing.assert_close(Categorical(7).log_prob(x, parameters), theirs)


def test_a_uniform_law_has_the_mean_of_the_levels():
    assert Categorical(17).mean(torch.zeros(1, 17, 2)).flatten().tolist() == pytest.approx([8, 8], abs=1e-5)


def test_draws_invert_the_distribution_function():
    """u at the middle of each share gives its token, and the share of a fine grid of u is the probability."""
    head, ends = Categorical(5), P.cumsum(0)
    middles = (ends - P / 2).reshape(5, 1, 1)
    assert head.sample(LOGITS.expand(5, 5, 1), middles).flatten().tolist() == [0, 1, 2, 3, 4]
    u = ((torch.arange(10000) + 0.5) / 10000).double().reshape(-1, 1, 1)
    share = head.sample(LOGITS.expand(10000, 5, 1), u).flatten().bincount(minlength=5) / 10000
    torch.testing.assert_close(share.double(), P, atol=2e-4, rtol=0)


@pytest.mark.parametrize("u", [2.0**-24, 1 - 2.0**-24])
def test_a_token_of_probability_0_is_never_drawn(u):
    """At both ends of what a NoiseStream gives, where sums round."""
    logits = torch.full((1, 9, 1), -torch.inf)
    logits[0, [2, 4, 6], 0] = torch.tensor([0.1, 0.7, -1.3])
    assert Categorical(9).sample(logits, torch.full((1, 1, 1), u)).item() in (2, 6)


@pytest.mark.parametrize(
    ("top_k", "top_p", "expected"),
    [
        *[(1, 1.0, [1]), (3, 1.0, [1, 3, 4]), (9, 1.0, [0, 1, 2, 3, 4]), (None, 0.5, [1, 3]), (None, 0.71, [1, 3, 4])],
        *[(None, 1e-9, [1]), (None, 0.96, [0, 1, 2, 3, 4]), (2, 0.96, [1, 3]), (4, 0.5, [1, 3])],
        (2, 0.5, [1]),  # 0.4 of 0.7 is enough of the two
    ],
)
def test_top_k_and_top_p_leave_the_likeliest_in_proportion(top_k, top_p, expected):
    tokens, law = kept(Decoding(1.0, top_k, top_p)(Categorical(5), LOGITS))
    assert tokens == expected
    torch.testing.assert_close(law, P[expected] / P[expected].sum())


def test_each_row_and_place_is_truncated_by_itself():
    parameters = torch.stack([LOGITS[0, :, 0], LOGITS[0, :, 0].flip(0)], dim=1)[None]  # (1, 5, 2)
    left = Decoding(1.0, 2, 1.0)(Categorical(5), parameters).isfinite()[0]
    assert left.T.tolist() == [[False, True, False, True, False], [False, True, False, True, False]]


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_is_a_power_of_the_law(temperature):
    tempered = Decoding(temperature, None, 1.0)(Categorical(5), LOGITS).softmax(1)[0, :, 0]
    torch.testing.assert_close(tempered, P ** (1 / temperature) / (P ** (1 / temperature)).sum())


def test_a_mixture_of_logistics_at_a_temperature_has_wider_logistics_and_flatter_shares():
    """Against draws by hand: one component at s = 0.1 and T = 2 is one at s = 0.2."""
    head, torch_seed = MixtureOfLogistics(256, 1), torch.linspace(0.02, 0.98, 49)[:, None, None]
    narrow = torch.tensor([0.0, 0.1, math.log(0.1)]).reshape(1, 3, 1).expand(49, 3, 1)
    wide = torch.tensor([0.0, 0.1, math.log(0.2)]).reshape(1, 3, 1).expand(49, 3, 1)
    torch.testing.assert_close(
        head.sample(Decoding(2.0, None, 1.0)(head, narrow), torch_seed), head.sample(wide, torch_seed)
    )
    two, rgb = MixtureOfLogistics(256, 2), torch.randn(1, 20, 3)  # 2 · (1 + 2 · 3 + 3)
    warm = two.tempered(rgb, 3.0)
    torch.testing.assert_close(warm[:, :2] * 3, rgb[:, :2])
    same = [i for i in range(20) if torch.equal(warm[:, i], rgb[:, i])]
    assert same == [2, 3, 4, 8, 9, 10, 11, 12, 13, 17, 18, 19], "means and coefficients"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *[((0.0, None, 1.0), "temperature=0"), ((-1.0, None, 1.0), "temperature"), ((1.0, 0, 1.0), "top_k=0")],
        *[((1.0, None, 0.0), "top_p=0"), ((1.0, None, 1.1), "top_p=1.1"), ((math.nan, None, 1.0), "temperature=nan")],
    ],
)
def test_values_that_leave_nothing_are_refused(arguments, said):
    with pytest.raises(GenlabError, match=said):
        Decoding(*arguments)


def test_what_a_head_cannot_do_is_said():
    with pytest.raises(GenlabError, match="top_k and top_p are for tokens"):
        Decoding(1.0, 3, 1.0)(MixtureOfLogistics(256, 1), torch.zeros(1, 3, 1))
    with pytest.raises(GenlabError, match="alphabet is 0 to 4"):
        Categorical(5).check(torch.tensor([0, 5]))
    with pytest.raises(GenlabError, match="alphabet"):
        Categorical(5).check(torch.tensor([-1, 0]))
    with pytest.raises(GenlabError, match="at least 2"):
        Categorical(1)


def test_the_law_itself_is_left_as_it_is():
    assert Decoding(1.0, None, 1.0)(Categorical(5), LOGITS) is LOGITS


def test_the_order_of_equals_is_that_of_the_alphabet():
    """So that ties fall alike everywhere."""
    for k in (1, 2, 3):
        tokens, _ = kept(Decoding(1.0, k, 1.0)(Categorical(4), torch.zeros(1, 4, 1)))
        assert tokens == list(itertools.islice(range(4), k))
