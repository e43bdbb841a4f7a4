"""A job that selects layers, on a tiny model and a tiny file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layerfusion.runs import select_layers
from tests.tiny import BAD, GOOD, tiny_folder, tiny_job


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: tiny_folder(name, root / name) for name in ("llama", "bert", "fnet")}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files; a few words of the other label make it hard enough to tell layers apart."""
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data")
    for split, rows in (("train", 240), ("test", 60)):
        made = []
        for number in range(rows):
            label = number % 2
            mixed = [GOOD, BAD] if label else [BAD, GOOD]
            words = [*generator.choice(mixed[0], 4), *generator.choice(mixed[1], 3)]
            made.append((f"{' '.join(generator.permutation(words))} {number}", "np"[label]))
        pd.DataFrame(made, columns=["text", "label"]).to_csv(folder / f"{split}.csv", index=False)
    return folder


@pytest.fixture
def job(
    folders: dict[str, Path], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.setattr(select_layers, "_selections", {})  # as in a new process
    return [
        *tiny_job(texts, folders["llama"], tmp_path / "cache"),
        *(f"paths.outputs={tmp_path / 'outputs'}", "logger=none", "seeds=1"),
        *("pooling=[mean,last]", "layers.folds=3", "layers.sample=40"),
    ]
