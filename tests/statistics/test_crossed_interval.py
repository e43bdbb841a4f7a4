"""Differences over draws of the training rows, judged on the same test rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from layerfusion.errors import UserError
from layerfusion.statistics.crossed import crossed_interval
from layerfusion.statistics.intervals import paired_interval

TARGET = np.arange(300) % 2


def noise(draws: int = 3, rows: int = 300) -> np.ndarray:
    return np.random.default_rng(0).choice([-1, -0.5, 0, 0, 0.5, 1], size=(draws, rows))


def test_variances_are_those_of_a_two_way_analysis() -> None:
    """Of one class, from the mean squares of a random-effects model, written out."""
    x = noise(4) + np.random.default_rng(1).choice([-1, 0, 0, 1], size=300)
    draws, rows = x.shape
    of_draws = rows * ((x.mean(1) - x.mean()) ** 2).sum() / (draws - 1)
    of_rows = draws * ((x.mean(0) - x.mean()) ** 2).sum() / (rows - 1)
    rest = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    of_both = (rest**2).sum() / ((draws - 1) * (rows - 1))
    assert of_rows > of_both
    square = stats.t.ppf(0.975, draws - 1) ** 2 * of_draws
    square += stats.norm.ppf(0.975) ** 2 * (of_rows - of_both)
    found = crossed_interval(x, np.zeros(rows, int), text_of=None)
    assert found.high - found.mean == pytest.approx(np.sqrt(square / x.size))
    assert (found.draws, found.rows) == (4, 300)


def test_draws_that_move_all_rows_alike_make_the_t_test_of_their_means() -> None:
    means = np.array([0.02, 0.05, 0.01])
    found = crossed_interval(np.repeat(means[:, None], 300, axis=1), TARGET, text_of=None)
    oracle: Any = stats.ttest_1samp(means, 0)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-6)
    assert (found.low, found.high) == pytest.approx(tuple(oracle.confidence_interval()))


def test_draws_that_agree_on_every_row_make_the_interval_over_rows() -> None:
    row = np.random.default_rng(2).choice([-1, 0, 0, 0, 1, 1], size=300) * (TARGET + 0.5)
    found = crossed_interval(np.stack([row] * 3), TARGET, text_of=None)
    expected = paired_interval(row, np.zeros(300), TARGET, text_of=None)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=5e-3)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.15, -0.4])
def test_p_and_interval_agree_from_both_sides(shift: float) -> None:
    found = crossed_interval(noise() + shift, TARGET, text_of=None)
    other = crossed_interval(-noise() - shift, TARGET, text_of=None)
    assert (found.p < 0.05) == (found.verdict != "open")
    assert other.p == pytest.approx(found.p)
    assert (other.low, other.high) == pytest.approx((-found.high, -found.low))


def test_a_system_against_itself() -> None:
    found = crossed_interval(np.zeros((3, 300)), TARGET, text_of=None)
    assert (found.low, found.high, found.p) == (0, 0, 1)
    # Thirds and sixths that cancel are no difference of 1e-17 either.
    cancels = np.tile([1 / 6, 1 / 6, -1 / 3], (3, 100))
    assert crossed_interval(cancels, TARGET, text_of=None).p == 1


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(UserError, match="1 draw of the training rows"):
        crossed_interval(noise(1), TARGET, text_of=None)
    with pytest.raises(UserError, match="at least one test row"):
        crossed_interval(noise(3, 0), TARGET[:0], text_of=None)
    with pytest.raises(UserError, match="300 test rows and labels of shape"):
        crossed_interval(noise(), TARGET[:299], text_of=None)


# -- by simulation ------------------------------------------------------------------------------

REGIMES = {
    "draws alike": (0.0, 0.5, 0.3),
    "draws, rows and both": (0.1, 0.5, 0.5),
    "draws differ much": (0.4, 0.5, 0.3),
}
"""Spread of what a draw does to a system, of rows that one system finds easier, and of a row under
one draw; in units of how far apart the rows lie in hardness."""
TRIALS = 500


def trial(
    rng: np.random.Generator, regime: str, draws: int = 3, ahead: float = 0.0
) -> tuple[np.ndarray, float]:
    """Differences of two systems, and the one to expect over all draws and rows."""
    of_draw, of_row, of_both = REGIMES[regime]
    rows = TARGET.size
    hard = 1.0 + 0.5 * TARGET + 1.5 * rng.normal(size=rows)
    easier = of_row * rng.normal(size=rows)
    right = [
        hard
        + sign * (easier + ahead) / 2
        + of_draw * rng.normal(size=(draws, 1))
        + of_both * rng.normal(size=(draws, rows))
        > 0
        for sign in (1, -1)
    ]
    spread = np.sqrt(1.5**2 + (of_row / 2) ** 2 + of_draw**2 + of_both**2)
    expected = [
        np.mean([stats.norm.cdf((mean + sign * ahead / 2) / spread) for mean in (1.0, 1.5)])
        for sign in (1, -1)
    ]
    return right[0].astype(float) - right[1], float(expected[0] - expected[1])


@pytest.mark.parametrize("regime", REGIMES)
def test_intervals_cover_the_difference_of_other_draws_and_rows(regime: str) -> None:
    """In 5,000 trials 97.7, 96.9 and 96.1 %: with three draws it errs to the wide side.

    An interval over test rows alone covers 94, 83 and 33 %.
    """
    rng = np.random.default_rng(3)
    covered, over_rows = 0, 0
    for _ in range(TRIALS):
        x, truth = trial(rng, regime, ahead=0.3)
        found = crossed_interval(x, TARGET, text_of=None)
        covered += found.low <= truth <= found.high
        rows = x.mean(axis=0)
        error = np.sqrt(np.mean([rows[c == TARGET].var(ddof=1) for c in (0, 1)]) / TARGET.size)
        over_rows += abs(rows.mean() - truth) <= 1.96 * error
    assert covered / TRIALS >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / TRIALS)
    if regime == "draws differ much":
        assert over_rows / TRIALS < 0.8  # an interval over rows alone is not enough


@pytest.mark.parametrize("regime", REGIMES)
def test_equal_systems_are_told_apart_in_at_most_one_of_twenty(regime: str) -> None:
    rng = np.random.default_rng(4)
    wrong = sum(
        crossed_interval(trial(rng, regime)[0], TARGET, text_of=None).p < 0.05
        for _ in range(TRIALS)
    )
    assert wrong <= stats.binom.ppf(0.999, TRIALS, 0.05)


def test_more_draws_find_a_smaller_difference() -> None:
    rng = np.random.default_rng(5)

    def power(draws: int) -> float:
        found = (
            crossed_interval(
                trial(rng, "draws, rows and both", draws, ahead=0.3)[0], TARGET, text_of=None
            )
            for _ in range(100)
        )
        return sum(one.p < 0.05 for one in found) / 100

    assert power(3) < power(6) < power(12)
    assert power(12) > 0.8
