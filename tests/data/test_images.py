"""A data set from its files to batches, and the verbs that prepare it."""

import io
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import genlab.data.__main__ as data
from genlab.config import conf_dir, learned, preflight
from genlab.data.images import Images
from genlab.data.loader import TrainLoader
from genlab.errors import GenlabError
from genlab.instantiation import build

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)  # 6 high, 8 wide
SETS = sorted(p.stem for p in (conf_dir() / "data").glob("[!_]*.yaml") if p.stem != "digits")


def stored(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """300 training and 60 test images of 10 classes, 32x32 RGB, as .npz."""
    return npz(tmp_path / "small.npz", (3, 32, 32), 10)


def npz(path: Path, shape: tuple[int, ...], classes: int) -> Path:
    x = RNG.integers(0, 256, (360, *shape), dtype=np.uint8)
    y = RNG.integers(0, max(1, classes), 360)
    np.savez(path, x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    return path


def source(path: Path, tmp_path: Path, **more: Any) -> Images:
    options = {"shape": [3, 32, 32], "classes": 10, "cache": str(tmp_path / "cache"), **more}
    return Images("small", path=str(path), **options)


def test_splits_are_served(arrays: Path, tmp_path: Path) -> None:
    images, file = source(arrays, tmp_path), np.load(arrays)
    for split in ("train", "test"):
        batch = images.split(split)
        assert (batch.x.dtype, batch.y.dtype) == (torch.uint8, torch.int64)
        assert np.array_equal(batch.x.numpy(), file[f"x_{split}"])
        assert np.array_equal(batch.y.numpy(), file[f"y_{split}"])
    assert images.split("train").x is images.split("train").x
    assert source(arrays, tmp_path, classes=0).split("test").y is None
    with pytest.raises(GenlabError, match="train and test, and no 'validation'"):
        images.split("validation")


def test_a_large_split_is_mapped_and_trains_alike(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    whole = source(arrays, tmp_path).split("train")
    monkeypatch.setattr("genlab.data.cache.IN_MEMORY", 0)
    monkeypatch.setattr(np, "fromfile", lambda path, dtype: np.frombuffer(Path(path).read_bytes(), dtype).copy())
    mapped = source(arrays, tmp_path).split("train")
    for a, b in zip(TrainLoader(whole, 32, 0, 0, 20), TrainLoader(mapped, 32, 0, 0, 20), strict=True):
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
    assert not recwarn.list


def test_another_file_at_the_path_is_another_set(arrays: Path, tmp_path: Path) -> None:
    first = source(arrays, tmp_path)
    first.split("train")
    time.sleep(0.01)
    npz(arrays, (3, 32, 32), 10)
    second = source(arrays, tmp_path)
    assert second.name != first.name
    assert second.name == source(Path(shutil.copy(arrays, tmp_path / "copy.npz")), tmp_path).name
    assert np.array_equal(second.split("train").x.numpy(), np.load(arrays)["x_train"])


def test_another_image_in_the_folder_is_another_set(tmp_path: Path) -> None:
    folder = tmp_path / "photos" / "class"
    folder.mkdir(parents=True)
    for i in range(20):
        Image.fromarray(RGB).save(folder / f"{i}.png")
    options = {"shape": [3, 6, 8], "classes": 0}
    assert len(source(folder.parent, tmp_path, **options).split("train").x) == 18
    time.sleep(0.01)
    Image.fromarray(RGB).save(folder / "20.png")
    assert len(source(folder.parent, tmp_path, **options).split("train").x) == 19


def mixed(folder: Path) -> Path:
    """30 images in every mode there is, two of them spoilt."""
    folder.mkdir()
    rgb = Image.fromarray(RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8))
    for i in range(5):
        rgb.save(folder / f"{i}0.png")
        rgb.convert("L").resize((33, 70)).save(folder / f"{i}1.png")
        rgb.quantize(16).save(folder / f"{i}2.png")
        rgb.convert("RGBA").save(folder / f"{i}3.png")
        Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257).save(folder / f"{i}4.png")
        rgb.convert("CMYK").save(folder / f"{i}5.jpg")
    (folder / "12.png").write_bytes(b"")
    (folder / "22.png").write_bytes((folder / "22.png").read_bytes()[:100])
    return folder


def test_bad_images_are_named_or_skipped_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"shape": [3, 16, 16], "classes": 0, "crop": 0, "resample": "lanczos"}
    folder = mixed(tmp_path / "mixed")
    with pytest.raises(GenlabError, match=r"mixed 12.png: it cannot be decoded .*on_bad=skip") as caught:
        source(folder, tmp_path, **options).split("train")
    assert len(str(caught.value).splitlines()) == 1
    images = source(folder, tmp_path, on_bad="skip", **options)
    assert (len(images.split("train").x), len(images.split("test").x)) == (27 - 2, 3)
    assert "2 of 30 skipped, the first" in capsys.readouterr().err
    skipped = images.prepare("train")["skipped"]
    assert [line.split(":")[0].split("/")[-1] for line in skipped] == ["mixed 12.png", "mixed 22.png"]


