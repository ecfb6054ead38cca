"""DINOv2 against transformers' own forward, and its positional embeddings against the authors' interpolation."""

import hashlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.evaluation.dinov2 import DINOv2, _interpolate
from genlab.evaluation.resize import Pillow
from genlab.evaluation.weights import Weights
from genlab.folders import conf_dir

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 70,
    "patch_size": 14,
}
PUBLISHED = {
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "o_proj": "output.dense",
}


class Embeddings(nn.Module):
    """What `_interpolate` looks at: 37 x 37 places, as in the published weights."""

    def __init__(self, known: Tensor):
        super().__init__()
        self.position_embeddings = nn.Parameter(known)
        self.patch_embeddings = nn.Module()
        self.patch_embeddings.patch_size = (14, 14)  # pyright: ignore


def keys_cubic(places: Tensor, side: int, scale: float) -> Tensor:
    """Bicubic interpolation of (G, G, D) with a = -3/4 at (i + 1/2)/scale - 1/2, edges repeated, pixel by pixel."""
    grid, a, out = len(places), -0.75, torch.zeros(side, side, places.shape[2], dtype=places.dtype)

    def kernel(d: float) -> float:
        d = abs(d)
        if d < 1:
            return ((a + 2) * d - (a + 3)) * d * d + 1
        return (((d - 5) * d + 8) * d - 4) * a if d < 2 else 0.0

    def taps(i: int) -> list[tuple[int, float]]:
        u = (i + 0.5) / scale - 0.5
        return [(min(max(k, 0), grid - 1), kernel(u - k)) for k in range(math.floor(u) - 1, math.floor(u) + 3)]

    for i in range(side):
        for j in range(side):
            for k, v in taps(i):
                for m, w in taps(j):
                    out[i, j] += v * w * places[k, m]
    return out


def test_places_are_interpolated_with_the_offset_of_the_authors() -> None:
    known = torch.randn(1, 1 + 37 * 37, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network = nn.Module()
    network.embeddings = Embeddings(known)
    _interpolate(network, 224)
    fixed = network.embeddings.position_embeddings
    assert fixed.shape == (1, 257, 2)
    assert torch.equal(fixed[:, 0], known[:, 0])
    places = known[0, 1:].view(37, 37, 2)
    torch.testing.assert_close(fixed[0, 1:].view(16, 16, 2), keys_cubic(places, 16, 16.1 / 37))
    assert (fixed[0, 1:].view(16, 16, 2) - keys_cubic(places, 16, 16 / 37)).abs().max() > 0.1  # what others do
    _interpolate(network, 224)
    assert network.embeddings.position_embeddings is fixed


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(GenlabError, match=r"pip install genlab\[dinov2\]"):
        DINOv2("dinov2", TINY, Weights("", "", ["w"], ""), Pillow("bicubic", 70))


def test_the_configuration_is_of_the_large_model_and_pins_its_file() -> None:
    config = OmegaConf.load(conf_dir() / "features" / "dinov2.yaml")
    assert (config.config.hidden_size, config.config.num_hidden_layers) == (1024, 24)
    assert len(config.weights.sha256) == 64
    assert len(config.weights.url.split("/resolve/")[1].split("/")[0]) == 40  # a commit and not a branch
    assert config.resize.rounded


@pytest.fixture
def transformers() -> Any:
    folder = Path(sys.prefix) / "dinov2"
    assert (folder / "transformers").is_dir(), f"transformers is not in {folder}: run `make test-reference`"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    import transformers

    return transformers


def save(state: dict[str, Tensor], path: Path) -> Weights:
    """A file in the names of the published one."""
    from safetensors.torch import save_file  # pyright: ignore

    renamed = {}
    for name, value in state.items():
        for ours, theirs in PUBLISHED.items():
            name = name.replace(f"attention.{ours}", f"attention.{theirs}")
        renamed[name] = value.clone()
    save_file(renamed, path)
    return Weights("https://example.org/w", hashlib.sha256(path.read_bytes()).hexdigest(), ["w"], "", str(path))


@pytest.mark.reference
def test_equal_to_the_forward_of_transformers(transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = transformers.Dinov2Model(transformers.Dinov2Config(**TINY)).eval()
    for name, value in theirs.named_parameters():
        nn.init.normal_(value, 1.0 if "norm" in name or "lambda" in name else 0.0, 0.2)
    weights = save(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = DINOv2("tiny", TINY, weights, Pillow("bicubic", 70, rounded=True))
    assert ours.fingerprint == weights.sha256
    assert ours.resize == "Pillow bicubic, 8-bit, to 70"
    x = torch.randint(0, 256, (3, 3, 50, 50), dtype=torch.uint8)
    pixels = Pillow("bicubic", 70, rounded=True)(x) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = theirs((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)).last_hidden_state[:, 0]
    features, logits, spatial = ours(x)
    assert (logits, spatial) == (None, None)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(ours(x[1:2]).features, expected[1:2])
    assert features.std(0).mean() > 0.1
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x).features, features)
    grey = x[:, :1]
    assert torch.equal(ours(grey).features, ours(grey.expand(-1, 3, -1, -1)).features)
    with pytest.raises(GenlabError, match="uint8 images of 3 channels or 1"):
        ours(x.float())


@pytest.mark.reference
def test_a_file_of_another_model_is_refused_in_one_line(transformers: Any, tmp_path: Path) -> None:
    state = transformers.Dinov2Model(transformers.Dinov2Config(**TINY)).state_dict()
    weights, resize = save(state, tmp_path / "w.safetensors"), Pillow("bicubic", 70)
    for wrong in ({"num_hidden_layers": 3}, {"num_hidden_layers": 1}, {"hidden_size": 64}):
        with pytest.raises(GenlabError, match="does not hold the weights of tiny") as error:
            DINOv2("tiny", {**TINY, **wrong}, weights, resize)
        assert "\n" not in str(error.value)
    torn = tmp_path / "torn"
    torn.write_bytes(b"no weights")
    with pytest.raises(GenlabError, match="torn is not a safetensors file"):
        DINOv2("tiny", TINY, Weights("", hashlib.sha256(b"no weights").hexdigest(), ["w"], "", str(torn)), resize)
