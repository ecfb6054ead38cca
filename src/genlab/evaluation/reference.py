"""Reference statistics: what an extractor sees in a split of the data, computed once and kept, or brought from elsewhere.

A folder of the cache holds the moments in the names of pytorch-fid and EDM (mu, sigma; of spatial features mu_s, sigma_s),
the tensors beside them, and `manifest.json`, written last, with where they come from and the sha256 of each file.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genlab.data.source import Source
from genlab.distributed import everywhere, gathered, ranks
from genlab.errors import GenlabError
from genlab.evaluation.banks import chunks, fill
from genlab.evaluation.features import FeatureBank, Features
from genlab.evaluation.moments import Gaussian
from genlab.files import locked, place, sha256

FORMAT = 3  # of the files: counted up when the same key comes to mean other numbers
GAUSSIANS = {"moments": "", "spatial": "_s"}
KEPT = ("features", "logits")  # tensors that are files; x and y are the data's own


class References:
    """The banks of a data set's splits in the eyes of one extractor."""

    def __init__(self, source: Source, extractor: Features, cache: str, batch: int, device: torch.device):
        self.source, self.extractor, self.batch, self.device = source, extractor, batch, device
        self.root = Path(cache).expanduser() / "reference"
        self._banks: dict[str, FeatureBank] = {}
        self._identities: dict[str, dict[str, Any]] = {}

    def identity(self, split: str) -> dict[str, Any]:
        """What the statistics are of."""
        if split not in self._identities:
            self._identities[split] = self._identity(split)
        return self._identities[split]

    def _identity(self, split: str) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "data": self.source.name,
            "data_sha256": self.source.sha256(split),
            "transform": self.source.transform,
            "split": split,
            "n": len(self.source.split(split).x),
            "extractor": self.extractor.name,
            "extractor_sha256": self.extractor.fingerprint,
            "layer": self.extractor.layer,
            "resize": self.extractor.resize,
        }

    def folder(self, split: str) -> Path:
        """Where what belongs to a split is kept."""
        identity = self.identity(split)
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
        return self.root / f"{identity['data'].replace('/', '-')}-{split}-{digest}"

    def bank(self, split: str, needs: Sequence[str]) -> FeatureBank:
        """The bank of a whole split with what `needs` names, `nearest` excepted; from the cache if it is there intact."""
        needs = [name for name in (*GAUSSIANS, *KEPT, "x", "y") if name in needs]
        known = self._banks.get(split)
        if known is None or any(getattr(known, name) is None for name in needs):
            self._banks[split] = known = self._prepared(split, needs)
        return known

    def _prepared(self, split: str, needs: list[str]) -> FeatureBank:
        data, folder = self.source.split(split), self.folder(split)
        files = [name for name in needs if name not in ("x", "y")]
        first = ranks()[0] == 0
        with locked(folder) if first else nullcontext():
            bank = _read(folder, files)
            if not everywhere(bank is not None):
                # with what is there already, or two protocols would take turns in computing it anew
                held = gathered({ranks()[0]: _holds(folder)})[0]
                files = [name for name in (*GAUSSIANS, *KEPT) if name in {*files, *held}]
                bank = fill(chunks(data, self.batch), len(data.x), self.extractor, files, self.device, blocks=1)
                if first:
                    _write(folder, bank, {**self.identity(split), "holds": files})
        assert bank is not None
        x, y = (value if name in needs else None for name, value in zip("xy", data, strict=True))
        return replace(bank.to(self.device), x=x, y=y)


def _holds(folder: Path) -> list[str]:
    """What has been computed before, intact or not."""
    try:
        return json.loads((folder / "manifest.json").read_text())["holds"]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _write(folder: Path, bank: FeatureBank, manifest: dict[str, Any]) -> None:
    arrays: dict[str, Any] = {}
    for name, suffix in GAUSSIANS.items():
        moments = getattr(bank, name)
        if moments is not None:
            g = moments.gaussian
            named = {f"mu{suffix}": g.mean, f"sigma{suffix}": g.covariance, f"factor{suffix}": g.factor}
            arrays |= {key: value.cpu().numpy() for key, value in named.items()}
    files: dict[str, Any] = {"moments.npz": lambda file: np.savez(file, **arrays)}
    for name in KEPT:
        tensor = getattr(bank, name)
        if tensor is not None:
            files[f"{name}.npy"] = lambda file, tensor=tensor: np.save(file, tensor.cpu().numpy())
    digests = {name: place(folder / name, write) for name, write in files.items()}
    text = json.dumps({**manifest, "files": digests}, indent=1)
    place(folder / "manifest.json", lambda file: file.write(text.encode()))


def _read(folder: Path, needs: list[str]) -> FeatureBank | None:
    """What was written, if it is intact and has all that is needed."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        if not set(needs) <= set(manifest["holds"]):
            return None
        if any(sha256(folder / name) != digest for name, digest in manifest["files"].items()):
            return None
        tensors = {name: _tensor(folder / f"{name}.npy") for name in KEPT if f"{name}.npy" in manifest["files"]}
        found: dict[str, Any] = {**_moments(folder / "moments.npz", manifest["n"]), **tensors}
        return FeatureBank(manifest["n"], **found)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _tensor(path: Path) -> Tensor:
    return torch.from_numpy(np.load(path))


def _moments(path: Path, n: int | None) -> dict[str, Gaussian]:
    """The Gaussians of an .npz that holds mu and sigma, and perhaps mu_s and sigma_s."""
    with np.load(path, allow_pickle=False) as file:
        found = {}
        for name, suffix in GAUSSIANS.items():
            if f"mu{suffix}" in file.files:
                mean, covariance = (torch.from_numpy(file[f"{part}{suffix}"]).double() for part in ("mu", "sigma"))
                found[name] = Gaussian(mean, covariance, n)
                if n is not None and f"factor{suffix}" in file.files:  # known, so that nobody computes it again
                    found[name].factor = factor = torch.from_numpy(file[f"factor{suffix}"])
                    found[name].narrow = factor if n <= len(mean) else None  # of few samples it is not triangular
    return found


def imported(path: Path, n: int | None) -> FeatureBank:
    """Statistics that somebody else made: mu and sigma as pytorch-fid, TTUR and EDM write them, mu_s and sigma_s as ADM.

    Raises GenlabError for a file that is none of these.
    """
    try:
        moments = _moments(path, n)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise GenlabError(f"cannot read the statistics {path}: {' '.join(str(error).split())}") from None
    if "moments" not in moments:
        raise GenlabError(f"{path} holds no statistics: the arrays mu and sigma are needed")
    for gaussian in moments.values():
        mean, covariance = tuple(gaussian.mean.shape), tuple(gaussian.covariance.shape)
        if len(mean) != 1 or covariance != mean * 2:
            raise GenlabError(
                f"{path} holds no statistics: mu is of {mean} and sigma of {covariance}, not (D,) and (D, D)"
            )
    return FeatureBank(n or 0, moments.get("moments"), moments.get("spatial"))
