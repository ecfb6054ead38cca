"""The likelihood of PixelCNN++: mixtures of discretized logistics whose channels follow each other."""

import math

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.likelihood_heads import LOG_S_MIN, Head, check_lattice, half_bin, log_mass


class MixtureOfLogistics(Head):
    """Σ_k π_k Π_c P(x_c | μ_kc + Σ_{j<c} tanh(a_kcj) x_j, s_kc), each P a DiscretizedLogistic: one k for all channels of a
    pixel, whose means follow the channels before.

    Salimans et al. 2017, arXiv:1701.05517, eq. 2 and 3. Parameters: π, then μ, log s and a of each component.
    """

    def __init__(self, levels: int, components: int):
        super().__init__()
        if components < 1:
            raise GenlabError(f"a mixture of {components} logistics: at least 1 is needed")
        self.levels, self.delta, self.components = levels, half_bin(levels), components

    def outputs(self, channels: int) -> int:
        return self.components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        logits, mu, log_s, a = self._split(parameters, x.shape[1])
        shifts = [self._shift(a, c, [x[:, None, j] for j in range(c)]) for c in range(x.shape[1])]
        mu = mu + torch.stack([torch.zeros_like(mu[:, :, 0]) + shift for shift in shifts], dim=2)
        log_p = log_mass(x[:, None], mu, log_s, self.delta).sum(2)  # (B, K, ...)
        return torch.logsumexp(logits.log_softmax(1) + log_p, dim=1).flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x], but for what the bins at the ends hold."""
        logits, mu, _, a = self._split(parameters, self._channels(parameters))
        means: list[Tensor] = []  # (B, K, ...) of each channel
        for c in range(mu.shape[2]):
            means.append((mu[:, :, c] + self._shift(a, c, means)).clamp(-1, 1))
        return (logits.softmax(1)[:, :, None] * torch.stack(means, dim=2)).sum(1)

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        """On the lattice; k and the first channel share a number, whose place within the share of k is U(0, 1) again."""
        logits, mu, log_s, a = self._split(parameters, u.shape[1])
        upper = logits.softmax(1).cumsum(1)  # (B, K, ...)
        k = (u[:, :1] > upper).sum(1, keepdim=True).clamp(max=self.components - 1)  # (B, 1, ...)
        share = logits.softmax(1).gather(1, k)
        within = ((u[:, :1] - (upper.gather(1, k) - share)) / share).clamp(1e-6, 1 - 1e-6)
        u = torch.cat([within, u[:, 1:]], dim=1)
        mu, log_s, a = (_picked(part, k) for part in (mu, log_s, a))
        x: list[Tensor] = []  # (B, 1, ...) of each channel
        for c in range(u.shape[1]):
            logistic = log_s[:, :, c].clamp(min=LOG_S_MIN).exp() * torch.logit(u[:, c : c + 1])
            drawn = (mu[:, :, c] + self._shift(a, c, x) + logistic).clamp(-1, 1)
            x.append(((drawn + 1) / (2 * self.delta)).round() * (2 * self.delta) - 1)
        return torch.cat(x, dim=1)

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        """π^(1/T), normalized when it is drawn from, and T s."""
        channels = self._channels(parameters)
        logits, rest = parameters[:, : self.components], parameters[:, self.components :]
        rest = rest.unflatten(1, (self.components, -1))
        mu, log_s, a = rest.split([channels, channels, rest.shape[2] - 2 * channels], dim=2)
        log_s = log_s.clamp(min=LOG_S_MIN) + math.log(temperature)
        return torch.cat([logits / temperature, torch.cat([mu, log_s, a], dim=2).flatten(1, 2)], dim=1)

    def check(self, x: Tensor) -> None:
        check_lattice(x, self.levels)

    def _channels(self, parameters: Tensor) -> int:
        return next(c for c in range(1, parameters.shape[1] + 1) if self.outputs(c) >= parameters.shape[1])

    def _split(self, parameters: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (B, K, ...); μ, log s (B, K, C, ...) and tanh of the coefficients (B, K, C (C - 1)/2, ...)."""
        logits, rest = parameters[:, : self.components], parameters[:, self.components :]
        rest = rest.unflatten(1, (self.components, -1))
        mu, log_s, a = rest.split([channels, channels, rest.shape[2] - 2 * channels], dim=2)
        return logits, mu, log_s, a.tanh()

    @staticmethod
    def _shift(a: Tensor, c: int, before: list[Tensor]) -> Tensor | float:
        """Σ_{j<c} a_cj x_j of the channels before c, whose coefficients begin at c (c - 1)/2."""
        first = c * (c - 1) // 2
        return sum((a[:, :, first + j] * x for j, x in enumerate(before[:c])), 0.0)


def _picked(part: Tensor, k: Tensor) -> Tensor:
    """(B, 1, C, ...), of (B, K, C, ...) the component k (B, 1, ...) of each place."""
    index = k[:, :, None].expand(-1, -1, part.shape[2], *part.shape[3:])
    return part.gather(1, index)
