"""Whether samples have as much of each spatial frequency as data."""

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.evaluation.features import FeatureBank

ROWS = 256  # images transformed at a time


def radial_power(x: Tensor) -> Tensor:
    """The power spectrum |FFT(x)|² of the mean of the channels, averaged over the frequencies with r − ½ ≤ |ω| < r + ½, for
    r = 1, ..., ⌊min(H, W)/2⌋ cycles per image width of H = W: (N, C, H, W) in 0..255 -> (N, R) float64."""
    height, width = x.shape[2:]
    side = min(height, width)
    rows, columns = (torch.fft.fftfreq(n, 1 / side).double() for n in (height, width))
    radius = (rows[:, None].square() + columns.square()).sqrt().add(0.5).long().flatten().to(x.device)  # (H W,)
    count = radius.bincount(minlength=side // 2 + 1)
    parts = []
    for images in x.split(ROWS):
        power = torch.fft.fft2(images.double().mean(1) / 255).abs().square().flatten(1)  # (B, H W)
        sums = power.new_zeros(len(power), len(count)).index_add_(1, radius, power)
        parts.append((sums / count)[:, 1 : side // 2 + 1])
    return torch.cat(parts)


class SpectrumDistance:
    """`spectrum_db` = √(mean_r (10 log₁₀ P̄_real(r) − 10 log₁₀ P̄_fake(r))²), P̄(r) being the mean over the images of their
    radially averaged power spectra (Durall et al. 2020, 2003.01826, eq. 3; the root mean square of decibels is ours).

    Its floor is 10⁻¹² of power. Raises GenlabError for anything but images of at least 4 × 4.
    """

    needs = ("x",)

    def __init__(self):
        self.better = {"spectrum_db": "lower"}

    def __call__(self, real: FeatureBank, fake: FeatureBank) -> dict[str, float]:
        return self.replicates(real, fake, 1)[0]

    def replicates(self, real: FeatureBank, fake: FeatureBank, blocks: int) -> list[dict[str, float]]:
        """The value, and, for several blocks, those without the fakes of index ≡ k mod blocks."""
        x, y = (bank.finite("x", "spectrum_db", 1) for bank in (real, fake))
        if x.ndim != 4 or x.shape[1:] != y.shape[1:] or min(x.shape[2:]) < 4:
            raise GenlabError(
                f"spectrum_db needs images of one size, not {tuple(x.shape[1:])} and {tuple(y.shape[1:])}"
            )
        expected, power = _decibels(radial_power(x)), radial_power(y)  # (R,), (M, R)
        index = torch.arange(len(y), device=y.device) % blocks
        kept = [power, *(power[index != k] for k in range(blocks if blocks > 1 else 0))]
        return [{"spectrum_db": (expected - _decibels(p)).square().mean().sqrt().item()} for p in kept]


def _decibels(power: Tensor) -> Tensor:
    return 10 * power.mean(0).clamp(min=1e-12).log10()
