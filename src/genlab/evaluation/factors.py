"""Do samples of `shapes` show what they were asked to show?"""

import hashlib
import math
from typing import ClassVar

import torch
from torch import Tensor

from genlab.data.captions import asked
from genlab.data.reading import read
from genlab.data.scenes import WORDS, held_out
from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank


class FactorAgreement:
    """Factors read off the first n = min(N, most) samples without a learned classifier, as shares from 0 to 1.

    `agreement`: of all samples, those that are readable and show every discrete factor that their y asks for; left out
    where there is no y. `unreadable`: those that are no scene. `unseen_rate`: of the readable ones, those of a combination
    that training never sees, 0 for the data; nan where none is readable. Raises GenlabError for a y that asks nothing.
    """

    needs: ClassVar[tuple[str, ...]] = ("x", "y")

    def __init__(self, most: int = 2_000):
        self.most = most
        self.better = {"agreement": "higher", "unreadable": "lower", "unseen_rate": "closer to 0"}
        self._known: dict[bytes, list[int]] = {}  # a jackknife asks for the same images again and again

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        if fake.x is None:
            raise GenlabError("factor agreement needs the samples themselves, and this bank has only features")
        x, y = fake.x[: self.most], None if fake.y is None else fake.y[: self.most]
        table = self._read(x)  # (n, 1 + 6)
        readable, shown = table[:, 0].bool(), table[:, 1:]
        unseen = held_out(shown[:, 0], shown[:, 1])[readable]
        answer = {
            "unreadable": 1 - readable.double().mean().item(),
            "unseen_rate": unseen.double().mean().item() if len(unseen) else math.nan,
        }
        if y is None:
            return answer
        wanted = asked(y.cpu())  # (n, 6)
        agree = readable & ((wanted == shown) | (wanted < 0)).all(1)
        return {"agreement": agree.double().mean().item(), **answer}

    def _read(self, x: Tensor) -> Tensor:
        """Whether each image (n, 3, S, S) is readable, and its discrete factors: (n, 1 + 6) int64."""
        names = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in x.cpu().numpy()]
        new = [i for i, name in enumerate(names) if name not in self._known]
        if new:
            reading = read(x.cpu()[new])
            rows = torch.cat([reading.readable[:, None].long(), reading.scenes.factors[:, : len(WORDS)].long()], 1)
            self._known.update(zip([names[i] for i in new], rows.tolist(), strict=True))
        return torch.tensor([self._known[name] for name in names])
