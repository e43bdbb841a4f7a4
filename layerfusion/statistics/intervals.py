"""Confidence intervals over seeds and test rows; `crossed` has those over draws of train as well.

Every interval is a percentile bootstrap over test rows (Efron, 1979), stratified by class: rows are
resampled within each true class, so the sizes of the classes do not change. It says how much a
figure would change with other test texts of the same classes in the same numbers, but not with
other seeds or other class sizes. If test is a plain random sample and the classes differ in
accuracy, the interval is slightly too narrow for the accuracy on the whole population. A class with
one row can only repeat that row, so the interval takes the share of rare classes in a figure (above
all in macro-F1) for certain.

Where a row has any number of the labels, it has no class: all rows are then resampled together. All
functions below take such labels as a matrix of shape (rows, labels), which is true where a row has
a label.

Rows that repeat a text are drawn together: `text_of` says which text a row has, and is for whoever
asks to give (`statistics.resampling`). Where no text is repeated, figures are those of rows.

Resampling cannot draw a kind of row that did not occur: where all rows were right, every resample
is. No end of an interval therefore lies nearer to the mean than `unseen_share`, of as many rows
as `independent_rows` says. This widens intervals only where fewer than four rows differ from the
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtri

from layerfusion.errors import UserError
from layerfusion.statistics.f1 import f1_scores
from layerfusion.statistics.resampling import (
    Strata,
    check_texts,
    expanded,
    independent_rows,
    mean_variance,
    repeated,
    strata_of,
    take_texts,
    total_rows,
)

RESAMPLES = 20_000
"""Resamples for the interval of a difference. It takes many, as one end may be close to zero."""
F1_RESAMPLES = 5_000
"""Those of a difference in F1, each of which takes far longer."""
LEVEL = 0.95
POWER = 0.8

Verdict = Literal["gain", "loss", "open"]


@dataclass(frozen=True)
class Difference:
    """Difference in accuracy, or in F1, between two systems on the same test rows."""

    mean: float
    low: float
    high: float
    rows: int

    @property
    def verdict(self) -> Verdict:
        """`gain` or `loss` if the interval excludes zero, else `open`."""
        if self.low > 0:
            return "gain"
        return "loss" if self.high < 0 else "open"

    @property
    def smallest_shown(self) -> float:
        """The smallest difference that as many rows would show four times out of five.

        It is that of a test at 5 % with a power of 80 %: (1.96 + 0.84) standard errors, the
        standard error being a quarter (1 / 3.92) of the interval.
        """
        return least_shown((self.high - self.low) / 2)


def least_shown(half: float) -> float:
    """Return the smallest difference that is shown four times out of five.

    Args:
        half: half the width of the interval, which is also the largest difference that the rows
            at hand would just not show.
    """
    tail = (1 + LEVEL) / 2
    return half * float((ndtri(tail) + ndtri(POWER)) / ndtri(tail))


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (n - 1), which is None for one value.

    Raises:
        UserError: if there is no value.
    """
    if not len(values):
        raise UserError("statistics: the mean needs at least one value")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def unseen_share(rows: float, level: float = LEVEL) -> float:
    """Return the largest share that a kind of row may have of which none occurred among some rows.

    It is the bound of Clopper and Pearson (Biometrika 26, 1934) for 0 of n: 1 - (α/2)^(1/n), about
    3.7 / n at 95 %.
    """
    return float(-np.expm1(np.log((1 - level) / 2) / rows))


