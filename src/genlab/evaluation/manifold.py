"""Fidelity and diversity apart: are fakes where reals are, and reals where fakes are?"""

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.jackknife import kept

ROWS = 2048  # and columns of the distance matrix held at a time
NOISE = 1e-13  # of ‖x‖² + ‖y‖²: by how much rounding may miss a squared distance


class Points:
    """Features (N, D), in parts of at most ROWS of index ≡ k mod K, as float64 rows around a `centre` (D,)."""

    def __init__(self, features: Tensor, centre: Tensor, blocks: int = 1):
        self.features, self.centre, self.blocks, self.n = features, centre, blocks, len(features)
        index = torch.arange(self.n, device=features.device)
        self.parts = [(k, part) for k in range(blocks) for part in index[k::blocks].split(ROWS)]

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.features[index].double() - self.centre


def squared_distances(x: Tensor, y: Tensor, slack: float = 0.0) -> Tensor:
    """(1 − slack)(‖x‖² + ‖y‖²) − 2 x·y, with no slack ‖xᵢ − yⱼ‖²: (N, D), (M, D) float64 -> (N, M).

    In float32 this would put a point up to 0.02 away from itself.
    """
    ours, theirs = ((1 - slack) * z.square().sum(1) for z in (x, y))  # (N,), (M,)
    return torch.addmm(theirs[None], x, y.T, alpha=-2).add_(ours[:, None])


def neighbours(x: Points, k: int) -> Tensor:
    """The squared distances of each point to the k nearest others of each block, sorted: (N, K, k)."""
    nearest = x.centre.new_full((x.n, x.blocks, k), torch.inf)

    def keep(rows: Tensor, block: int, square: Tensor) -> None:
        found = square.topk(min(k, square.shape[1]), dim=1, largest=False).values
        nearest[rows, block] = torch.cat([nearest[rows, block], found], 1).topk(k, dim=1, largest=False).values

    for i, (block, rows) in enumerate(x.parts):
        points = x[rows]
        keep(rows, block, squared_distances(points, points).fill_diagonal_(torch.inf))  # nobody is their own neighbour
        for other, columns in x.parts[i + 1 :]:  # each pair once
            square = squared_distances(points, x[columns])
            keep(rows, other, square)
            keep(columns, block, square.T)
    return nearest


class Manifold:
    """Improved precision and recall (Kynkäänniemi et al. 2019, 1904.06991, eqs. 1–2: k = 3), density and coverage (Naeem et
    al. 2020, 2002.09797: k = 5): which points a lie in closed balls ‖a − b‖ ≤ r_k(b) around the points b of the other set.

    Distances are products in float64, balls wider by what these may be off, so that copies lie in the balls that they
    define; (N² + M² + 2 N M) D operations give the values with all replicates of their jackknife, and the N² are done once.
    Raises GenlabError for no more than k samples.
    """

    needs = ("features",)

    def __init__(self, k: int = 3, density_k: int = 5):
        self.k, self.density_k = k, density_k
        self.better = {"precision": "higher", "recall": "higher", "density": "higher", "coverage": "higher"}
        self._known: tuple[Tensor, Tensor] | None = None

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        return self.replicates(real, fake, 1)[0]

    def replicates(self, real: FeatureBank, fake: FeatureBank, blocks: int) -> list[dict[str, float]]:
        """The values, and, for several blocks, those without the fakes of index ≡ k mod blocks."""
        x, y = (bank.finite("features", "the manifold metric") for bank in (real, fake))  # (N, D), (M, D)
        left = len(y) if blocks == 1 else len(y) - -(-len(y) // blocks)  # without the largest block
        if len(x) <= max(self.k, self.density_k) or left <= self.k:
            raise GenlabError(
                f"k={self.k} and density_k={self.density_k} neighbours need more samples than {len(x)} real and "
                f"{left} fake ones"
            )
        centre = x[:ROWS].double().mean(0)  # about there
        reals, fakes = Points(x, centre), Points(y, centre, blocks)
        near = neighbours(fakes, self.k)  # (M, K, k)
        reach = torch.stack([near[:, others].flatten(1).kthvalue(self.k, 1).values for others in kept(blocks)])
        return self._shares(reals, fakes, self._real_reach(reals), reach)

    def _real_reach(self, reals: Points) -> Tensor:
        """The squared radii of the reals' balls for precision and for density, (2, N); those of the last reals are kept."""
        if self._known is None or self._known[0] is not reals.features:
            near = neighbours(reals, max(self.k, self.density_k))[:, 0]  # (N, k)
            self._known = reals.features, torch.stack([near[:, self.k - 1], near[:, self.density_k - 1]])
        return self._known[1]

    def _shares(self, reals: Points, fakes: Points, real_reach: Tensor, fake_reach: Tensor) -> list[dict[str, float]]:
        device = real_reach.device
        precise = torch.zeros(fakes.n, dtype=torch.bool, device=device)
        memberships = torch.zeros(fakes.n, dtype=torch.int64, device=device)
        covered = torch.zeros(fakes.blocks, reals.n, dtype=torch.bool, device=device)  # by the fakes of each block
        recalled = torch.zeros(len(fake_reach), reals.n, dtype=torch.bool, device=device)
        for block, rows in fakes.parts:
            points = fakes[rows]
            for _, columns in reals.parts:
                square = squared_distances(points, reals[columns], NOISE)
                precise[rows] |= (square <= real_reach[0, columns]).any(1)
                dense = square <= real_reach[1, columns]
                memberships[rows] += dense.sum(1)
                covered[block, columns] |= dense.any(0)
                for i, others in enumerate(kept(fakes.blocks)):
                    if block in others:
                        recalled[i, columns] |= (square <= fake_reach[i, rows, None]).any(0)
        answer = []
        for i, others in enumerate(kept(fakes.blocks)):
            there = torch.isin(torch.arange(fakes.n) % fakes.blocks, torch.tensor(others)).to(device)
            answer.append(
                {
                    "precision": precise[there].double().mean().item(),
                    "recall": recalled[i].double().mean().item(),
                    "density": memberships[there].double().mean().item() / self.density_k,
                    "coverage": covered[others].any(0).double().mean().item(),
                }
            )
        return answer