def test_sixteen_bit_rows_of_a_folder_agree_with_eight(tmp_path: Path) -> None:
    x = (
        source(mixed(tmp_path / "mixed"), tmp_path, shape=[1, 40, 50], classes=0, resample="box", on_bad="skip")
        .split("train")
        .x
    )
    assert (x[0].int() - x[4].int()).abs().max() <= 1, "a colour image and its luma of 16 bits"


@pytest.mark.parametrize(
    ("arrays_of", "more", "message"),
    [
        ((3, 28, 28), {}, r"x_train row 0: it has 28x28 pixels and not 32x32: set data.source.resample"),
        ((3, 32, 32), {"classes": 9}, r"row \d+: its label 9 is not in 0 ... 8: data.classes=9"),
        ((3, 32, 32), {"classes": 2}, r"row \d+: its label \d is not in 0 ... 1: data.classes=2"),
        ((3, 32, 32), {"on_bad": "ignore"}, "on_bad=ignore: there is error and skip"),
        ((3, 32, 32), {"resample": "cubic"}, "resample=cubic: there is bicubic"),
        ((3, 32, 32), {"splits": {"train": "train[:2%]", "test": "test"}}, "cannot read the split"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arrays_of: tuple[int, ...], more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = npz(tmp_path / "small.npz", arrays_of, 10)
    with pytest.raises(GenlabError, match=message) as caught:
        source(path, tmp_path, **more).split("train")
    assert len(str(caught.value).splitlines()) == 1


def test_labels_that_are_missing_or_no_integers(tmp_path: Path) -> None:
    from datasets import Dataset

    cell = stored(Image.fromarray(RGB))
    Dataset.from_dict({"image": [cell] * 3, "label": [0, None, 1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(GenlabError, match=r"a.parquet row 1: it has no label"):
        source(tmp_path / "a.parquet", tmp_path, shape=[3, 6, 8]).split("train")
    Dataset.from_dict({"image": [cell] * 3, "label": ["cat", "dog", "cat"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(GenlabError, match=r"row 0: its label 'cat' is no integer"):
        source(tmp_path / "a.parquet", tmp_path, shape=[3, 6, 8], label="label").split("train")


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(GenlabError, match=r"cannot read data.source.path=.*nothing \(No such file"):
        source(tmp_path / "nothing", tmp_path)
    with pytest.raises(GenlabError, match=r"small lies nowhere yet: set data.source.path"):
        Images("small", [3, 32, 32], 10, str(tmp_path))


def test_the_hub_without_network_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    images = Images("cifar10", [3, 32, 32], 10, str(tmp_path), hub="uoft-cs/cifar10")
    with pytest.raises(
        GenlabError, match=r"cannot reach the hub for uoft-cs/cifar10 .*data.source.path.*copy its"
    ) as caught:
        images.split("train")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", r"is gated: accept its terms at https://huggingface.co/datasets/a/b"),
        ("RepositoryNotFoundError", "has no data set a/b"),
    ],
)
def test_hub_sets_that_are_refused(error: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx
    import huggingface_hub
    import huggingface_hub.errors

    response = httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co"))

    def refuse(*_: Any, **__: Any) -> None:
        raise getattr(huggingface_hub.errors, error)("no\nsuch thing", response=response)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    with pytest.raises(GenlabError, match=message) as caught:
        Images("b", [3, 32, 32], 10, str(tmp_path), hub="a/b").split("train")
    assert len(str(caught.value).splitlines()) == 1


def test_the_hub_is_read_at_the_commit_that_the_manifest_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    import huggingface_hub

    table = datasets.Dataset.from_dict({"image": [stored(Image.fromarray(RGB))] * 10, "label": list(range(10))})
    asked: list[Any] = []

    def load(hub: str, config: str | None, split: str, revision: str) -> Any:
        asked.append((hub, config, split, revision))
        return table

    info = type("Info", (), {"sha": "c0ffee"})
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: info)
    monkeypatch.setattr(datasets, "load_dataset", load)
    splits = {"train": "train[:8]", "test": "train[8:]"}
    images = Images("b", [3, 6, 8], 10, str(tmp_path), hub="a/b", config="large", splits=splits)
    assert (images.split("train").y.tolist(), images.split("test").y.tolist()) == (list(range(8)), [8, 9])
    assert asked == [("a/b", "large", "train", "c0ffee")] * 2
    assert images.prepare("test")["revision"] == "c0ffee"
    assert images.name == "b", "what the hub has goes by its own name"


# ---------------------------------------------------------------------- configurations and verbs


@pytest.mark.parametrize("name", SETS)
def test_every_set_takes_a_small_one_in_its_place(name: str, tmp_path: Path) -> None:
    config = data.composed(name, [])
    assert (conf_dir() / "data" / f"{name}.yaml").read_text().startswith("# ")
    path = npz(tmp_path / "small.npz", tuple(config.shape), config.classes)
    images = build(data.composed(name, [f"data.source.path={path}"]).source)
    for split, n in (("train", 300), ("test", 60)):
        x, y = images.split(split)
        assert tuple(x.shape) == (n, *config.shape)
        assert (y is None) == (config.classes == 0)
    assert (images.hub is None) == (name in ("folder", "parquet"))


def test_the_place_of_the_cache_is_not_part_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed() -> dict[str, Any]:
        return learned(preflight("train", ["data=cifar10", "outputs=."], check=False))

    before = hashed()
    monkeypatch.setenv("GENLAB_CACHE", "/elsewhere")
    assert hashed() == before
    assert before["data"]["source"]["hub"] == "uoft-cs/cifar10"


def test_verbs(arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    overrides = [f"data.source.path={arrays}"]
    assert "not prepared: genlab data prepare cifar10" in data.info("cifar10", overrides)
    assert "cifar10 is prepared: 300 train, 60 test in" in data.prepare("cifar10", overrides)
    text = data.info("cifar10", overrides)
    assert "cifar10: 300 train, 60 test; shape [3, 32, 32], 256 levels, 10 classes" in text
    assert f"train: {arrays}, train; 0.9 MB" in text
    grid = Image.open(text.rsplit("samples: ", 1)[1])
    assert grid.size == ((8 * 33 + 1) * 4,) * 2  # 60 images in 8 columns, with borders, 4 screen pixels a pixel
    with pytest.raises(GenlabError, match=r"did you mean data\.source\.path"):
        data.prepare("cifar10", ["data.source.pth=x"])
    with pytest.raises(GenlabError, match="folder lies nowhere yet"):
        data.info("folder", [])


def test_a_damaged_cache_is_prepared_again_by_the_verb(
    arrays: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GENLAB_CACHE", str(tmp_path / "cache"))
    overrides = [f"data.source.path={arrays}"]
    data.prepare("cifar10", overrides)
    file = next((tmp_path / "cache").rglob("test.x"))
    good = file.read_bytes()
    file.write_bytes(bytes(100) + good[100:])
    assert "not prepared" in data.info("cifar10", overrides)
    data.prepare("cifar10", overrides)
    assert file.read_bytes() == good


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """datasets brings pyarrow and pandas, which cost a second."""
    code = "import sys, genlab.data.images, genlab.data.ingest; print({'datasets', 'pyarrow', 'pandas'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
