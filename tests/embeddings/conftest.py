from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tiny import WORDS, tiny_folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, 40, 120)
    return [f"{' '.join(generator.choice(WORDS, size))} {n}" for n, size in enumerate(sizes)]
