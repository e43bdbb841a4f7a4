from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from layerfusion.errors import UserError
from layerfusion.statistics.significance import (
    ALPHA,
    PairedTest,
    holm,
    mcnemar,
    mcnemar_at_most,
    sign_flips,
)

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


# -- McNemar ------------------------------------------------------------------------------------


def answers(only_a: int, only_b: int, both: int = 7, neither: int = 3) -> tuple[np.ndarray, ...]:
    rows = [(1, 0)] * only_a + [(0, 1)] * only_b + [(1, 1)] * both + [(0, 0)] * neither
    a, b = np.random.default_rng(0).permutation(np.array(rows, dtype=bool)).T
    return a, b


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_the_binomial_test_of_scipy(only_a: int, only_b: int) -> None:
    found = mcnemar(*answers(only_a, only_b), text_of=None)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_mcnemar_equals_a_worked_example() -> None:
    # 2 against 8 discordant pairs: 2 (1 + 10 + 45) / 1024.
    assert mcnemar(*answers(2, 8), text_of=None).p == pytest.approx(112 / 1024)


def test_systems_that_are_right_on_the_same_rows_are_not_told_apart() -> None:
    a, _ = answers(3, 4)
    assert mcnemar(a, a, text_of=None).p == 1.0


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_p_is_at_most_what_the_numbers_of_right_rows_allow(
    only_a: int, only_b: int, both: int, neither: int
) -> None:
    a, b = answers(only_a, only_b, both, neither + 1)
    bound = mcnemar_at_most(int(a.sum()), int(b.sum()), a.size)
    assert bound.p >= mcnemar(a, b, text_of=None).p - 1e-12
    assert bound.only_a - bound.only_b == only_a - only_b


def test_answers_that_cannot_be_paired_are_refused() -> None:
    for a, b in ((3, 2), (0, 0)):
        with pytest.raises(UserError, match=f"{a} and {b} test rows"):
            mcnemar(np.ones(a, dtype=bool), np.ones(b, dtype=bool), text_of=None)


# -- Holm ---------------------------------------------------------------------------------------


def naive_holm(p_values: list[float]) -> list[float]:
    """Each p-value's smallest level at which the step-down procedure rejects it."""
    ranked = sorted(p_values)
    return [
        min(1.0, max((len(ranked) - k) * ranked[k] for k in range(ranked.index(p) + 1)))
        for p in p_values
    ]


@given(P_VALUES)
def test_holm_equals_a_naive_reference(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(naive_holm(p_values))


def test_holm_equals_a_published_example() -> None:
    # R's p.adjust(method = "holm"); the case is common in texts on multiple testing.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(P_VALUES)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p - 1e-12 <= q <= min(1.0, len(p_values) * p) + 1e-12
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_what_is_no_p_value_is_refused() -> None:
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match=r"must lie in \[0, 1\]"):
            holm([0.5, value])


# -- by simulation ------------------------------------------------------------------------------


def systems(rng: np.random.Generator, accuracies: list[float], rows: int = 400) -> np.ndarray:
    """Answers that are right on much the same rows. Shape: (systems, rows)."""
    hard = 0.6 * rng.random(rows) + 0.4 * rng.random((len(accuracies), rows))
    mixed = np.sort(0.6 * rng.random(20_000) + 0.4 * rng.random(20_000))
    return hard < np.quantile(mixed, accuracies)[:, None]


def at_most(share: float, trials: int) -> float:
    """What a rate of `share` stays below in all but one of a thousand simulations."""
    return float(stats.binom.ppf(0.999, trials, share)) / trials


@pytest.mark.parametrize("accuracy", [0.6, 0.8, 0.95])
def test_equal_systems_are_told_apart_in_at_most_one_of_twenty_tests(accuracy: float) -> None:
    rng, trials = np.random.default_rng(1), 800
    wrong = sum(
        mcnemar(*systems(rng, [accuracy] * 2), text_of=None).p < ALPHA for _ in range(trials)
    )
    assert wrong / trials <= at_most(ALPHA, trials)


def test_holm_keeps_the_error_of_a_whole_family() -> None:
    """Six systems equal to the reference, two that are worse: any false difference counts."""
    rng, trials = np.random.default_rng(2), 800
    accuracies = [0.8] * 7 + [0.6] * 2
    false, without, found = 0, 0, 0
    for _ in range(trials):
        reference, *others = systems(rng, accuracies)
        p_values = [mcnemar(one, reference, text_of=None).p for one in others]
        adjusted = holm(p_values)
        false += min(adjusted[:6]) < ALPHA
        without += min(p_values[:6]) < ALPHA
        found += max(adjusted[6:]) < ALPHA
    assert false / trials <= at_most(ALPHA, trials)
    assert without / trials > 0.1  # the adjustment is needed
    assert found / trials > 0.95  # and does not hide what is there


def test_a_large_difference_is_found_and_more_rows_find_a_smaller_one() -> None:
    rng, trials = np.random.default_rng(3), 200

    def power(a: float, b: float, rows: int) -> float:
        pairs = (systems(rng, [a, b], rows) for _ in range(trials))
        return sum(mcnemar(*pair, text_of=None).p < ALPHA for pair in pairs) / trials

    assert power(0.9, 0.8, 400) > 0.95
    assert power(0.82, 0.8, 200) < 0.5 < power(0.82, 0.8, 6000)


# -- several answers a row ----------------------------------------------------------------------


def test_sign_flips_of_one_answer_a_row_are_the_test_of_mcnemar() -> None:
    rng = np.random.default_rng(3)
    for rows in (1, 7, 60, 900):
        a, b = rng.random((2, rows)) < [[0.8], [0.7]]
        exact, found = (
            mcnemar(a, b, text_of=None),
            sign_flips(a.astype(float), b.astype(float), text_of=None),
        )
        assert (found.only_a, found.only_b) == (exact.only_a, exact.only_b)
        assert found.p == pytest.approx(exact.p, rel=1e-6, abs=1e-12)


def test_sign_flips_count_every_assignment_of_signs() -> None:
    rng = np.random.default_rng(4)
    for seeds in (2, 3, 6):
        a, b = rng.integers(0, seeds + 1, (2, 9)) / seeds
        differences = np.rint((a - b) * seeds)
        signs = np.array(list(itertools.product([-1, 1], repeat=9)))
        p = np.mean(np.abs(signs @ differences) >= abs(differences.sum()))
        assert sign_flips(a, b, seeds=seeds, text_of=None).p == pytest.approx(p)


def test_sign_flips_of_what_does_not_differ_show_nothing() -> None:
    same = np.array([1.0, 0.5, 0.0])
    assert sign_flips(same, same, seeds=2, text_of=None) == PairedTest(0, 0, 1.0)
    far = sign_flips(np.ones(2000), np.zeros(2000), text_of=None)
    assert 0 < far.p < 1e-9
    with pytest.raises(UserError, match="3 and 2 test rows"):
        sign_flips(same, same[:2], text_of=None)
