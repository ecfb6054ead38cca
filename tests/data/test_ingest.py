"""The same ten images and labels come out of every format they can lie in."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genlab.data.ingest import from_path
from genlab.data.rows import Columns, base, chosen, sliced
from genlab.errors import GenlabError

X = np.random.default_rng(0).integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)
Y = [3, 1, 0, 2, 1, 3, 0, 2, 2, 1]
LABELLED, UNLABELLED = Columns(None, None, True), Columns(None, None, False)
Rows = list[tuple[list[int], int | None]]


def png(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, "PNG")
    return buffer.getvalue()


def decoded(image: object) -> list[int]:
    if isinstance(image, np.ndarray):
        return image.flatten().tolist()
    return np.asarray(Image.open(io.BytesIO(image) if isinstance(image, bytes) else image)).flatten().tolist()


def rows(
    path: Path, split: str = "train", columns: Columns = LABELLED, keep: Callable[[int], bool] = lambda i: True
) -> Rows:
    part = from_path(path, columns)[split]
    return [(decoded(row.image), None if row.label is None else int(row.label)) for row in part.rows(keep)]


EXPECTED: Rows = sorted((x.flatten().tolist(), y) for x, y in zip(X, Y, strict=True))


def as_parquet(folder: Path) -> Path:
    dataset().to_parquet(folder / "data.parquet")
    return folder / "data.parquet"


def dataset() -> "object":
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as Picture

    features = Features({"id": Value("int64"), "img": Picture(), "kind": ClassLabel(names=list("abcd"))})
    cells = [{"bytes": png(x), "path": None} for x in X]
    return Dataset.from_dict({"id": list(range(10)), "img": cells, "kind": Y}, features=features)


def as_plain_parquet(folder: Path) -> Path:
    """As pyarrow alone writes it: no word of what is an image or a class."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"picture": [png(x) for x in X], "y": Y}), folder / "train-00000-of-00001.parquet")
    return folder


def as_saved(folder: Path) -> Path:
    from datasets import DatasetDict

    DatasetDict({"train": dataset()}).save_to_disk(folder / "saved")
    return folder / "saved"


def as_arrow(folder: Path) -> Path:
    dataset().save_to_disk(folder / "saved")
    return next((folder / "saved").glob("*.arrow"))


def as_folder(folder: Path) -> Path:
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        (folder / f"class{y}").mkdir(exist_ok=True)
        (folder / f"class{y}" / f"{i}.png").write_bytes(png(x))
    return folder


def as_zip(folder: Path) -> Path:
    """Below one folder, as zip makes it of a folder, and with the litter of a Mac."""
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("__MACOSX/photos/class0/._0.png", b"litter")
        for i, (x, y) in enumerate(zip(X, Y, strict=True)):
            archive.writestr(f"photos/class{y}/{i}.png", png(x))
    return folder / "a.zip"


def as_zip_with_labels(folder: Path) -> Path:
    """As StyleGAN and EDM keep their data."""
    names = [f"0000{i % 2}/img{i:08d}.png" for i in range(10)]
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("dataset.json", json.dumps({"labels": list(zip(names, Y, strict=True))}))
        for name, x in zip(names, X, strict=True):
            archive.writestr(name, png(x))
    return folder / "a.zip"


def as_npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", x=X, y=Y)
    return folder / "a.npz"


FORMATS = [as_parquet, as_plain_parquet, as_saved, as_arrow, as_folder, as_zip, as_zip_with_labels, as_npz]


@pytest.mark.parametrize("write", FORMATS, ids=lambda f: f.__name__)
def test_every_format_gives_the_same_rows(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    assert sorted(rows(path)) == EXPECTED
    assert sorted(rows(path, columns=Columns(None, None, False))) == [(x, None) for x, _ in EXPECTED]
    assert rows(path, keep=lambda i: i in (2, 9)) == [rows(path)[i] for i in (2, 9)]


@pytest.mark.parametrize("write", FORMATS, ids=lambda f: f.__name__)
def test_errors_name_file_and_row(write: Callable[[Path], Path], tmp_path: Path) -> None:
    path = write(tmp_path)
    where = [row.where for row in from_path(path, LABELLED)["train"].rows(lambda i: True)]
    assert len(set(where)) == 10
    assert all(name.startswith(str(path)) for name in where)


def test_splits_of_folders_are_their_names(tmp_path: Path) -> None:
    for split, labels in (("train", "ab"), ("val", "b")):
        for label in labels:
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "0.png").write_bytes(png(X[0]))
    (tmp_path / "_meta").mkdir()
    (tmp_path / "_meta" / "0.png").write_bytes(png(X[0]))
    assert {split: len(rows(tmp_path, split)) for split in ("train", "val")} == {"train": 2, "val": 1}
    assert rows(tmp_path, "val")[0][1] == 1, "classes are those of the train split"


