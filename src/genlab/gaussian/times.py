"""The law p(t) of training times."""

import torch
from torch import Tensor


class Uniform:
    """t ~ U[t_min, t_max]; t_min keeps a division by σ(t) finite."""

    def __init__(self, t_min: float = 0.0, t_max: float = 1.0):
        self.t_min, self.t_max = t_min, t_max

    def __call__(self, n: int, device: torch.device) -> Tensor:
        return self.t_min + (self.t_max - self.t_min) * torch.rand(n, device=device)


class Steps:
    """t ~ U{1, ..., steps}, the steps of a discrete path."""

    def __init__(self, steps: int):
        self.steps = steps

    def __call__(self, n: int, device: torch.device) -> Tensor:
        return torch.randint(1, self.steps + 1, (n,), device=device).float()
