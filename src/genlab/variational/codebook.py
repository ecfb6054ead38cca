"""Codebooks of vectors that follow what is nearest to them, without a gradient."""

import torch
from torch import Tensor, nn

from genlab.distributed import share, total, world
from genlab.errors import GenlabError


class Codebook(nn.Module):
    """K vectors e_k in R^D at the running means of what is nearest: e_k = m_k/N̂_k with N_k ← γ N_k + (1 - γ) n_k and
    m_k ← γ m_k + (1 - γ) Σ z, of a batch in which n_k vectors z are nearest to e_k.

    van den Oord et al. 2017, arXiv:1711.00937, appendix A.1; N̂ = (N + ε)/(ΣN + Kε) · ΣN as in its published code. A code
    that is used `revive` times as much as a uniform one, or less, is put on a random z; so are all of them at first. Counts
    and sums are those of all ranks. Raises GenlabError for fewer than 2 codes, no dimension, or a γ outside of [0, 1).
    """

    vectors: Tensor  # (K, D)
    counts: Tensor  # (K,) N_k
    sums: Tensor  # (K, D) m_k

    def __init__(self, size: int, dim: int, decay: float, revive: float, eps: float = 1e-5):
        super().__init__()
        if size < 2:
            raise GenlabError(f"model.codebook.size={size}: at least 2 codes are needed to tell anything")
        if dim < 1:
            raise GenlabError(f"model.codebook.dim={dim}: a code has at least 1 dimension")
        if not 0 <= decay < 1 or not 0 <= revive < 1:
            raise GenlabError(f"model.codebook: decay={decay} and revive={revive} are shares, 0 or more and below 1")
        self.size, self.decay, self.revive_below, self.eps = size, decay, revive, eps
        self._seen: Tensor | None = None  # n_k beside Σ z (K, 1 + D) of the batch
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("sums", torch.zeros(size, dim))

    def forward(self, index: Tensor) -> Tensor:
        """The vectors (B, D, ...) of codes (B, ...) int64."""
        return self.vectors[index].movedim(-1, 1)

    def nearest(self, z: Tensor) -> Tensor:
        """(B, ...) int64: the codes argmin_k ‖z - e_k‖ of z (B, D, ...), in float32 whatever the precision of training."""
        with torch.autocast(z.device.type, enabled=False):
            flat = _rows(z)
            # ‖z‖² is the same for all codes
            distance = torch.addmm(self.vectors.square().sum(1), flat, self.vectors.T, alpha=-2)  # (N, K)
        return distance.argmin(1).reshape(len(z), *z.shape[2:])

    @torch.no_grad()
    def revive(self, z: Tensor) -> None:
        """Put each code that is hardly used on one of the vectors of z (B, D, ...), as used as a uniform one would be.

        Nothing happens in the middle of a batch.
        """
        if self._seen is not None:
            return
        dead = self.counts <= self.revive_below * self.counts.mean()  # (K,)
        flat = _rows(z)
        order = torch.randperm(len(flat), device=flat.device)
        chosen = flat[order[torch.arange(self.size, device=flat.device) % len(flat)]]  # (K, D)
        share([chosen])  # each rank has random numbers of its own
        uniform = torch.full_like(self.counts, world() * len(flat) / self.size)
        self.counts.copy_(torch.where(dead, uniform, self.counts))
        self.sums.copy_(torch.where(dead[:, None], uniform[:, None] * chosen, self.sums))
        self.vectors.copy_(torch.where(dead[:, None], chosen, self.vectors))

    @torch.no_grad()
    def observe(self, z: Tensor, index: Tensor) -> None:
        """Count z (B, D, ...) by their codes (B, ...), a part of a batch."""
        flat = _rows(z)
        self._seen = flat.new_zeros(self.size, 1 + flat.shape[1]) if self._seen is None else self._seen
        self._seen.index_add_(0, index.flatten(), torch.cat([torch.ones_like(flat[:, :1]), flat], dim=1))

    @torch.no_grad()
    def follow(self) -> None:
        """Move towards the means of what was observed since the last time."""
        assert self._seen is not None, "observed before"
        batch, self._seen = total(self._seen), None
        self.counts.lerp_(batch[:, 0], 1 - self.decay)
        self.sums.lerp_(batch[:, 1:], 1 - self.decay)
        every = self.counts.sum()
        smoothed = (self.counts + self.eps) / (every + self.size * self.eps) * every
        self.vectors.copy_(self.sums / smoothed[:, None])


def perplexity(counts: Tensor) -> Tensor:
    """exp H(p), p_k = n_k/Σn, of counts (K,): K where all are used alike, 1 where one is."""
    p = counts / counts.sum()
    return torch.special.entr(p).sum().exp()


def _rows(z: Tensor) -> Tensor:
    """(B, D, ...) -> (N, D) float32."""
    return z.detach().movedim(1, -1).flatten(0, -2).float()