def stored(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(X[0]))
    return folder


def labels(path: Path, split: str) -> dict[str, object]:
    return {Path(row.where).name: row.label for row in from_path(path, LABELLED)[split].rows(lambda i: True)}


def test_classes_are_those_of_the_train_split(tmp_path: Path) -> None:
    stored(tmp_path, "train/cat/0.png", "train/dog/1.png", "val/bird/2.png", "val/dog/3.png", "val/4.png")
    assert labels(tmp_path, "train") == {"0.png": 0, "1.png": 1}
    assert labels(tmp_path, "val") == {"2.png": None, "3.png": 1, "4.png": None}


def test_what_is_beside_a_test_folder_alone_is_train(tmp_path: Path) -> None:
    stored(tmp_path, "cat/0.png", "dog/1.png", "test/cat/2.png", "test/dog/3.png")
    assert labels(tmp_path, "train") == {"0.png": 0, "1.png": 1}
    assert labels(tmp_path, "test") == {"2.png": 0, "3.png": 1}
    loose = stored(tmp_path / "loose", "0.png", "1.png", "test/2.png")
    assert {split: part.count for split, part in from_path(loose, UNLABELLED).items()} == {"train": 2, "test": 1}
    assert from_path(stored(tmp_path / "all", "test/2.png"), UNLABELLED).keys() == {"train"}


def test_a_train_folder_beside_others_may_be_a_class(tmp_path: Path) -> None:
    stored(tmp_path, "train/0.png", "car/1.png", "plane/2.png")
    refused(tmp_path, "has the folders train and car, plane, but no test: rename the first if it is a class")


def test_linked_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    stored(tmp_path, "elsewhere/0.png", "photos/dog/1.png")
    (tmp_path / "photos" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "dog" / "loop").symlink_to(tmp_path / "photos")
    assert labels(tmp_path / "photos", "train") == {"0.png": 0, "1.png": 1}


def test_every_dataset_json_has_the_labels_of_its_folder(tmp_path: Path) -> None:
    for split, classes in (("train", (5, 7)), ("test", (7, 5))):
        stored(tmp_path, f"{split}/a/0.png", f"{split}/a/1.png")
        given = [[f"a/{i}.png", y] for i, y in enumerate(classes)]
        (tmp_path / split / "dataset.json").write_text(json.dumps({"labels": given}))
    assert [labels(tmp_path, split) for split in ("train", "test")] == [
        {"0.png": 5, "1.png": 7},
        {"0.png": 7, "1.png": 5},
    ]


def test_images_are_known_by_rarer_suffixes_too(tmp_path: Path) -> None:
    assert from_path(stored(tmp_path, "0.jfif", "1.avif", "2.PNM", "3.doc"), UNLABELLED)["train"].count == 3


def test_a_folder_that_is_called_as_a_table(tmp_path: Path) -> None:
    (tmp_path / "spark.parquet").mkdir()
    dataset().to_parquet(tmp_path / "spark.parquet" / "part-0.parquet")
    assert sorted(rows(tmp_path)) == EXPECTED


