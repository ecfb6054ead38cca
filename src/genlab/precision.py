"""What is not left to autocast."""

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """x in float32 at least, whatever autocast made of it: losses and penalties are sums of what nearly cancels."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
