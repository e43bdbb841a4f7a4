"""F1 of answers: what each row adds to it, and a test of whether two systems differ in it.

F1 is no mean over rows, so neither a paired test of right rows nor a bootstrap of their mean is of
it. Macro-F1 is defined as in `statistics.metrics.evaluate`; micro-F1 is that of all labels of all
rows together. Answers and labels are class indices, or true where a row has a label.
"""

from __future__ import annotations

import math

import numpy as np

from layerfusion.config.job import MICRO_F1
from layerfusion.errors import UserError
from layerfusion.statistics.answers import right_rows
from layerfusion.statistics.significance import PairedTest

RESAMPLES, LEAST_RESAMPLES = 10_000, 1_000
"""Random exchanges of answers, and how many there are where each takes long; no p-value is below
1 / (RESAMPLES + 1)."""
_WORK = 6e10
"""Multiplications, some seconds, up to which there are as many exchanges as were asked for."""
_CELLS = 4_000_000
"""Most numbers that are drawn at a time: 32 MB."""


def f1_scores(metric: str, target: np.ndarray, preds: np.ndarray) -> np.ndarray:
    """Return the F1 of each seed. Shape: (seeds,).

    Args:
        metric: macro_f1 or micro_f1.
        target: labels. Shape: (rows,), or (rows, labels).
        preds: answers of each seed. Shape: (seeds, rows), or (seeds, rows, labels).
    """
    has, said = _members(target, preds)
    return np.array([_f1(metric, 2 * (one & has).sum(0), _counts(one, has)) for one in said])


def f1_of_rows(metric: str, target: np.ndarray, preds: np.ndarray) -> np.ndarray:
    """Return a number for each row, whose mean is the mean F1 over the seeds. Shape: (rows,).

    It is the influence of the row on F1 to first order, added to F1 (the delta method). So a
    difference of two systems has about the variance of the mean.

    Args:
        metric: see `f1_scores`, as the others.
        target: see there.
        preds: see there.
    """
    has, said = _members(target, preds)
    found = []
    for one in said:
        hits, counts = 2.0 * (one & has), 1.0 * one + has
        if metric == MICRO_F1:
            hits, counts = hits.sum(axis=1, keepdims=True), counts.sum(axis=1, keepdims=True)
        occurs = counts.sum(axis=0) > 0
        hits, counts = hits[:, occurs], counts[:, occurs]
        share = counts.mean(axis=0)
        f1 = hits.mean(axis=0) / share
        found.append((f1 + (hits - f1 * counts) / share).sum(axis=1) / max(1, occurs.sum()))
    return np.mean(found, axis=0)


def exchanged(
    metric: str,
    a: np.ndarray,
    b: np.ndarray,
    target: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedTest:
    """Randomisation test of the difference of two systems in F1 (Yeh, COLING 2000).

    If the systems were equal, the answers to each row might as well have been exchanged. The
    p-value is the share of random exchanges after which the mean F1 over the seeds differ at least
    as much as they do; the answers of all seeds to a row are exchanged together.

    Args:
        metric: macro_f1 or micro_f1.
        a: answers of a system. Shape: (seeds, rows), or (seeds, rows, labels).
        b: those of the other one, which may have another number of seeds.
        target: labels. Shape: (rows,), or (rows, labels).
        resamples: number of random exchanges; fewer, but `LEAST_RESAMPLES`, for many classes, rows
            and seeds.
        seed: seed of the exchanges.

    Raises:
        UserError: if the systems do not have the same number of rows, or there are none.
    """
    if a.shape[1:] != b.shape[1:] or not len(target):
        raise UserError(f"exchanged: {a.shape[1]} and {b.shape[1]} test rows cannot be paired")
    right = [right_rows(one, target).mean(axis=0) for one in (a, b)]
    better, worse = int((right[0] > right[1]).sum()), int((right[1] > right[0]).sum())
    seeds = math.lcm(len(a), len(b))
    has, said = _members(target, np.concatenate([a, b]))
    ones = np.repeat(said[: len(a)], seeds // len(a), axis=0)
    others = np.repeat(said[len(a) :], seeds // len(b), axis=0)
    occurs = has.sum(axis=0)
    # Rows with the same label and the same answers are interchangeable.
    differ = (ones != others).any(axis=(0, 2))
    if not differ.any():
        return PairedTest(0, 0, 1.0)
    rows = np.concatenate([has[None], ones, others])[:, differ]
    packed = np.packbits(np.moveaxis(rows, 1, 0).reshape(rows.shape[1], -1), axis=1)
    _, first, sizes = np.unique(packed, axis=0, return_index=True, return_counts=True)
    has_first = rows[0, first]
    # What an exchange adds to the answers of the first, and takes from those of the second. Counts
    # of rows are exact in float32.
    kinds = [
        rows[1 + seeds + n, first].astype(np.float32) - rows[1 + n, first] for n in range(seeds)
    ]
    tallies = [
        [(2.0 * (whose & has).sum(axis=0), whose.sum(axis=0) + occurs) for whose in pair]
        for pair in zip(ones, others, strict=True)
    ]
    work = 4 * seeds * len(sizes) * len(occurs)
    resamples = max(min(resamples, LEAST_RESAMPLES), min(resamples, int(_WORK / work)))

    def difference(drawn: np.ndarray) -> np.ndarray:
        found = np.zeros(len(drawn))
        for kind, pair in zip(kinds, tallies, strict=True):
            said, hits = drawn @ kind, drawn @ (kind * has_first)
            for sign, (two, counts) in zip((1, -1), pair, strict=True):
                found += sign * _f1(metric, two + sign * 2.0 * hits, counts + sign * said)
        return found / seeds

    far = abs(float(difference(np.zeros((1, len(sizes)), np.float32))[0])) - 1e-12
    rng, as_far = np.random.default_rng(seed), 0
    chunk = max(1, _CELLS // (len(sizes) + 4 * len(occurs)))
    for start in range(0, resamples, chunk):
        many = min(chunk, resamples - start)
        drawn = rng.binomial(sizes, 0.5, size=(many, len(sizes))).astype(np.float32)
        as_far += int((np.abs(difference(drawn)) >= far).sum())
    return PairedTest(better, worse, (1 + as_far) / (1 + resamples))


def _members(target: np.ndarray, preds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where rows have a class, and are said to. Shapes: ([seeds,] rows, classes), bool."""
    if target.ndim == 2:
        return target.astype(bool), preds.astype(bool)
    classes = np.arange(max(target.max(initial=0), preds.max(initial=0)) + 1)
    return target[:, None] == classes, preds[:, :, None] == classes


def _counts(said: np.ndarray, has: np.ndarray) -> np.ndarray:
    return said.sum(axis=0) + has.sum(axis=0)


def _f1(metric: str, hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return 2 tp / (answered + occurring), over classes that are either; 0 where none is.

    Args:
        metric: macro_f1 or micro_f1.
        hits: twice the true positives of each class. Shape: (..., classes).
        counts: answers and occurrences of each. Shape: (..., classes).
    """
    if metric == MICRO_F1:
        return hits.sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1)
    return (hits / np.maximum(counts, 1)).sum(-1) / np.maximum((counts > 0).sum(-1), 1)
