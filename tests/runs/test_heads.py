from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from layerfusion.runs.heads import milliseconds


@pytest.mark.parametrize("rows", [3, 100])
def test_a_head_is_timed_on_one_text_and_on_32(rows: int) -> None:
    seen: list[tuple[int, ...]] = []

    def predict(features: Sequence[Tensor]) -> None:
        seen.append(tuple(len(source) for source in features))
        time.sleep(0.0002 * len(features[0]))

    one, batch = milliseconds(predict, [torch.zeros(rows, 4), torch.zeros(rows, 6)])
    assert set(seen) == {(1, 1), (32, 32)}
    assert one >= 0.2
    assert batch >= 6.4
