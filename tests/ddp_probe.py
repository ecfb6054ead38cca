"""Run by test_ddp.py, and again by Lightning for the second rank: trains under DDP and writes down what a rank saw."""

import os
import sys
from pathlib import Path
from typing import Any

import torch

from genlab.paradigms.diffusion import Diffusion
from genlab.train import main

FOLDER = Path(os.environ["PROBE"])
original = Diffusion.losses


def rank() -> str:
    return os.environ.get("LOCAL_RANK", "0")


def losses(self: Diffusion, x: Any, eps: Any, t: Any, *more: Any) -> Any:
    if self.training and not (FOLDER / f"drawn{rank()}.pt").is_file():
        weights = {k: v.clone() for k, v in self.state_dict().items()}
        torch.save({"x": x, "eps": eps, "t": t, "weights": weights}, FOLDER / f"drawn{rank()}.pt")
    return original(self, x, eps, t, *more)


def on_before_zero_grad(self: Diffusion, *_: Any) -> None:
    path = FOLDER / f"grads{rank()}.pt"
    grads = {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}
    if grads and not path.is_file():
        torch.save(grads, path)


def on_fit_end(self: Diffusion) -> None:
    torch.save(dict(self.named_parameters()), FOLDER / f"end{rank()}.pt")


Diffusion.losses = losses  # type: ignore[method-assign]
Diffusion.on_before_optimizer_step = on_before_zero_grad  # type: ignore[method-assign, assignment]
Diffusion.on_fit_end = on_fit_end  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
