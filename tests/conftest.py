"""What every test may use."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An extractor cache of the session's own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GENLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the runs of one test go."""
    monkeypatch.setenv("GENLAB_OUTPUTS", str(tmp_path))
    return tmp_path
