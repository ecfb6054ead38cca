import math

import pytest
import torch

from genlab.errors import GenlabError
from genlab.evaluation import spectrum
from genlab.evaluation.features import FeatureBank
from genlab.evaluation.jackknife import jackknife
from genlab.evaluation.spectrum import SpectrumDistance, radial_power


def bank(x: torch.Tensor) -> FeatureBank:
    return FeatureBank(len(x), x=x)


def wave(cycles: int, amplitude: float = 50.0, n: int = 5, side: int = 16) -> torch.Tensor:
    t = torch.arange(side).double() / side
    return (128 + amplitude * (2 * math.pi * cycles * t).cos()).expand(n, 3, side, side)


@pytest.mark.parametrize("cycles", [1, 3, 7])
def test_a_wave_has_its_power_at_its_frequency(cycles: int) -> None:
    got = radial_power(wave(cycles))
    assert got.shape == (5, 8)
    assert got[0].argmax() + 1 == cycles
    # two of the frequencies of that ring have |F|² = (a N / 2)², N pixels, a in units of white
    grid = torch.fft.fftfreq(16, 1 / 16)
    ring = ((grid[:, None] ** 2 + grid**2).sqrt() + 0.5).long() == cycles
    assert got[0, cycles - 1].item() == pytest.approx(2 * (50 / 255 * 128) ** 2 / ring.sum().item(), rel=1e-9)
    assert got[0].sum() - got[0, cycles - 1] < 1e-9 * got[0, cycles - 1]


def test_white_noise_is_flat_and_parseval_holds() -> None:
    torch.manual_seed(0)
    x = 255 * torch.randn(2000, 1, 8, 8)
    power = radial_power(x).mean(0)
    torch.testing.assert_close(power, torch.full_like(power, 64.0), rtol=0.05, atol=0)


def test_twice_the_amplitude_is_six_decibels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(spectrum, "ROWS", 7)
    x = 20 * torch.randn(50, 3, 9, 12).double()
    assert SpectrumDistance()(bank(x), bank(2 * x))["spectrum_db"] == pytest.approx(20 * math.log10(2), rel=1e-9)
    assert SpectrumDistance()(bank(x), bank(x + 30))["spectrum_db"] == pytest.approx(0, abs=1e-9), "brightness is none"


def test_replicates_are_the_distances_without_a_block() -> None:
    torch.manual_seed(0)
    x, y = torch.randint(256, (2, 43, 3, 8, 8), dtype=torch.uint8)
    _, *left = SpectrumDistance().replicates(bank(x), bank(y), 10)
    rest = y[torch.arange(43) % 10 != 2]
    assert left[2]["spectrum_db"] == pytest.approx(SpectrumDistance()(bank(x), bank(rest))["spectrum_db"], rel=1e-12)
    assert jackknife(SpectrumDistance(), bank(x), bank(y))["spectrum_db"].stderr > 0


def test_black_images_are_far_but_finite_and_other_shapes_are_refused() -> None:
    x = torch.randint(256, (9, 1, 8, 8), dtype=torch.uint8)
    assert 50 < SpectrumDistance()(bank(x), bank(torch.zeros_like(x)))["spectrum_db"] < 300
    for other in (x[..., :6], torch.zeros(9, 2)):
        with pytest.raises(GenlabError, match="images of one size"):
            SpectrumDistance()(bank(x), bank(other))
