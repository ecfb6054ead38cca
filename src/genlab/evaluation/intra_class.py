"""The Fréchet distance class by class: what samples of a class have to do with the data of that class."""

from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.frechet import frechet_distance
from genlab.evaluation.moments import Gaussian, fit


def labelled(bank: FeatureBank, metric: str) -> Tensor:
    """The labels (N,) of a bank; raises GenlabError where the samples were asked to be something else than a class."""
    y = bank.have("y", metric)
    if y.ndim != 1:
        raise GenlabError(f"{metric} needs a class label for each sample, and these have {tuple(y.shape[1:])} of them")
    return y


class IntraClassDistance:
    """`ifd_<name>` = the mean over the classes of the Fréchet distances between the reals and the fakes of a class (intra FID:
    Miyato & Koyama 2018, 1802.05637, section 4).

    Raises GenlabError where a class of the reals has fewer than two samples on either side; with no more samples of a class
    than features its bias is large.
    """

    needs = ("features", "y")

    def __init__(self, name: str):
        self.key = f"ifd_{name}"
        self.better = {self.key: "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        return self._mean(self._classes(real), fake)

    def replicates(self, real: FeatureBank, fake: FeatureBank, blocks: int) -> list[dict[str, float]]:
        """The value, and those without the k-th block; the reals' factors are computed once."""
        classes = self._classes(real)
        return [self._mean(classes, bank) for bank in (fake, *(fake.without(k, blocks) for k in range(blocks)))]

    def _classes(self, real: FeatureBank) -> dict[int, Gaussian]:
        return {c: self._fit(real, c) for c in labelled(real, self.key).unique().tolist()}

    def _fit(self, bank: FeatureBank, c: int) -> Gaussian:
        features = bank.finite("features", self.key)
        features = features[labelled(bank, self.key).to(features.device) == c]
        if len(features) < 2:
            raise GenlabError(f"{self.key} needs two samples of every class, and class {c} has {len(features)}")
        return fit(features)

    def _mean(self, classes: dict[int, Gaussian], fake: FeatureBank) -> dict[str, float]:
        distances = [frechet_distance(gaussian, self._fit(fake, c)) for c, gaussian in classes.items()]
        return {self.key: sum(distances) / len(distances)}
