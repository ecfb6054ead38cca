"""The classification accuracy score: can one learn the classes from samples alone?"""

import warnings

import numpy as np

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.intra_class import labelled


class AccuracyScore:
    """`cas_<name>`, the percentage of real data that a classifier trained on samples and the labels they were asked for gets
    right (Ravuri & Vinyals 2019, 1905.10887).

    They train a ResNet-50 on pixels; ours is multinomial logistic regression on standardized features, whose optimum is
    unique, so that the number has neither seed nor schedule: compare it with that of the training data, not with theirs. It
    has no jackknife error. Raises GenlabError where the samples are of one class.
    """

    needs = ("features", "y")
    blocks = 1

    def __init__(self, name: str, penalty: float = 1.0):
        self.key, self.penalty = f"cas_{name}", penalty
        self.better = {self.key: "higher"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        from sklearn.exceptions import ConvergenceWarning  # a second to import
        from sklearn.linear_model import LogisticRegression

        x, f = (bank.finite("features", self.key).cpu().numpy() for bank in (real, fake))  # (N, D), (M, D)
        y, asked = (labelled(bank, self.key).cpu().numpy() for bank in (real, fake))
        if len(np.unique(asked)) < 2:
            raise GenlabError(f"{self.key} needs samples of two classes or more, and these are all of class {asked[0]}")
        mean, std = f.mean(0), f.std(0)
        std[std == 0] = 1
        classifier = LogisticRegression(C=1 / self.penalty, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # separable classes have their optimum far away
            classifier.fit((f - mean) / std, asked)
        return {self.key: 100 * float(np.mean(classifier.predict((x - mean) / std) == y))}
