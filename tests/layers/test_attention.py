"""Attention entropy against plain loops, closed cases, and the padding of real attentions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from layerfusion.config.job import BackboneConfig
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.tokens import collate, tokenize
from layerfusion.layers.attention import attention_entropy
from tests.tiny import CONFIGS, tiny_folder

LENGTHS = torch.tensor([7, 2, 5])


def random_attention(lengths: Tensor, heads: int = 3, seed: int = 0) -> Tensor:
    """Rows that sum to 1 over the real keys, some of their weights exactly 0; rubbish elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    longest = int(lengths.max())
    weights = torch.rand(len(lengths), heads, longest, longest, generator=generator)
    weights[weights < 0.2] = 0.0
    for row, length in enumerate(lengths.tolist()):
        weights[row, :, :, 0] += 0.1
        real = weights[row, :, :length, :length]
        weights[row, :, :length, :length] = real / real.sum(dim=-1, keepdim=True)
    return weights


def by_loops(weights: Tensor, lengths: Tensor) -> np.ndarray:
    found = np.zeros(weights.shape[:2])
    for row, length in enumerate(lengths.tolist()):
        for head in range(weights.shape[1]):
            for t in range(length):
                for s in range(length):
                    p = float(weights[row, head, t, s])
                    if p > 0:
                        found[row, head] -= p * math.log(p) / math.log(length) / length
    return found


def test_it_is_its_formula() -> None:
    weights = random_attention(LENGTHS)
    found = attention_entropy(weights, LENGTHS)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, by_loops(weights, LENGTHS), rtol=1e-5)
    assert 0 < found.min() <= found.max() < 1


def test_double_stays_double_and_half_is_taken_in_float32() -> None:
    weights = random_attention(LENGTHS)
    double = attention_entropy(weights.double(), LENGTHS)
    assert double.dtype == torch.float64
    np.testing.assert_allclose(double, by_loops(weights, LENGTHS), rtol=1e-12)
    for dtype in (torch.float16, torch.bfloat16):
        half = weights.to(dtype)
        assert torch.equal(
            attention_entropy(half, LENGTHS), attention_entropy(half.float(), LENGTHS)
        )


@pytest.mark.parametrize("rubbish", [0.0, 0.7, -3.0, math.nan, math.inf])
def test_padding_never_counts(rubbish: float) -> None:
    weights = random_attention(LENGTHS)
    expected = attention_entropy(weights, LENGTHS)
    padded = torch.full((3, 3, 11, 11), rubbish)
    for row, length in enumerate(LENGTHS.tolist()):
        padded[row, :, :length, :length] = weights[row, :, :length, :length]
    np.testing.assert_allclose(attention_entropy(padded, LENGTHS), expected, rtol=1e-6)


def test_all_alike_is_1_and_one_token_is_0() -> None:
    n = 9
    alike = torch.full((1, 1, n, n), 1 / n)
    one = torch.eye(n).roll(1, dims=0)[None, None]
    weights = torch.cat([alike, one, (alike + one) / 2], dim=1)
    found = attention_entropy(weights, torch.tensor([n]))[0]
    mixed = -(n - 1) / (2 * n) * math.log(1 / (2 * n)) - (n + 1) / (2 * n) * math.log(
        (n + 1) / (2 * n)
    )
    np.testing.assert_allclose(found, [1.0, 0.0, mixed / math.log(n)], atol=1e-6)


def test_a_causal_head_that_looks_at_all_it_sees_stays_below_1() -> None:
    n = 6
    weights = torch.ones(n, n).tril()
    weights = (weights / weights.sum(dim=-1, keepdim=True))[None, None]
    expected = math.log(math.factorial(n)) / (n * math.log(n))
    assert float(attention_entropy(weights, torch.tensor([n]))) == pytest.approx(expected)


def test_a_text_of_one_token_has_none() -> None:
    lengths = torch.tensor([1, 4])
    weights = random_attention(lengths)
    found = attention_entropy(weights, lengths)
    assert found[0].isnan().all()
    np.testing.assert_allclose(found[1], by_loops(weights[1:], lengths[1:])[0], rtol=1e-5)


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in ("fnet", "convbert")])
def test_real_attention_is_the_same_beside_longer_texts(family: str, tmp_path: Path) -> None:
    folder = tiny_folder(family, tmp_path)
    backbone = load_backbone(family, folder, BackboneConfig(), "cpu", eager=True)
    texts = ["oil price rose", "the film was good and the plot was great and the actor bad", "net"]
    tokens = tokenize(backbone.tokenizer, texts, BackboneConfig(), backbone.shape.max_length)

    def entropies(rows: list[int]) -> Tensor:
        batch = collate([tokens[row].windows[0] for row in rows], backbone.pad_id)
        with torch.inference_mode():
            weights = backbone.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                output_attentions=True,
            ).attentions
        lengths = batch.attention_mask.sum(dim=1)
        return torch.stack([attention_entropy(block, lengths) for block in weights], dim=1)

    together = entropies([0, 1, 2])
    assert together.shape == (3, 3, 4)
    for row in range(3):
        np.testing.assert_allclose(together[row], entropies([row])[0], atol=1e-5)
