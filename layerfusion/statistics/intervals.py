"""What the noise of a figure is: over seeds, over test rows and over draws of the training rows.

Every interval is a percentile bootstrap over test rows (Efron, 1979), but for that of
`crossed_interval`, and stratified by class: rows are drawn anew within each true class, whose size
stays what it is. So it says how much a figure would change with other test texts of the same
classes in the same numbers, not with other seeds and not with other class sizes. Where test is a
plain random sample and the classes differ in accuracy, the interval is a little too narrow for the
accuracy of the whole population; and a class of one row can only repeat that row, so what rare
classes contribute (most of all to macro-F1) counts as certain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import ndtri, stdtrit

from layerfusion.errors import UserError

_CHUNK_CELLS = 4_000_000
"""Numbers drawn at once: 32 MB."""
RESAMPLES = 20_000
"""Of a difference, whose interval may end close to zero."""
LEVEL = 0.95
_SUREST = 1 - 1e-12
"""No p is given below 1e-12: it would be one of the tails' last digits."""

Verdict = Literal["gain", "loss", "open"]


@dataclass(frozen=True)
class Difference:
    """How much more accurate one system is than another on the same test rows."""

    mean: float
    low: float
    high: float
    rows: int

    @property
    def verdict(self) -> Verdict:
        """`gain` or `loss` where the interval leaves zero out, else `open`."""
        if self.low > 0:
            return "gain"
        return "loss" if self.high < 0 else "open"


@dataclass(frozen=True)
class CrossedDifference(Difference):
    """How much more accurate one system is than another, over draws of the training rows."""

    draws: int
    p: float
    """Two-sided: the level at which the interval would end at zero."""


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); no deviation for one value.

    Raises:
        UserError: where there is no value.
    """
    if not len(values):
        raise UserError("statistics: the mean of no values was asked for")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def bootstrap_interval(
    correct: np.ndarray,
    target: np.ndarray,
    seed: int = 0,
    *,
    resamples: int = 2000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Stratified bootstrap interval of the mean over test rows.

    Args:
        correct: how often each row was right, in [0, 1]. Shape: (rows,), or (seeds, rows), which
            is averaged over the seeds first: a row is drawn with all its seeds.
        target: the true class of each row, within which rows are drawn. Shape: (rows,).
        seed: of the resampling.
        resamples: number of resamples.
        level: share of the resamples that the interval holds.

    Raises:
        UserError: where there is no row, or not one label a row.
    """
    rows = np.asarray(correct, dtype=np.float64)
    rows = rows.mean(axis=0) if rows.ndim == 2 else rows
    return _ends(_resampled_means(rows, target, resamples, seed), level)


