"""Scores over a sample against transformers' own outputs, whatever the batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from layerfusion.config.job import ExtractConfig
from layerfusion.embeddings.shape import NORM
from layerfusion.errors import UserError
from layerfusion.layers import backbone_scores
from tests.layers.sampled import (
    CPU,
    HEADS,
    LABELS,
    TEXTS,
    WITH_ATTENTION,
    kept_files,
    opened,
    sample_attention,
    sample_gradient,
)
from tests.tiny import WITH_NORM


def token_ids(folder: Path, text: str) -> Tensor:
    return torch.tensor([transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]])


def plain_model(folder: Path, **settings: Any) -> Any:
    model = transformers.AutoModel.from_pretrained(folder, **settings)
    return (model.get_encoder() if model.config.is_encoder_decoder else model).eval()


@pytest.mark.parametrize("family", WITH_ATTENTION)
def test_attention_is_the_mean_over_texts_each_alone(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    model = plain_model(folders[family], attn_implementation="eager")
    values: dict[str, list[list[float]]] = {}
    for text in TEXTS:
        ids = token_ids(folders[family], text)
        with torch.no_grad():
            found = model(input_ids=ids, output_attentions=True).attentions
        for number, block in enumerate(found, 1):
            n = ids.shape[1]
            heads = [
                float(np.mean([-sum(p * math.log(p) for p in row if p > 0) for row in head]))
                for head in block[0].double().tolist()
            ]
            values.setdefault(str(number), []).append([head / math.log(n) for head in heads])
    found = sample_attention(opened(folders[family], tmp_path), TEXTS, CPU)
    assert list(found) == ["1", "2", "3"]
    for layer, heads in found.items():
        assert heads.dtype == np.float64
        np.testing.assert_allclose(heads, np.mean(values[layer], axis=0), rtol=1e-5)


def gradients_of(model: Any, last_block: Any, ids: Tensor, label: int) -> dict[Any, float]:
    """By autograd on transformers' own hidden states, the inputs being given as embeddings."""
    before: list[Any] = []
    if last_block is not None:
        last_block.register_forward_hook(lambda _m, _a, output: before.append(output))
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    output = model(inputs_embeds=embedded, output_hidden_states=True)
    states = dict(zip(map(str, range(4)), output.hidden_states, strict=True))
    if last_block is not None:
        block = before[0] if isinstance(before[0], Tensor) else before[0][0]
        states |= {"3": block, NORM: output[0]}
    pooled = {"mean": output[0][0].mean(dim=0), "last": output[0][0, -1]}
    found = {}
    for name, vector in pooled.items():
        logits = HEADS[name].weight @ vector + HEADS[name].bias
        loss = -logits.log_softmax(dim=0)[label]
        grads = torch.autograd.grad(loss, list(states.values()), retain_graph=True)
        for (layer, state), grad in zip(states.items(), grads, strict=True):
            found[name, layer] = float((grad * state.detach()).abs().sum())
    return found


@pytest.mark.parametrize(
    ("family", "blocks"),
    [
        ("bert", None),
        ("albert", None),
        ("deberta_v2", None),
        ("modernbert", "layers"),
        ("t5", "block"),
        ("gpt2", "h"),
        ("llama", "layers"),
    ],
)
def test_gradient_is_the_mean_over_texts_each_alone(
    family: str, blocks: str | None, folders: dict[str, Path], tmp_path: Path
) -> None:
    assert (blocks is not None) == (family in WITH_NORM)
    total: dict[Any, float] = {}
    for text, label in zip(TEXTS, LABELS, strict=True):
        model = plain_model(folders[family]).requires_grad_(False)
        last = getattr(model, blocks)[-1] if blocks else None
        for key, value in gradients_of(
            model, last, token_ids(folders[family], text), label
        ).items():
            total[key] = total.get(key, 0.0) + value / len(TEXTS)
    found = sample_gradient(opened(folders[family], tmp_path), TEXTS, LABELS, HEADS, CPU)
    assert list(found) == list(total)
    for key, value in found.items():
        assert value == pytest.approx(total[key], rel=1e-4), key


