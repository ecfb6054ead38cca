"""What every test may use."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors of tests are small, and several processes run at once

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An extractor cache of the session's own, and a place for runs that are started and refused."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GENLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("GENLAB_OUTPUTS", str(tmp_path_factory.mktemp("outputs")))
    patch.setenv("WANDB_SILENT", "true")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same numbers each time; not of seed 0, which tests give to what must not equal them."""
    torch.manual_seed(20261128)


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs of one test go."""
    monkeypatch.setenv("GENLAB_OUTPUTS", str(tmp_path))
    return tmp_path
