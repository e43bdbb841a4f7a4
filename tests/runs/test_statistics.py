from __future__ import annotations

import statistics as stdlib

import numpy as np
import pytest
from scipy import stats

from layerfusion.errors import UserError
from layerfusion.runs import statistics
from layerfusion.runs.statistics import bootstrap_interval, mean_sd


def test_mean_sd_equals_the_standard_library() -> None:
    values = [0.71, 0.74, 0.69, 0.74]
    assert mean_sd(values) == pytest.approx((stdlib.mean(values), stdlib.stdev(values)))


def test_one_value_has_no_deviation_and_none_no_mean() -> None:
    assert mean_sd([0.5]) == (0.5, None)
    with pytest.raises(UserError, match="no values"):
        mean_sd([])


@pytest.mark.parametrize("seeds", [1, 6])
def test_interval_equals_scipy(seeds: int) -> None:
    rng = np.random.default_rng(0)
    correct = rng.random((seeds, 400)) < rng.beta(4, 1, size=400)
    low, high = bootstrap_interval(correct, seed=1, resamples=20_000)
    scipy = stats.bootstrap(
        (correct.mean(axis=0),), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    assert (low, high) == pytest.approx((scipy.low, scipy.high), abs=1.1 / 400)  # a row


def test_interval_covers_the_true_accuracy_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth, trials = 0.8, 400
    covered = 0
    for trial in range(trials):
        correct = rng.random(300) < truth
        low, high = bootstrap_interval(correct, seed=trial, resamples=500)
        covered += low <= truth <= high
    # 95 % less four standard errors of the simulation, and a little for the small sample.
    assert 0.90 <= covered / trials <= 0.985


def test_rows_are_resampled_with_all_their_seeds() -> None:
    rng = np.random.default_rng(4)
    correct = rng.random((3, 100)) < 0.7
    assert bootstrap_interval(correct, 5) == bootstrap_interval(correct.mean(axis=0), 5)


def test_chunks_change_nothing_but_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    correct = np.random.default_rng(5).random(50)
    whole = bootstrap_interval(correct, 6)
    monkeypatch.setattr(statistics, "_CHUNK_CELLS", 700)
    assert bootstrap_interval(correct, 6) == pytest.approx(whole)


def test_interval_follows_the_seed_and_the_level() -> None:
    correct = np.arange(200) % 3 > 0
    assert bootstrap_interval(correct, 7) == bootstrap_interval(correct, 7)
    assert bootstrap_interval(correct, 7) != bootstrap_interval(correct, 8)
    wide, narrow = (bootstrap_interval(correct, 7, level=level) for level in (0.99, 0.5))
    assert wide[0] < narrow[0] < correct.mean() < narrow[1] < wide[1]


def test_all_right_and_no_row() -> None:
    assert bootstrap_interval(np.ones(10)) == (1.0, 1.0)
    with pytest.raises(UserError, match="no test rows"):
        bootstrap_interval(np.ones((3, 0)))