def paired_interval(
    a: np.ndarray, b: np.ndarray, target: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Accuracy of `a` minus accuracy of `b`, with a 95 % stratified bootstrap over test rows.

    Rows are drawn in pairs, so what makes a text hard for both systems cancels out.

    Args:
        a: share of the seeds that were right on each test row. Shape: (rows,).
        b: the same of the other system. Shape: (rows,).
        target: the true class of each row, within which rows are drawn. Shape: (rows,).
        resamples: how many bootstrap samples.
        seed: of the resampling.

    Raises:
        UserError: where the two do not have the same, positive number of rows, or not one label a
            row.
    """
    if a.shape != b.shape or a.size == 0:
        raise UserError(f"paired interval: {a.size} and {b.size} test rows cannot be paired")
    low, high = _ends(_resampled_means(a - b, target, resamples, seed), LEVEL)
    return Difference(float(np.mean(a - b)), low, high, a.size)


def p_of_any_ahead(
    rivals: Sequence[np.ndarray],
    own: np.ndarray,
    target: np.ndarray,
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> float:
    """The p of the hypothesis that none of several systems is more accurate than one.

    The best of many on the rows at hand is partly so by luck, which an interval against that best
    one leaves out. This is the max-t test (White's reality check of 2000, studentised; Westfall and
    Young, 1993): T = max_k d_k / s_k, with d_k the accuracy of rival k less the own one's and s_k
    its standard error, held against max_k (d*_k - d_k) / s_k over stratified resamples of the rows,
    all rivals together. It errs to large p where some rivals are far behind.

    Args:
        rivals: share of the seeds that were right on each test row, of each. Shapes: (rows,).
        own: the same of the one. Shape: (rows,).
        target: the true class of each row, within which rows are drawn. Shape: (rows,).
        resamples: how many bootstrap samples; no p is below 1 / (resamples + 1).
        seed: of the resampling.

    Raises:
        UserError: where there is no row, or not one label a row.
    """
    target = np.asarray(target)
    _check(own.size, target)
    ahead = np.round(np.stack([one - own for one in rivals], axis=1), 12)  # (rows, rivals)
    means = ahead.mean(axis=0)
    errors = np.sqrt([_row_variance(one, target) for one in ahead.T])
    if np.any((errors == 0) & (means > 0)):
        return 1 / (resamples + 1)
    varied = errors > 0
    if not varied.any():
        return 1.0
    ahead, means, errors = ahead[:, varied], means[varied], errors[varied]
    strata = _strata(ahead, target)
    largest = []
    for draws in _draws([counts for *_, counts in strata], resamples, seed, ahead.shape[1]):
        sums = sum(drawn @ distinct for drawn, (_, distinct, _) in zip(draws, strata, strict=True))
        largest.append(((sums / len(ahead) - means) / errors).max(axis=1))
    as_large = np.concatenate(largest) >= (means / errors).max() - 1e-9
    return float((1 + as_large.sum()) / (1 + resamples))


def crossed_interval(differences: np.ndarray, target: np.ndarray) -> CrossedDifference:
    """Mean difference of two systems, each trained on several draws and judged on the same rows.

    Draws of the training rows and test rows are crossed, and both are samples: the 95 % interval
    is of the difference to expect of *another* draw of as many training rows, from the same pool,
    on *other* test texts of the same classes. An exact test on one draw, or on the rows of all of
    them, says nothing of other draws.

    With x_di the difference on test row i after draw d, the variance of the mean over D draws and n
    rows is σ²_draw/D + σ²_row/n + σ²_both/(Dn). Draws are too few to be resampled (three have ten
    resamples), so each part has the critical value that its own degrees of freedom ask for, and the
    parts are added as squares (Howe, Journal of the American Statistical Association 69, 1974):

        half² = t²(D−1) V_draw + z² max(0, V_row − V_both)

    V_draw is the variance of the draws' means over D, V_row that of the rows' means over n, within
    classes as everywhere here, and V_both what each of them has of σ²_both/(Dn). Exact where either
    draws or rows make all the noise, a little too wide where both do: of two equal systems 1 to 5 %
    are told apart. The t takes the draws' means for normal; a few draws make it wide.

    Args:
        differences: share of the seeds that were right, less that of the other system; what is
            chosen for a draw (layers, the other system) may differ. Shape: (draws, rows).
        target: the true class of each row. Shape: (rows,).

    Raises:
        UserError: with fewer than two draws, no row, or not one label a row.
    """
    target = np.asarray(target)
    draws, rows = differences.shape
    if draws < 2:
        raise UserError(f"crossed interval: {draws} draw says nothing of others; needed: 2 or more")
    _check(rows, target)
    x = np.asarray(differences, dtype=np.float64)
    # Multiples of 1 / seeds: rounded, so that sums that cancel are 0.
    mean = float(np.round(x.mean(), 12))
    of_draws = float(np.round(x.mean(axis=1), 12).var(ddof=1)) / draws
    of_rows = max(0.0, _row_variance(x.mean(axis=0), target) - _interaction(x, target))

    def half(level: float) -> float:
        tail = (1 + level) / 2
        return float(np.hypot(*_critical(draws, tail) * np.sqrt([of_draws, of_rows])))

    width = half(LEVEL)
    return CrossedDifference(mean, mean - width, mean + width, rows, draws, _level_of(mean, half))


def metric_intervals(
    target: np.ndarray,
    preds: np.ndarray,
    seed: int = 0,
    *,
    resamples: int = 2000,
    level: float = LEVEL,
) -> dict[str, tuple[float, float]]:
    """Stratified bootstrap intervals of accuracy and macro-F1, each the mean over seeds.

    Macro-F1 is that of `runs.metrics.evaluate`: of a resample and a seed, the mean over the classes
    that occur in its target or among its predictions. A row is drawn with all its seeds.

    Args:
        target: class indices. Shape: (rows,).
        preds: predicted class indices. Shape: (seeds, rows).
        seed: of the resampling.
        resamples: number of resamples.
        level: share of the resamples that an interval holds.

    Returns:
        `accuracy` and `macro_f1`, each (low, high).

    Raises:
        UserError: where there is no row, or not one label a row.
    """
    target, preds = np.asarray(target), np.asarray(preds)
    _check(preds.shape[-1], target)
    seeds, rows = preds.shape
    num_classes = int(max(target.max(), preds.max())) + 1
    strata = _strata(preds.T, target)
    # Of each class: which cells of (seeds, num_classes) its patterns fall in. Shape: (patterns,
    # cells used), as the rows of one class are taken for few others.
    cells, falls = [], []
    for _, patterns, _ in strata:
        place = patterns + num_classes * np.arange(seeds)
        used, column = np.unique(place, return_inverse=True)
        fall = np.zeros((len(patterns), len(used)))
        fall[np.arange(len(patterns))[:, None], column.reshape(place.shape)] = 1
        cells.append(used)
        falls.append(fall)
    occurs = np.bincount(target, minlength=num_classes)
    accuracy, macro_f1 = [], []
    for draws in _draws([counts for *_, counts in strata], resamples, seed, seeds * num_classes):
        size = len(draws[0])
        predicted = np.zeros((size, seeds * num_classes))
        hits = np.zeros((size, seeds, num_classes))
        for (label, *_), used, fall, drawn in zip(strata, cells, falls, draws, strict=True):
            found = drawn @ fall
            predicted[:, used] += found
            own = used % num_classes == label
            hits[:, used[own] // num_classes, label] = found[:, own]
        # F1 = 2 tp / (predicted + occurring); of a class that does neither there is none.
        either = predicted.reshape(hits.shape) + occurs
        f1 = np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)
        macro_f1.append((f1.sum(axis=2) / (either > 0).sum(axis=2)).mean(axis=1))
        accuracy.append(hits.sum(axis=(1, 2)) / (seeds * rows))
    return {
        "accuracy": _ends(np.concatenate(accuracy), level),
        "macro_f1": _ends(np.concatenate(macro_f1), level),
    }


# -- draws and rows -----------------------------------------------------------------------------


def _level_of(mean: float, half: Callable[[float], float]) -> float:
    """The p at which an interval of a given half-width ends at zero."""
    if mean == 0:
        return 1.0
    if half(_SUREST) < abs(mean):
        return 1 - _SUREST
    ends = root_scalar(lambda level: half(level) - abs(mean), bracket=(0.0, _SUREST), xtol=1e-13)
    return 1 - float(ends.root)


def _critical(draws: int, tail: float) -> np.ndarray:
    """Of the draws and of the rows."""
    return np.array([stdtrit(draws - 1, tail), ndtri(tail)])


def _row_variance(values: np.ndarray, target: np.ndarray) -> float:
    """Of the mean of some rows, drawn within their classes: Σ_c n_c s²_c / n².

    A class of one row counts as certain.
    """
    classes = [values[target == label] for label in np.unique(target)]
    return sum(c.size * float(c.var(ddof=1)) for c in classes if c.size > 1) / target.size**2


def _interaction(x: np.ndarray, target: np.ndarray) -> float:
    """What of the variance of the rows' means is that of rows under one draw and no other."""
    rest = x - x.mean(axis=0)
    draws = len(x)
    # Of the D rests of a row D - 1 are free, and the mean of D draws has 1 / D of their variance.
    return sum(_row_variance(one, target) for one in rest) / ((draws - 1) * draws)


# -- resampling ---------------------------------------------------------------------------------


def _check(rows: int, target: np.ndarray) -> None:
    if not rows:
        raise UserError("statistics: an interval over no test rows was asked for")
    if target.shape != (rows,):
        raise UserError(
            f"statistics: {rows} test rows and labels of shape {target.shape}; each row needs one"
        )


def _strata(patterns: np.ndarray, target: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Of each class: its label, its distinct patterns and how many rows show each.

    Args:
        patterns: what is drawn with a row. Shape: (rows, anything).
        target: Shape: (rows,).
    """
    found = []
    for label in np.unique(target):
        distinct, counts = np.unique(patterns[target == label], axis=0, return_counts=True)
        found.append((int(label), distinct, counts))
    return found


def _draws(
    counts: Sequence[np.ndarray], resamples: int, seed: int, width: int = 0
) -> Iterator[list[np.ndarray]]:
    """How often each pattern of each class is drawn, as many resamples at a time as memory allows.

    Rows of one class that show the same pattern are interchangeable, so how often each *pattern* is
    drawn is multinomial: the same distribution as drawing rows, at the cost of few counts.

    Args:
        counts: of each class, how many rows show each of its patterns.
        resamples: number of resamples.
        seed: of the resampling.
        width: numbers beside the counts that the caller holds of a resample.

    Yields:
        Of each class, counts of shape (some resamples, patterns).
    """
    # A generator a class, so that the size of a chunk changes no draw.
    generators = np.random.default_rng(seed).spawn(len(counts))
    chunk = max(1, _CHUNK_CELLS // (sum(map(len, counts)) + width))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        yield [
            rng.multinomial(int(own.sum()), own / own.sum(), size=size)
            for rng, own in zip(generators, counts, strict=True)
        ]


def _resampled_means(
    values: np.ndarray, target: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Means of a value a row over stratified resamples. Shape: (resamples,)."""
    target = np.asarray(target)
    _check(values.size, target)
    # Multiples of 1 / seeds: rounded, so that those that should be equal are, and a mean of 0 is 0.
    strata = _strata(np.round(values, 12)[:, None], target)
    sums = [
        sum(drawn @ distinct[:, 0] for drawn, (_, distinct, _) in zip(draws, strata, strict=True))
        for draws in _draws([counts for *_, counts in strata], resamples, seed)
    ]
    return np.round(np.concatenate(sums) / values.size, 9)


def _ends(figures: np.ndarray, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return float(low), float(high)
