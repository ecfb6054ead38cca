"""Tables with a column of images: the hub, what `datasets` saved, Arrow and parquet files."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from genlab.data.rows import TEST, TRAIN, Columns, Keep, Part, Row
from genlab.errors import GenlabError
from genlab.hints import line_of

# datasets and pyarrow take a second to import, so that each reader imports them itself
AT_ONCE, PAGES = 64, 2**20  # rows and bytes of a table read at a time


def from_hub(hub: str, config: str | None, revision: str | None, split: str, columns: Columns) -> Part:
    """One split of a data set on the Hugging Face hub, at a commit that is looked up where none is given."""
    import httpx
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        revision = HfApi().dataset_info(hub, revision=revision).sha
        data: Any = load_dataset(hub, config, split=split, revision=revision)
    except GatedRepoError:
        raise GenlabError(
            f"{hub} is gated: accept its terms at https://huggingface.co/datasets/{hub}, then `hf auth login` or HF_TOKEN"
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError, DatasetNotFoundError) as error:
        raise GenlabError(f"the hub has no data set {hub} at revision {revision}: {line_of(error)}") from None
    except (ValueError, DatasetsError) as error:  # an unknown split or configuration, files that are not what they say
        raise GenlabError(f"{hub}: {line_of(error)}") from None
    except (OSError, httpx.HTTPError) as error:
        why = line_of(error).split(". ")[0]
        raise GenlabError(
            f"cannot reach the hub for {hub} ({why}): set data.source.path to a local copy, or run `genlab data prepare` "
            "on a machine with network and copy its cache folder"
        ) from None
    part = _dataset(data, f"{hub} {split}", columns)
    return Part(part.count, part.rows, part.names, revision)


def _dataset(data: Any, where: str, columns: Columns) -> Part:
    def batches(names: list[str]) -> Iterator[tuple[str, int, Any]]:
        first = 0
        for table in data.select_columns(names).with_format("arrow").iter(AT_ONCE):
            yield where, first, table
            first += len(table)

    return _table(data.features, len(data), batches, columns, where, Path())


def saved(path: Path, columns: Columns) -> dict[str, Part]:
    """What `save_to_disk` of `datasets` wrote."""
    from datasets import DatasetDict, load_from_disk

    try:
        data = load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise GenlabError(f"cannot read {path}: {line_of(error)}") from None
    splits = dict(data) if isinstance(data, DatasetDict) else {"train": data}
    return {str(name): _dataset(split, f"{path} {name}", columns) for name, split in splits.items()}


def tables(path: Path, files: list[Path], reader: Callable[[list[Path], Columns], Part], columns: Columns) -> Any:
    """Files by the split that their names begin with, or that a folder above them is called; all others are train."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        stems = [part.lower() for part in file.relative_to(path).with_suffix("").parts]
        found = [name for stem in stems for name in TRAIN + TEST if stem.replace("_", "-").split("-")[0] == name]
        splits.setdefault(found[0] if found else "train", []).append(file)
    return {name: reader(chosen, columns) for name, chosen in splits.items()}


def _arrow(files: list[Path], columns: Columns) -> Part:
    from datasets import Dataset, concatenate_datasets

    try:
        data = concatenate_datasets([Dataset.from_file(str(file)) for file in files])
    except (OSError, ValueError, KeyError) as error:
        raise GenlabError(f"cannot read {files[0]}: {line_of(error)}") from None
    return _dataset(data, str(files[0] if len(files) == 1 else files[0].parent), columns)


def _parquet(files: list[Path], columns: Columns) -> Part:
    import pyarrow as pa
    from datasets import Features

    schema, known = parquet(files[0]).schema_arrow, list[Any]()
    for field in schema:
        with suppress(ValueError):  # of types that datasets has not, as maps
            Features.from_arrow_schema(pa.schema([field]))
            known.append(field)
    features = Features.from_arrow_schema(pa.schema(known, metadata=schema.metadata))
    count = sum(parquet(file).metadata.num_rows for file in files)
    return _table(features, count, partial(batches_of, files), columns, str(files[0]), files[0].parent)


