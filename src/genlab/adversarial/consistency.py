"""Penalties on values of the critic, not on its slope: consistency under augmentation, and LeCam's running means."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genlab.adversarial.objectives import Objective
from genlab.adversarial.penalties import Penalty, Round, nonnegative
from genlab.distributed import total
from genlab.errors import GenlabError


class Consistency(Penalty):
    """real · E (D(x) - D(T(x)))² + fake · E (D(G) - D(T(G)))², T a random change that keeps what an image shows.

    Balanced consistency, bCR: Zhao et al. 2020, arXiv:2002.04724, algorithm 1.
    """

    def __init__(self, change: Callable[[Tensor], Tensor], real: float, fake: float):
        super().__init__()
        nonnegative(real=real, fake=fake)
        self.change, self.real, self.fake = change, real, fake

    def check(self, objective: Objective, shape: Sequence[int]) -> None:
        if len(shape) != 3:
            raise GenlabError(
                "penalty=consistency changes images, and these data are none: take penalty=latent_consistency or r1"
            )

    def critic(self, seen: Round) -> Tensor:
        assert seen.real_value is not None, "the critic's turn"
        real = seen.real_value - seen.critic(self._changed(seen, seen.x), seen.y)
        fake = seen.fake_value - seen.critic(self._changed(seen, seen.fake), seen.y)
        return self.real * real.square().mean() + self.fake * fake.square().mean()

    def _changed(self, seen: Round, x: Tensor) -> Tensor:
        """T of each image of a pack by itself."""
        images = x.detach().reshape(-1, x.shape[1] // seen.packing, *x.shape[2:])
        return self.change(images).reshape(x.shape)


class LatentConsistency(Penalty):
    """Critic: weight · E (D(G(z)) - D(G(z + δ)))²; generator: -apart · E ‖G(z) - G(z + δ)‖²; δ ~ N(0, std²).

    zCR: Zhao et al. 2020, arXiv:2002.04724, algorithm 2; the square distance is a mean over the image's numbers.
    """

    def __init__(self, weight: float, apart: float, std: float):
        super().__init__()
        nonnegative(weight=weight, apart=apart, std=std)
        self.weight, self.apart, self.std = weight, apart, std

    def moved(self, seen: Round) -> Tensor:
        return seen.generator(seen.z + self.std * torch.randn_like(seen.z))

    def critic(self, seen: Round) -> Tensor:
        with torch.no_grad():
            moved = self.moved(seen)
        return self.weight * (seen.fake_value - seen.critic(moved, seen.y)).square().mean()

    def generator(self, seen: Round) -> Tensor:
        return -self.apart * (seen.fake - self.moved(seen)).square().mean()


class LeCam(Penalty):
    """weight · (E (D(x) - α_F)₊² + E (α_R - D(G))₊²), α running means of D(x) and D(G) without the bias of their start.

    They are of what all ranks see, and each part of an accumulated batch counts as a batch. Tseng et al. 2021, arXiv:2104.03310, section 3, one-sided as in its code; nothing in the first `start` batches.
    """

    means: Tensor
    batches: Tensor

    def __init__(self, weight: float, decay: float, start: int):
        super().__init__()
        nonnegative(weight=weight, start=start)
        if not 0 <= decay < 1:
            raise GenlabError(f"penalty decay={decay}: from 0 to below 1, it is what a batch leaves of the means")
        self.weight, self.decay, self.start = weight, decay, start
        self.register_buffer("means", torch.zeros(2))  # of D(x) and D(G)
        self.register_buffer("batches", torch.zeros(()))

    def check(self, objective: Objective, shape: Sequence[int]) -> None:
        if objective.paired:
            raise GenlabError(
                f"LeCam holds values of the critic, and {type(objective).__name__} sees their differences alone: "
                "choose another objective, or penalty=r1_r2"
            )

    def critic(self, seen: Round) -> Tensor:
        real, fake = seen.real_value, seen.fake_value
        assert real is not None, "the critic's turn"
        if self.training:
            sums = total(torch.stack([real.sum(), fake.sum(), real.new_tensor(len(real))]).detach())
            self.means.lerp_((sums[:2] / sums[2]).to(self.means), 1 - self.decay)
            self.batches.add_(1)
        if self.training and seen.turn < self.start:
            return seen.x.new_zeros(())
        alpha_real, alpha_fake = self.means / (1 - self.decay**self.batches).clamp_min(1e-12)
        return self.weight * ((real - alpha_fake).relu().square() + (alpha_real - fake).relu().square()).mean()
