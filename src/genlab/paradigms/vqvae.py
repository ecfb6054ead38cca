"""Vector-quantized autoencoders."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream
from genlab.variational.codebook import Codebook, perplexity


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    """e, whose gradient is that of z (van den Oord et al. 2017, section 3.2)."""
    return z + (e - z).detach()


class VQVAE(GenerativeModule):
    """‖x - D(e)‖²/v + β ‖z - sg[e]‖², z = E(x), e the nearest vectors of a codebook that follows z; means over dimensions.

    van den Oord et al. 2017, arXiv:1711.00937, eq. 3, with v the variance of the data in the published code. It has no
    prior: `sample` draws each code by itself, by how often it is used, which makes no pictures. So it is judged by its
    reconstructions, and is there for others to be trained on what it makes (`codec=codes`, `codec=latent`). Of several
    `slots`, codes of a place (section 3.2), the maps (h, w) stand one above the other. Raises GenlabError for labels,
    which are left to these.
    """

    averaged = ("encoder", "decoder", "codebook")
    judged_by = "reconstruction"
    reconstructs = True

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        codebook: Codebook,
        latent_shape: Sequence[int],
        beta: float,
        variance: float,
        slots: int = 1,
        **common: Any,
    ):
        super().__init__(**common)
        if self.classes:
            raise GenlabError("an autoencoder takes no labels, what is trained on its codes does: set model.classes=0")
        if not (variance > 0 and beta >= 0):
            raise GenlabError(f"model.variance={variance} must be above 0, and model.beta={beta} 0 or more")
        if slots < 1:
            raise GenlabError(f"model.slots={slots}: a place has at least 1 code")
        self.encoder, self.decoder, self.codebook, self.slots = encoder, decoder, codebook, slots
        self.latent_shape, self.beta, self.variance = tuple(latent_shape), beta, variance
        self._used: list[Tensor] = []  # how often each code is, of the batches of a pass over the held-out data

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        z = self.encode(x)
        if self.training:
            self.codebook.revive(z)
        index = self.codebook.nearest(z)
        e = self.codebook(index)
        if self.training:
            self.codebook.observe(z, index)
        reconstruction = (self._decoded(straight_through(z, e)) - x).square().mean()
        commitment = (z - e).square().mean()
        return {
            "loss": reconstruction / self.variance + self.beta * commitment,
            "reconstruction": reconstruction,
            "commitment": commitment,
            "perplexity": perplexity(self.codebook.counts),  # of about the last 1/(1 - γ) batches
        }

    def fit_batch(self, batch: Batch) -> dict[str, Tensor]:
        terms = super().fit_batch(batch)
        self.codebook.follow()
        return terms

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        terms = super().validation_step(batch, batch_idx)
        index = self.codes(self.codec.encode(batch.x))
        self._used.append(torch.bincount(index.flatten(), minlength=self.codebook.size))
        return {name: term for name, term in terms.items() if name != "perplexity"}

    def validated(self) -> dict[str, Tensor]:
        """The perplexity of the codes of the pass that ended, and the share of them that it used at all."""
        used, self._used = torch.stack(self._used).sum(0), []
        return {"perplexity": perplexity(used), "used": (used > 0).float().mean()}

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        frequencies = self.codebook.counts.cumsum(0) / self.codebook.counts.sum()
        index = torch.searchsorted(frequencies, noise.uniform((n, *self.latent_shape[1:])).contiguous())
        return self.render_codes(index.clamp(max=self.codebook.size - 1))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """E(x) (B, D, slots · h, w), which `render` quantizes."""
        z = self.encoder(x)  # (B, slots · D, h, w)
        z = z.unflatten(1, (self.slots, -1)).transpose(1, 2).flatten(2, 3)
        if z.shape[1:] != self.latent_shape:
            raise GenlabError(f"the encoder makes {tuple(z.shape[1:])}, and model.latent_shape is {self.latent_shape}")
        return z

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """D of the vectors nearest to z."""
        return self.render_codes(self.codebook.nearest(z))

    def codes(self, x: Tensor) -> Tensor:
        """(B, slots · h, w) int64 codes of x in model space."""
        return self.codebook.nearest(self.encode(x))

    def render_codes(self, index: Tensor) -> Tensor:
        """x in model space of codes (B, slots · h, w)."""
        return self._decoded(self.codebook(index))

    def _decoded(self, e: Tensor) -> Tensor:
        """x in model space of vectors (B, D, slots · h, w)."""
        return self.decoder(e.unflatten(2, (self.slots, -1)).transpose(1, 2).flatten(1, 2))
