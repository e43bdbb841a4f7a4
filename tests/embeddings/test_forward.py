"""Batches that pass through a model, with a stand-in for the model and for what it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.forward import TokenBudget, pass_batches
from layerfusion.embeddings.packing import Packing


@dataclass(frozen=True)
class Lengths:
    lengths: list[int]


def backbone(**facts: Any) -> Backbone:
    """Stand in for a model that passes texts of up to 2,048 tokens without padding."""
    usual = {
        "name": "tiny",
        "device": torch.device("cpu"),
        "packing": Packing(2048, 0),
        "masks_padding": True,
        "is_fed": True,
    }
    return cast(Backbone, SimpleNamespace(**{**usual, **facts}))


@pytest.mark.parametrize("packed", [True, False])
def test_after_too_large_a_batch_come_smaller_ones(packed: bool) -> None:
    """One long row among short ones: rows × longest row is far more than the packed tokens."""
    lengths = [512] + [100] * 1100
    asked: list[list[int]] = []

    def start(group: Lengths, rows: list[int]) -> Callable[[], list[int]]:
        asked.append(rows)
        assert len(asked) < 100, "the same batch is formed again and again"
        size = sum(group.lengths[row] for row in rows)
        if not packed:
            size = len(rows) * max(group.lengths[row] for row in rows)
        if size > 65_536:
            raise torch.OutOfMemoryError("out of memory")
        return lambda: rows

    model = backbone() if packed else backbone(packing=None)
    budget = TokenBudget(131_072)
    passed = [
        row
        for _, rows, landed in pass_batches(model, [Lengths(lengths)], budget, start)
        for row in landed
        if rows == landed
    ]
    assert sorted(passed) == list(range(len(lengths)))
    assert budget.tokens <= 65_536
