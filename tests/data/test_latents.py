"""Latents come out of every file as they are, rounded to float16, and train."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genlab.data.__main__ as data
from genlab.codec import Latents as Codec
from genlab.config import preflight
from genlab.data.latents import Latents
from genlab.errors import GenlabError
from genlab.instantiation import build
from genlab.training import train

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((150, 4, 8, 8)) / 0.18215).astype(np.float32)
Y = RNG.integers(0, 10, 150)


def as_npz(folder: Path, x: np.ndarray = X, y: np.ndarray = Y) -> Path:
    np.savez(folder / "a.npz", x=x, y=y)
    return folder / "a.npz"


def as_parquet(folder: Path, x: np.ndarray = X, y: np.ndarray = Y) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"latent": [row.tolist() for row in x], "label": y}), folder / "a.parquet")
    return folder / "a.parquet"


def as_flat_parquet(folder: Path, x: np.ndarray = X, y: np.ndarray = Y) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.FixedSizeListArray.from_arrays(pa.array(x.astype(np.float16).reshape(-1)), x[0].size)
    pq.write_table(pa.table({"latent": flat, "label": y}), folder / "a.parquet")
    return folder / "a.parquet"


def source(path: Path, tmp_path: Path, classes: int = 10) -> Latents:
    return Latents("latents", [4, 8, 8], classes, str(tmp_path / "cache"), str(path))


@pytest.mark.parametrize("write", [as_npz, as_parquet, as_flat_parquet])
@pytest.mark.parametrize("classes", [0, 10])
def test_every_format_gives_the_same_latents(write: Callable[[Path], Path], classes: int, tmp_path: Path) -> None:
    latents = source(write(tmp_path), tmp_path, classes)
    for split, kept in (("train", np.arange(150) % 10 != 9), ("test", np.arange(150) % 10 == 9)):
        x, y = latents.split(split)
        assert np.array_equal(x.numpy(), X[kept].astype(np.float16))
        assert y is None if not classes else np.array_equal(y.numpy(), Y[kept])
        assert latents.verified(split) is not None
    assert latents.sha256("train") == source(as_npz(tmp_path), tmp_path, classes).sha256("train")
    assert latents.sha256("train") != latents.sha256("test")


def test_arrays_without_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X, Y)
    assert np.array_equal(source(tmp_path / "a.npz", tmp_path).split("test").y, Y[9::10])
    np.savez(tmp_path / "b.npz", latents=X)
    with pytest.raises(GenlabError, match=r"has no x_train and x_test \(nor x\), only latents"):
        source(tmp_path / "b.npz", tmp_path).split("train")


def test_an_array_without_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    assert np.array_equal(source(tmp_path / "a.npy", tmp_path, 0).split("test").x, X[9::10].astype(np.float16))
    with pytest.raises(GenlabError, match=r"has no 150 labels .*data.classes=0"):
        source(tmp_path / "a.npy", tmp_path).split("train")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (lambda folder: as_npz(folder, X[:, :3]), r"x row 0 is float32 \(3, 8, 8\): floats \(4, 8, 8\) are needed"),
        (lambda folder: as_npz(folder, X.astype(int)), r"row 0 is int64 .*: floats"),
        (lambda folder: as_npz(folder, X * 1e5), r"row 0 has values that are not finite or beyond float16"),
        (lambda folder: as_npz(folder, y=Y + 5), r"row \d+: its label 1\d is not in 0 ... 9"),
        (lambda folder: as_parquet(folder, X[:, :3]), r"a.parquet rows from 0: latents are not all \(4, 8, 8\)"),
        (lambda folder: folder / "nothing.npz", "cannot read data.source.path=.*No such file"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, path: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(GenlabError, match=message) as caught:
        source(path(tmp_path), tmp_path).split("train")
    assert len(str(caught.value).splitlines()) == 1


def test_a_column_that_there_is_not(tmp_path: Path) -> None:
    latents = Latents("a", [4, 8, 8], 10, str(tmp_path), str(as_parquet(tmp_path)), label="class")
    with pytest.raises(GenlabError, match=r"no column 'class': set data.source.label to one of latent, label"):
        latents.split("train")


def test_latents_nowhere_and_truncated(tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match=r"lies nowhere yet: set data.source.path to an .npz"):
        Latents("imagenet256", [4, 32, 32], 1000, str(tmp_path))
    path = as_npz(tmp_path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(GenlabError, match=r"truncated or no .npz"):
        source(path, tmp_path).split("train")


def test_the_codec_scales_and_knows_no_bits() -> None:
    codec, x = Codec(0.18215), torch.from_numpy(X).half()
    z = codec.encode(x)
    assert z.dtype == torch.float32
    assert z.std().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(codec.decode(z), x.float())
    assert codec.log_volume is None


def test_latents_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    path = f"data.source.path={as_npz(tmp_path)}"
    small = [path, "data.shape=[4,8,8]", "data.classes=10"]
    assert "imagenet256 is prepared: 135 train, 15 test" in data.prepare("imagenet256", small)
    assert "latents: mean" in data.info("imagenet256", small)
    config = preflight("train", ["data=imagenet256", *small, "model=dit", "network=dit_small", "sampler.steps=2", "sampler.threshold=null",
        "trainer.batch=4", "trainer.max_images=8", "trainer.log_every=4", "evaluation.n=0", "logger=none"])  # fmt: skip
    train(config, tmp_path / "run")
    drawn = np.asarray(Image.open(tmp_path / "run" / "samples" / "data.png"))
    assert drawn.shape[2] == 3, "in false colours"
    assert (drawn.min() < 30, drawn.max() > 200) == (True, True)
    assert build(config.data.codec).scale == 0.18215
