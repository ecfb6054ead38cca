"""A classifier of noisy x: no generative model, but what guides one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.gaussian.denoiser import Embedding
from genlab.gaussian.path import GaussianPath
from genlab.gaussian.times import Times
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream


class NoisyClassifier(GenerativeModule):
    """log p(y | x_t) of x_t = α_t x + σ_t ε at every t ~ p(t), by cross-entropy; its input is x_t/√(α² + σ²).

    Dhariwal & Nichol 2021, arXiv:2105.05233, section 4 and appendix H, where α² + σ² = 1. Raises GenlabError for data
    without labels, and where it is asked for samples.
    """

    averaged = ("network",)
    judged_by = "accuracy"

    def __init__(self, *, network: nn.Module, path: GaussianPath, embedding: Embedding, times: Times, **common):
        super().__init__(**common)
        if not self.classes:
            raise GenlabError("a classifier needs data with labels: model.classes=K is their number")
        times.check(path)
        self.network, self.path, self.embedding, self.times = network, path, embedding, times

    def log_posterior(self, x_t: Tensor, t: Tensor) -> Tensor:
        """(B, K) log p(y | x_t) at time t, () or (B,)."""
        p = self.path(t, x_t.ndim)
        weight = next(self.network.parameters(), x_t)
        noise = self.embedding(p).reshape(-1).to(x_t.device, weight.dtype).expand(len(x_t))
        x_in = x_t * (p.alpha**2 + p.sigma**2).rsqrt()
        return self.network(x_in.to(weight.dtype), noise).to(x_t.dtype).log_softmax(1)

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        if y is None:
            raise GenlabError("a classifier needs data with labels, and these have none")
        t = self.times(len(x), x.device)
        p = self.path(t, x.ndim)
        log_p = self.log_posterior(p.alpha * x + p.sigma * torch.randn_like(x), t)
        losses = F.nll_loss(log_p, y, reduction="none")
        if self.training:
            self.times.observe(t, losses.detach())
        loss = (self.times.correction(t) * losses).mean()
        return {"loss": loss, "accuracy": (log_p.argmax(1) == y).float().mean()}

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        raise GenlabError(
            "this run is a classifier and draws no samples: it guides those of another run, with guidance=classifier "
            "guidance.classifier.run=THIS"
        )
