"""A data set from its files to batches, and the verbs that prepare it."""

import io
import json
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import genlab.data.__main__ as data
from genlab.config import learned, preflight
from genlab.data.images import Images
from genlab.errors import GenlabError
from genlab.folders import conf_dir
from genlab.instantiation import build

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)  # 6 high, 8 wide
SETS = sorted(p.stem for p in (conf_dir() / "data").glob("[!_]*.yaml") if "  - _images\n" in p.read_text())


def stored(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **more)
    return buffer.getvalue()


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """300 training and 60 test images of 10 classes, 32x32 RGB, as .npz."""
    return npz(tmp_path / "small.npz", (3, 32, 32), 10)


def npz(path: Path, shape: tuple[int, ...], classes: int, n: int = 300) -> Path:
    x = RNG.integers(0, 256, (n + n // 5, *shape), dtype=np.uint8)
    y = RNG.integers(0, max(1, classes), len(x))
    np.savez(path, x_train=x[:n], y_train=y[:n], x_test=x[n:], y_test=y[n:])
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


def test_other_labels_beside_the_images_are_another_set(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(RGB).save(folder / f"{i}.png")
    for label in (0, 1):
        time.sleep(0.01)
        (folder / "dataset.json").write_text(json.dumps({"labels": [[f"{i}.png", label] for i in range(10)]}))
        y = source(folder, tmp_path, shape=[3, 6, 8], classes=2).split("train").y
        assert y is not None
        assert y.tolist() == [label] * 9


def test_another_table_in_the_folder_is_another_set(tmp_path: Path) -> None:
    """Written over, which leaves the folder's own time as it is."""
    from datasets import Dataset

    cells = [stored(Image.fromarray(RGB))] * 20
    options = {"shape": [3, 6, 8], "classes": 0}
    (tmp_path / "tables").mkdir()
    for n in (20, 10):
        Dataset.from_dict({"image": cells[:n]}).to_parquet(tmp_path / "new.parquet")
        data = (tmp_path / "new.parquet").read_bytes()
        (tmp_path / "tables" / "train.parquet").write_bytes(data)
        images = source(tmp_path / "tables", tmp_path, **options)
        assert len(images.split("train").x) + len(images.split("test").x) == n


def test_captions_are_kept_with_their_images(tmp_path: Path) -> None:
    from datasets import Dataset

    cells = [stored(Image.fromarray(RGB + i)) for i in range(20)]
    texts: list[str | None] = [f"größer als {i}" for i in range(20)]
    Dataset.from_dict({"image": cells, "text": texts}).to_parquet(tmp_path / "a.parquet")
    options = {"shape": [3, 6, 8], "classes": 0, "caption": "auto"}
    images = source(tmp_path / "a.parquet", tmp_path, **options)
    assert list(images.captions("train")) == [text for i, text in enumerate(texts) if i not in (9, 19)]
    assert images.captions("test")[:] == [texts[9], texts[19]]
    assert torch.equal(images.split("test").x[0], torch.from_numpy((RGB + 9).transpose(2, 0, 1).copy()))
    with pytest.raises(GenlabError, match=r"small has no captions: set data\.source\.caption"):
        source(tmp_path / "a.parquet", tmp_path, shape=[3, 6, 8], classes=0).captions("train")


@pytest.mark.parametrize(("caption", "message"), [(None, "it has no caption"), ("", "it has no caption")])
def test_a_missing_caption_is_named_or_skipped(tmp_path: Path, caption: str | None, message: str) -> None:
    from datasets import Dataset

    texts = [caption if i == 3 else f"{i}" for i in range(20)]
    cells = [stored(Image.fromarray(RGB + i)) for i in range(20)]
    Dataset.from_dict({"image": cells, "text": texts}).to_parquet(tmp_path / "a.parquet")
    options = {"shape": [3, 6, 8], "classes": 0, "caption": "text"}
    with pytest.raises(GenlabError, match=f"a.parquet row 3: {message} .*on_bad=skip"):
        source(tmp_path / "a.parquet", tmp_path, **options).split("train")
    images = source(tmp_path / "a.parquet", tmp_path, on_bad="skip", **options)
    assert images.captions("train")[:4] == ["0", "1", "2", "4"]
    assert torch.equal(images.split("train").x[3], torch.from_numpy((RGB + 4).transpose(2, 0, 1).copy()))


def test_a_caption_that_is_no_text(tmp_path: Path) -> None:
    from datasets import Dataset

    cells = [stored(Image.fromarray(RGB))] * 10
    Dataset.from_dict({"image": cells, "text": [["a", "b"]] * 10}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(GenlabError, match=r"row 0: its caption \['a', 'b'\] is no text"):
        source(tmp_path / "a.parquet", tmp_path, shape=[3, 6, 8], classes=0, caption="text").split("train")


def test_a_caption_of_half_a_character(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(10):
        Image.fromarray(RGB).save(tmp_path / "photos" / f"{i}.png")
    told = "".join(json.dumps({"file_name": f"{i}.png", "text": "a\ud83d"}) + "\n" for i in range(10))
    (tmp_path / "photos" / "metadata.jsonl").write_text(told)
    with pytest.raises(GenlabError, match=r"0.png: its caption 'a\\ud83d' has half a character"):
        source(tmp_path / "photos", tmp_path, shape=[3, 6, 8], classes=0, caption="auto").split("train")


def test_a_set_in_which_nothing_is_good_is_empty(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(20):
        (tmp_path / "photos" / f"{i}.png").write_bytes(b"no image")
    with pytest.raises(GenlabError, match=r"the train split of .*photos has no image in it"):
        source(tmp_path / "photos", tmp_path, shape=[3, 6, 8], classes=0, on_bad="skip").split("train")


def test_a_table_without_rows_is_empty(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "a.parquet")
    with pytest.raises(GenlabError, match=r"the train split of .*a.parquet has no image in it: set data.source.splits"):
        source(tmp_path / "a.parquet", tmp_path, shape=[3, 6, 8], classes=0).split("train")


def test_an_interrupted_preparation_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """300 images are three blocks, one of the first spoilt: interrupted in the last, two are not decoded again."""
    from genlab.data import images as module

    x = RNG.integers(0, 256, (330, 6, 8, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for i in range(330):
        (tmp_path / "photos" / f"{i:03d}.png").write_bytes(stored(Image.fromarray(x[i])) if i != 5 else b"spoilt")
    options = {"shape": [3, 6, 8], "classes": 0, "on_bad": "skip"}
    decode, decoded = module.pixels, list[str]()

    def counted(image: Path, *more: Any) -> np.ndarray:
        decoded.append(image.name)
        if image.name == "327.png":
            raise KeyboardInterrupt
        return decode(image, *more)

    monkeypatch.setattr(module, "pixels", counted)
    with pytest.raises(KeyboardInterrupt):
        source(tmp_path / "photos", tmp_path, **options).split("train")
    monkeypatch.setattr(module, "pixels", decode)
    decoded.clear()
    monkeypatch.setattr(module, "pixels", lambda image, *more: (decoded.append(image.name), decode(image, *more))[1])
    images = source(tmp_path / "photos", tmp_path, **options)
    kept = [i for i in range(330) if i % 10 != 9 and i != 5]
    assert np.array_equal(images.split("train").x.numpy(), x[kept].transpose(0, 3, 1, 2))
    assert len(decoded) == 297 - 256
    assert "going on after row 256" in (told := capsys.readouterr().err)
    assert "1 of 297 skipped, the first" in told


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
    assert "2 of 27 skipped, the first" in capsys.readouterr().err
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
        ((3, 32, 32), {"shape": [3, 32]}, r"data.shape=\[3, 32\]: 1 or 3 channels, height and width are needed"),
        ((3, 32, 32), {"shape": [4, 32, 32]}, r"data.shape=\[4, 32, 32\]: 1 or 3 channels"),
        ((3, 32, 32), {"crop": -1}, "data.source.crop=-1: at least 0"),
        ((3, 32, 32), {"classes": -1}, "data.classes=-1: at least 0"),
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


@pytest.mark.parametrize("kind", ["ConnectError", "ReadTimeout"])
def test_a_hub_that_does_not_answer_names_the_remedy(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpx
    import huggingface_hub

    def fail(*_: Any, **__: Any) -> None:
        raise getattr(httpx, kind)("[Errno 111] Connection refused")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(GenlabError, match=r"cannot reach the hub for a/b .*refused.*: set data.source.path") as caught:
        Images("b", [3, 32, 32], 10, str(tmp_path), hub="a/b").split("train")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", r"is gated: accept its terms at https://huggingface.co/datasets/a/b"),
        ("RepositoryNotFoundError", "has no data set a/b"),
        ("RevisionNotFoundError", "has no data set a/b at revision None"),
        ("HfHubHTTPError", "cannot reach the hub for a/b .*data.source.path"),
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
    n = 300 if config.shape[-1] <= 64 else 10
    path = npz(tmp_path / "small.npz", tuple(config.shape), config.classes, n)
    images = build(data.composed(name, [f"data.source.path={path}"]).source)
    for split, count in (("train", n), ("test", n // 5)):
        x, y = images.split(split)
        assert tuple(x.shape) == (count, *config.shape)
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
    assert "cifar10 is prepared: 300 train, 60 test of 3x32x32 in" in data.prepare("cifar10", overrides)
    text = data.info("cifar10", overrides)
    assert "cifar10: 300 train, 60 test; shape [3, 32, 32], 256 levels, 10 classes" in text
    assert f"train: {arrays}, train; 0.9 MB" in text
    grid = Image.open(text.rsplit("samples: ", 1)[1])
    assert grid.size == ((8 * 33 + 1) * 4,) * 2  # 60 images in 8 columns, with borders, 4 screen pixels a pixel
    with pytest.raises(GenlabError, match=r"did you mean data\.source\.path"):
        data.prepare("cifar10", ["data.source.pth=x"])
    with pytest.raises(GenlabError, match="folder lies nowhere yet"):
        data.info("folder", [])


def test_what_a_newcomer_mistypes_names_the_remedy(arrays: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([str(arrays), []], rf"is a path: set data.source.path={arrays} after the name folder"),
        (["foldr", []], r"no data 'foldr' - did you mean folder\?"),
        (["folder", [f"path={arrays}"]], r"cannot read 'path=.*data.KEY=VALUE is needed, as in data.source.path=FILE"),
    ):
        with pytest.raises(GenlabError, match=message):
            data.prepare(*arguments)
    overrides = ["data.source.path=my photos.npz", "data.shape=[3,32,32]"]
    with pytest.raises(GenlabError, match=r"my photos.npz \(No such file"):
        data.info("folder", overrides)
    overrides[0] = f"data.source.path={arrays}"
    assert f"not prepared: genlab data prepare folder {overrides[0]} '{overrides[1]}'" in data.info("folder", overrides)
    assert "only 10 of data.classes=12 have rows" in data.prepare("folder", [*overrides, "data.classes=12"])


def test_the_list_says_what_every_set_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["genlab.data", "list"])
    data.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == data.names()
    assert next(line for line in lines if line.startswith("mnist")).split(maxsplit=1)[1].startswith("LeCun et al. 1998")


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "prepare", interrupt)
    monkeypatch.setattr(sys, "argv", ["genlab.data", "prepare", "folder"])
    with pytest.raises(SystemExit) as caught:
        data.main()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "genlab: interrupted: the same command goes on from there\n"


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


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "npz"])
def test_a_large_set_is_prepared_in_little_memory(form: str, tmp_path: Path) -> None:
    """A GiB of pixels in one row group or one array: the peak is far below that, and below what is promised for any."""
    x = np.stack([np.asarray(Image.fromarray(RGB).resize((256, 256)))] * 64)
    if form == "npz":
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("x.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "|u1", "fortran_order": False, "shape": (85 * 64, 256, 256, 3)}
            )
            for _ in range(85):
                file.write(x.tobytes())
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        cells = [stored(Image.fromarray(image), compress_level=1) for image in x[:1]] * (85 * 64)
        pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet", use_dictionary=False)
    code = (
        "from genlab.data.images import Images;"
        f"Images('a', [3, 256, 256], 0, {str(tmp_path)!r}, path={str(tmp_path / f'a.{form}')!r}).prepare('train');"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"  # getrusage tells of the parent, too
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 0.75 * 2**20, "in KiB; the imports alone take a third of it"
