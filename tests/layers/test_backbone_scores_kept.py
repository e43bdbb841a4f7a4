"""What is kept of scores over a sample: found again, by all that changes a value, if whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from layerfusion.config.job import PoolingConfig
from layerfusion.embeddings.source import EmbeddingSource
from layerfusion.layers import backbone_scores
from layerfusion.layers.probe import LinearProbe
from tests.layers.sampled import (
    CPU,
    HEADS,
    LABELS,
    POOLINGS,
    TEXTS,
    kept_files,
    opened,
    sample_attention,
    sample_gradient,
)


def forbid_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(backbone_scores, "load_backbone", refuse)


def test_what_is_kept_needs_no_model(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(folders["modernbert"], tmp_path)
    attention = sample_attention(source, TEXTS, CPU)
    gradient = sample_gradient(source, TEXTS, LABELS, HEADS, CPU)
    forbid_the_model(monkeypatch)
    again = opened(folders["modernbert"], tmp_path)
    other = replace(CPU, token_budget=7)
    kept = sample_attention(again, TEXTS, other)
    assert list(kept) == list(attention)
    for layer, heads in kept.items():
        assert heads.dtype == np.float64
        np.testing.assert_array_equal(heads, attention[layer])
    labels = np.array(LABELS)  # any integers will do
    found = sample_gradient(again, TEXTS, labels, HEADS, other)  # type: ignore[arg-type]
    assert list(found.items()) == list(gradient.items())
    # A pooling of the embeddings changes no attention.
    pooled = opened(folders["modernbert"], tmp_path, {"max": PoolingConfig("max")})
    assert list(sample_attention(pooled, TEXTS, CPU)) == list(attention)


def test_whatever_changes_a_value_changes_its_address(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    source = opened(folders["bert"], tmp_path)
    moved = replace(HEADS["mean"], bias=HEADS["mean"].bias + torch.tensor([0.0, 1e-3, 0.0]))
    calls: list[tuple[EmbeddingSource, list[str], list[int], dict[str, LinearProbe]]] = [
        (source, TEXTS, LABELS, HEADS),
        (source, TEXTS[::-1], LABELS[::-1], HEADS),
        (source, TEXTS[:-1], LABELS[:-1], HEADS),
        (source, TEXTS, [0, *LABELS[1:]], HEADS),
        (source, TEXTS, LABELS, {"mean": HEADS["mean"]}),
        (source, TEXTS, LABELS, {**HEADS, "mean": moved}),
        (opened(folders["bert"], tmp_path, template="it was {text}"), TEXTS, LABELS, HEADS),
        (opened(folders["bert"], tmp_path, max_length=5), TEXTS, LABELS, HEADS),
        (opened(folders["bert"], tmp_path, dtype="bfloat16"), TEXTS, LABELS, HEADS),
        (
            opened(folders["bert"], tmp_path, {**POOLINGS, "last": PoolingConfig("max")}),
            *(TEXTS, LABELS, HEADS),
        ),
        (opened(folders["albert"], tmp_path), TEXTS, LABELS, HEADS),
    ]
    for count, (where, texts, labels, heads) in enumerate(calls, 1):
        for _ in range(2):
            sample_gradient(where, texts, labels, heads, CPU)
            assert len(kept_files(tmp_path)) == count
    for where, texts, labels, heads in calls:
        sample_gradient(where, texts, labels, heads, CPU)
    assert len(kept_files(tmp_path)) == len(calls)
    sample_attention(source, TEXTS, CPU)
    assert len(kept_files(tmp_path)) == len(calls) + 1


def test_a_damaged_file_is_computed_again(folders: dict[str, Path], tmp_path: Path) -> None:
    source = opened(folders["bert"], tmp_path)
    expected = sample_gradient(source, TEXTS, LABELS, HEADS, CPU)
    (path,) = kept_files(tmp_path)
    whole = path.read_text()
    values = json.loads(whole)["facts"]["values"]
    digit = whole.replace(str(values["mean"]["0"]), "1.5")
    assert digit != whole
    for damaged in ("", whole[:-40], digit, "[]", "null", '{"values": {}}', "\x00" * 80):
        path.write_text(damaged)
        assert sample_gradient(source, TEXTS, LABELS, HEADS, CPU) == expected
        again = json.loads(path.read_text())
        assert again["facts"]["values"] == values
    path.write_bytes(b"\xff\xfe" + whole.encode())
    assert sample_gradient(source, TEXTS, LABELS, HEADS, CPU) == expected
