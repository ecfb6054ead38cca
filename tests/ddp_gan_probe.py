"""Run by test_ddp.py, once or as two ranks: trains GANs whose draws are functions of the data, so that ranks draw what one does."""

import os
import sys
from pathlib import Path

import torch
from torch import Tensor

from genlab.adversarial import penalties
from genlab.config import preflight
from genlab.paradigms.gan import GAN
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


def latents(self: GAN, x: Tensor) -> Tensor:
    directions = torch.randn(64, self.latent, generator=torch.Generator().manual_seed(0))
    return x.flatten(1) @ directions / x.flatten(1).norm(dim=1, keepdim=True)


def between(seen: penalties.Round) -> Tensor:
    u = seen.x.detach().mean((1, 2, 3), keepdim=True).sigmoid()
    return (u * seen.x + (1 - u) * seen.fake).detach().requires_grad_()


GAN._latents, penalties.between = latents, between  # type: ignore[method-assign]

if __name__ == "__main__":
    folder, devices = Path(sys.argv[1]), sys.argv[2]
    rate = ["optimizer.algorithm._target_=torch.optim.SGD", "~optimizer.algorithm.betas", "optimizer.lr=0.02"]
    for name, choices in GANS.items():
        config = preflight("train", [*choices, *SMALL, *rate, "trainer=ddp", f"trainer.devices={devices}"])
        train(config, folder / name)
    os._exit(0)  # without waiting for a peer at the end
