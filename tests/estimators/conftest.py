"""A tiny model, texts of two classes, and an empty folder to work in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from layerfusion import LayerFusionClassifier
from tests.tiny import tiny_folder, tiny_texts, tiny_topics

ROWS = 40

FUSIONS = [
    {"fusion": "auto"},
    {"fusion": "stacked", "layers": "last", "lexical": "words"},
    {"fusion": "gated", "layers": "all", "lexical": "words"},
    {"fusion": "concat", "layers": "top_k"},
]
"""A choice by folds, a stack, and heads with and without gates."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("estimators")
    tiny_folder("bert", folder / "tiny")
    tiny_folder("gpt2", folder / "small", num_hidden_layers=1, n_layer=1)
    tiny_texts(folder / "reviews.csv", ROWS + 12)
    return folder


@pytest.fixture(scope="session")
def rows(place: Path) -> pd.DataFrame:
    """Some labels are wrong, so that no classifier is sure of itself."""
    frame = pd.read_csv(place / "reviews.csv")[:ROWS]
    wrong = frame.index % 8 == 5
    return frame.assign(
        label=frame.label.mask(wrong, frame.label.map({"neg": "pos", "pos": "neg"}))
    )


@pytest.fixture(scope="session")
def new(place: Path) -> list[str]:
    """Texts that no classifier has seen."""
    return pd.read_csv(place / "reviews.csv").text[ROWS:].tolist()


@pytest.fixture(scope="session")
def topics() -> tuple[list[str], pd.DataFrame]:
    """Texts, and the labels of each; some labels are wrong."""
    texts, labels = tiny_topics(ROWS + 8)
    wrong = np.random.default_rng(1).random(labels.shape) < 0.08
    return texts, labels.mask(wrong, 1 - labels)


@pytest.fixture
def make(place: Path) -> Any:
    """Makes classifiers on the tiny model, with a cache that all tests share."""

    def classifier(**params: Any) -> LayerFusionClassifier:
        usual = {"models": str(place / "tiny"), "seeds": 1, "cache": str(place / "cache")}
        settings = {"trainer": {"max_epochs": 3}, "layers.folds": 2}
        return LayerFusionClassifier(**{**usual, "settings": settings, **params})

    return classifier


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
