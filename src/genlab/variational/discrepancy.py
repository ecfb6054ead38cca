"""The maximum mean discrepancy between two samples, and its kernels."""

import abc
from collections.abc import Sequence

import torch
from torch import Tensor

from genlab.errors import GenlabError


class Kernel(abc.ABC):
    """k(a, b) of squared distances."""

    @abc.abstractmethod
    def __call__(self, squared: Tensor, dim: int) -> Tensor: ...


class Gaussian(Kernel):
    """exp(-‖a - b‖²/(2 h)), h = width · dim. Zhao et al. 2019, arXiv:1706.02262, section 3.2."""

    def __init__(self, width: float):
        _positive("width", width)
        self.width = width

    def __call__(self, squared: Tensor, dim: int) -> Tensor:
        return (-squared / (2 * self.width * dim)).exp()


class InverseMultiquadratic(Kernel):
    """Σ_c c C/(c C + ‖a - b‖²), C = 2 · dim. Tolstikhin et al. 2018, arXiv:1711.01558, section 4."""

    def __init__(self, scales: Sequence[float]):
        if not scales:
            raise GenlabError("variational.objective.kernel.scales=[]: a sum of at least one kernel is needed")
        _positive("scales", *scales)
        self.scales = scales

    def __call__(self, squared: Tensor, dim: int) -> Tensor:
        return torch.stack([2 * dim * c / (2 * dim * c + squared) for c in self.scales]).sum(0)


def discrepancy(kernel: Kernel, a: Tensor, b: Tensor) -> Tensor:
    """E k(a, a') + E k(b, b') - 2 E k(a, b) of rows (n, D), without bias and so at times below 0.

    Gretton et al. 2012, lemma 6. Raises GenlabError for a single row.
    """
    n, dim = a.shape
    if n < 2:
        raise GenlabError("a discrepancy needs 2 images in a batch or more")
    of_a, of_b = (kernel(_squared(x, x), dim) for x in (a, b))
    within = (of_a.sum() - of_a.diagonal().sum() + of_b.sum() - of_b.diagonal().sum()) / (n * (n - 1))
    return within - 2 * kernel(_squared(a, b), dim).mean()


def _positive(name: str, *values: float) -> None:
    for value in values:
        if not value > 0:
            raise GenlabError(f"variational.objective.kernel.{name}={value}: above 0 is needed")


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] - b).square().sum(2)  # not by the dot product, which cancels between close rows
