"""The discriminator of patches (Isola et al. 2017, pix2pix, arXiv:1611.07004, section 3.2.2 and its code)."""

from torch import Tensor, nn

from genlab.errors import GenlabError


class PatchDiscriminator(nn.Module):
    """x (B, C, H, W) -> (B, 1, h, w), a value for each patch; with 3 `layers` and 64 channels it is the 70 x 70 one.

    4 x 4 convolutions, `layers` of stride 2 and two of stride 1, weights N(0, 0.02²). GenlabError for images too small.
    """

    def __init__(self, channels: int, size: int, width: int, layers: int):
        super().__init__()
        if layers < 1 or size >> layers < 3:
            raise GenlabError(f"network.discriminator.layers={layers}: 1 or more, and few enough for images of {size}")
        stages = [nn.Sequential(nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2))]
        for i in range(1, layers + 1):
            inputs, outputs = (width * min(2**k, 8) for k in (i - 1, i))
            conv = nn.Conv2d(inputs, outputs, 4, 2 if i < layers else 1, 1, bias=False)
            stages.append(nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)))
        stages.append(nn.Sequential(nn.Conv2d(width * min(2**layers, 8), 1, 4, 1, 1)))
        self.stages = nn.ModuleList(stages)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.02)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.weight, 1.0, 0.02)

    def features(self, x: Tensor) -> list[Tensor]:
        """What each stage makes of x, the values last."""
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[-1]