@pytest.mark.parametrize("family", ["bert", "gpt2", "fnet", "convbert"])
def test_batches_change_nothing(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    found = []
    for budget in (1, 30, 10_000, None):
        options = ExtractConfig(device="cpu", token_budget=budget)
        source = opened(folders[family], tmp_path / str(budget))
        values = dict(sample_gradient(source, TEXTS, LABELS, HEADS, options))
        if family != "fnet":
            for layer, heads in sample_attention(source, TEXTS, options).items():
                values |= {(layer, str(n)): value for n, value in enumerate(heads)}
        found.append(values)
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)


def test_a_text_of_one_token_has_no_attention_to_count(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """gpt2's tokens are bytes here."""
    source = opened(folders["gpt2"], tmp_path)
    found = sample_attention(source, ["a", *TEXTS, "b"], CPU)
    for layer, heads in sample_attention(source, TEXTS, CPU).items():
        np.testing.assert_allclose(found[layer], heads, rtol=1e-6)
    with pytest.raises(UserError, match=r"^attention_entropy: no text of the sample has two token"):
        sample_attention(source, ["a", "b"], CPU)


def test_long_texts_are_truncated_even_where_embeddings_read_windows(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    long = [" ".join([text] * 4) for text in TEXTS]
    cut = opened(folders["bert"], tmp_path / "cut", max_length=8)
    windows = {"long_texts": "windows", "window_overlap": 3}
    read = opened(folders["bert"], tmp_path / "windows", max_length=8, **windows)
    attention = [sample_attention(source, long, CPU) for source in (cut, read)]
    gradient = [sample_gradient(source, long, LABELS, HEADS, CPU) for source in (cut, read)]
    assert gradient[0] == gradient[1]
    for layer, heads in attention[0].items():
        np.testing.assert_array_equal(heads, attention[1][layer])
    names = [[path.name for path in kept_files(tmp_path / cache)] for cache in ("cut", "windows")]
    assert names[0] == names[1]
    assert len(names[0]) == 2


def test_the_attention_of_a_batch_stays_within_its_memory(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sample_attention(opened(folders["bert"], tmp_path / "a"), TEXTS, CPU)
    shapes: list[tuple[int, ...]] = []
    plain = backbone_scores.attention_entropy

    def watch(weights: Tensor, lengths: Tensor) -> Tensor:
        shapes.append(tuple(weights.shape))
        return plain(weights, lengths)

    cells = 2 * 3 * 4 * 21 * 21  # two of the longest texts: blocks, heads, pairs of 21 tokens
    monkeypatch.setattr(backbone_scores, "attention_entropy", watch)
    monkeypatch.setattr(backbone_scores, "ATTENTION_CELLS", cells)
    options = ExtractConfig(device="cpu", token_budget=10_000)
    found = sample_attention(opened(folders["bert"], tmp_path / "b"), TEXTS, options)
    assert max(3 * math.prod(shape) for shape in shapes) <= cells
    assert max(shape[0] for shape in shapes) > 1
    for layer, heads in found.items():
        np.testing.assert_allclose(heads, expected[layer], rtol=1e-5)


def test_batches_that_do_not_fit_are_halved(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sample_gradient(opened(folders["bert"], tmp_path / "a"), TEXTS, LABELS, HEADS, CPU)
    plain = backbone_scores.gradient_times_activation
    most = 2

    def small(backbone: Any, batch: Any, *rest: Any) -> Any:
        if len(batch.input_ids) > most:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return plain(backbone, batch, *rest)

    monkeypatch.setattr(backbone_scores, "gradient_times_activation", small)
    options = ExtractConfig(device="cpu", token_budget=10_000)
    source = opened(folders["bert"], tmp_path / "b")
    assert sample_gradient(source, TEXTS, LABELS, HEADS, options) == pytest.approx(
        expected, rel=1e-4
    )
    most = 0
    with pytest.raises(
        UserError, match=r"^backbone tiny: no memory for one text of 21 tokens on cpu; lower"
    ):
        sample_gradient(source, TEXTS[:3], LABELS[:3], HEADS, options)