def parquet(file: Path) -> Any:
    """A parquet file, none of whose rows is read yet; raises GenlabError for what is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, buffer_size=PAGES, pre_buffer=False)  # a row group may be as large as the file
    except (pa.ArrowException, OSError) as error:
        raise GenlabError(f"{file} is truncated or no parquet file: {line_of(error)}") from None


def batches_of(files: list[Path], names: list[str]) -> Iterator[tuple[str, int, Any]]:
    """Some columns of parquet files a few rows at a time: (file, number of the first row in it, Arrow table)."""
    import pyarrow as pa

    for file in files:
        first = 0
        try:
            table = parquet(file)
            there = table.schema_arrow.names
            if missing := [name for name in names if name not in there]:
                raise GenlabError(f"{file} has no column {missing[0]!r} as {files[0]} has, only {', '.join(there)}")
            for batch in table.iter_batches(AT_ONCE, columns=names):
                yield str(file), first, batch
                first += len(batch)
        except (pa.ArrowException, OSError) as error:
            raise GenlabError(f"{file} cannot be read after row {first}: {line_of(error)}") from None


TABLES = {".parquet": _parquet, ".arrow": _arrow}


def _table(
    features: Any,
    count: int,
    batches: Callable[[list[str]], Iterator[tuple[str, int, Any]]],  # of columns: (where, number of first row, table)
    columns: Columns,
    where: str,
    folder: Path,
) -> Part:
    from datasets import ClassLabel, Image, Value

    kinds = dict(features)
    images = [c for c, k in kinds.items() if isinstance(k, Image)] or [c for c, k in kinds.items() if _bytes(k)]
    image = _column("image", columns.image, images, kinds, where)
    label = None
    if columns.labelled:
        integers = [c for c, k in kinds.items() if isinstance(k, Value) and "int" in k.dtype]
        classes = [c for c, k in kinds.items() if isinstance(k, ClassLabel)]
        label = _column("label", columns.label, classes or integers, kinds, where)
    text = None
    if columns.caption:
        texts = [c for c, k in kinds.items() if isinstance(k, Value) and k.dtype in ("string", "large_string")]
        text = _column("caption", None if columns.caption == "auto" else columns.caption, texts, kinds, where)
    kind = kinds[label] if label else None

    def rows(keep: Keep) -> Iterator[Row]:
        number = 0
        for name, first, table in batches([column for column in (image, label, text) if column]):
            chosen = [i for i in range(len(table)) if keep(number + i)]
            number += len(table)
            for i in chosen:
                cell, y, caption = (table.column(c)[i].as_py() if c else None for c in (image, label, text))
                data = cell.get("bytes") if isinstance(cell, dict) else cell
                if data is None and isinstance(cell, dict) and cell.get("path"):
                    data = folder / cell["path"]
                yield Row(f"{name} row {first + i}", data, y, caption)

    return Part(count, rows, list(kind.names) if isinstance(kind, ClassLabel) else None)


def _bytes(kind: Any) -> bool:
    kind = kind.get("bytes") if isinstance(kind, dict) else kind
    return getattr(kind, "dtype", None) in ("binary", "large_binary")


def _column(role: str, named: str | None, found: list[str], kinds: dict[str, Any], where: str) -> str:
    if named is not None and named not in kinds:
        raise GenlabError(f"{where} has no column {named!r}: set data.source.{role} to one of {', '.join(kinds)}")
    if named is None and len(found) != 1:
        many = f"several {role} columns ({', '.join(found)})" if found else f"no {role} column"
        without = {"label": ", or data.classes=0", "caption": ", or to null"}.get(role)
        without = f"{without} to go without" if without else ""
        raise GenlabError(f"{where} has {many}: set data.source.{role} to one of {', '.join(kinds)}{without}")
    return named or found[0]
