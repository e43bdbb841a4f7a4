from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layerfusion.config.job import DatasetConfig, LimitConfig
from layerfusion.texts import TextDataset, load_dataset

Load = Callable[..., TextDataset]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, with no folders to look in."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LAYERFUSION_DATA", raising=False)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def load(cache: Path) -> Load:
    """Load a data set of the user's, as `dataset=local dataset.KEY=VALUE …` does."""

    def call(*, limit: LimitConfig | None = None, seed: int = 0, **keys: Any) -> TextDataset:
        keys = {
            key: str(value) if isinstance(value, Path) else value for key, value in keys.items()
        }
        config = DatasetConfig(**{"name": "local", **keys})
        return load_dataset(config, limit or LimitConfig(), seed=seed, cache=cache)

    return call