def bootstrap_interval(
    correct: np.ndarray,
    target: np.ndarray,
    seed: int = 0,
    *,
    text_of: np.ndarray | None,
    resamples: int = 2000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Return a stratified bootstrap interval of the mean over test rows.

    Args:
        correct: share of the times that each row was right, in [0, 1]. Shape: (rows,), or (seeds,
            rows), which is averaged over the seeds first, so a row is drawn with all its seeds.
        target: true class of each row, within which rows are resampled. Shape: (rows,), or (rows,
            labels) where rows have several labels.
        seed: seed of the resampling.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
        resamples: number of resamples.
        level: share of the resamples that lie in the interval.

    Raises:
        UserError: if there are no rows, or not the label and the text of each row.
    """
    rows = np.asarray(correct, dtype=np.float64)
    rows = rows.mean(axis=0) if rows.ndim == 2 else rows
    means = _resampled_means(rows, target, text_of, resamples, seed)
    return _interval(means, float(rows.mean()), rows, text_of, level, least=0)


def paired_interval(
    a: np.ndarray,
    b: np.ndarray,
    target: np.ndarray,
    *,
    text_of: np.ndarray | None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Return the accuracy of `a` minus that of `b`, with a 95 % stratified bootstrap interval.

    Both systems are resampled on the same rows, so what makes a text hard for both cancels out.

    Args:
        a: share of the seeds that were right on each test row. Shape: (rows,).
        b: the same share for the other system. Shape: (rows,).
        target: true class of each row, within which rows are resampled. Shape: (rows,), or (rows,
            labels) where rows have several labels.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Raises:
        UserError: if the two systems do not have the same number of rows, if there are none, or if
            there are not the label and the text of each row.
    """
    if a.shape != b.shape or a.size == 0:
        raise UserError(f"paired interval: {a.size} and {b.size} test rows cannot be paired")
    mean = float(np.mean(a - b))
    means = _resampled_means(a - b, target, text_of, resamples, seed)
    ends = _interval(means, mean, a - b, text_of, LEVEL, least=-1)
    return Difference(mean, *ends, a.size)


def p_of_any_ahead(
    rivals: Sequence[np.ndarray],
    own: np.ndarray,
    target: np.ndarray,
    *,
    text_of: np.ndarray | None,
    resamples: int = 4000,
    seed: int = 0,
) -> float:
    """Return the p-value of the hypothesis that none of several rivals beats a system.

    The best of many rivals owes part of its accuracy on the given rows to luck, which an interval
    against that rival alone ignores. This is the max-t test (White's reality check of 2000,
    studentised; Westfall and Young, 1993). Its statistic is T = max_k d_k / s_k, where d_k is the
    accuracy of rival k minus that of the system and s_k is its standard error. T is compared with
    max_k (d*_k - d_k) / s_k over stratified resamples of the rows, with all rivals together. The
    p-value errs on the large side if some rivals are far behind.

    Args:
        rivals: for each rival, share of the seeds that were right on each row. Shapes: (rows,).
        own: the same share for the system. Shape: (rows,).
        target: true class of each row, within which rows are resampled. Shape: (rows,), or (rows,
            labels) where rows have several labels.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
        resamples: number of bootstrap samples; no p-value is below 1 / (resamples + 1).
        seed: seed of the resampling.

    Raises:
        UserError: if there are no rows, or not the label and the text of each row.
    """
    target = strata_of(target, own.size, text_of)
    ahead = np.round(np.stack([one - own for one in rivals], axis=1), 12)  # (rows, rivals)
    means = ahead.mean(axis=0)
    errors = np.sqrt([mean_variance(one, target, text_of) for one in ahead.T])
    least = 1 / (resamples + 1)
    if (of_row := repeated(text_of)) is not None:
        # By chance alone, a rival is ahead on all of m texts once in 2^m times.
        least = max(least, 0.5 ** float(of_row.max() + 1))
    if np.any((errors == 0) & (means > 0)):
        return least
    varied = errors > 0
    if not varied.any():
        return 1.0
    ahead, means, errors = ahead[:, varied], means[varied], errors[varied]
    strata = Strata.of(ahead, target, text_of)
    largest = []
    for draws in strata.draws(resamples, seed, ahead.shape[1]):
        sums = sum(drawn @ one for drawn, one in zip(draws, strata.distinct, strict=True))
        drawn_means = sums / total_rows(draws)[:, None]
        largest.append(((drawn_means - means) / errors).max(axis=1))
    as_large = np.concatenate(largest) >= (means / errors).max() - 1e-9
    return max(least, float((1 + as_large.sum()) / (1 + resamples)))


def metric_intervals(
    target: np.ndarray,
    preds: np.ndarray,
    seed: int = 0,
    *,
    text_of: np.ndarray | None,
    resamples: int = 2000,
    level: float = LEVEL,
) -> dict[str, tuple[float, float]]:
    """Return stratified bootstrap intervals of accuracy and macro-F1, averaged over the seeds.

    Macro-F1 is defined as in `statistics.metrics.evaluate`: for each resample and seed, it is the
    mean over the classes that occur in the target or in the predictions. A row is drawn with all
    its seeds. Where rows have several labels, there is an interval of micro-F1 too.

    Args:
        target: class indices, shape (rows,), or true where a row has a label, shape (rows, labels).
        preds: answers in the same form. Shape: (seeds, rows), or (seeds, rows, labels).
        seed: seed of the resampling.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
        resamples: number of resamples.
        level: share of the resamples that lie in an interval.

    Returns:
        Intervals (low, high) of `accuracy` and `macro_f1`; without `macro_f1` where no resample
        differs from the rows, as where the answers to all rows of a class are the same, for every
        class. Where rows have several labels, `micro_f1` besides, and neither F1 in that case.

    Raises:
        UserError: if there are no rows, or not the label and the text of each row.
    """
    target, preds = np.asarray(target), np.asarray(preds)
    if target.ndim == 2:
        return _set_intervals(target, preds, text_of, seed, resamples, level)
    found = _resampled_figures(target, preds, text_of, seed, resamples)
    right = (preds == target).mean(axis=0)
    mean = float(right.mean())
    intervals = {"accuracy": _interval(found["accuracy"], mean, right, text_of, level, least=0)}
    macro_f1 = found["macro_f1"].mean(axis=1)
    if np.ptp(macro_f1) > 0:
        intervals["macro_f1"] = _ends(macro_f1, level, right, text_of)
    return intervals


def f1_interval(
    metric: str,
    a: np.ndarray,
    b: np.ndarray,
    target: np.ndarray,
    *,
    text_of: np.ndarray | None,
    resamples: int = F1_RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Return the F1 of `a` minus that of `b`, with a 95 % stratified bootstrap interval.

    F1 is computed anew for each resample and seed, and averaged over the seeds. Both systems are
    resampled on the same rows, as in `paired_interval`.

    Args:
        metric: macro_f1, or micro_f1 where rows have several labels.
        a: answers of each seed. Shape: (seeds, rows), or (seeds, rows, labels).
        b: those of the other system, which may have another number of seeds.
        target: labels. Shape: (rows,), or (rows, labels).
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
        resamples: number of bootstrap samples.
        seed: seed of the resampling.

    Raises:
        UserError: if the two systems do not have the same number of rows, or there are none.
    """
    if a.shape[1:] != b.shape[1:]:
        raise UserError(f"F1 interval: {a.shape[1]} and {b.shape[1]} test rows cannot be paired")
    resample = _resampled_figures if target.ndim == 1 else _resampled_sets
    found = resample(target, np.concatenate([a, b]), text_of, seed, resamples)[metric]
    each = found[:, : len(a)].mean(axis=1) - found[:, len(a) :].mean(axis=1)
    mean = float(f1_scores(metric, target, a).mean() - f1_scores(metric, target, b).mean())
    own, other = (
        (one == target).reshape(*one.shape[:2], -1).all(axis=2).mean(axis=0) for one in (a, b)
    )
    ends = _interval(np.round(each, 9), mean, own - other, text_of, LEVEL, least=-1)
    return Difference(mean, *ends, len(target))


def _resampled_figures(
    target: np.ndarray, preds: np.ndarray, text_of: np.ndarray | None, seed: int, resamples: int
) -> dict[str, np.ndarray]:
    """Compute accuracy, mean over the seeds, and macro-F1 of each seed in each resample.

    Shapes: (resamples,), and (resamples, seeds).
    """
    seeds, rows = preds.shape
    strata_of(target, rows, text_of)
    num_classes = int(max(target.max(), preds.max())) + 1
    strata = Strata.of(preds.T, target, text_of)
    # For each class: the cells of (seeds, num_classes) that its patterns count in, as a matrix of
    # shape (patterns, cells). It has only the cells in use: a class is confused with few others.
    cells, falls = [], []
    for patterns in strata.distinct:
        place = patterns + num_classes * np.arange(seeds)
        used, column = np.unique(place, return_inverse=True)
        fall = np.zeros((len(patterns), len(used)))
        fall[np.arange(len(patterns))[:, None], column.reshape(place.shape)] = 1
        cells.append(used)
        falls.append(fall)
    accuracy, macro_f1 = [], []
    for draws in strata.draws(resamples, seed, seeds * num_classes):
        size = len(draws[0])
        predicted = np.zeros((size, seeds * num_classes))
        hits = np.zeros((size, seeds, num_classes))
        occurs = np.zeros((size, 1, num_classes))
        for label, used, fall, drawn in zip(strata.labels, cells, falls, draws, strict=True):
            occurs[:, 0, label] = drawn.sum(axis=1)
            found = drawn @ fall
            predicted[:, used] += found
            own = used % num_classes == label
            hits[:, used[own] // num_classes, label] = found[:, own]
        # F1 = 2 tp / (predicted + occurring). A class that is neither does not count.
        either = predicted.reshape(hits.shape) + occurs
        f1 = np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)
        macro_f1.append(f1.sum(axis=2) / (either > 0).sum(axis=2))
        accuracy.append(hits.sum(axis=(1, 2)) / (seeds * total_rows(draws)))
    return {"accuracy": np.concatenate(accuracy), "macro_f1": np.concatenate(macro_f1)}


def ratio_interval(
    parts: np.ndarray,
    wholes: np.ndarray,
    seed: int = 0,
    *,
    text_of: np.ndarray | None,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Return a 95 % bootstrap interval of a ratio of sums over rows, such as Σ hits / Σ answers.

    Rows are drawn with all that they count for. Those that count for nothing are left out.

    Args:
        parts: what each row adds to the numerator, at most what it adds to the other. Shape:
            (rows,).
        wholes: what it adds to the denominator. Shape: (rows,).
        seed: seed of the resampling.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
        resamples: number of resamples.

    Raises:
        UserError: if no row counts, or there is not the text of each.
    """
    check_texts(text_of, len(wholes))
    counted = wholes > 0
    pairs, texts = np.stack([parts, wholes], axis=1)[counted], take_texts(text_of, counted)
    stratum = strata_of(np.zeros(len(pairs), dtype=np.int64), len(pairs), texts)
    strata = Strata.of(pairs, stratum, texts)
    sums = [drawn @ strata.distinct[0] for (drawn,) in strata.draws(resamples, seed)]
    ratios, mean = (
        np.concatenate([one[:, 0] / one[:, 1] for one in sums]),
        parts.sum() / wholes.sum(),
    )
    return _interval(ratios, float(mean), pairs @ [1, -mean], texts, LEVEL, least=0)


def _set_intervals(
    target: np.ndarray,
    preds: np.ndarray,
    text_of: np.ndarray | None,
    seed: int,
    resamples: int,
    level: float,
) -> dict[str, tuple[float, float]]:
    """Return the intervals of `metric_intervals` for rows that have any number of the labels.

    Args:
        target: true where a row has a label. Shape: (rows, labels).
        preds: true where it is answered. Shape: (seeds, rows, labels).
        text_of: see there, as the other three.
        seed: see there.
        resamples: see there.
        level: see there.
    """
    found = _resampled_sets(target, preds, text_of, seed, resamples)
    exact = (preds == target).all(axis=2).mean(axis=0)
    ends = {
        name: _ends(found[name].mean(axis=1), level, exact, text_of)
        for name in ("macro_f1", "micro_f1")
    }
    mean = float(exact.mean())
    accuracy = _interval(found["accuracy"], mean, exact, text_of, level, least=0)
    return {"accuracy": accuracy, **{name: one for name, one in ends.items() if one[0] < one[1]}}


def _resampled_sets(
    target: np.ndarray, preds: np.ndarray, text_of: np.ndarray | None, seed: int, resamples: int
) -> dict[str, np.ndarray]:
    """Compute what `_resampled_figures` does, and micro-F1, where rows have several labels."""
    target, preds = target.astype(bool), preds.astype(bool)
    seeds, rows, labels = preds.shape
    one_stratum = strata_of(target, rows, text_of)
    packed = np.packbits(np.concatenate([target[None], preds]), axis=2)
    # Rows with the same labels and answers are interchangeable; the first of them stands for all.
    _, first, kind_of = np.unique(
        np.moveaxis(packed, 1, 0).reshape(rows, -1), axis=0, return_index=True, return_inverse=True
    )
    strata = Strata.of(kind_of.reshape(rows, 1), one_stratum, text_of)
    has, said = target[first], np.moveaxis(preds[:, first], 0, 1)
    exact = (said == has[:, None]).all(axis=2).mean(axis=1)
    # Most rows have few of the labels.
    hits = csr_array((said & has[:, None]).reshape(len(first), -1).astype(np.int64))
    # 2 tp / (answered + occurring), the denominator label by label.
    either = csr_array((said.astype(np.int64) + has[:, None]).reshape(len(first), -1))
    found: dict[str, list[np.ndarray]] = {"accuracy": [], "macro_f1": [], "micro_f1": []}
    for (drawn,) in strata.draws(resamples, seed, 3 * seeds * labels):
        twice, sums = (
            np.asarray((one.T @ drawn.T).T).reshape(-1, seeds, labels) for one in (2 * hits, either)
        )
        occurring = (sums > 0).sum(axis=2)
        by_label = twice / np.maximum(sums, 1)
        macro = by_label.sum(axis=2) / np.maximum(occurring, 1)
        micro = twice.sum(axis=2) / np.maximum(sums.sum(axis=2), 1)
        found["accuracy"].append(drawn @ exact / drawn.sum(axis=1))
        found["macro_f1"].append(macro)
        found["micro_f1"].append(micro)
    return {name: np.concatenate(values) for name, values in found.items()}


def _resampled_means(
    values: np.ndarray, target: np.ndarray, text_of: np.ndarray | None, resamples: int, seed: int
) -> np.ndarray:
    """Return the mean of `values` in each stratified resample. Shape: (resamples,)."""
    target = strata_of(target, values.size, text_of)
    # Values are multiples of 1 / seeds. Rounding makes equal ones equal, and a mean of 0 exactly 0.
    strata = Strata.of(np.round(values, 12)[:, None], target, text_of)
    means = [
        sum(drawn @ one[:, 0] for drawn, one in zip(draws, strata.distinct, strict=True))
        / total_rows(draws)
        for draws in strata.draws(resamples, seed)
    ]
    return np.round(np.concatenate(means), 9)


def _ends(
    figures: np.ndarray, level: float, values: np.ndarray, text_of: np.ndarray | None
) -> tuple[float, float]:
    """Return the percentiles between which resampled figures lie.

    Args:
        figures: the figure of each resample. Shape: (resamples,).
        level: share of them that an interval has, were no texts repeated: see `expanded`.
        values: what a row adds to the figure, or to the accuracy. Shape: (rows,).
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
    """
    worth = independent_rows(len(values), text_of, values)
    tail = (1 - expanded(level, worth, text_of)) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return float(low), float(high)


def _interval(
    figures: np.ndarray,
    mean: float,
    values: np.ndarray,
    text_of: np.ndarray | None,
    level: float,
    *,
    least: float,
) -> tuple[float, float]:
    """Make an interval of percentiles, and move its ends to what rows of an unseen kind allow.

    Args:
        figures: as for `_ends`.
        mean: the figure, between `least` and 1, which one row changes by at most 1 / n.
        values: as for `_ends`.
        text_of: as for `_ends`.
        level: as for `_ends`.
        least: the least that the figure can be.
    """
    low, high = _ends(figures, level, values, text_of)
    unseen = unseen_share(independent_rows(len(values), text_of, values), level)
    return max(least, min(low, mean - unseen)), min(1.0, max(high, mean + unseen))
