"""Images that lie at a path: samples that somebody else's model made, or what samples are held against."""

from collections.abc import Sequence
from pathlib import Path

from genlab.data.images import Images
from genlab.data.ingest import from_path
from genlab.data.pixels import Unfit, shape_of
from genlab.data.rows import Columns
from genlab.data.source import Batch
from genlab.errors import GenlabError


class Given:
    """A Source whose test split is all images of a folder, .zip, .npz, .parquet or .arrow file, as they are.

    Raises GenlabError, with the file, where one cannot be decoded or is not as large as the others, and for an empty path.
    """

    def __init__(self, path: Path, cache: str, shape: Sequence[int] | None = None):
        if not path.exists():
            raise GenlabError(f"{path} does not exist: a run, or a folder, .zip or .npz of samples is needed")
        self.path, self.name = path, path.stem
        images = Images(self.name, shape or self._shape(), None, cache, path=str(path), splits={"train": "train[0:]"})
        self.images = images

    transform = "none: as they are"

    def split(self, name: str) -> Batch:
        """All of it as "test"; raises GenlabError for a training set, which images from elsewhere do not have."""
        if name != "test":
            raise GenlabError(f"{self.path} has no {name} split: leave out the metrics that look for copies of it")
        return self.images.split("train")

    def sha256(self, split: str) -> str:
        """The hash of the decoded images."""
        return self.images.sha256("train")

    def _shape(self) -> tuple[int, int, int]:
        """That of the first image."""
        for part in from_path(self.path, Columns(None, None, False)).values():
            for row in part.rows(lambda i: i == 0):
                try:
                    return shape_of(row.image)
                except Unfit as error:
                    raise GenlabError(f"{row.where}: {error}") from None
        raise GenlabError(f"{self.path} holds no image")
