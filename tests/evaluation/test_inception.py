"""Our Inception: layout, pools, what is taken from it and in which arithmetic; and against torch-fidelity's (`reference`)."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from genlab.errors import GenlabError
from genlab.evaluation.inception import Convolution, Inception, Network, average, maximum
from genlab.evaluation.resize import Pillow, TF1Bilinear
from genlab.evaluation.weights import Weights
from genlab.folders import conf_dir
from genlab.instantiation import build

PROBE = Path(__file__).parents[1] / "fidelity_probe.py"


def images(n: int, size: int, seed: int = 1) -> Tensor:
    """Smooth colours and noise, uint8 (n, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 256 * torch.rand(n, 3, 4, 4, generator=generator)
    x = nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    return (x + 20 * torch.randn(n, 3, size, size, generator=generator)).round().clamp(0, 255).byte()


def seeded() -> Network:
    """Random weights whose features have spread; the squared means damp what would amplify rounding errors."""
    torch.manual_seed(0)
    network = Network()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for convolution in (m for m in network.modules() if isinstance(m, nn.Conv2d)):
        nn.init.kaiming_normal_(convolution.weight)
    for norm in norms:
        norm.momentum = None
        nn.init.uniform_(norm.weight, 0.8, 1.2)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
    with torch.no_grad():
        network((TF1Bilinear(299)(images(3, 32, 0)) - 128) / 128)
    for norm in norms:
        norm.running_var += norm.running_mean**2 / 2
    return network.eval().requires_grad_(False)


def weights(path: Path) -> Weights:
    return Weights("https://example.org/w.pth", hashlib.sha256(path.read_bytes()).hexdigest(), ["w.pth"], "", str(path))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(seeded().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def inception(file: Path) -> Inception:
    return Inception(weights(file), TF1Bilinear(299))


def close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Equality relative to the scale of the features."""
    assert ours.shape == theirs.shape
    assert (ours.double() - theirs.double()).abs().max() / theirs.abs().max() < tolerance


def test_layout_of_the_published_file() -> None:
    state = Network().state_dict()
    assert len(state) == 566
    assert sum(p.numel() for p in Network().parameters()) == 23_850_960
    assert sum(isinstance(m, Convolution) for m in Network().modules()) == 94
    assert state["fc.weight"].shape == (1008, 2048)
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6c.branch7x7dbl_2.conv.weight": (160, 160, 7, 1),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7c.branch3x3_2b.conv.weight": (384, 384, 3, 1),
    }.items():
        assert state[name].shape == shape


def test_what_is_taken_from_the_network(inception: Inception, file: Path) -> None:
    seen: dict[str, Tensor] = {}
    network = inception.network
    hooks = [
        network.Mixed_6d.branch1x1.register_forward_hook(lambda m, i, o: seen.update(mixed_6=o.clone())),
        network.Mixed_7c.register_forward_hook(lambda m, i, o: seen.update(mixed_10=o.clone())),
    ]
    features, logits, spatial = inception(images(2, 32))
    for hook in hooks:
        hook.remove()
    assert logits is not None
    assert spatial is not None
    assert (features.shape, logits.shape, spatial.shape) == ((2, 2048), (2, 1008), (2, 2023))
    assert all(v.dtype == torch.float32 for v in (features, logits, spatial))
    assert features.std(0).mean() > 0.01  # images are told apart
    torch.testing.assert_close(features, seen["mixed_10"].mean((2, 3)))
    assert torch.equal(spatial.view(2, 17, 17, 7), seen["mixed_6"][:, :7].permute(0, 2, 3, 1))
    fc = torch.load(file)["fc.weight"]
    torch.testing.assert_close(logits, features @ fc.T)  # without fc.bias, which is not zero
    assert network.fc.bias.abs().max() > 0
    assert inception.fingerprint == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (inception.name, inception.layer) == ("inception-2015-12-05", "pool3")
    assert inception.resize == "TF1 bilinear, no antialiasing, to 299"


def test_pools_of_the_blocks(inception: Inception) -> None:
    """Averages in all of 5 and 6 and in 7b leave out the padding, and 7c has the maximum."""
    torch.testing.assert_close(average(torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 5, 5))
    corner = average(torch.arange(9.0).view(1, 1, 3, 3))[0, 0, 0, 0]
    assert corner == (0 + 1 + 3 + 4) / 4
    assert maximum(torch.arange(9.0).view(1, 1, 3, 3)).flatten().tolist() == [4, 5, 5, 7, 8, 8, 7, 8, 8]
    entering: dict[str, Tensor] = {}
    pooled: dict[str, Tensor] = {}
    names = [f"Mixed_{block}" for block in ("5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b", "7c")]
    hooks = []
    for name in names:
        block = inception.network.get_submodule(name)
        hooks.append(block.register_forward_pre_hook(lambda m, i, name=name: entering.update({name: i[0].clone()})))
        last = block.get_submodule("branch_pool")
        hooks.append(last.register_forward_pre_hook(lambda m, i, name=name: pooled.update({name: i[0].clone()})))
    inception(images(1, 32))
    for hook in hooks:
        hook.remove()
    for name in names:
        x = nn.functional.pad(entering[name], (1, 1, 1, 1), value=torch.nan).unfold(2, 3, 1).unfold(3, 3, 1).flatten(4)
        expected = x.nan_to_num(-torch.inf).amax(4) if name == "Mixed_7c" else x.nanmean(4)
        torch.testing.assert_close(pooled[name], expected)


def test_input_is_centred_at_128_and_grey_is_three_equal_channels(file: Path, inception: Inception) -> None:
    """Without means and biases the network is positively homogeneous: f(128 + 2 d) = 2 f(128 + d), and f(128) = 0."""
    plain = Inception(weights(file), TF1Bilinear(299))
    for norm in (m for m in plain.network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.zero_()
        norm.bias.zero_()
    d = (images(1, 8)[:, :1] // 5).byte()
    x = torch.cat([torch.full_like(d, 128), 128 + d, 128 + 2 * d])
    f = plain(x).features
    assert f[0].abs().max() == 0
    close(f[2], 2 * f[1], 1e-6)
    grey = images(1, 32)[:, :1]
    assert torch.equal(inception(grey).features, inception(grey.expand(-1, 3, -1, -1)).features)


def test_batches_change_nothing(inception: Inception) -> None:
    x = images(3, 40)
    together = inception(x)
    for whole, alone in zip(together, inception(x[1:2]), strict=True):
        assert whole is not None
        close(whole[1:2], alone, 3e-6)


def test_float32_whatever_the_context(inception: Inception) -> None:
    x, inside = images(1, 32), []
    expected = inception(x).features

    def look(*_: object) -> None:
        on = torch.is_autocast_enabled("cpu"), torch.backends.cudnn.allow_tf32, torch.is_grad_enabled()
        inside.append((torch.get_float32_matmul_precision(), *on))

    hook = inception.network.register_forward_pre_hook(look)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            features = inception(x).features
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
        hook.remove()
    assert inside == [("highest", False, False, False)]
    assert features.dtype == torch.float32
    assert torch.equal(features, expected)


def test_it_is_no_part_of_a_module(inception: Inception) -> None:
    owner = nn.Linear(1, 1)
    owner.extractor = inception  # pyright: ignore
    assert list(owner.state_dict()) == ["weight", "bias"]


def test_other_images_and_other_files_are_refused_in_one_line(inception: Inception, tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match=r"uint8 images of 3 channels or 1, not torch\.float32"):
        inception(torch.zeros(1, 3, 8, 8))
    with pytest.raises(GenlabError, match=r"not torch.uint8 \(4, 8, 8\)"):
        inception(torch.zeros(1, 4, 8, 8, dtype=torch.uint8))
    torn, other = tmp_path / "torn.pth", tmp_path / "other.pth"
    torn.write_bytes(b"no weights")
    torch.save(nn.Linear(1, 1).state_dict(), other)
    for path in (torn, other):
        with pytest.raises(
            GenlabError, match=f"{path.name} does not hold the weights of inception-2015-12-05"
        ) as error:
            Inception(weights(path), TF1Bilinear(299))
        assert "\n" not in str(error.value)


def test_the_configurations_build_with_a_file_of_ones_own(file: Path) -> None:
    own = {"path": str(file), "sha256": weights(file).sha256}
    legacy = OmegaConf.load(conf_dir() / "features" / "inception.yaml")
    clean = OmegaConf.merge(legacy, OmegaConf.load(conf_dir() / "features" / "inception_clean.yaml"))
    assert legacy.weights.sha256.startswith("6726825d")
    assert legacy.weights.names[1].endswith("-6726825d.pth")
    names = []
    for node in (legacy, clean):
        plain = OmegaConf.to_container(OmegaConf.merge(node, {"weights": own}), resolve=True)
        assert isinstance(plain, dict)
        plain.pop("defaults", None)
        names.append(build(plain).resize)
    assert names == [TF1Bilinear(299).name, Pillow("bicubic", 299, clipped=True).name]


@pytest.mark.reference
def test_equal_to_torch_fidelity(file: Path, inception: Inception, tmp_path: Path) -> None:
    """In float32 from 32x32 uint8 to features; and in float64, where a wrong pool could not hide behind rounding."""
    folder = Path(sys.prefix) / "fidelity"
    assert (folder / "torch_fidelity").is_dir(), f"torch-fidelity is not in {folder}: run `make test-reference`"
    small, large = images(4, 32), images(2, 299)
    resized = {f"resize/{size}": images(1, size) for size in (32, 47, 299, 400)}
    torch.save({"small": small, "large": large, **resized}, tmp_path / "images.pt")
    command = [
        sys.executable,
        str(PROBE),
        str(folder),
        str(file),
        str(tmp_path / "images.pt"),
        str(tmp_path / "out.pt"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    theirs = torch.load(tmp_path / "out.pt")

    for key, x in resized.items():
        assert torch.equal(TF1Bilinear(299)(x), theirs[key])
    ours = inception(small)
    assert ours.logits is not None
    close(ours.features, theirs["features"], 1e-5)
    close(ours.logits, theirs["logits"], 1e-5)
    network = Network()
    network.load_state_dict(torch.load(file))
    with torch.no_grad():
        exact = network.eval().double()((large.double() - 128) / 128)
    assert exact.logits is not None
    close(exact.features, theirs["features64"], 1e-7)  # which they round to float32
    close(exact.logits, theirs["logits64"], 1e-7)
