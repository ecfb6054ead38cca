import pytest
import torch
import torch.nn.functional as F

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.vendi import Vendi


def score(x: torch.Tensor) -> float:
    return Vendi("net")(FeatureBank(len(x)), FeatureBank(len(x), features=x))["vendi_net"]


def test_counts_orthogonal_samples_whatever_their_length_and_number_of_copies() -> None:
    basis = torch.linalg.qr(torch.randn(20, 20)).Q[:7]
    assert score(basis) == pytest.approx(7, rel=1e-6)
    assert score(3 * basis.repeat(5, 1)) == pytest.approx(7, rel=1e-6)
    assert score(basis[:1].repeat(9, 1)) == pytest.approx(1, rel=1e-6)
    # shares 3/4 and 1/4 of two kinds: exp of the entropy
    assert score(basis[[0, 0, 0, 1]]) == pytest.approx(4 / 3**0.75, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(50, 300), (300, 20)])
def test_equals_the_score_by_the_matrix_of_samples(n: int, d: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(n, d) + 0.5
    kernel = F.cosine_similarity(x[:, None].double(), x[None].double(), dim=2) / n
    spectrum = torch.linalg.eigvalsh(kernel).clamp(min=0)
    assert score(x) == pytest.approx(torch.special.entr(spectrum).sum().exp().item(), rel=1e-9)


def test_replicates_are_the_scores_without_a_block() -> None:
    torch.manual_seed(0)
    x = torch.randn(83, 6)
    fake = FeatureBank(83, features=x)
    whole, *left = Vendi("net").replicates(fake, fake, 10)
    assert whole["vendi_net"] == score(x)
    assert left[4]["vendi_net"] == pytest.approx(score(x[torch.arange(83) % 10 != 4]), rel=1e-12)
    assert jackknife(Vendi("net"), fake, fake)["vendi_net"].stderr > 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(GenlabError, match="nan or inf"):
        score(torch.full((4, 2), float("nan")))
