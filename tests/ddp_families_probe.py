"""Run by test_ddp.py, once or as two ranks: trains families whose draws are functions of the data, so that ranks draw what one
does."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genlab.adversarial import penalties
from genlab.codec import Pixels
from genlab.config import preflight
from genlab.paradigms.gan import GAN
from genlab.paradigms.hvae import HVAE
from genlab.paradigms.vae import VAE
from genlab.training import train

SMALL = ["trainer.batch=16", "trainer.max_images=128", "trainer.log_every=16", "evaluation.n=0", "logger=none"]
SMALL += ["trainer.accelerator=cpu", "trainer.sample_every=0", "trainer.validate_every=0", "trainer.checkpoint_every=0"]
ADA = ["critic_augment=ada", "critic_augment.every=2", "critic_augment.target=-2"]  # p rises at every move,
ADA += ["critic_augment.images=1000000000"]  # by too little to change an image
GANS = {
    "dcgan": ["experiment=digits/dcgan", "trainer.sync_batchnorm=true", *ADA, "penalty=r1_lecam"],
    "wgan_gp": ["experiment=digits/wgan_gp", "trainer.sync_batchnorm=true", "model.n_critic=3", "trainer.accumulate=2"],
    "norms": ["experiment=digits/wgan_gp", "model.n_critic=2"],  # batch norm of each rank's own
}
OTHERS = {
    "vae": ["experiment=digits/vae"],
    "hvae": ["experiment=digits/hvae", "trainer.accumulate=2"],
    "glow": ["experiment=digits/glow", "network.depth=2"],  # begun by the first batch, of all ranks
    "transformer": ["experiment=digits/transformer", "network.dropout=0"],
}


def latents(self: GAN, x: Tensor) -> Tensor:
    directions = torch.randn(64, self.latent, generator=torch.Generator().manual_seed(0))
    return x.flatten(1) @ directions / x.flatten(1).norm(dim=1, keepdim=True)


def noise(self: Any, x: Tensor) -> Tensor:
    width = sum(getattr(self, "levels", ())) or self.latent
    directions = torch.randn(x[0].numel(), width, generator=torch.Generator().manual_seed(0))
    return x.detach().flatten(1) @ directions / x.detach().flatten(1).norm(dim=1, keepdim=True)


def between(seen: penalties.Round) -> Tensor:
    u = seen.x.detach().mean((1, 2, 3), keepdim=True).sigmoid()
    return (u * seen.x + (1 - u) * seen.fake).detach().requires_grad_()


GAN._latents, penalties.between = latents, between  # type: ignore[method-assign]
VAE._eps = HVAE._eps = noise  # type: ignore[method-assign]
Pixels.spread = lambda self, z: z + (0.5 - z) / self.steps  # type: ignore[method-assign]

if __name__ == "__main__":
    folder, devices, families = Path(sys.argv[1]), sys.argv[2], {"gans": GANS, "others": OTHERS}[sys.argv[3]]
    for name, choices in families.items():
        given = [*choices, *SMALL, "trainer=ddp", f"trainer.devices={devices}"]
        adam = preflight("train", given).optimizer.algorithm
        rate = ["optimizer.algorithm._target_=torch.optim.SGD", f"optimizer.lr={0.02 if name in GANS else 0.002}"]
        rate += [f"~optimizer.algorithm.{key}" for key in adam if not key.startswith("_")]
        train(preflight("train", [*given, *rate]), folder / name)
    os._exit(0)  # without waiting for a peer at the end
