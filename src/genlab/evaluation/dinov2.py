"""DINOv2, in whose features FD-DINOv2 is measured (Stein et al. 2023, 2306.04675)."""

import contextlib
import io
import logging
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.evaluation.features import Activations
from genlab.evaluation.precision import exact
from genlab.evaluation.resize import Resize
from genlab.evaluation.weights import Weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as DINOv2 was trained


class DINOv2:
    """The class token after the final layer norm (B, width) of uint8 images (B, 3 or 1, H, W), in float32 whatever the context.

    `config` are the arguments of transformers' Dinov2Config. The positional embeddings are
    interpolated as the authors' own code does, to (S/patch + 0.1)/grid times their side, which differs from
    transformers'. A grey image is three equal channels. Raises GenlabError without transformers and for another file.
    """

    layer = "class token after the final layer norm"

    def __init__(self, name: str, config: dict[str, Any], weights: Weights, resize: Resize):
        self.name, self.fingerprint = name, weights.sha256
        self.resize, self._resize = resize.name, resize
        self.network = _load(name, config, weights)
        _interpolate(self.network, resize.size)
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))

    def to(self, device: torch.device) -> "DINOv2":
        self.network.to(device)
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return self

    def __call__(self, x: Tensor) -> Activations:
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3):
            raise GenlabError(f"{self.name} sees uint8 images of 3 channels or 1, not {x.dtype} {tuple(x.shape[1:])}")
        with exact(x.device):
            x = self._resize(x).expand(-1, 3, -1, -1) / 255
            return Activations(self.network((x - self.mean) / self.std).pooler_output)


def _load(name: str, config: dict[str, Any], weights: Weights) -> Any:
    try:
        from safetensors import SafetensorError  # pyright: ignore
        from safetensors.torch import load_file  # pyright: ignore
        from transformers import Dinov2Config, Dinov2Model  # pyright: ignore
        from transformers.utils import logging as chatter  # pyright: ignore
    except ImportError:
        raise GenlabError(f"{name} needs transformers: pip install genlab[dinov2]") from None
    path = weights.find()
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise GenlabError(f"{path} is not a safetensors file: {' '.join(str(error).split())[:120]}") from None
    level = chatter.get_verbosity()
    chatter.set_verbosity(logging.CRITICAL)  # what is wrong with the file we say ourselves
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            how = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # which are told
            model, told = Dinov2Model.from_pretrained(None, config=Dinov2Config(**config), state_dict=state, **how)
    finally:
        chatter.set_verbosity(level)
    wrong = sorted(told["missing_keys"]) + sorted(told["unexpected_keys"]) + sorted(map(str, told["mismatched_keys"]))
    if wrong:
        raise GenlabError(
            f"{path} does not hold the weights of {name}: {wrong[0]} is missing, left over or of another shape"
        )
    return model.float().eval().requires_grad_(False)


def _interpolate(network: Any, size: int) -> None:
    """Fix the positional embeddings (1, 1 + G², D) for images of one size, as the authors' code interpolates them."""
    embeddings = network.embeddings
    known, side = embeddings.position_embeddings.data, size // embeddings.patch_embeddings.patch_size[0]
    grid = math.isqrt(known.shape[1] - 1)
    if grid == side:
        return
    places = known[:, 1:].unflatten(1, (grid, grid)).permute(0, 3, 1, 2)  # (1, D, G, G)
    scale = (side + 0.1) / grid  # against rounding, said the authors, but it moves the grid too
    places = F.interpolate(places, scale_factor=(scale, scale), mode="bicubic")
    fixed = torch.cat([known[:, :1], places.flatten(2).transpose(1, 2)], 1)
    embeddings.position_embeddings = nn.Parameter(fixed, requires_grad=False)
