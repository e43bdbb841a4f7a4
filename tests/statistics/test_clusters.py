"""What rows of a text, or of a group, are worth, and whether intervals over groups cover."""

from __future__ import annotations

import numpy as np
import pytest

from layerfusion.statistics.intervals import (
    bootstrap_interval,
    f1_interval,
    metric_intervals,
    paired_interval,
    ratio_interval,
)
from layerfusion.statistics.resampling import expanded, independent_rows
from layerfusion.statistics.significance import mcnemar


def grouped(rng: np.random.Generator, groups: int, alike: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows of groups that are right 80 % of the time, some groups more often than others."""
    group = np.repeat(np.arange(groups), rng.integers(3, 16, groups))
    spread = (1 - alike) / alike
    right = rng.random(len(group)) < rng.beta(0.8 * spread, 0.2 * spread, groups)[group]
    return right.astype(float), group


def test_copies_are_worth_one_row_whatever_they_say() -> None:
    rng = np.random.default_rng(0)
    text_of = np.repeat(np.arange(30), rng.integers(1, 9, 30))
    said = rng.random(30) < 0.7
    by_numbers = independent_rows(len(text_of), text_of)
    assert independent_rows(len(text_of), text_of, said[text_of].astype(float)) == by_numbers
    assert independent_rows(len(text_of), text_of, np.ones(len(text_of))) == by_numbers
    assert by_numbers <= 30


def test_rows_of_groups_that_are_not_alike_are_worth_more() -> None:
    rng = np.random.default_rng(0)
    worth = {}
    for alike in (0.02, 0.2, 0.6):
        right, group = grouped(rng, 400, alike)
        found = independent_rows(len(right), group, right)
        sizes = np.bincount(group)
        m = np.square(sizes).sum() / sizes.sum()
        assert found == pytest.approx(len(right) / (1 + (m - 1) * alike), rel=0.15)
        worth[alike] = found / len(right)
    assert worth[0.02] > worth[0.2] > worth[0.6]
    assert independent_rows(60, np.arange(60) // 6, np.tile([0.0, 1.0], 30)) == 60


def test_levels_are_those_of_few_groups() -> None:
    group = np.repeat(np.arange(10), 10)
    assert expanded(0.95, 100, None) == expanded(0.95, 100, np.arange(100)) == 0.95
    for copies in (10, 4):  # as many, or fewer where one outweighs the others
        assert expanded(0.95, copies, group) == pytest.approx(0.95)
    # Student's t of 9 degrees of freedom against 99: 2.262 · √(10 / 9) for 1.984 · √(100 / 99).
    assert expanded(0.95, 100, group) == pytest.approx(0.9809, abs=1e-4)
    assert 0.95 < expanded(0.95, 100, np.arange(100) // 2) < expanded(0.95, 100, group)
    assert expanded(0.95, 100, np.zeros(100)) <= 1


@pytest.mark.parametrize(("groups", "alike"), [(10, 0.1), (20, 0.1), (40, 0.1), (40, 0.4)])
def test_intervals_over_groups_cover_and_those_over_rows_do_not(groups: int, alike: float) -> None:
    rng = np.random.default_rng(7)
    covered = {True: 0, False: 0}
    widths = []
    for seed in range(500):
        right, group = grouped(rng, groups, alike)
        target = rng.integers(0, 2, len(right))
        for by_group in covered:
            text_of = group if by_group else None
            low, high = bootstrap_interval(right, target, seed, text_of=text_of, resamples=400)
            covered[by_group] += low <= 0.8 <= high
            widths += [high - low] * by_group
    assert 450 <= covered[True] < 500  # of 2,000 it is 93 to 94 %
    assert covered[False] < covered[True] - 25
    spread = np.sqrt(0.16 * (alike + (1 - alike) / 9) / groups)  # of a mean over groups of 9 rows
    assert np.mean(widths) < 1.6 * 2 * 1.96 * spread


def test_equal_systems_are_told_apart_in_a_twentieth_of_cases() -> None:
    rng = np.random.default_rng(1)
    wrong = {True: 0, False: 0}
    for _ in range(300):
        right, group = grouped(rng, 30, 0.4)
        other = rng.random(len(right)) < rng.beta(1.2, 0.3, 30)[group]
        for by_group in wrong:
            text_of = group if by_group else None
            wrong[by_group] += mcnemar(right > 0, other, text_of=text_of).p < 0.05
    assert wrong[True] <= 27
    assert wrong[False] > 60


def test_all_right_is_no_surer_than_the_groups() -> None:
    right, group = np.ones(80), np.repeat(np.arange(8), 10)
    target = np.arange(80) % 2
    low, high = bootstrap_interval(right, target, text_of=group)
    assert (low, high) == (pytest.approx(1 - 0.3694, abs=1e-4), 1.0)  # 0 of 8, Clopper-Pearson
    assert metric_intervals(target, target[None], text_of=group)["accuracy"] == (low, high)


def test_every_interval_knows_groups() -> None:
    """Those of whole groups are wider than those of rows, for every figure alike."""
    rng = np.random.default_rng(3)
    right, group = grouped(rng, 30, 0.5)
    target = rng.integers(0, 2, len(right))
    a, b = (np.where(one > 0, target, 1 - target)[None] for one in (right, rng.permutation(right)))

    def widths(text_of: np.ndarray | None) -> list[float]:
        differences = (
            paired_interval(right, np.zeros(len(right)), target, text_of=text_of),
            f1_interval("macro_f1", a, b, target, text_of=text_of, resamples=400),
        )
        ends = metric_intervals(target, a, text_of=text_of, resamples=400)
        intervals = [(one.low, one.high) for one in differences]
        intervals += [ends["accuracy"], ends["macro_f1"]]
        intervals.append(ratio_interval(right, np.ones(len(right)), text_of=text_of))
        return [high - low for low, high in intervals]

    for wide, narrow in zip(widths(group), widths(None), strict=True):
        assert wide > 1.15 * narrow
