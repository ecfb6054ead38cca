"""bf16-mixed: what the networks compute is rough, and the losses made of it are not."""

from typing import Any

import pytest
import torch
from torch import Tensor

from genlab.config import preflight
from genlab.data.digits import Digits
from genlab.instantiation import build
from genlab.precision import wide

RECIPES = ["vae", "hvae", "vqvae", "kl_small", "transformer", "pixelcnnpp", "glow", "realnvp", "ddpm", "flow_matching"]


def test_wide_is_float32_at_least() -> None:
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    assert [wide(torch.ones(2, dtype=kind)).dtype for kind in kinds] == [torch.float32] * 3 + [torch.float64]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_term_of_a_loss_is_of_float32_and_its_gradient_near_that_of_float32(recipe: str) -> None:
    """A rate μ² + s² - 1 - log s², or a log-softmax, of bfloat16 has two or three digits, and what nearly cancels none."""
    data = Digits().split("train")
    found: list[tuple[dict[str, Tensor], Tensor]] = []
    for rough in (False, True):
        torch.manual_seed(0)
        module: Any = build(preflight("train", [f"experiment=digits/{recipe}"]).model).train()
        module.images_seen = 10**6  # what begins after a while has begun
        x, y = module.codec.encode(data.x[:32]), data.y[:32] if module.classes else None
        module.loss(x, y)  # what is initialized by data sees them
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=rough, cache_enabled=False):
            terms = module.loss(x, y)
        weights = [p for p in module.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(terms["loss"], weights, materialize_grads=True)
        found.append((terms, torch.cat([g.flatten() for g in gradients])))
    (exact, true), (near, rounded) = found
    assert {name: term.dtype for name, term in near.items()} == dict.fromkeys(exact, torch.float32)
    assert near["loss"].item() == pytest.approx(exact["loss"].item(), rel=5e-3)
    assert torch.cosine_similarity(true, rounded, dim=0) > 0.999
    assert rounded.norm().item() == pytest.approx(true.norm().item(), rel=0.02)
