"""A density of the codes of data, fitted when the model is trained, to draw latents from in the prior's place."""

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor

from genlab.data.loader import select
from genlab.data.source import Source
from genlab.errors import GenlabError
from genlab.latents import encoded
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream

MOST = 4096  # latents, whose covariance is of 128 MiB


class ExPost:
    """A mixture of `components` Gaussians with full covariances, fitted to the codes of the first `images` training images.

    Ghosh et al. 2020, arXiv:1903.12436, section 4. It is a choice of sampling: log_prob stays that of the prior.
    """

    needs = "draw"
    steps = 1

    def __init__(self, source: Source, components: int, images: int, seed: int):
        if not 1 <= components <= images:
            raise GenlabError(f"sampler.components={components}: from 1 to sampler.images={images} are needed")
        self.source, self.components, self.images, self.seed = source, components, images, seed
        self.fitted_at: int | None = None  # images seen by the model as it was fitted

    def check(self, latent: int, classes: int) -> None:
        """Raise GenlabError for a conditional model, and for one with too many latents for covariances of all of them."""
        if classes:
            raise GenlabError(
                "sampler=ex_post: the codes of a conditional model leave its label out: set model.classes=0"
            )
        if latent > MOST:
            raise GenlabError(f"sampler=ex_post has a covariance of all {latent} latents: at most {MOST} are possible")

    def sample(self, module: GenerativeModule, noise: NoiseStream, n: int) -> Tensor:
        """(n, latent)."""
        self.prepare(module)
        eps, u = noise.normal((n, self.means.shape[1])), noise.uniform((n, 1))
        k = (u > self.levels.to(u.device)).sum(1).clamp(max=self.components - 1)
        return self.means.to(eps)[k] + (self.factors.to(eps)[k] @ eps[:, :, None])[:, :, 0]

    def prepare(self, module: GenerativeModule) -> None:
        """Fit where the model has moved since."""
        if self.fitted_at != module.images_seen:
            self.fit(self.codes(module))
            self.fitted_at = module.images_seen

    def codes(self, module: GenerativeModule) -> Tensor:
        """(images, latent)."""
        data = self.source.split("train")
        return encoded(module, select(data, torch.arange(min(self.images, len(data.x)))))

    def fit(self, codes: Tensor) -> None:
        """The mixture of codes (N, latent)."""
        z = codes.flatten(1).cpu().double().numpy()
        if len(z) < self.components or not np.isfinite(z).all():
            raise GenlabError(
                f"no mixture of {self.components} can be fitted to {len(z)} codes, or they are not finite"
            )
        mixture = GaussianMixture(self.components, reg_covar=1e-6, random_state=self.seed).fit(z)
        self.levels = torch.from_numpy(mixture.weights_).cumsum(0)
        self.means = torch.from_numpy(mixture.means_)
        self.factors = torch.linalg.cholesky(torch.from_numpy(mixture.covariances_))
