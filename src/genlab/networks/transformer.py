"""The decoder-only transformer, with a memory of keys and values by which each new position costs one position."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError


class Memory:
    """Keys and values of the positions so far, by attention layer: (B, heads, positions, d) each."""

    def __init__(self, positions: int):
        self.positions, self.seen = positions, 0
        self._kept: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def extended(self, layer: nn.Module, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Those of all positions up to the new ones, which are kept."""
        if layer not in self._kept:
            shape = (*k.shape[:2], self.positions, k.shape[3])
            self._kept[layer] = k.new_empty(shape), v.new_empty(shape)
        upto = self.seen + k.shape[2]
        for kept, new in zip(self._kept[layer], (k, v), strict=True):
            kept[:, :, self.seen : upto] = new
        keys, values = self._kept[layer]
        return keys[:, :, :upto], values[:, :, :upto]


class Axial(nn.Module):
    """Learned positions, the sum of a vector for each axis: row, column and channel of images (C, H, W), row and column of
    codes (h, w).

    Child et al. 2019, Sparse Transformers, arXiv:1904.10509, section 5.3.
    """

    def __init__(self, shape: Sequence[int], width: int):
        super().__init__()
        self.sizes = (*shape[1:], shape[0]) if len(shape) == 3 else tuple(shape)  # from the slowest to the fastest
        self.count = math.prod(shape)
        self.axes = nn.ParameterList(torch.randn(size, width) * width**-0.5 for size in self.sizes)

    def embedded(self, h: Tensor, first: int) -> Tensor:
        """h (B, n, width) at positions first, ..., first + n - 1."""
        index = torch.unravel_index(torch.arange(first, first + h.shape[1], device=h.device), self.sizes)
        return h + torch.stack([axis[i] for axis, i in zip(self.axes, index, strict=True)]).sum(0)

    def turned(self, q: Tensor, first: int) -> Tensor:
        return q


class Rotary(nn.Module):
    """Pairs of numbers of queries and keys turned by position · 10000^(-2i/d): Su et al. 2021, arXiv:2104.09864, eq. 34."""

    def __init__(self, positions: int):
        super().__init__()
        self.count = positions

    def embedded(self, h: Tensor, first: int) -> Tensor:
        return h

    def turned(self, q: Tensor, first: int) -> Tensor:
        """q (B, heads, n, d) at positions first, ..., first + n - 1; GenlabError for an odd d."""
        channels = q.shape[3]
        if channels % 2:
            raise GenlabError(f"rotary positions turn pairs, and heads have {channels} channels: change network.heads")
        frequencies = 1e4 ** -(torch.arange(0, channels, 2, device=q.device) / channels)
        angle = torch.arange(first, first + q.shape[2], device=q.device)[:, None] * frequencies  # (n, d / 2)
        a, b = q.chunk(2, dim=3)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=3).to(q.dtype)


class Words(nn.Module):
    """A vector for each of `levels` tokens: (B, 1, n) int64 -> (B, n, width)."""

    def __init__(self, levels: int, width: int):
        super().__init__()
        self.table = nn.Embedding(levels, width)

    def forward(self, s: Tensor) -> Tensor:
        return self.table(s[:, 0].long())


class Colours(nn.Module):
    """A linear map of the channels of a pixel: (B, C, n) -> (B, n, width)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.map = nn.Linear(channels, width)

    def forward(self, s: Tensor) -> Tensor:
        return self.map(s.transpose(1, 2))


class Block(nn.Module):
    """h + attention(norm(h)) to positions up to its own, then h + MLP(norm(h)); dropout before each sum."""

    def __init__(self, width: int, inner: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * inner), nn.Linear(inner, width)
        self.expand, self.project = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def attention(self, h: Tensor, position: Axial | Rotary, memory: Memory | None) -> Tensor:
        q, k, v = self.qkv(h).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, n, d)
        first = memory.seen if memory else 0
        q, k = position.turned(q, first), position.turned(k, first)
        if memory:
            k, v = memory.extended(self, k, v)
        # a single new position looks at all that there is
        h = F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
        return self.out(h.transpose(1, 2).flatten(2))

    def forward(self, h: Tensor, position: Axial | Rotary, memory: Memory | None = None) -> Tensor:
        h = h + self.dropout(self.attention(self.norm1(h), position, memory))
        return h + self.dropout(self.project(F.gelu(self.expand(self.norm2(h)))))


class Transformer(nn.Module):
    """s (B, k, N), y -> (B, outputs, N): what is said of position i from positions before i, and of the first from y.

    A token for each class, or one for all, stands at the beginning, so that position i is told by the vector of s_{i-1}
    with the place of i (Vaswani et al. 2017, arXiv:1706.03762, with the norm first). `inner` are the channels of all heads,
    `width` unless it is given. GenlabError for a sequence longer than its positions.
    """

    def __init__(
        self,
        embedding: Words | Colours,
        position: Axial | Rotary,
        outputs: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        dropout: float,
        classes: int,
        inner: int | None = None,
    ):
        super().__init__()
        inner = inner or width
        if inner % heads:
            raise GenlabError(f"{heads} heads do not divide {inner} channels: set network.heads to a divisor")
        self.embedding, self.position, self.outputs = embedding, position, outputs
        self.start = nn.Embedding(max(1, classes), width)
        self.dropout = nn.Dropout(dropout)
        blocks = [Block(width, inner, heads, hidden, dropout) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, outputs)
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=width**-0.5)
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
        for block in blocks:  # so that the sum of all of them is no wider than one (Radford et al. 2019, section 2.3)
            for layer in (block.out, block.project):
                nn.init.normal_(layer.weight, std=(2 * depth * width) ** -0.5)

    def memory(self) -> Memory:
        """For `forward`, at the beginning of a sequence."""
        return Memory(self.position.count)

    def forward(self, s: Tensor, y: Tensor | None = None, memory: Memory | None = None) -> Tensor:
        """Without a memory all N positions of s. With one, s are positions that follow those that it holds, and what is
        said is of them and of the one that comes next: (B, outputs, n), the last of which is the next."""
        whole, first = memory is None, memory.seen if memory else 0
        h = self.embedding(s[:, :, :-1] if whole else s)
        if first == 0:
            start = torch.zeros(len(s), dtype=torch.long, device=s.device) if y is None else y
            h = torch.cat([self.start(start)[:, None], h], dim=1)
        if first + h.shape[1] > self.position.count:
            raise GenlabError(
                f"a sequence of {first + h.shape[1]}, and this transformer has {self.position.count} positions"
            )
        h = self.dropout(self.position.embedded(h, first))
        for block in self.blocks:
            h = block(h, self.position, memory)
        if memory:
            memory.seen += h.shape[1]
        return self.last(self.norm(h)).transpose(1, 2)
