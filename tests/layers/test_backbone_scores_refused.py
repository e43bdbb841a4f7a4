"""Models and texts that give no score over a sample, told in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from layerfusion.config.job import ExtractConfig
from layerfusion.errors import UserError
from tests import tiny
from tests.layers.sampled import (
    CPU,
    HEADS,
    LABELS,
    TEXTS,
    kept_files,
    opened,
    sample_attention,
    sample_gradient,
)
from tests.tiny import tiny_folder

CHOOSE = "choose layers.score=probe, gradient or logme"


def test_a_model_without_attention_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        sample_attention(opened(folders["fnet"], tmp_path), TEXTS, CPU)
    assert str(error.value) == (
        f"attention_entropy: backbone tiny gives no attention weights (FNetModel); {CHOOSE}"
    )
    assert not kept_files(tmp_path)
    assert len(sample_gradient(opened(folders["fnet"], tmp_path), TEXTS, LABELS, HEADS, CPU)) == 8


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        (
            "Mamba",
            {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4},
            "gives no attention weights",
        ),
        (
            "Longformer",
            {**tiny.SIZES, "attention_window": 4},
            "gives attention weights of shape (2, 4, 21, 5), not one a pair of 21 tokens",
        ),
        (
            "Lfm2",
            {
                **{k: v for k, v in tiny.GROUPED.items() if k != "head_dim"},
                "layer_types": ["conv", "full_attention", "conv"],
            },
            "gives attention weights in 1 of 3 blocks",
        ),
    ],
)
def test_attention_of_another_kind_is_refused(
    name: str,
    settings: dict[str, Any],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(tiny.CONFIGS, name, (f"{name}Config", settings))
    source = opened(tiny_folder(name, tmp_path / "model"), tmp_path)
    options = ExtractConfig(device="cpu", token_budget=42)
    with pytest.raises(UserError) as error:
        sample_attention(source, TEXTS, options)
    assert str(error.value) == (
        f"attention_entropy: backbone tiny {reason} ({name}Model); {CHOOSE}"
    )


def test_a_value_that_is_not_finite_names_model_and_layer(tmp_path: Path) -> None:
    folder = tiny_folder("albert", tmp_path / "model")
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        # Tokens 1 to 4, with which a model is tried when it is loaded, stay as they are.
        model.embeddings.word_embeddings.weight[5:] = torch.nan
    model.save_pretrained(folder)
    source = opened(folder, tmp_path)
    reason = r"a value that is not finite; try backbone\.tiny\.dtype=float32$"
    with pytest.raises(UserError, match=rf"^attention_entropy: backbone tiny, layer 1: {reason}"):
        sample_attention(source, TEXTS, CPU)
    with pytest.raises(UserError, match=rf"^gradient: backbone tiny, layer 0: {reason}"):
        sample_gradient(source, TEXTS, LABELS, HEADS, CPU)
    assert not kept_files(tmp_path)


def test_no_texts_are_an_error(folders: dict[str, Path], tmp_path: Path) -> None:
    source = opened(folders["bert"], tmp_path)
    with pytest.raises(UserError, match=r"^backbone tiny: there is no text to score its layers"):
        sample_gradient(source, [], [], HEADS, CPU)
    with pytest.raises(UserError, match=r"^backbone tiny: there is no text to score its layers"):
        sample_attention(source, [], CPU)
