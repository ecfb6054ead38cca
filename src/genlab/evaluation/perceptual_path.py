"""Perceptual path length: how unevenly images change along a walk through latent space."""

import torch
import torch.nn.functional as F
from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.features import Features
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key


class PerceptualPath:
    """`ppl_<name>` = E ‖f(G(z_t)) − f(G(z_{t+ε}))‖²/ε², z_t = slerp(z₀, z₁; t), t ~ U(0, 1), f being the extractor's features
    (Karras et al. 2019, 1812.04948, eq. 2, with these in place of LPIPS, so that the numbers are not theirs).

    Pairs outside of the 1st and 99th percentile are left out, as in the paper's code, and images are clamped to 0..255 but
    not rounded, which would leave nothing of ε. Labels of a conditional model are drawn with the latents. Raises GenlabError
    for a model without latents; of an ODE both images of a pair are made in the same steps.
    """

    def __init__(self, features: Features, n: int = 10_000, batch: int = 100, eps: float = 1e-4):
        self.features, self.n, self.batch, self.eps = features, n, batch, eps
        self.key = f"ppl_{features.name}"
        self.better = {self.key: "lower"}

    @torch.no_grad()
    def __call__(self, module: GenerativeModule, real: Tensor, noise: NoiseStream) -> dict[str, tuple[float, float]]:
        """The value and its standard error over the pairs; real data are not looked at."""
        module.eval()
        parts = []
        for start in range(0, self.n, self.batch):
            stream = NoiseStream(key(noise.key, "path"), start, module.device)
            parts.append(self._lengths(module, stream, min(self.batch, self.n - start)))
        lengths = torch.cat(parts)  # (n,)
        if not lengths.isfinite().all():
            raise GenlabError(f"{self.key}: the model's images give features that are nan or inf")
        low, high = (lengths.quantile(q, interpolation=how) for q, how in ((0.01, "lower"), (0.99, "higher")))
        kept = lengths[(low <= lengths) & (lengths <= high)]
        return {self.key: (kept.mean().item(), (kept.std() / len(kept) ** 0.5).item())}

    def _lengths(self, module: GenerativeModule, noise: NoiseStream, n: int) -> Tensor:
        """‖f(G(z_t)) − f(G(z_{t+ε}))‖²/ε² of n pairs: (n,) float64."""
        a, b = (module.latents(noise, n).double() for _ in range(2))
        t, y = noise.uniform((n, 1)).double(), module.labels(noise, n, None)  # (n, 1), (n,)
        shape, (a, b) = a.shape, (a.flatten(1), b.flatten(1))
        pair = torch.cat([_arc(a, b, t + shift) for shift in (0.0, self.eps)]).float()  # (2n, D)
        x = module.render(pair.unflatten(1, shape[1:]), None if y is None else y.repeat(2))
        features = self.features.to(module.device)  # which nobody else has brought there
        seen = [features(image).features.double() for image in module.codec.grey(x).chunk(2)]
        return ((seen[0] - seen[1]).square().sum(1) / self.eps**2).cpu()


def _arc(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Of each row its own fraction t (n, 1) of the arc from a to b (n, D), as interpolation.slerp has it."""
    angle = F.cosine_similarity(a, b).clamp(-1 + 1e-12, 1 - 1e-12).acos()[:, None]  # (n, 1)
    return (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()
