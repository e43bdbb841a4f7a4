"""Entropy of each attention head: low where a head looks at few tokens, high where at many."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_entropy(weights: Tensor, lengths: Tensor) -> Tensor:
    """Mean entropy of each head's attention over the real tokens, as a share of its largest value.

    For a text of n tokens, -1/(n ln n) Σ_t Σ_s p_ts ln p_ts over its queries t and keys s, with
    0 ln 0 = 0: 0 where every token looks at one token, 1 where every token looks at all alike.

    A query of a causal model sees only the t + 1 tokens so far, so its values stay below 1. A
    local attention window bounds them as well, and the learned attention sink of some models
    (GPT-OSS) is not among the keys. So compare the values between layers of one model, not
    between models.

    The entropy of heads is that of Clark et al., "What Does BERT Look At?", BlackboxNLP 2019,
    section 3.3. We divide by ln n, so that texts of different length compare.

    Args:
        weights: attention after its softmax, padded on the right. Shape: (batch, heads, queries,
            keys), any floating dtype.
        lengths: real tokens of each text. Shape: (batch,), integers.

    Returns:
        Shape: (batch, heads), float32 or better. NaN for a text of one token, whose attention has
        nothing to spread over.
    """
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    real = torch.arange(weights.shape[-1], device=weights.device) < lengths[:, None]
    pairs = real[:, None, : weights.shape[-2], None] & real[:, None, None, :]
    total = torch.special.entr(weights).masked_fill(~pairs, 0.0).sum(dim=(-2, -1))
    length = lengths[:, None].to(weights.dtype)
    return torch.where(length > 1, total / (length * length.log()), torch.nan)
