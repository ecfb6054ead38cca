"""Invertible steps z -> z' with a triangular Jacobian, on which a context c has a say."""

import abc

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError

OPEN = 2.0  # so that σ = S(2 + s) begins near 1 and a step near the identity, as Kingma et al. 2016, section 4, advise


class Step(nn.Module, abc.ABC):
    """(z (B, latent), c (B, context)) -> z', (B,) log |∂z'/∂z|; raises GenlabError for sizes that leave nothing to do."""

    def __init__(self, latent: int, width: int):
        super().__init__()
        if latent < 2:
            raise GenlabError(f"a flow on {latent} latent has nothing to condition on: set model.latent=2 or more")
        if width < latent:
            raise GenlabError(f"a flow of width {width} cannot see all of {latent} latents: make it as wide at least")

    @abc.abstractmethod
    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]: ...

    @abc.abstractmethod
    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        """The z that `forward` brings here."""


class Masked(nn.Linear):
    """y = (W ∘ M) x + b, where M allows output i to see input j if its degree allows it."""

    mask: Tensor

    def __init__(self, mask: Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight * self.mask, self.bias)


class Autoregressive(Step):
    """z'_i = σ_i z_i + (1 - σ_i) m_i, (m_i, σ_i) a function of z_1, ..., z_{i-1} and c: one pass there, `latent` back.

    Kingma et al. 2016, arXiv:1606.04934, eq. 10 and 14, its functions a MADE (Germain et al. 2015, arXiv:1502.03509).
    """

    def __init__(self, latent: int, context: int, width: int):
        super().__init__(latent, width)
        inputs, hidden = torch.arange(latent), torch.arange(width) % latent  # unit h sees the inputs below its degree
        self.first = Masked((inputs < hidden[:, None]).float())
        self.context = nn.Linear(context, width)
        self.second = Masked((hidden <= hidden[:, None]).float())
        self.last = Masked((hidden <= inputs[:, None]).float().repeat(2, 1))

    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self._functions(z, c)
        sigma = s.sigmoid()
        return sigma * z + (1 - sigma) * m, F.logsigmoid(s).sum(1)

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        found = torch.zeros_like(z)
        for i in range(z.shape[1]):
            m, s = self._functions(found, c)
            sigma = s[:, i].sigmoid()
            column = (z[:, i] - (1 - sigma) * m[:, i]) / sigma
            found = torch.cat([found[:, :i], column[:, None], found[:, i + 1 :]], dim=1)
        return found

    def _functions(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h = F.silu(self.first(z) + self.context(c))
        m, s = self.last(F.silu(self.second(h))).chunk(2, dim=1)
        return m, s + OPEN


class Coupling(Step):
    """z'_a = z_a, z'_b = σ z_b + m, (m, σ) a function of z_a and c: one pass there, one back.

    Dinh et al. 2017, arXiv:1605.08803, eq. 4 and 5.
    """

    def __init__(self, latent: int, context: int, width: int):
        super().__init__(latent, width)
        self.kept = latent // 2
        self.network = nn.Sequential(
            nn.Linear(self.kept + context, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2 * (latent - self.kept)),
        )

    def forward(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self._functions(z, c)
        return torch.cat([z[:, : self.kept], s.sigmoid() * z[:, self.kept :] + m], dim=1), F.logsigmoid(s).sum(1)

    def inverse(self, z: Tensor, c: Tensor) -> Tensor:
        m, s = self._functions(z, c)
        return torch.cat([z[:, : self.kept], (z[:, self.kept :] - m) / s.sigmoid()], dim=1)

    def _functions(self, z: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.network(torch.cat([z[:, : self.kept], c], dim=1)).chunk(2, dim=1)
        return m, s + OPEN
