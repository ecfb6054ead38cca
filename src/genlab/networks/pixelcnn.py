"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517), with a memory by which a new pixel costs one pixel.

A vertical stream sees the rows above, a horizontal one these and the row itself to the left; both are U-nets. In sampling
a layer is given a row, or a single place, and remembers what it was given before (Ramachandran et al. 2017,
arXiv:1704.06001).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from genlab.networks.layers import check_size, one_hot


class Reach(NamedTuple):
    """How far a convolution sees from a place: rows above, columns to the left and to the right."""

    above: int
    left: int
    right: int


VERTICAL, HORIZONTAL = Reach(1, 1, 1), Reach(1, 1, 0)


class Whole:
    """A layer is given a whole image: nothing is remembered."""

    begins = True
    """Whether a place of half the resolution begins here."""

    def window(self, layer: nn.Module, x: Tensor, reach: Reach) -> Tensor:
        """x with what a convolution sees around it, 0 beyond the image."""
        return F.pad(x, (reach.left, reach.right, reach.above, 0))

    def grown(self, layer: nn.Module, x: Tensor | None) -> Tensor:
        """The part that is here of features that came from half the resolution, x where they are new."""
        assert x is not None, "all places begin here"
        return x

    def part(self, row: Tensor) -> Tensor:
        """The part that is here of features of a row."""
        return row

    def half(self) -> "Whole":
        return self


