"""A sample of texts, the heads of its gradients, and scores over it without their seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.source import EmbeddingSource, open_source
from layerfusion.layers import backbone_scores
from layerfusion.layers.probe import LinearProbe

POOLINGS = {"mean": PoolingConfig("mean"), "last": PoolingConfig("last")}
TEXTS = [
    "oil price rose",
    "the film was good and the plot was great and the actor was awful and the story was bad",
    "net",
    "company said profit fell in the year to the bank of trade",
    "bad plot",
    "oil price fell",
]
LABELS = [2, 0, 1, 2, 0, 2]
CPU = ExtractConfig(device="cpu", token_budget=60)
WITH_ATTENTION = (
    "bert",
    "deberta_v2",
    "modernbert",
    "convbert",
    "albert",
    "t5",
    "gpt2",
    "llama",
    "falcon",
)


def sample_attention(*arguments: Any) -> dict[str, np.ndarray]:
    values, seconds = backbone_scores.sample_attention(*arguments)
    assert seconds >= 0
    return values


def sample_gradient(*arguments: Any) -> dict[tuple[str, str], float]:
    values, seconds = backbone_scores.sample_gradient(*arguments)
    assert seconds >= 0
    return values


def head(seed: int) -> LinearProbe:
    generator = torch.Generator().manual_seed(seed)
    return LinearProbe(
        0.1 * torch.randn(3, 32, generator=generator), torch.randn(3, generator=generator)
    )


HEADS = {"mean": head(0), "last": head(1)}


def opened(
    folder: Path, cache: Path, poolings: dict[str, PoolingConfig] = POOLINGS, **settings: Any
) -> EmbeddingSource:
    config = BackboneConfig(path=str(folder), **settings)
    return open_source("tiny", config, poolings, cache)


def kept_files(cache: Path) -> list[Path]:
    return sorted((cache / "scores").glob("*"))
