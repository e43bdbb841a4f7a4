from __future__ import annotations

import statistics as stdlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score

from layerfusion.errors import UserError
from layerfusion.statistics import intervals, resampling
from layerfusion.statistics.crossed import crossed_interval
from layerfusion.statistics.intervals import (
    bootstrap_interval,
    mean_sd,
    metric_intervals,
    p_of_any_ahead,
    paired_interval,
    ratio_interval,
    unseen_share,
)
from layerfusion.statistics.resampling import Strata, independent_rows

ZERO: Any = 0
"""F1 where there is nothing to compute it from; scikit-learn declares it as a text."""


def labels(*sizes: int) -> np.ndarray:
    """Class 0 in the first number of rows, then class 1 and so on, shuffled."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))


def answers(
    rng: np.random.Generator,
    target: np.ndarray,
    right: Sequence[float],
    seeds: int = 1,
    shared: np.ndarray | None = None,
) -> np.ndarray:
    """Predictions that are right with a probability a class; errors go to any other class.

    A row is hard or easy for all seeds, which differ a little, and for all systems that are given
    the same uniform numbers. Shape: (seeds, rows).
    """
    shared = rng.random(target.size) if shared is None else shared
    hard = 0.8 * shared + 0.2 * rng.random((seeds, target.size))
    mixed = np.sort(0.8 * rng.random(20_000) + 0.2 * rng.random(20_000))
    wrong = (target + rng.integers(1, len(right), size=hard.shape)) % len(right)
    return np.where(hard < np.quantile(mixed, right)[target], target, wrong)


# -- seeds --------------------------------------------------------------------------------------


def test_mean_sd_equals_the_standard_library() -> None:
    values = [0.71, 0.74, 0.69, 0.74]
    assert mean_sd(values) == pytest.approx((stdlib.mean(values), stdlib.stdev(values)))


def test_one_value_has_no_deviation_and_none_no_mean() -> None:
    assert mean_sd([0.5]) == (0.5, None)
    with pytest.raises(UserError, match="at least one value"):
        mean_sd([])


# -- one system ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 6])
def test_interval_of_one_class_equals_scipy(seeds: int) -> None:
    rng = np.random.default_rng(0)
    correct = rng.random((seeds, 400)) < rng.beta(4, 1, size=400)
    low, high = bootstrap_interval(
        correct, np.zeros(400, int), seed=1, resamples=20_000, text_of=None
    )
    scipy = stats.bootstrap(
        (correct.mean(axis=0),), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    assert (low, high) == pytest.approx((scipy.low, scipy.high), abs=1.1 / 400)  # a row


def test_interval_has_the_width_that_the_classes_leave() -> None:
    """Var = Σ n_c p_c (1 - p_c) / n²: what sets the classes apart is not noise."""
    target = labels(300, 80, 20)
    correct = answers(np.random.default_rng(1), target, [0.95, 0.6, 0.3])[0] == target
    variance = sum(n * p * (1 - p) for n, p in _by_class(correct, target)) / target.size**2
    low, high = bootstrap_interval(correct, target, resamples=20_000, text_of=None)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.04)
    plain = bootstrap_interval(correct, np.zeros_like(target), resamples=20_000, text_of=None)
    assert high - low < 0.95 * (plain[1] - plain[0])


def _by_class(correct: np.ndarray, target: np.ndarray) -> list[tuple[int, float]]:
    rows = [correct[target == label] for label in np.unique(target)]
    return [(one.size, float(one.mean())) for one in rows]


def test_rows_are_resampled_with_all_their_seeds() -> None:
    target = labels(60, 40)
    correct = np.random.default_rng(4).random((3, 100)) < 0.7
    together = bootstrap_interval(correct.mean(axis=0), target, 5, text_of=None)
    assert bootstrap_interval(correct, target, 5, text_of=None) == together


def test_classes_of_one_row_leave_only_what_unseen_rows_allow() -> None:
    target = np.arange(52)
    correct = target % 4 > 0
    ends = (0.75 - unseen_share(52), 0.75 + unseen_share(52))
    assert bootstrap_interval(correct, target, text_of=None) == pytest.approx(ends)
    found = metric_intervals(target, np.where(correct, target, 1)[None], text_of=None)
    assert found == {"accuracy": pytest.approx(ends)}


def test_chunks_change_nothing_but_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    target = labels(30, 20)
    correct = np.random.default_rng(5).random(50)
    preds = answers(np.random.default_rng(5), target, [0.8, 0.6], seeds=2)
    whole = bootstrap_interval(correct, target, 6, text_of=None)
    metrics = metric_intervals(target, preds, 6, text_of=None)
    texts = np.arange(50) // 2
    of_texts = metric_intervals(target, preds, 6, text_of=texts)
    monkeypatch.setattr(resampling, "_CHUNK_CELLS", 700)
    assert bootstrap_interval(correct, target, 6, text_of=None) == pytest.approx(whole)
    assert metric_intervals(target, preds, 6, text_of=None) == metrics
    assert metric_intervals(target, preds, 6, text_of=texts) == of_texts


def test_interval_follows_the_seed_and_the_level() -> None:
    correct, target = np.arange(200) % 3 > 0, labels(150, 50)
    assert bootstrap_interval(correct, target, 7, text_of=None) == bootstrap_interval(
        correct, target, 7, text_of=None
    )
    assert bootstrap_interval(correct, target, 7, text_of=None) != bootstrap_interval(
        correct, target, 8, text_of=None
    )
    wide, narrow = (
        bootstrap_interval(correct, target, 7, level=level, text_of=None) for level in (0.99, 0.5)
    )
    assert wide[0] < narrow[0] < correct.mean() < narrow[1] < wide[1]


def test_all_right_and_no_row() -> None:
    target = labels(7, 3)
    exact = stats.binomtest(10, 10).proportion_ci(0.95, method="exact")
    assert bootstrap_interval(np.ones(10), target, text_of=None) == pytest.approx((exact.low, 1.0))
    assert bootstrap_interval(np.zeros(10), target, text_of=None) == pytest.approx(
        (0.0, 1 - exact.low)
    )
    # No resample has another macro-F1: there is no interval rather than one without width.
    assert metric_intervals(target, target[None], text_of=None) == {
        "accuracy": pytest.approx((exact.low, 1.0))
    }
    one_sided = metric_intervals(labels(5, 5), np.zeros((2, 10), int), text_of=None)
    assert one_sided == {"accuracy": pytest.approx((exact.low - 0.5, 1.5 - exact.low))}
    with pytest.raises(UserError, match="at least one test row"):
        bootstrap_interval(np.ones((3, 0)), target[:0], text_of=None)
    with pytest.raises(UserError, match="at least one test row"):
        metric_intervals(target[:0], np.ones((3, 0), int), text_of=None)


def test_a_label_a_row_is_needed() -> None:
    for call in (
        lambda: bootstrap_interval(np.ones(10), labels(5, 4), text_of=None),
        lambda: paired_interval(np.ones(10), np.zeros(10), labels(5, 4), text_of=None),
        lambda: metric_intervals(labels(5, 4), np.ones((2, 10), int), text_of=None),
    ):
        with pytest.raises(UserError, match=r"10 test rows and labels of shape \(9,\)"):
            call()


# -- accuracy and macro-F1 ----------------------------------------------------------------------


@pytest.fixture
def small() -> tuple[np.ndarray, np.ndarray]:
    """A rare class, a class that is only predicted, and one that is neither."""
    target = labels(20, 9, 1)
    preds = answers(np.random.default_rng(9), target, [0.8, 0.6, 0.5, 0.5, 0.5], seeds=3)
    preds[preds == 3] = 0
    return target, preds


@pytest.mark.parametrize("rows_a_text", [1, 3])
def test_every_resample_has_the_figures_of_scikit_learn(
    rows_a_text: int, small: tuple[np.ndarray, np.ndarray]
) -> None:
    target, preds = small
    text_of = np.arange(target.size) // rows_a_text
    strata = Strata.of(preds.T, target, text_of)
    for seed in range(40):
        # The two resamples drawn with this seed, written out row by row.
        (draws,) = strata.draws(2, seed)
        figures = []
        for number in range(2):
            true = np.repeat(strata.labels, [d[number].sum() for d in draws])
            patterns = zip(strata.distinct, draws, strict=True)
            rows = np.concatenate([np.repeat(p, d[number], axis=0) for p, d in patterns])
            accuracy = np.mean([accuracy_score(true, one) for one in rows.T])
            macro_f1 = np.mean([f1_score(true, one, average="macro") for one in rows.T])
            figures.append((accuracy, macro_f1))
        every = {"resamples": 2, "level": 1 - 1e-12, "text_of": text_of}
        found = metric_intervals(target, preds, seed, **every)
        least = unseen_share(independent_rows(target.size, text_of), 1 - 1e-12)
        mean = (preds == target).mean()
        accuracy, macro_f1 = np.array(figures).T
        ends = max(0.0, min(*accuracy, mean - least)), min(1.0, max(*accuracy, mean + least))
        assert found["accuracy"] == pytest.approx(ends)
        assert found["macro_f1"] == pytest.approx((macro_f1.min(), macro_f1.max()))


def test_intervals_equal_those_of_drawing_rows(small: tuple[np.ndarray, np.ndarray]) -> None:
    target, preds = small
    rng = np.random.default_rng(10)
    of_class = [np.flatnonzero(target == label) for label in np.unique(target)]
    figures = []
    for _ in range(400):
        rows = np.concatenate([rng.choice(one, size=one.size) for one in of_class])
        true, drawn = target[rows], preds[:, rows]
        f1 = [f1_score(true, one, average="macro") for one in drawn]
        figures.append((np.mean(drawn == true), np.mean(f1)))
    found = metric_intervals(target, preds, resamples=20_000, level=0.8, text_of=None)
    for name, brute in zip(("accuracy", "macro_f1"), np.array(figures).T, strict=True):
        assert found[name] == pytest.approx(np.quantile(brute, [0.1, 0.9]), abs=0.03)


def test_accuracy_is_that_of_the_interval_of_accuracy(
    small: tuple[np.ndarray, np.ndarray],
) -> None:
    target, preds = small
    found = metric_intervals(target, preds, resamples=20_000, text_of=None)["accuracy"]
    assert found == pytest.approx(
        bootstrap_interval(preds == target, target, text_of=None), abs=0.02
    )


def test_many_classes_and_seeds_take_seconds() -> None:
    rng = np.random.default_rng(11)
    target = rng.choice(52, p=rng.dirichlet(np.full(52, 0.3)), size=2500)
    preds = answers(rng, target, [0.8] * 52, seeds=6)
    started = time.process_time()
    found = metric_intervals(target, preds, text_of=None)
    assert time.process_time() - started < 5  # .6 s on an idle core
    assert found["accuracy"][0] < (preds == target).mean() < found["accuracy"][1]


# -- several labels a row -------------------------------------------------------------------------


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    """A frequent label, a rare one, one that is only answered, and one that is neither."""
    rng = np.random.default_rng(9)
    target = rng.random((40, 4)) < [0.6, 0.1, 0.0, 0.0]
    preds = target ^ (rng.random((3, 40, 4)) < [0.2, 0.1, 0.05, 0.0])
    return target, preds


def _figures(target: np.ndarray, preds: np.ndarray) -> list[float]:
    """Accuracy, macro-F1 over the labels that occur, and micro-F1: means over the seeds."""
    found = []
    for one in preds:
        occurs = np.flatnonzero((target | one).any(axis=0))
        by_label = [f1_score(target[:, k], one[:, k], zero_division=ZERO) for k in occurs]
        micro = f1_score(target.ravel(), one.ravel(), zero_division=ZERO)
        found.append([accuracy_score(target, one), np.mean(by_label), micro])
    return np.mean(found, axis=0).tolist()


@pytest.mark.parametrize("rows_a_text", [1, 2])
def test_every_resample_of_sets_has_the_figures_of_scikit_learn(
    rows_a_text: int, sets: tuple[np.ndarray, np.ndarray]
) -> None:
    target, preds = sets
    packed = np.packbits(np.concatenate([target[None], preds]), axis=2)[..., 0].T
    _, first, kind_of = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    text_of = np.arange(40) // rows_a_text
    strata = Strata.of(kind_of.reshape(-1, 1), np.zeros(40, int), text_of)
    for seed in range(20):
        ((drawn,),) = strata.draws(2, seed)  # written out row by row
        each = [np.repeat(first, one) for one in drawn]
        figures = np.array([_figures(target[rows], preds[:, rows]) for rows in each])
        every = {"resamples": 2, "level": 1 - 1e-12, "text_of": text_of}
        found = metric_intervals(target, preds, seed, **every)
        ends = np.array([figures.min(axis=0), figures.max(axis=0)]).T
        assert found["accuracy"][0] <= ends[0, 0]  # unseen rows widen it
        assert found["macro_f1"] == pytest.approx(ends[1])
        assert found["micro_f1"] == pytest.approx(ends[2])


def test_intervals_of_sets_equal_those_of_drawing_rows(
    sets: tuple[np.ndarray, np.ndarray],
) -> None:
    target, preds = sets
    rng = np.random.default_rng(10)
    figures = []
    for _ in range(150):
        rows = rng.integers(40, size=40)
        figures.append(_figures(target[rows], preds[:, rows]))
    found = metric_intervals(target, preds, resamples=20_000, level=0.8, text_of=None)
    names = ("accuracy", "macro_f1", "micro_f1")
    assert found.keys() == {*names}
    for name, brute in zip(names, np.array(figures).T, strict=True):
        assert found[name] == pytest.approx(np.quantile(brute, [0.1, 0.9]), abs=0.04)
    right = (preds == target).all(axis=2)
    alone = bootstrap_interval(right, target, level=0.8, resamples=20_000, text_of=None)
    assert found["accuracy"] == pytest.approx(alone, abs=0.02)


def test_sets_that_are_all_right_have_no_interval_of_f1(
    sets: tuple[np.ndarray, np.ndarray],
) -> None:
    target, _ = sets
    found = metric_intervals(target, target[None], text_of=None)
    assert found == {"accuracy": (1 - unseen_share(40), 1.0)}
    nothing = np.zeros((5, 2), dtype=bool)
    assert metric_intervals(nothing, nothing[None], text_of=None).keys() == {"accuracy"}


def test_rows_with_several_labels_are_one_stratum(sets: tuple[np.ndarray, np.ndarray]) -> None:
    target, preds = sets
    one = np.zeros(40, dtype=int)
    a, b = (preds[:2] == target).all(axis=2).astype(float)
    assert bootstrap_interval(a, target, text_of=None) == bootstrap_interval(a, one, text_of=None)
    assert paired_interval(a, b, target, text_of=None) == paired_interval(a, b, one, text_of=None)
    assert p_of_any_ahead([b], a, target, text_of=None) == p_of_any_ahead([b], a, one, text_of=None)
    apart = np.stack([a - b, b - a])
    assert crossed_interval(apart, target, text_of=None) == crossed_interval(
        apart, one, text_of=None
    )
    for call in (
        lambda: bootstrap_interval(a[:30], target, text_of=None),
        lambda: metric_intervals(target[:30], preds, text_of=None),
    ):
        with pytest.raises(UserError, match=r"labels of shape \((40|30), 4\)"):
            call()


def test_many_labels_and_rows_take_seconds() -> None:
    rng = np.random.default_rng(11)
    target = rng.random((5000, 28)) < 0.06
    preds = target ^ (rng.random((6, 5000, 28)) < 0.02)
    started = time.process_time()
    found = metric_intervals(target, preds, text_of=None)
    assert time.process_time() - started < 30
    assert all(low < high for low, high in found.values())


def test_the_interval_of_a_ratio_is_that_of_drawing_rows() -> None:
    rng = np.random.default_rng(3)
    wholes = rng.integers(0, 4, size=80)
    parts = rng.binomial(wholes, 0.7)
    ratios = []
    for _ in range(4000):
        rows = rng.choice(np.flatnonzero(wholes), size=np.count_nonzero(wholes))
        ratios.append(parts[rows].sum() / wholes[rows].sum())
    expected = np.quantile(ratios, [0.025, 0.975])
    assert ratio_interval(parts, wholes, text_of=None) == pytest.approx(expected, abs=0.02)
    # Where every row counts once, the ratio is a mean.
    once, right = np.ones(80, dtype=int), (rng.random(80) < 0.6).astype(int)
    mean = bootstrap_interval(right, np.zeros(80, dtype=int), text_of=None)
    assert ratio_interval(right, once, text_of=None) == pytest.approx(mean, abs=0.02)
    with pytest.raises(UserError, match="at least one test row"):
        ratio_interval(parts, np.zeros(80), text_of=None)


# -- two systems --------------------------------------------------------------------------------


def pair(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    a = rng.binomial(3, 0.8, size=rows) / 3
    return a, np.clip(a - rng.choice([-1 / 3, 0, 0, 1 / 3, 1 / 3], size=rows), 0, 1)


def test_paired_interval_of_one_class_agrees_with_scipy() -> None:
    a, b = pair()
    found = paired_interval(a, b, np.zeros(a.size, int), text_of=None)
    oracle = stats.bootstrap(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert found.mean == pytest.approx((a - b).mean())
    assert found.low == pytest.approx(oracle.low, abs=2e-3)
    assert found.high == pytest.approx(oracle.high, abs=2e-3)


def test_paired_interval_is_antisymmetric_and_zero_against_itself() -> None:
    (a, b), target = pair(), labels(300, 100)
    ahead, behind = (
        paired_interval(a, b, target, text_of=None),
        paired_interval(b, a, target, text_of=None),
    )
    assert ahead.mean == -behind.mean
    assert ahead.low == pytest.approx(-behind.high, abs=2e-3)
    same = paired_interval(a, a, target, text_of=None)
    least = unseen_share(a.size)
    assert (same.low, same.mean, same.high, same.verdict) == (-least, 0, least, "open")


def test_rounding_of_seeds_makes_no_verdict() -> None:
    """Sixths that cancel leave a difference of exactly 0, not of 1e-17 on one side of it."""
    a = np.array([1 / 6, 1 / 6 + 1 / 3, 5 / 6, 0.0])
    b = np.array([0.5, 1 / 6, 4 / 6, 1 / 6])
    target = np.arange(4)  # each row is certain: a and b differ by -1/3, 1/3, 1/6 and -1/6
    assert intervals._resampled_means(a - b, target, None, 10, 0).tolist() == [0.0] * 10
    assert paired_interval(a, b, target, text_of=None).verdict == "open"


def test_rows_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(UserError, match="3 and 2 test rows"):
        paired_interval(np.ones(3), np.ones(2), np.zeros(3, int), text_of=None)


# -- one system against the best of many ---------------------------------------------------------


def test_one_rival_is_judged_as_by_a_one_sided_test_of_the_mean() -> None:
    a, b = pair()
    target = np.zeros(a.size, int)
    difference = a - b
    z = difference.mean() / (difference.std(ddof=1) / np.sqrt(a.size))
    found = p_of_any_ahead([a], b, target, resamples=20_000, text_of=None)
    assert found == pytest.approx(stats.norm.sf(z), abs=0.01)
    assert p_of_any_ahead([b], a, target, text_of=None) == pytest.approx(
        stats.norm.cdf(z), abs=0.03
    )


def test_a_rival_more_or_twice_the_same_one() -> None:
    b, target = np.arange(400) % 3 < 2, labels(300, 100)
    a = b ^ (np.arange(400) % 21 == 2)  # right where b is wrong, ...
    a = (a ^ (np.arange(400) % 39 == 1)).astype(float)  # ... and wrong on half as many rows
    b = b.astype(float)
    alone = p_of_any_ahead([a], b, target, text_of=None)
    assert p_of_any_ahead([a, a, b], b, target, text_of=None) == alone
    rng = np.random.default_rng(2)
    others = [rng.permutation(a) for _ in range(30)]
    assert p_of_any_ahead([a, *others], b, target, text_of=None) > alone


def test_what_is_certain_needs_no_resample() -> None:
    right, wrong, target = np.ones(20), np.zeros(20), labels(10, 10)
    assert p_of_any_ahead([right, wrong], wrong, target, resamples=99, text_of=None) == 0.01
    assert p_of_any_ahead([wrong], right, target, text_of=None) == 1
    assert p_of_any_ahead([right, right], right, target, text_of=None) == 1
    with pytest.raises(UserError, match="at least one test row"):
        p_of_any_ahead([np.ones(0)], np.ones(0), np.zeros(0, int), text_of=None)


def test_the_luck_of_the_best_of_many_is_counted_in() -> None:
    """20 equally accurate rivals: the plain interval against the best of them is often above 0."""
    trials, target = 200, labels(150, 100)
    plain = counted = found = 0
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        hard = rng.random(target.size)
        *rivals, own = (
            (0.8 * hard + 0.2 * rng.random(target.size) < 0.7).astype(float) for _ in range(21)
        )
        best = max(rivals, key=np.mean)
        plain += paired_interval(best, own, target, resamples=500, text_of=None).low > 0
        counted += p_of_any_ahead(rivals, own, target, resamples=500, text_of=None) < 0.05
        worse = np.where(rng.random(target.size) < 0.08, 0.0, own)
        found += p_of_any_ahead(rivals, worse, target, resamples=500, text_of=None) < 0.05
    assert plain > 0.1 * trials
    assert counted <= stats.binom.ppf(0.999, trials, 0.05)
    assert found > 0.5 * trials


# -- coverage by simulation ---------------------------------------------------------------------

BALANCES = {
    "two even classes": ((150, 150), (0.8, 0.8)),
    "two uneven classes": ((240, 60), (0.9, 0.6)),
    "five classes, two of them rare": ((140, 80, 50, 20, 10), (0.9, 0.8, 0.7, 0.6, 0.5)),
}
TRIALS = 300


def covered_enough(covered: int, trials: int, least: float) -> bool:
    """Whether the rate is between `least` and 98 %, within three standard errors."""
    error = 3 * np.sqrt(0.95 * 0.05 / trials)
    return least - error <= covered / trials <= 0.98 + error


def truths(sizes: Sequence[int], right: Sequence[float]) -> dict[str, float]:
    """Accuracy and macro-F1 of the expected confusion matrix."""
    n, p = np.array(sizes, float), np.array(right)
    spread = n * (1 - p) / (n.size - 1)
    predicted = n * p + spread.sum() - spread
    return {"accuracy": float(n @ p / n.sum()), "macro_f1": np.mean(2 * n * p / (n + predicted))}


@pytest.mark.parametrize("balance", BALANCES)
def test_intervals_cover_the_truth_of_fixed_class_sizes(balance: str) -> None:
    """In 3,000 trials 94 to 96 % for accuracy, 93.6 to 94.1 % for macro-F1.

    A class of n rows has a bootstrap variance (n - 1) / n times too small, and F1 is not linear.
    """
    sizes, right = BALANCES[balance]
    rng, target, truth = np.random.default_rng(12), labels(*sizes), truths(sizes, right)
    covered = dict.fromkeys(truth, 0)
    for trial in range(TRIALS):
        preds = answers(rng, target, right, seeds=2)
        for name, (low, high) in metric_intervals(
            target, preds, trial, resamples=400, text_of=None
        ).items():
            covered[name] += low <= truth[name] <= high
    assert covered_enough(covered["accuracy"], TRIALS, 0.93)
    assert covered_enough(covered["macro_f1"], TRIALS, 0.91 if len(sizes) > 2 else 0.93)


@pytest.mark.parametrize("balance", BALANCES)
def test_paired_intervals_cover_the_true_difference(balance: str) -> None:
    """In 3,000 trials 93 to 94.5 %: few rows tell two systems apart."""
    sizes, right = BALANCES[balance]
    rng, target = np.random.default_rng(13), labels(*sizes)
    truth = 0.05 * sizes[0] / target.size
    worse = (right[0] - 0.05, *right[1:])
    covered = 0
    for trial in range(TRIALS):
        hard = rng.random(target.size)
        a, b = (
            (answers(rng, target, accuracy, 2, hard) == target).mean(axis=0)
            for accuracy in (right, worse)
        )
        found = paired_interval(a, b, target, resamples=1000, seed=trial, text_of=None)
        covered += found.low <= truth <= found.high
    assert covered_enough(covered, TRIALS, 0.93)


def test_class_sizes_that_vary_are_not_in_the_interval() -> None:
    """The price of stratifying: where classes differ much, the population is covered less often.

    In 3,000 trials 88 %, and 94 % without strata; a difference of 50 points between two classes is
    an extreme case.
    """
    rng, right = np.random.default_rng(14), (0.95, 0.45)
    truth = 0.7 * right[0] + 0.3 * right[1]
    covered = {"stratified": 0, "plain": 0}
    for trial in range(TRIALS):
        target = (rng.random(300) < 0.3).astype(int)
        correct = answers(rng, target, right)[0] == target
        for name, strata in (("stratified", target), ("plain", np.zeros_like(target))):
            low, high = bootstrap_interval(correct, strata, trial, resamples=500, text_of=None)
            covered[name] += low <= truth <= high
    assert covered["stratified"] < covered["plain"]
    assert covered_enough(covered["plain"], TRIALS, 0.93)
    assert covered["stratified"] / TRIALS > 0.8


@pytest.mark.parametrize("sizes", [(30,), (60, 40), (15, 10, 5)])
@pytest.mark.parametrize("accuracy", [0.95, 0.99, 0.999])
def test_intervals_cover_accuracies_at_the_edge(sizes: tuple[int, ...], accuracy: float) -> None:
    """Where the bootstrap has no width, as all rows are right, it covers nothing but 100 %."""
    rng, target = np.random.default_rng(5), labels(*sizes)
    covered = 0
    for _ in range(TRIALS):
        right = (rng.random(target.size) < accuracy).astype(float)
        low, high = bootstrap_interval(right, target, resamples=400, text_of=None)
        covered += low <= accuracy <= high
    # Near 95 % with one row in twenty wrong, a percentile bootstrap of 30 rows is a little short.
    least = 0.93 if accuracy == 0.95 else 0.95
    assert covered >= (least - 3 * np.sqrt(0.95 * 0.05 / TRIALS)) * TRIALS


@pytest.mark.parametrize("apart", [0.0, 0.01])
def test_intervals_of_rare_differences_cover(apart: float) -> None:
    rng, target, rows = np.random.default_rng(6), labels(60, 40), 100
    covered = 0
    for _ in range(TRIALS):
        kind = rng.choice(3, size=rows, p=[0.01 + apart, 0.01, 0.98 - apart])
        found = paired_interval((kind != 1).astype(float), (kind != 0).astype(float), target,
                                resamples=400, text_of=None)  # fmt: skip
        covered += found.low <= apart <= found.high
    assert covered >= (0.95 - 3 * np.sqrt(0.95 * 0.05 / TRIALS)) * TRIALS


def test_the_smallest_difference_shown_is_shown_four_times_out_of_five() -> None:
    rng, target = np.random.default_rng(7), labels(200, 200)
    noise = [rng.choice([-1.0, 0.0, 1.0], size=400, p=[0.1, 0.8, 0.1]) for _ in range(TRIALS)]
    equal = [paired_interval(d, np.zeros(400), target, resamples=400, text_of=None) for d in noise]
    least = float(np.mean([one.smallest_shown for one in equal]))
    shifted = [rng.choice([-1.0, 0.0, 1.0], size=400, p=[0.1 - least / 2, 0.8, 0.1 + least / 2])
               for _ in range(TRIALS)]  # fmt: skip
    shown = sum(
        paired_interval(d, np.zeros(400), target, resamples=400, text_of=None).low > 0
        for d in shifted
    )
    assert shown / TRIALS == pytest.approx(0.8, abs=0.09)
