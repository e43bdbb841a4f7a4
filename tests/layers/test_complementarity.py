"""How errors of two systems relate, against loops and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jaccard
from scipy.stats.contingency import odds_ratio

from layerfusion.errors import UserError
from layerfusion.layers.complementarity import Complementarity, complementarity

Pairs = list[tuple[bool, bool]]
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)


def columns(rows: Pairs) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, dtype=bool)
    return table[:, 0], table[:, 1]


def counted(rows: Pairs) -> Complementarity:
    """Row by row."""
    n = {key: 0 for key in ((True, True), (True, False), (False, True), (False, False))}
    oracle = 0
    for a, b in rows:
        n[a, b] += 1
        oracle += a or b
    either_wrong = len(rows) - n[True, True]
    same, apart = n[True, True] * n[False, False], n[True, False] * n[False, True]
    better = max(sum(a for a, _ in rows), sum(b for _, b in rows))
    return Complementarity(
        n[False, False] / either_wrong if either_wrong else None,
        (same - apart) / (same + apart) if same or apart else None,
        (oracle - better) / len(rows),
    )


@given(pairs)
def test_equal_to_counting_row_by_row(rows: Pairs) -> None:
    found, expected = complementarity(*columns(rows)), counted(rows)
    assert found.error_overlap == expected.error_overlap
    assert found.q_statistic == expected.q_statistic
    assert found.oracle_gain == pytest.approx(expected.oracle_gain)


@given(pairs)
def test_bounds_and_symmetry(rows: Pairs) -> None:
    first, second = columns(rows)
    found = complementarity(first, second)
    assert found == complementarity(second, first)
    assert 0 <= found.oracle_gain <= 0.5
    assert found.error_overlap is None or 0 <= found.error_overlap <= 1
    assert found.q_statistic is None or -1 <= found.q_statistic <= 1


def test_equal_to_scipy() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(500) < 0.8, rng.random(500) < 0.7
    second = np.where(rng.random(500) < 0.4, first, second)
    found = complementarity(first, second)
    assert found.error_overlap == pytest.approx(1 - jaccard(~first, ~second))
    table = [[int((first == a)[second == b].sum()) for b in (True, False)] for a in (True, False)]
    # Yule: Q = (odds ratio − 1) / (odds ratio + 1).
    ratio = odds_ratio(table, kind="sample").statistic
    assert found.q_statistic == pytest.approx((ratio - 1) / (ratio + 1))


YES, NO = True, False


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([YES, YES, NO, NO], [YES, YES, NO, NO], (1.0, 1.0, 0.0)),  # the same errors
        ([YES, YES, NO, NO], [NO, NO, YES, YES], (0.0, -1.0, 0.5)),  # never the same
        ([YES, YES, NO, NO], [YES, NO, YES, NO], (1 / 3, 0.0, 0.25)),  # independent
        ([YES, YES, NO, NO], [YES, NO, NO, NO], (2 / 3, 1.0, 0.0)),  # errors within errors
        ([YES, YES], [YES, NO], (0.0, None, 0.0)),  # one never errs
        ([YES, YES], [YES, YES], (None, None, 0.0)),  # neither errs
        ([NO, NO], [NO, NO], (1.0, None, 0.0)),  # both always err
    ],
)
def test_cases_by_hand(
    first: list[bool], second: list[bool], expected: tuple[float | None, float | None, float]
) -> None:
    found = complementarity(np.array(first), np.array(second))
    assert (found.error_overlap, found.q_statistic, found.oracle_gain) == pytest.approx(expected)


def test_independent_errors_have_a_q_of_about_0() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random(200_000) < 0.8, rng.random(200_000) < 0.6
    q = complementarity(first, second).q_statistic
    assert q == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize(("first", "second"), [((3,), (4,)), ((0,), (0,)), ((2, 3), (2, 3))])
def test_other_rows_and_no_rows_are_errors(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"^complementarity: systems judged on rows of shape"):
        complementarity(np.ones(first, bool), np.ones(second, bool))