@pytest.mark.parametrize("how", ["damaged", "encrypted"])
def test_a_member_of_a_zip_that_cannot_be_read_is_one_row(how: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"{i}.png", png(X[i]))
        start, length = archive.infolist()[1].header_offset, archive.infolist()[1].compress_size
    data = bytearray((tmp_path / "a.zip").read_bytes())
    if how == "damaged":
        data[start + 35 : start + 35 + length] = b"\xff" * length
    else:
        data[start + 6] |= 1
        data[data.find(b"PK\1\2", data.find(b"PK\1\2") + 1) + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    found = [row.image is None for row in from_path(tmp_path / "a.zip", UNLABELLED)["train"].rows(lambda i: True)]
    assert found == [False, True, False]


def test_splits_of_tables_are_their_names(tmp_path: Path) -> None:
    (tmp_path / "plain_text").mkdir()
    for name, n in (("train-00000-of-00002", 4), ("train-00001-of-00002", 3), ("validation-0", 2)):
        dataset().select(range(n)).to_parquet(tmp_path / "plain_text" / f"{name}.parquet")
    assert {split: part.count for split, part in from_path(tmp_path, LABELLED).items()} == {"train": 7, "validation": 2}
    assert len(rows(tmp_path)) == 7


def test_rows_are_counted_across_batches_and_files(tmp_path: Path) -> None:
    """Batches are of 64 rows: row numbers start anew in each file, and what is kept goes by the number in all of them."""
    from datasets import concatenate_datasets

    long = concatenate_datasets([dataset()] * 14)
    for name, n in (("train-0", 140), ("train-1", 70)):
        long.select(range(n)).to_parquet(tmp_path / f"{name}.parquet")
    kept = [3, 70, 139, 140, 206]
    found = list(from_path(tmp_path, Columns(None, "id", True))["train"].rows(lambda i: i in kept))
    assert [Path(row.where).name for row in found] == [
        f"train-{f}.parquet row {i}" for f, i in ((0, 3), (0, 70), (0, 139), (1, 0), (1, 66))
    ]
    assert [row.label for row in found] == [3, 0, 9, 0, 6]


def test_splits_of_arrays_are_their_keys(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X, y_train=Y, x_test=X[:3].transpose(0, 3, 1, 2), y_test=Y[:3])
    assert (len(rows(tmp_path / "a.npz")), [y for _, y in rows(tmp_path / "a.npz", "test")]) == (10, Y[:3])


def test_columns_by_name(tmp_path: Path) -> None:
    found = rows(as_parquet(tmp_path), columns=Columns("img", "id", True))
    assert [y for _, y in found] == list(range(10))


# ---------------------------------------------------------------------- splits


def picked(names: str, role: str, wanted: str, other: str | None = None, count: int = 20) -> tuple[str, list[int]]:
    from genlab.data.rows import Part

    part = {name: Part(count, lambda keep: iter(())) for name in names.split()}
    splits = {"train": "train", "test": "test"}
    splits |= {name: wanted if name == role else other or name for name in splits}
    chosen_part, keep, meant = chosen(part, role, splits, "here")
    name = next(name for name, value in part.items() if value is chosen_part)
    assert meant.startswith(name)
    return name, [i for i in range(count) if keep(i)]


def test_a_split_goes_by_its_synonyms() -> None:
    whole = list(range(20))
    assert picked("train test", "test", "test") == ("test", whole)
    assert picked("train val", "test", "test") == ("val", whole)
    assert picked("train validation test", "test", "validation") == ("validation", whole)
    assert picked("train test val", "test", "validation") == ("val", whole)
    assert picked("training valid", "train", "train") == ("training", whole)


def test_one_row_in_ten_is_held_out_of_a_source_without_a_test_split() -> None:
    assert picked("train", "test", "test") == ("train", [9, 19])
    assert picked("train", "train", "train") == ("train", [i for i in range(20) if i not in (9, 19)])
    assert picked("train", "test", "validation") == ("train", [9, 19])


def test_slices_cut_a_source_without_a_test_split() -> None:
    assert picked("train", "train", "train[:15]", "train[15:]") == ("train", list(range(15)))
    assert picked("train", "test", "train[15:]", "train[:15]") == ("train", list(range(15, 20)))
    assert picked("train test", "test", "train[15:]", "train[:15]") == ("test", list(range(20)))
    assert [i for i in range(9) if sliced(9, "train[2:5]")(i)] == [2, 3, 4]
    assert base("train[2:5]") == "train"


def test_slices_cut_the_split_that_they_name() -> None:
    assert picked("train test", "train", "train[:15]") == ("train", list(range(15)))
    assert picked("train val", "train", "train[:15]") == ("train", list(range(15)))
    assert picked("train test", "test", "test[15:]") == ("test", list(range(15, 20)))
    assert picked("train held_out", "test", "held_out") == ("held_out", list(range(20)))


@pytest.mark.parametrize("names", ["train", "train other"])
@pytest.mark.parametrize("cut", [("train[:15]", "test"), ("train", "train[15:]")])
def test_one_slice_alone_would_overlap(names: str, cut: tuple[str, str]) -> None:
    for role, wanted, other in (("train", *cut), ("test", *cut[::-1])):
        with pytest.raises(
            GenlabError, match=rf"train={re.escape(cut[0])} and .*test={re.escape(cut[1])} would overlap"
        ):
            picked(names, role, wanted, other)


def test_one_part_that_both_name_is_shared_out() -> None:
    assert picked("test", "train", "test", "test")[1] == [i for i in range(20) if i not in (9, 19)]
    assert picked("test", "test", "test", "test")[1] == [9, 19]


@pytest.mark.parametrize("wanted", ["train[", "train[:5%]", "", "a b"])
def test_splits_that_cannot_be_read(wanted: str) -> None:
    with pytest.raises(GenlabError, match="cannot read the split"):
        base(wanted)


def test_a_source_without_training_images() -> None:
    with pytest.raises(GenlabError, match=r"here has no train split, only test.*data.source.splits.train"):
        picked("test", "train", "train")


# ---------------------------------------------------------------------- captions

CAPTIONS = [f'ein "größeres" Bild, {i}:\u2028猫' for i in range(10)]
CAPTIONED = Columns(None, None, False, "auto")


def texts(path: Path, columns: Columns = CAPTIONED, split: str = "train") -> dict[str, object]:
    return {Path(row.where).name: row.caption for row in from_path(path, columns)[split].rows(lambda i: True)}


def unlabelled(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, x in enumerate(X):
        (folder / f"{i}.png").write_bytes(png(x))
    return folder


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"photos/{file.relative_to(folder)}")
    return folder.with_suffix(".zip")


def test_captions_are_a_column_of_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    dataset().add_column("text", CAPTIONS).to_parquet(path)
    assert list(texts(path).values()) == CAPTIONS
    dataset().add_column("text", CAPTIONS).add_column("other", CAPTIONS[::-1]).to_parquet(path)
    assert list(texts(path, Columns(None, None, True, "other")).values()) == CAPTIONS[::-1]
    refused(path, r"several caption columns \(text, other\): set data.source.caption to one of", CAPTIONED)
    refused(path, r"has no column 'txt': set data.source.caption to one of", Columns(None, None, False, "txt"))
    refused(as_parquet(tmp_path), "no caption column: .*or to null to go without", CAPTIONED)


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
def test_captions_stand_beside_images(tmp_path: Path, pack: Callable[[Path], Path]) -> None:
    folder = unlabelled(tmp_path / "photos")
    for i, caption in enumerate(CAPTIONS):
        (folder / f"{i}.txt").write_text(f"{caption}\n", "utf-8")
    (folder / "3.txt").unlink()
    (folder / "4.txt").write_bytes(b"\xff\xfe\x00")
    (folder / "notes.txt").write_text("of no image")
    found = {name.split(" ")[-1]: caption for name, caption in texts(pack(folder)).items()}
    assert found == {f"{i}.png": None if i in (3, 4) else caption for i, caption in enumerate(CAPTIONS)}


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_captions_are_in_the_metadata(tmp_path: Path, form: str, pack: Callable[[Path], Path]) -> None:
    import csv

    folder = unlabelled(tmp_path / "photos" / "train")
    rows = [{"file_name": f"{i}.png", "text": caption} for i, caption in enumerate(CAPTIONS) if i != 3]
    with open(folder / f"metadata.{form}", "w", encoding="utf-8", newline="") as file:
        if form == "csv":
            writer = csv.DictWriter(file, ["file_name", "text"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for wanted in ("auto", "text"):
        found = texts(pack(tmp_path / "photos"), Columns(None, None, False, wanted))
        assert found == {f"{i}.png": None if i == 3 else caption for i, caption in enumerate(CAPTIONS)}
    refused(
        folder, r"no column 'caption': set data.source.caption to one of text", Columns(None, None, False, "caption")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,text,author\n0.png,a,b\n", "metadata.csv has several columns: .* one of author, text"),
        ("name,text\n0.png,a\n", "metadata.csv has no column file_name, only name, text"),
        ("file_name\n0.png\n", "metadata.csv has no column of captions"),
        ("", "no column file_name, only nothing"),
        ("\xff", "cannot read .*metadata.csv"),
    ],
)
def test_metadata_that_cannot_be_read(tmp_path: Path, content: str, message: str) -> None:
    (unlabelled(tmp_path) / "metadata.csv").write_bytes(content.encode("latin-1"))
    refused(tmp_path, message, CAPTIONED)


def test_images_without_any_captions(tmp_path: Path) -> None:
    refused(unlabelled(tmp_path), r"has no captions: NAME.txt beside each image.*data.source.caption=null", CAPTIONED)


def test_captions_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X, caption_train=CAPTIONS, title_train=CAPTIONS[::-1])
    assert list(texts(tmp_path / "a.npz").values()) == CAPTIONS
    assert list(texts(tmp_path / "a.npz", Columns(None, None, False, "title")).values()) == CAPTIONS[::-1]
    np.savez(tmp_path / "a.npz", x_train=X, caption_train=CAPTIONS[:9])
    refused(tmp_path / "a.npz", "no 10 strings caption_train", CAPTIONED)


# ---------------------------------------------------------------------- bad input


def refused(path: Path, match: str, columns: Columns = LABELLED) -> None:
    with pytest.raises(GenlabError, match=match) as caught:
        list(from_path(path, columns)["train"].rows(lambda i: True))
    assert len(str(caught.value).splitlines()) == 1


def test_missing_and_ambiguous_columns(tmp_path: Path) -> None:
    path = as_parquet(tmp_path)
    refused(path, r"has no column 'image': set data.source.image to one of id, img, kind", Columns("image", None, True))
    refused(path, r"has no column 'y': set data.source.label", Columns(None, "y", True))
    dataset().add_column("other", list(range(10))).remove_columns("kind").to_parquet(path)
    refused(path, r"several label columns \(id, other\): set data.source.label")
    dataset().remove_columns(["kind", "id"]).to_parquet(path)
    refused(path, "no label column: .* or data.classes=0 to go without")
    dataset().remove_columns("img").to_parquet(path)
    refused(path, "no image column: set data.source.image to one of id, kind")


@pytest.mark.parametrize("bytes_left", [0, 50, 1000])
@pytest.mark.parametrize("write", [as_parquet, as_zip, as_npz, as_arrow], ids=lambda f: f.__name__)
def test_truncated_files(write: Callable[[Path], Path], bytes_left: int, tmp_path: Path) -> None:
    path = write(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:bytes_left])
    refused(path, str(path))


