"""What a VAE minimizes, as values: the distortion, and what the latents are charged for."""

import abc
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.variational.discrepancy import Kernel, discrepancy


class Sampled(NamedTuple):
    """A batch, encoded and decoded by k draws of z for each x."""

    distortion: Tensor  # (k, B) -log p(x | z)
    log_ratio: Tensor  # (k, B) log q(z | x) - log p(z)
    rate: Tensor  # (B, G) KL(q ‖ p) of each dimension where it has a closed form, otherwise G = 1 and an estimate by z
    z: Tensor  # (B, latent), the first draw
    pairs: Callable[[], Tensor]  # () -> (B, B, G) log q(z_i | x_j)
    prior: Callable[[], Tensor]  # () -> (B, latent) draws of p(z)
    sizes: Sequence[int] = ()  # where G are the levels of a ladder, from the top down: how many latents each has

    @property
    def mean_rate(self) -> Tensor:
        """()."""
        return self.rate.sum(1).mean()


class Objective(abc.ABC):
    """What is minimized as "loss", with what else it is worth to know."""

    draws: int = 1
    """k, of z for each x."""
    fewest: int = 1
    """How many images a batch must have."""

    def begin(self, images: int) -> None:  # noqa: B027 - not every objective asks
        """Take note of how many training images there are."""

    @abc.abstractmethod
    def __call__(self, s: Sampled, images_seen: int) -> dict[str, Tensor]: ...


