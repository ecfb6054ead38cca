"""The Inception network of the file inception-2015-12-05, in which FID, KID, IS and sFID are measured.

Szegedy et al. 2016 (1512.00567) as TensorFlow published it on 2015-12-05: other weights than torchvision's, average pools
that leave out the padding, a maximum pool in the last block, 1,008 classes, and input (x - 128)/128.
"""

from collections.abc import Iterable
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.evaluation.features import Activations
from genlab.evaluation.precision import exact
from genlab.evaluation.resize import Resize
from genlab.evaluation.weights import Weights

UNREADABLE = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, UnpicklingError)
SPATIAL = 7  # channels of mixed_6/conv that sFID takes


class Inception:
    """Features of uint8 images (B, 3 or 1, H, W) after a stated resize, in float32 whatever the context; a plain object.

    `features` (B, 2048) are pool_3, `logits` (B, 1008) those of IS, W h without the bias (Salimans et al. 2016, 1606.03498,
    as their code has it), and `spatial` (B, 2023) the first 7 channels of mixed_6/conv after its ReLU, a pixel's channels
    side by side, of sFID (Nash et al. 2021, 2103.03841). A grey image is three equal channels. Raises GenlabError for other
    images, and for a file that is not this network's.
    """

    name = "inception-2015-12-05"
    layer = "pool3"

    def __init__(self, weights: Weights, resize: Resize):
        self.fingerprint, self.resize, self._resize = weights.sha256, resize.name, resize
        path = weights.find()
        self.network = Network()
        try:
            self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except UNREADABLE as error:
            told = " ".join(str(error).split())[:120]
            raise GenlabError(f"{path} does not hold the weights of {self.name}: {told}") from None
        self.network.eval().requires_grad_(False)
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> "Inception":
        layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format  # what is faster, 1.4 times
        self.network.to(device).to(memory_format=layout)  # pyright: ignore
        return self

    def __call__(self, x: Tensor) -> Activations:
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3):
            raise GenlabError(f"{self.name} sees uint8 images of 3 channels or 1, not {x.dtype} {tuple(x.shape[1:])}")
        with exact(x.device):
            x = self._resize(x)
            return self.network((x.expand(-1, 3, -1, -1) - 128) / 128)


Size = int | tuple[int, int]


class Convolution(nn.Module):
    """Convolution, normalization, ReLU."""

    def __init__(self, width: int, out: int, kernel: Size, stride: int = 1, padding: Size = 0):
        super().__init__()
        self.conv = nn.Conv2d(width, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def chain(x: Tensor, layers: Iterable[Convolution]) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def average(x: Tensor) -> Tensor:
    """Of the 3x3 neighbours that there are."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 1, 1)


class Mixed5(nn.Module):
    """35x35: 1x1, 5x5, two 3x3, pool."""

    def __init__(self, width: int, pool: int):
        super().__init__()
        self.branch1x1 = Convolution(width, 64, 1)
        self.branch5x5_1 = Convolution(width, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Convolution(width, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, padding=1)
        self.branch_pool = Convolution(width, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = chain(x, (self.branch5x5_1, self.branch5x5_2))
        double = chain(x, (self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(average(x))], 1)


class Mixed6a(nn.Module):
    """35x35 -> 17x17."""

    def __init__(self, width: int):
        super().__init__()
        self.branch3x3 = Convolution(width, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(width, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = chain(x, (self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class Mixed6(nn.Module):
    """17x17: 1x1, a 7x7 and two 7x7 as rows and columns, pool."""

    def __init__(self, inner: int):
        super().__init__()
        row: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
        column: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = Convolution(768, 192, 1)
        self.branch7x7_1 = Convolution(768, inner, 1)
        self.branch7x7_2 = Convolution(inner, inner, **row)
        self.branch7x7_3 = Convolution(inner, 192, **column)
        self.branch7x7dbl_1 = Convolution(768, inner, 1)
        self.branch7x7dbl_2 = Convolution(inner, inner, **column)
        self.branch7x7dbl_3 = Convolution(inner, inner, **row)
        self.branch7x7dbl_4 = Convolution(inner, inner, **column)
        self.branch7x7dbl_5 = Convolution(inner, 192, **row)
        self.branch_pool = Convolution(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = chain(x, (self.branch7x7_1, self.branch7x7_2, self.branch7x7_3))
        first = (self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3)
        double = chain(x, (*first, self.branch7x7dbl_4, self.branch7x7dbl_5))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)


class Mixed7a(nn.Module):
    """17x17 -> 8x8."""

    def __init__(self):
        super().__init__()
        self.branch3x3_1 = Convolution(768, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(768, 192, 1)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = chain(x, (self.branch3x3_1, self.branch3x3_2))
        seven = chain(x, (self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3, self.branch7x7x3_4))
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)


class Mixed7(nn.Module):
    """8x8: 1x1, a 3x3 and two 3x3 that fork into rows and columns, pool."""

    def __init__(self, width: int):
        super().__init__()
        row: dict[str, Any] = {"kernel": (1, 3), "padding": (0, 1)}
        column: dict[str, Any] = {"kernel": (3, 1), "padding": (1, 0)}
        self.branch1x1 = Convolution(width, 320, 1)
        self.branch3x3_1 = Convolution(width, 384, 1)
        self.branch3x3_2a = Convolution(384, 384, **row)
        self.branch3x3_2b = Convolution(384, 384, **column)
        self.branch3x3dbl_1 = Convolution(width, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Convolution(384, 384, **row)
        self.branch3x3dbl_3b = Convolution(384, 384, **column)
        self.branch_pool = Convolution(width, 192, 1)

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = chain(x, (self.branch3x3dbl_1, self.branch3x3dbl_2))
        forks = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        forks += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(pooled)], 1)


class Network(nn.Module):
    """(B, 3, 299, 299) in [-1, 1] -> Activations; modules are named as in the published state dict (pytorch-fid's)."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = Mixed5(192, 32), Mixed5(256, 64), Mixed5(288, 64)
        self.Mixed_6a = Mixed6a(288)
        self.Mixed_6b, self.Mixed_6c = Mixed6(128), Mixed6(160)
        self.Mixed_6d, self.Mixed_6e = Mixed6(160), Mixed6(192)
        self.Mixed_7a = Mixed7a()
        self.Mixed_7b, self.Mixed_7c = Mixed7(1280), Mixed7(2048)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x: Tensor) -> Activations:
        x = chain(x, (self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3))  # (B, 64, 147, 147)
        x = chain(F.max_pool2d(x, 3, 2), (self.Conv2d_3b_1x1, self.Conv2d_4a_3x3))  # (B, 192, 71, 71)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))  # (B, 288, 35, 35)
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))  # (B, 768, 17, 17)
        spatial = x[:, :SPATIAL].permute(0, 2, 3, 1).flatten(1)  # of branch1x1, which comes first; as NHWC lies
        x = self.Mixed_7a(self.Mixed_6e(x))  # (B, 1280, 8, 8)
        x = self.Mixed_7b(x, average(x))
        x = self.Mixed_7c(x, maximum(x))  # (B, 2048, 8, 8); a mistake of 2015, kept
        features = x.mean((2, 3))
        return Activations(features, features @ self.fc.weight.T, spatial)
