"""What a critic may see of a batch as a whole."""

import torch
from torch import Tensor, nn

from genlab.errors import GenlabError


class MinibatchStd(nn.Module):
    """(B, C, H, W) -> (B, C + channels, H, W): the mean standard deviation of each number within groups of `group` samples.

    Each added channel is of its own share of the C channels. Groups are strided, as in StyleGAN2: sample i is in group
    i mod B/group. Raises GenlabError where a batch of training cannot be divided; in evaluation the groups of such a batch
    are smaller. Karras et al. 2018, arXiv:1710.10196, section 3.
    """

    def __init__(self, group: int, channels: int = 1):
        super().__init__()
        if group < 1 or channels < 1:
            raise GenlabError(f"minibatch standard deviation: group={group} and channels={channels} must be 1 or more")
        self.group, self.channels = group, channels

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        group = min(self.group, n)
        if n % group and self.training:
            raise GenlabError(
                f"minibatch standard deviation: {n} samples are no groups of {group}: change trainer.batch"
            )
        group = next(g for g in range(group, 0, -1) if n % g == 0)
        h = x.reshape(group, n // group, self.channels, c // self.channels, height, width).float()
        std = (h.var(0, correction=0) + 1e-8).sqrt()  # (B / group, channels, C / channels, H, W)
        mean = std.mean((2, 3, 4)).to(x.dtype)  # (B / group, channels)
        return torch.cat([x, mean.repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)], dim=1)
