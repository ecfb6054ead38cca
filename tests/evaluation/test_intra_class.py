import pytest
import torch

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.frechet import frechet_distance
from genlab.evaluation.intra_class import IntraClassDistance
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.moments import fit


def bank(n: int, seed: int, shift: float = 0.0, d: int = 4) -> FeatureBank:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return FeatureBank(n, features=torch.randn(n, d, generator=generator) + 5 * y[:, None] + shift, y=y)


@pytest.mark.parametrize("d", [4, 150])
def test_is_the_mean_over_classes_also_of_few_samples(d: int) -> None:
    real, fake = bank(400, 0, d=d), bank(330, 1, 0.5, d=d)
    expected = [frechet_distance(fit(real.features[real.y == c]), fit(fake.features[fake.y == c])) for c in range(3)]
    assert IntraClassDistance("net")(real, fake) == {"ifd_net": pytest.approx(sum(expected) / 3, rel=1e-10)}
    whole, *left = IntraClassDistance("net").replicates(real, fake, 10)
    assert whole["ifd_net"] == pytest.approx(sum(expected) / 3, rel=1e-10)
    assert left[3] == IntraClassDistance("net")(real, fake.without(3, 10))


def test_sees_what_the_distance_of_the_whole_cannot() -> None:
    """Samples of the right density under the wrong labels."""
    real, fake = bank(600, 0), bank(600, 1)
    wrong = FeatureBank(600, features=fake.features, y=(fake.y + 1) % 3)
    right, shuffled = (jackknife(IntraClassDistance("net"), real, f)["ifd_net"] for f in (fake, wrong))
    assert right.value < 0.3
    assert shuffled.value == pytest.approx(4 * (25 + 25 + 100) / 3, rel=0.05)
    assert right.stderr > 0


def test_bad_input_is_refused() -> None:
    real = bank(30, 0)
    missing = FeatureBank(30, features=real.features, y=torch.zeros(30, dtype=torch.int64))
    with pytest.raises(GenlabError, match="two samples of every class, and class 1 has 0"):
        IntraClassDistance("net")(real, missing)
    with pytest.raises(GenlabError, match="needs y"):
        IntraClassDistance("net")(real, FeatureBank(30, features=real.features))
    captions = FeatureBank(30, features=real.features, y=torch.zeros(30, 4))
    with pytest.raises(GenlabError, match="a class label for each sample"):
        IntraClassDistance("net")(real, captions)
