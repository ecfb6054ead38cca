"""The likelihood of tokens: a logit for each of a finite alphabet."""

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.likelihood_heads import Head


class Categorical(Head):
    """One of `levels` tokens, l_k the logit of token k: log p(x) = l_x - log Σ_k exp l_k.

    x (B, 1, ...) int64, parameters (B, levels, ...).
    """

    def __init__(self, levels: int):
        super().__init__()
        if levels < 2:
            raise GenlabError(f"an alphabet of {levels} tokens: at least 2 are needed")
        self.levels = levels

    def outputs(self, channels: int) -> int:
        return self.levels * channels

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        log_p = parameters.movedim(1, -1).log_softmax(-1)  # (B, ..., levels)
        return log_p.gather(-1, x.movedim(1, -1)).flatten(1).sum(1)

    def mean(self, parameters: Tensor) -> Tensor:
        """E[x] of tokens that are levels."""
        p = parameters.movedim(1, -1).softmax(-1)
        return (p @ torch.arange(self.levels, dtype=p.dtype, device=p.device)).unsqueeze(1)

    def sample(self, parameters: Tensor, u: Tensor) -> Tensor:
        """The first token whose cumulative probability reaches u; one of probability 0 is never it."""
        upper = parameters.softmax(1).cumsum(1)
        return (upper < u * upper[:, -1:]).sum(1, keepdim=True)

    def tempered(self, parameters: Tensor, temperature: float) -> Tensor:
        return parameters / temperature

    def truncated(self, parameters: Tensor, top_k: int | None, top_p: float) -> Tensor:
        order = parameters.sort(dim=1, descending=True, stable=True)
        p = order.values[:, :top_k].softmax(1)  # of the k alone, as top_p is a share of what they have
        dropped = torch.ones_like(parameters, dtype=torch.bool)
        dropped[:, :top_k] = p.cumsum(1) - p >= top_p  # those before it are enough; of the likeliest, never
        dropped[:, 0] = False
        return parameters.masked_fill(dropped.scatter(1, order.indices, dropped), -torch.inf)

    def check(self, x: Tensor) -> None:
        if x.min() < 0 or x.max() >= self.levels:
            raise GenlabError(
                f"tokens from {x.min().item()} to {x.max().item()}, and the alphabet is 0 to {self.levels - 1}: give "
                "the likelihood head the data's levels"
            )
