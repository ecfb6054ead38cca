"""The first stage of a two-stage model: an autoencoder of a finished run, frozen, between data and what is trained."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genlab.codec import Codec
from genlab.data.loader import select
from genlab.errors import GenlabError
from genlab.files import write_atomically
from genlab.instantiation import build
from genlab.noise import key
from genlab.recorded import here
from genlab.run import Run
from genlab.scoring import load
from genlab.stages import weights_of

MEASURED, BATCH = 2048, 32  # images of the autoencoder's training data whose latents say their scale


class Frozen:
    """The autoencoder of a run with its averaged weights, which no model that holds it trains, moves or saves.

    `weights` is the sha256 of its checkpoint, `verbs` are what it is to have. Raises GenlabError where the run is gone, has
    other weights by now, is of no autoencoder, or has an autoencoder before its own.
    """

    def __init__(self, run: str | None, weights: str, verbs: Sequence[str]):
        self.path, self.weights, now = Path(run or ""), weights, weights_of(run)
        if now != weights:
            raise GenlabError(
                f"codec.run={run} has other weights than it had (sha256 {now[:12]} and not {weights[:12]}): train this "
                "model again, or bring the checkpoint and its manifest back"
            )
        self.config = here(Run(self.path).config)
        if "run" in self.config["model"]["codec"]:
            raise GenlabError(f"codec.run={run} stands on another run itself: an autoencoder of the data is needed")
        with torch.random.fork_rng(devices=[]):  # building it must not move the random numbers of what is trained
            self.module: Any = load(Run(self.path), self.config, "ema", trust=False)[0].requires_grad_(False)
        if self.module.images_seen != Run(self.path).status["images_seen"]:  # loading took the one before
            raise GenlabError(
                f"codec.run={run}: its last checkpoint is damaged, and another one is another autoencoder"
            )
        missing = [verb for verb in verbs if not hasattr(self.module, verb)]
        if missing:
            name = type(self.module).__name__
            raise GenlabError(f"codec.run={run} is a {name}, which has no {missing[0]}: an autoencoder is needed")

    def on(self, device: torch.device) -> Any:
        """The autoencoder, there."""
        return self.module if self.module.device == device else self.module.to(device)

    def known(self, x: Tensor) -> Tensor:
        """Images (B, *shape) in the autoencoder's model space; raises GenlabError for images of another shape."""
        if x.shape[1:] != self.module.shape:
            raise GenlabError(
                f"the autoencoder {self.path} is of {self.module.shape}, and the data {tuple(x.shape[1:])}"
            )
        return self.module.codec.encode(x)

    @torch.no_grad()
    def deviation(self) -> float:
        """The standard deviation of the latents of its training data, measured once and recorded in its directory
        if that can be written."""
        path = self.path / f"latents-{self.weights[:12]}.json"
        if path.is_file():
            found = json.loads(path.read_text())["deviation"]
        else:
            data = build(self.config["data"]["source"]).split("train")
            rows = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(key("latents")))[:MEASURED]
            encoder = self.on(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            parts = select(data, rows).x.split(BATCH)
            z = torch.cat([encoder.encode(self.known(x.to(encoder.device))).cpu() for x in parts])
            self.module.cpu()
            found = z.std().item()
            with suppress(GenlabError, OSError):  # in another's directory; checkpoints have it too
                write_atomically(path, json.dumps({"deviation": found, "images": len(rows), "split": "train"}))
        if not 0 < found < float("inf"):
            raise GenlabError(f"the latents of {self.path} have the deviation {found}: the autoencoder has collapsed")
        return found


class Latent(Codec):
    """z = E(x)/s and x = D(s z), E(x) the autoencoder's latent, for a KL its mean, s its standard deviation over the data.

    Rombach et al. 2022, arXiv:2112.10752, section 3 and appendix G. s is recorded beside the autoencoder, and in every
    checkpoint of the model. Raises GenlabError as Frozen does.
    """

    log_volume, unbounded = None, True
    scale: Tensor

    def __init__(self, run: str | None, weights: str, shape: Sequence[int]):
        super().__init__()
        self.frozen = Frozen(run, weights, ("latent_shape", "encode", "render"))
        told = self.frozen.module.latent_shape
        if tuple(shape) != told:
            raise GenlabError(f"codec.run={run} makes latents {told}, and codec.shape is {tuple(shape)}")
        self.register_buffer("scale", torch.tensor(self.frozen.deviation()))

    def of_data(self, shape: Sequence[int]) -> tuple[Codec, Sequence[int]]:
        return self.frozen.module.codec, self.frozen.module.shape

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in data space -> (B, *shape) float32, whatever the precision of training."""
        with torch.autocast(x.device.type, enabled=False):
            return self.frozen.on(x.device).encode(self.frozen.known(x)) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        return self.frozen.module.codec.decode(self._rendered(z))

    def grey(self, z: Tensor) -> Tensor:
        return self.frozen.module.codec.grey(self._rendered(z))

    @torch.no_grad()
    def _rendered(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            return self.frozen.on(z.device).render(z.float() * self.scale)


class Codes(Codec):
    """The codes (B, h, w) int64 of a VQ-VAE, 0 ... size - 1, and the images that its decoder makes of them.

    van den Oord et al. 2017, arXiv:1711.00937, section 3.3. Raises GenlabError as Frozen does.
    """

    log_volume, unbounded, whole = None, True, True

    def __init__(self, run: str | None, weights: str, shape: Sequence[int], size: int):
        super().__init__()
        self.size = size
        self.frozen = Frozen(run, weights, ("latent_shape", "codes", "render_codes"))
        told = (*self.frozen.module.latent_shape[1:], self.frozen.module.codebook.size)
        if told != (*shape, size):
            raise GenlabError(f"codec.run={run} makes (h, w) of codes {told}, and codec says {(*shape, size)}")

    def of_data(self, shape: Sequence[int]) -> tuple[Codec, Sequence[int]]:
        return self.frozen.module.codec, self.frozen.module.shape

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in data space -> (B, h, w) int64."""
        with torch.autocast(x.device.type, enabled=False):
            return self.frozen.on(x.device).codes(self.frozen.known(x))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        found = self.frozen.on(z.device)
        with torch.autocast(z.device.type, enabled=False):
            return found.codec.decode(found.render_codes(z))
