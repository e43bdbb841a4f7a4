"""Vectors that one classifier computed serve the next, within a limit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerfusion.runs.recent import RecentVectors

LAYER = ("mean", "0")


class Counted:
    """Vectors of four numbers that are the length of the text, and what was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> dict[tuple[str, str], np.ndarray]:
        self.asked.append(list(texts))
        return {LAYER: np.array([[len(text)] * 4 for text in texts], np.float32)}


def test_a_text_is_computed_once_for_each_model() -> None:
    recent, compute = RecentVectors(), Counted()
    for model, texts in (("m", ["a", "bb", "a"]), ("m", ["bb", "ccc"]), ("n", ["bb"])):
        found = recent.through(model, texts, [LAYER], compute)
        assert found[LAYER][:, 0].tolist() == [len(text) for text in texts]
    assert compute.asked == [["a", "bb"], ["ccc"], ["bb"]]
    recent.through("m", ["a"], [], compute)
    assert len(compute.asked) == 3


def test_what_was_used_longest_ago_is_dropped_first() -> None:
    recent, compute = RecentVectors(most_bytes=2 * 16), Counted()
    for text in ("a", "bb", "a", "ccc", "a", "bb"):
        recent.through("m", [text], [LAYER], compute)
    assert compute.asked == [["a"], ["bb"], ["ccc"], ["bb"]]
