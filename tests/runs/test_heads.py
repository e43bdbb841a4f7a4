from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from layerfusion.records.job import Estimate
from layerfusion.runs.heads import milliseconds
from layerfusion.runs.honest import HONEST


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


def test_what_a_single_seed_agrees_on_has_the_interval_of_its_accuracy() -> None:
    draw = np.random.default_rng(0)
    first = torch.from_numpy(draw.random((1, 150, 3))).softmax(dim=2).numpy()
    target = np.where(draw.random(150) < 0.8, first[0].argmax(axis=1), 0)
    other = np.roll(first, 1, axis=2)
    for given, alike in ((first, True), (np.concatenate([first, other]), False)):
        result: Any = SimpleNamespace(target=target, probabilities=given, text_of=None)
        right = float((given.argmax(axis=2) == target).mean())
        means = {name: Estimate(right, None) for name in ("accuracy", "macro_f1")}
        found = HONEST.test_estimates(means, result, 0)
        one, agreed = ((found[x].low, found[x].high) for x in ("accuracy", "consensus"))
        assert (one == agreed) == alike