class Place:
    """A layer is given features at row, column and those that follow in the row, of an image of `width` columns."""

    def __init__(self, kept: dict[nn.Module, Tensor], row: int, column: int, width: int):
        self.kept, self.row, self.column, self.width = kept, row, column, width
        self.begins = row % 2 == 0 and column % 2 == 0

    def window(self, layer: nn.Module, x: Tensor, reach: Reach) -> Tensor:
        above, left, right = reach
        if layer not in self.kept:  # the row above and its own, 0 beyond the image
            self.kept[layer] = x.new_zeros(*x.shape[:2], above + 1, left + self.width + right)
        rows = self.kept[layer]
        if self.column == 0 and above:
            rows[:, :, 0] = rows[:, :, 1]
            rows[:, :, 1] = 0
        rows[:, :, above, left + self.column : left + self.column + x.shape[3]] = x[:, :, 0]
        return rows[:, :, :, self.column : self.column + left + x.shape[3] + right]

    def grown(self, layer: nn.Module, x: Tensor | None) -> Tensor:
        if x is not None:  # two rows of them
            if layer not in self.kept:
                self.kept[layer] = x.new_zeros(*x.shape[:3], self.width)
            self.kept[layer][:, :, :, self.column : self.column + x.shape[3]] = x
        row = self.kept[layer][:, :, self.row % 2][:, :, None]
        return self.part(row)

    def part(self, row: Tensor) -> Tensor:
        return row[:, :, :, self.column : self.column + 1]

    def half(self) -> "Place":
        return type(self)(self.kept, self.row // 2, self.column // 2, self.width // 2)


class Row(Place):
    """A layer is given a row."""

    def __init__(self, kept: dict[nn.Module, Tensor], row: int, width: int):
        super().__init__(kept, row, 0, width)

    def part(self, row: Tensor) -> Tensor:
        return row

    def half(self) -> "Row":
        return Row(self.kept, self.row // 2, self.width // 2)


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x, side by side."""
    return F.elu(torch.cat([x, -x], dim=1))


class Shifted(nn.Module):
    """A convolution that sees as far as `reach` says, with normalized weights."""

    def __init__(self, inputs: int, outputs: int, reach: Reach, stride: int = 1, scale: float = 1.0):
        super().__init__()
        self.reach = reach
        kernel = (reach.above + 1, reach.left + 1 + reach.right)
        conv = nn.Conv2d(inputs, outputs, kernel, stride)
        with torch.no_grad():
            conv.weight.mul_(scale)
        self.conv = weight_norm(conv)

    def forward(self, x: Tensor, place: Whole | Place) -> Tensor:
        return self.conv(place.window(self, x, self.reach))


class Shrunk(Shifted):
    """The features of half the resolution, of the places that begin here; None where none does."""

    def __init__(self, width: int, reach: Reach):
        super().__init__(width, width, reach, stride=2)

    def forward(self, x: Tensor, place: Whole | Place) -> Tensor | None:
        window = place.window(self, x, self.reach)
        return self.conv(window) if place.begins else None


class Grown(nn.Module):
    """Twice the resolution; the two rows of a place come from it alone."""

    def __init__(self, width: int, reach: Reach):
        super().__init__()
        right = reach.right
        conv = nn.ConvTranspose2d(width, width, (2, 2 + right), 2, padding=(0, right), output_padding=(0, right))
        self.conv = weight_norm(conv, dim=1)

    def forward(self, x: Tensor | None, place: Whole | Place) -> Tensor:
        return place.grown(self, None if x is None else self.conv(x))


class Gated(nn.Module):
    """x + a σ(b), a and b = conv(concat_elu(conv(concat_elu(x)) + W concat_elu(beside))) + V y."""

    def __init__(self, width: int, beside: int, reach: Reach, dropout: float, classes: int):
        super().__init__()
        self.first = Shifted(2 * width, width, reach)
        self.beside = weight_norm(nn.Conv2d(2 * beside, width, 1)) if beside else None
        self.dropout = nn.Dropout(dropout)
        self.second = Shifted(2 * width, 2 * width, reach, scale=0.1)
        self.label = nn.Linear(classes, 2 * width, bias=False) if classes else None
        if self.label is not None:
            nn.init.normal_(self.label.weight, std=0.05)

    def forward(self, x: Tensor, place: Whole | Place, beside: Tensor | None, y: Tensor | None) -> Tensor:
        h = self.first(concat_elu(x), place)
        if self.beside is not None and beside is not None:
            h = h + self.beside(concat_elu(beside))
        h = self.second(self.dropout(concat_elu(h)), place)
        if self.label is not None and y is not None:
            h = h + self.label(y)[:, :, None, None]
        a, b = h.chunk(2, dim=1)
        return x + a * b.sigmoid()


class Stream(nn.Module):
    """A U-net of gated blocks, each told what the same block of another stream says, if it follows one; `told` is by name."""

    def __init__(
        self, width: int, blocks: int, resolutions: int, reach: Reach, follows: bool, dropout: float, classes: int
    ):
        super().__init__()
        self.follows = follows
        common = (reach, dropout, classes)
        self.down = nn.ModuleList(Gated(width, width * follows, *common) for _ in range(blocks))
        self.inner = None
        if resolutions > 1:
            self.shrunk, self.grown = Shrunk(width, reach), Grown(width, reach)
            self.inner = Stream(width, blocks, resolutions - 1, reach, follows, dropout, classes)
        ups = blocks + (resolutions > 1)
        self.up = nn.ModuleList(Gated(width, width * (1 + follows), *common) for _ in range(ups))

    def forward(
        self, x: Tensor, place: Whole | Place, told: dict[str, Tensor], y: Tensor | None, name: str = ""
    ) -> Tensor:
        kept = [x]
        for k, block in enumerate(self.down):
            kept.append(self._block(block, kept[-1], place, told, f"{name}down{k}", None, y))
        if self.inner is None:
            x = kept.pop()
        else:
            small = self.shrunk(kept[-1], place)
            if small is not None:
                small = self.inner(small, place.half(), told, y, f"{name}inner.")
            x = self.grown(small, place)
        for k, block in enumerate(self.up):
            x = self._block(block, x, place, told, f"{name}up{k}", kept.pop(), y)
        return x

    def _block(
        self,
        block: nn.Module,
        x: Tensor,
        place: Whole | Place,
        told: dict[str, Tensor],
        name: str,
        skip: Tensor | None,
        y: Tensor | None,
    ) -> Tensor:
        beside = [place.part(told[name])] if self.follows else []
        beside += [] if skip is None else [skip]
        x = block(x, place, torch.cat(beside, dim=1) if beside else None, y)
        if not self.follows:
            told[name] = x
        return x


class Memory:
    """What the layers were given, what the vertical stream said of the row, and the rows above and here with their ones."""

    def __init__(self) -> None:
        self.seen = 0
        self.kept: dict[nn.Module, Tensor] = {}
        self.told: dict[str, Tensor] = {}
        self.above = self.here = self.first = torch.empty(0)


class PixelCNN(nn.Module):
    """s (B, C, H W), y -> (B, outputs, H W): what is said of a pixel from those above it and to the left of it in its row.

    Dropout is within every block. GenlabError for sizes that cannot be halved resolutions - 1 times.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        outputs: int,
        width: int,
        blocks: int,
        resolutions: int,
        dropout: float,
        classes: int,
    ):
        super().__init__()
        check_size(size, resolutions)
        self.channels, self.size, self.outputs, self.classes = channels, size, outputs, classes
        self.above = Shifted(channels + 1, width, VERTICAL)  # given the rows one lower
        self.beside = Shifted(channels + 1, width, Reach(0, 1, 1))  # likewise
        self.left = Shifted(channels + 1, width, Reach(1, 0, 0))  # given the columns one further to the right
        common = (dropout, classes)
        self.vertical = Stream(width, blocks, resolutions, VERTICAL, False, *common)
        self.horizontal = Stream(width, blocks, resolutions, HORIZONTAL, True, *common)
        self.last = weight_norm(nn.Conv2d(width, outputs, 1))

    def memory(self) -> Memory:
        """For `forward`, at the beginning of an image."""
        return Memory()

    def forward(self, s: Tensor, y: Tensor | None = None, memory: Memory | None = None) -> Tensor:
        """Without a memory all pixels of s. With one, s are pixels that follow those that it holds, and what is said is of
        them and of the one that comes next: (B, outputs, n), the last of which is the next."""
        hot = None if y is None else one_hot(y, self.classes, s)
        if memory is not None:
            return self._following(s, hot, memory)
        x = F.pad(s.unflatten(2, (self.size, self.size)), (0, 0, 0, 0, 0, 1), value=1.0)  # ones, to tell it from beyond
        lower, further = F.pad(x, (0, 0, 1, 0))[:, :, :-1], F.pad(x, (1, 0))[:, :, :, :-1]
        told, place = {}, Whole()
        self.vertical(self.above(lower, place), place, told, hot)
        h = self.horizontal(self.beside(lower, place) + self.left(further, place), place, told, hot)
        return self.last(F.elu(h)).flatten(2)

    def _following(self, s: Tensor, hot: Tensor | None, memory: Memory) -> Tensor:
        said = []
        if memory.seen == 0 and memory.here.numel() == 0:
            memory.above, memory.here = s.new_zeros(2, len(s), self.channels + 1, 1, self.size)
            said.append(self._next(hot, memory))
        for pixel in s.unbind(2):
            memory.here[:, :, 0, memory.seen % self.size] = F.pad(pixel, (0, 1), value=1.0)
            memory.seen += 1
            said.append(self._next(hot, memory))
        return torch.cat(said, dim=2)

    def _next(self, hot: Tensor | None, memory: Memory) -> Tensor:
        """(B, outputs, 1): what is said of the pixel that is not seen yet."""
        row, column = divmod(memory.seen, self.size)
        if column == 0:
            if row:
                memory.above, memory.here = memory.here, torch.zeros_like(memory.here)
            line = Row(memory.kept, row, self.size)
            self.vertical(self.above(memory.above, line), line, memory.told, hot)
            memory.first = self.beside(memory.above, line)
        place = Place(memory.kept, row, column, self.size)
        left = memory.here[:, :, :, column - 1 : column] if column else torch.zeros_like(memory.here[:, :, :, :1])
        h = place.part(memory.first) + self.left(left, place)
        return self.last(F.elu(self.horizontal(h, place, memory.told, hot))).flatten(2)
