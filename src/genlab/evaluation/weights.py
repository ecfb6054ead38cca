"""Published weight files: found where other programs keep them, downloaded once, and never used unverified."""

import hashlib
import http.client
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from genlab.errors import GenlabError
from genlab.files import locked, place, sha256

BLOCK = 1 << 20  # bytes of a read


@dataclass(frozen=True)
class Weights:
    """The file at `url` whose sha256 is known, under any of `names`; `path` is the user's own copy."""

    url: str
    sha256: str
    names: Sequence[str]
    cache: str
    path: str | None = None

    def find(self) -> Path:
        """A verified copy: `path`, or of torch.hub's checkpoints ($TORCH_HOME), or of <cache>/weights, or downloaded there.

        Raises GenlabError where a file is not the published one, and where there is none and it cannot be fetched.
        """
        if self.path is not None:
            return self._verified(Path(self.path).expanduser())
        folder = Path(self.cache).expanduser() / "weights"
        known = [Path(torch.hub.get_dir()) / "checkpoints" / name for name in self.names]
        for path in (*known, *(folder / name for name in self.names)):
            if path.is_file():
                return self._verified(path)
        target = folder / self.names[0]
        with locked(folder):  # two ranks, or two jobs of a sweep, want it at once
            if not target.is_file():
                place(target, lambda file: self._download(file, target))
        return self._verified(target)

    def _verified(self, path: Path) -> Path:
        try:
            found = sha256(path)
        except OSError as error:
            raise GenlabError(f"cannot read the weights {path} ({error.strerror}): they are at {self.url}") from None
        if found != self.sha256:
            raise GenlabError(
                f"{path} is not the published file (sha256 {found[:12]}, not {self.sha256[:12]}): delete it, and put that "
                f"of {self.url} in its place"
            )
        return path

    def _download(self, file: BinaryIO, target: Path) -> None:
        from rich.console import Console
        from rich.progress import wrap_file

        if not self.url.startswith(("https://", "http://")):  # file: would copy whatever a stranger names
            raise GenlabError(f"the weights' address {self.url} is none on the web: refused")
        remedy = f"fetch {self.url} on a machine that can, and put it at {target}"
        digest = hashlib.sha256()
        try:
            with urllib.request.urlopen(self.url, timeout=30) as answer:
                size = int(answer.headers.get("Content-Length") or 0)
                bar = {"description": target.name, "console": Console(stderr=True), "disable": not sys.stderr.isatty()}
                with wrap_file(answer, size, **bar) as stream:
                    while block := stream.read(BLOCK):
                        digest.update(block)
                        file.write(block)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise GenlabError(f"cannot download {target.name} ({' '.join(str(reason).split())}): {remedy}") from None
        if digest.hexdigest() != self.sha256:
            raise GenlabError(
                f"what {self.url} sends is not the published file (sha256 differs), or not all of it: {remedy}"
            )