def _not_negative(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise GenlabError(f"variational.objective.{name}={value}: a weight or size of 0 or more is needed")


class Beta(Objective):
    """distortion + β rate, β rising in a line from 0 over the first `warmup_images`.

    Higgins et al. 2017, eq. 4; the rise: Bowman et al. 2016, arXiv:1511.06349, and Sønderby et al. 2016, arXiv:1602.02282.
    """

    def __init__(self, beta: float, warmup_images: int):
        _not_negative(beta=beta, warmup_images=warmup_images)
        self.beta, self.warmup_images = beta, warmup_images

    def __call__(self, s: Sampled, images_seen: int) -> dict[str, Tensor]:
        return {"loss": s.distortion.mean() + self.at(images_seen) * s.mean_rate}

    def at(self, images_seen: int) -> float:
        """β after so many images."""
        return self.beta * min(1.0, images_seen / self.warmup_images) if self.warmup_images else self.beta


class Balanced(Objective):
    """distortion + β Σ_l γ_l E KL_l, β rising in a line from `least` to 1 over the first `warmup_images`, and while it does
    γ_l ∝ (E|KL_l| + 0.01)/α_l of mean 1, α_l the size of level l over how many levels have that size: what is small pays more.

    Vahdat & Kautz 2020, arXiv:2007.03898, appendix A, and its published code. Raises GenlabError without levels.
    """

    def __init__(self, warmup_images: int, least: float):
        _not_negative(warmup_images=warmup_images, least=least)
        self.warmup_images, self.least = warmup_images, least

    def __call__(self, s: Sampled, images_seen: int) -> dict[str, Tensor]:
        if not s.sizes:
            raise GenlabError(
                "variational/objective=balanced weighs the levels of a ladder: take model=hvae, or warm_up"
            )
        beta, rates = self.at(images_seen), s.rate.mean(0)
        if beta < 1:
            rates = self.weights(s.rate, s.sizes) * rates
        return {"loss": s.distortion.mean() + beta * rates.sum()}

    def at(self, images_seen: int) -> float:
        """β after so many images."""
        return max(self.least, min(1.0, images_seen / self.warmup_images)) if self.warmup_images else 1.0

    @staticmethod
    def weights(rate: Tensor, sizes: Sequence[int]) -> Tensor:
        """(L,) γ, through which no gradient passes."""
        alpha = rate.new_tensor([size / sizes.count(size) for size in sizes])
        gamma = (rate.detach().abs().mean(0) + 0.01) / alpha
        return gamma / gamma.mean()


class FreeBits(Objective):
    """distortion + Σ_j max(λ, E_x KL_j), j over groups of `group` neighbouring dimensions, λ in nats: below it a group is free.

    Kingma et al. 2016, arXiv:1606.04934, eq. 15. Where the KL has no closed form all dimensions are one; of a ladder each
    level is.
    """

    def __init__(self, nats: float, group: int):
        _not_negative(nats=nats)
        if group < 1:
            raise GenlabError(f"variational.objective.group={group}: at least 1 dimension is a group")
        self.nats, self.group = nats, group

    def __call__(self, s: Sampled, images_seen: int) -> dict[str, Tensor]:
        charged = torch.stack([part.sum().clamp(min=self.nats) for part in s.rate.mean(0).split(self.group)]).sum()
        return {"loss": s.distortion.mean() + charged, "charged": charged}


class Capacity(Objective):
    """distortion + γ |rate - C|, C rising in a line from 0 to `nats` over the first `images`.

    Burgess et al. 2018, arXiv:1804.03599, eq. 8.
    """

    def __init__(self, gamma: float, nats: float, images: int):
        _not_negative(gamma=gamma, nats=nats, images=images)
        self.gamma, self.nats, self.images = gamma, nats, images

    def __call__(self, s: Sampled, images_seen: int) -> dict[str, Tensor]:
        return {"loss": s.distortion.mean() + self.gamma * (s.mean_rate - self.at(images_seen)).abs()}

    def at(self, images_seen: int) -> float:
        """C after so many images."""
        return self.nats * min(1.0, images_seen / self.images) if self.images else self.nats


class TotalCorrelation(Objective):
    """distortion + α I(x; z) + β TC(z) + γ Σ_j KL(q(z_j) ‖ p(z_j)), the three parts of the rate, their q(z) estimated from
    the batch by stratified sampling out of all training images, or of `images`.

    Chen et al. 2018, arXiv:1802.04942, eq. 2 and 4, appendix C.2. Raises GenlabError for a q that is no product, and for
    batches of one image or of more than there are.
    """

    fewest = 2

    def __init__(self, alpha: float, beta: float, gamma: float, images: int | None):
        _not_negative(alpha=alpha, beta=beta, gamma=gamma)
        self.alpha, self.beta, self.gamma, self.images = alpha, beta, gamma, images

    def begin(self, images: int) -> None:
        self.images = self.images or images

    def __call__(self, s: Sampled, images_seen: int) -> dict[str, Tensor]:
        pairs = s.pairs()  # (B, B, latent)
        if pairs.shape[2] != s.z.shape[1]:
            raise GenlabError("a total correlation needs a product over dimensions: variational/posterior=diagonal")
        if self.images is None:
            raise GenlabError(
                "of how many images a batch is one is known in training alone: set variational.objective.images"
            )
        weights = stratified(len(s.z), self.images).to(pairs).log()
        log_qz = torch.logsumexp(pairs.sum(2) + weights, dim=1)
        log_product = torch.logsumexp(pairs + weights[:, :, None], dim=1).sum(1)
        information = (pairs.sum(2).diagonal() - log_qz).mean()
        correlation = (log_qz - log_product).mean()
        dimensions = s.log_ratio[0].mean() - information - correlation
        charged = self.alpha * information + self.beta * correlation + self.gamma * dimensions
        terms = {"information": information, "correlation": correlation, "dimensions": dimensions}
        return {"loss": s.distortion.mean() + charged, **terms}


def stratified(batch: int, images: int) -> Tensor:
    """(B, B) weights with which Σ_j w_ij q(z_i | x_j) is q(z_i) on average over the batches that hold x_i.

    With M = B - 1: 1/N for x_i itself, (N - M)/(N M) for one other, 1/M for the rest. Chen et al. 2018, appendix C.2.
    """
    if not 2 <= batch <= images:
        raise GenlabError(
            f"a batch of {batch} of variational.objective.images={images}: from 2 images to all of them are needed"
        )
    others = batch - 1
    weights = torch.full((batch, batch), 1 / others, dtype=torch.float64)
    rows = torch.arange(batch)
    weights[rows, (rows + 1) % batch] = (images - others) / (images * others)
    weights[rows, rows] = 1 / images
    return weights


class Discrepancy(Objective):
    """distortion + (1 - α) rate + (α + λ - 1) MMD²(q(z), p(z)); α = 1 charges no rate, as the Wasserstein autoencoder.

    Zhao et al. 2019, arXiv:1706.02262, eq. 6; Tolstikhin et al. 2018, arXiv:1711.01558, algorithm 2.
    """

    fewest = 2

    def __init__(self, alpha: float, weight: float, kernel: Kernel):
        _not_negative(weight=weight)
        if not (alpha <= 1 and alpha + weight >= 1):
            raise GenlabError(
                f"variational.objective.alpha={alpha}, weight={weight}: 1 - alpha and alpha + weight - 1 must not be < 0"
            )
        self.alpha, self.weight, self.kernel = alpha, weight, kernel

    def __call__(self, s: Sampled, images_seen: int) -> dict[str, Tensor]:
        mmd = discrepancy(self.kernel, s.z, s.prior())
        loss = s.distortion.mean() + (1 - self.alpha) * s.mean_rate + (self.alpha + self.weight - 1) * mmd
        return {"loss": loss, "mmd": mmd}


class ImportanceWeighted(Objective):
    """-log (1/k) Σ_i p(x, z_i)/q(z_i | x), z_i ~ q. Burda et al. 2016, arXiv:1509.00519, eq. 8."""

    def __init__(self, draws: int):
        if draws < 1:
            raise GenlabError(f"variational.objective.draws={draws}: at least 1 is needed")
        self.draws = draws

    def __call__(self, s: Sampled, images_seen: int) -> dict[str, Tensor]:
        log_weights = -s.distortion - s.log_ratio  # (k, B)
        return {"loss": math.log(self.draws) - torch.logsumexp(log_weights, dim=0).mean()}
