"""The law p(t) of training times: uniform numbers u in (0, 1), drawn one way or another, through a quantile function."""

import abc

import torch
from torch import Tensor, distributed, nn

from genlab.distributed import world
from genlab.errors import GenlabError
from genlab.gaussian.path import GaussianPath, Karras


class Independent:
    """u_i ~ U(0, 1), each on its own."""

    def __call__(self, n: int, device: torch.device) -> Tensor:
        return torch.rand(n, device=device)


class Antithetic:
    """The second half is 1 - u of the first: the pairs t, T + 1 - t of DDIM's code (Song et al. 2021, arXiv:2010.02502)."""

    def __call__(self, n: int, device: torch.device) -> Tensor:
        u = torch.rand(n - n // 2, device=device)
        return torch.cat([u, 1 - u])[:n]


class LowDiscrepancy:
    """u_i = (u + i/n) mod 1 with one u ~ U(0, 1) (Kingma et al. 2021, arXiv:2107.00630, appendix I.1)."""

    def __call__(self, n: int, device: torch.device) -> Tensor:
        return (torch.rand(1, device=device) + torch.arange(n, device=device) / n) % 1


class Times(nn.Module, abc.ABC):
    """t ~ p(t) for a batch; a law that prefers some times over others corrects the loss of each by 1/p."""

    def __init__(self, draw: Independent | Antithetic | LowDiscrepancy | None = None):
        super().__init__()
        self.draw = draw or Independent()

    @abc.abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """t of u in (0, 1)."""

    def forward(self, n: int, device: torch.device) -> Tensor:
        """(n,) times."""
        return self.quantile(self.draw(n, device))

    def check(self, path: GaussianPath) -> None:
        """Raise GenlabError where the law leaves the path, or ends below a tenth of it."""
        t = self.quantile(torch.tensor([1e-6, 0.5, 1 - 1e-6], dtype=torch.float64))
        low, high = t[0].item(), t[-1].item()
        if path.twin is not None:
            fits, law = low >= 1 and high <= path.t_max and torch.equal(t, t.round()), "Steps"
        elif isinstance(path, Karras):  # where a law of noise levels has no end
            fits, law = low >= 0, "LogNormal"
        else:
            fits, law = low >= 0 and high <= 1.01 * path.t_max, "Uniform"  # Cosine stops a little before 1
        if not fits or high < 0.1 * path.t_max:
            raise GenlabError(
                f"the times {type(self).__name__}, from {low:g} to {high:g}, do not fit the {type(path).__name__} path, "
                f"where t is {'from 0' if path.twin is None else 'a whole number from 1'} to {path.t_max:g}: "
                f"use model.times._target_=genlab.gaussian.times.{law} and its keys"
            )

    def correction(self, t: Tensor) -> Tensor | float:
        """(B,) factor of the losses, so that their mean is that of another law."""
        return 1.0

    def observe(self, t: Tensor, losses: Tensor) -> None:
        """Learn from the (B,) losses at the times t, without gradient."""


class Uniform(Times):
    """t ~ U[t_min, t_max]; t_min keeps a division by σ(t) finite."""

    def __init__(self, t_min: float = 0.0, t_max: float = 1.0, draw=None):
        super().__init__(draw)
        self.t_min, self.t_max = t_min, t_max

    def quantile(self, u: Tensor) -> Tensor:
        return self.t_min + (self.t_max - self.t_min) * u


class Steps(Times):
    """t ~ U{1, ..., steps}, the steps of a discrete path."""

    def __init__(self, steps: int, draw=None):
        super().__init__(draw)
        self.steps = steps

    def quantile(self, u: Tensor) -> Tensor:
        return (u * self.steps).floor().clamp(max=self.steps - 1) + 1  # u rounds to 1 now and then


class LossSecondMoment(Times):
    """t ~ p_t ∝ √E[L_t²] over the last `history` losses at each of the steps 1, ..., T; corrected by 1/(T p_t).

    Uniform until every step has its history, and with probability `uniform_prob` afterwards. The losses of all ranks
    are gathered. Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 18; `uniform_prob` is of their published code.
    """

    losses: Tensor
    count: Tensor

    def __init__(self, steps: int, history: int = 10, uniform_prob: float = 0.001, draw=None):
        super().__init__(draw)
        self.steps, self.history, self.uniform_prob = steps, history, uniform_prob
        self.register_buffer("losses", torch.zeros(steps, history, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(steps, dtype=torch.int64))

    def probabilities(self) -> Tensor:
        """(T,) float64."""
        root = self.losses.square().mean(1).sqrt()
        preferred = (1 - self.uniform_prob) * root / root.sum() + self.uniform_prob / self.steps
        ready = (self.count >= self.history).all() & (root.sum() > 0)
        return torch.where(ready, preferred, 1 / self.steps)

    def quantile(self, u: Tensor) -> Tensor:
        index = torch.searchsorted(self.probabilities().cumsum(0), u.double(), right=True)
        return index.clamp(max=self.steps - 1).to(u.dtype) + 1  # the sum of all may round to less than 1

    def correction(self, t: Tensor) -> Tensor:
        return (1 / (self.steps * self.probabilities()[t.long() - 1])).to(t.dtype)

    def observe(self, t: Tensor, losses: Tensor) -> None:
        index, losses = _gathered(t).long() - 1, _gathered(losses.double())
        index, order = index.sort(stable=True)
        times_seen = torch.bincount(index, minlength=self.steps)
        occurrence = torch.arange(len(index), device=index.device) - torch.searchsorted(index, index)
        latest = occurrence >= times_seen[index] - self.history  # no slot of a step is written twice
        slot = (self.count[index] + occurrence) % self.history
        self.losses[index[latest], slot[latest]] = losses[order][latest]
        self.count += times_seen


def _gathered(values: Tensor) -> Tensor:
    """The (B,) values of all ranks, in the order of the ranks; every rank has as many."""
    if world() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(world())]
    distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)


class LogNormal(Times):
    """ln t ~ N(mean, std²), where time is the noise level (Karras et al. 2022, arXiv:2206.00364, table 1)."""

    def __init__(self, mean: float, std: float, draw=None):
        super().__init__(draw)
        self.mean, self.std = mean, std

    def quantile(self, u: Tensor) -> Tensor:
        return (self.mean + self.std * _normal(u)).exp()


class LogitNormal(Times):
    """ln(t/(1 - t)) ~ N(mean, std²) (Esser et al. 2024, arXiv:2403.03206, eq. 19); on the Linear path t/(1 - t) = σ/α."""

    def __init__(self, mean: float, std: float, draw=None):
        super().__init__(draw)
        self.mean, self.std = mean, std

    def quantile(self, u: Tensor) -> Tensor:
        return (self.mean + self.std * _normal(u)).sigmoid()


def _normal(u: Tensor) -> Tensor:
    return torch.special.ndtri(u.clamp(2**-25, 1 - 2**-24))  # float32 may draw 0, and 1 - u may be 1