def test_damaged_pages_of_a_parquet_file(tmp_path: Path) -> None:
    path = as_parquet(tmp_path)
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    refused(path, "cannot be read after row 0")


def test_tables_of_other_columns(tmp_path: Path) -> None:
    as_plain_parquet(tmp_path)
    dataset().to_parquet(tmp_path / "train-00001-of-00001.parquet")
    refused(tmp_path, r"train-00001-of-00001.parquet has no column 'picture' as .*00000.* has, only id, img, kind")


def test_columns_of_types_that_no_image_has_are_left_alone(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    notes = pa.array([[("a", 1)]] * 10, pa.map_(pa.string(), pa.int64()))
    pq.write_table(pa.table({"picture": [png(x) for x in X], "y": Y, "notes": notes}), tmp_path / "a.parquet")
    assert sorted(rows(tmp_path)) == EXPECTED


def test_nothing_to_read(tmp_path: Path) -> None:
    refused(tmp_path, "holds no image")
    (tmp_path / "notes.txt").write_text("")
    refused(tmp_path / "notes.txt", r"a folder or .zip of images, .parquet, .arrow or .npz is needed")
    (tmp_path / "0.png").write_bytes(png(X[0]))
    refused(tmp_path, "no folder of each class and no dataset.json")


@pytest.mark.parametrize("text", ["", "[]", '{"labels": 3}'])
def test_labels_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (unlabelled(tmp_path) / "dataset.json").write_text(text)
    refused(tmp_path, r"dataset.json is not \{\"labels\": \[\[name, class\], ...\]\}")


def test_arrays_are_read_a_row_at_a_time(tmp_path: Path) -> None:
    """However they are compressed, and the damage is told with what was read before it."""
    many = np.random.default_rng(1).integers(0, 256, (200, 6, 5, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x_train=many, y_train=np.arange(200))
    part = from_path(tmp_path / "a.npz", LABELLED)["train"]
    found = list(part.rows(lambda i: i in (0, 7, 199)))
    assert [(int(row.label), decoded(row.image)) for row in found] == [(i, decoded(many[i])) for i in (0, 7, 199)]
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[9000:9010] = bytes(10)
    (tmp_path / "a.npz").write_bytes(data)
    refused(tmp_path / "a.npz", r"a.npz x_train cannot be read after row \d+: ")
    np.savez(tmp_path / "a.npz", x_train=np.asfortranarray(many), y_train=np.arange(200))
    refused(tmp_path / "a.npz", "uint8 in Fortran order cannot be read")
    np.savez(tmp_path / "a.npz", x_train=np.array([many[0], None], object))
    refused(tmp_path / "a.npz", "no .npz: object")


def test_arrays_that_are_no_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=X / 255, y_train=Y)
    refused(tmp_path / "a.npz", r"x_train is float64 .*uint8")
    np.savez(tmp_path / "a.npz", x_train=X, y_train=Y[:4])
    refused(tmp_path / "a.npz", "no 10 labels y_train")
    np.savez(tmp_path / "a.npz", images=X)
    refused(tmp_path / "a.npz", "no x_train and x_test .*only images")
