from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.assets import wheels
from tests.assets.fakes import FakeIndex


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeIndex:
    folder = tmp_path / "index"
    folder.mkdir()
    fake = FakeIndex(folder)
    monkeypatch.setattr(wheels, "pip_download", fake)
    return fake


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, with no folders to look in."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LAYERFUSION_DATA", raising=False)
    monkeypatch.delenv("LAYERFUSION_MODELS", raising=False)
