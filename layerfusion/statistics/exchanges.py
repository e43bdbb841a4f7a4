"""A test of whether two systems differ in F1, by exchanging their answers at random.

F1 is no mean over rows, so a paired test of right rows is not of it.
"""

from __future__ import annotations

import math

import numpy as np

from layerfusion.errors import UserError
from layerfusion.statistics.answers import right_rows
from layerfusion.statistics.f1 import f1_of_counts, members
from layerfusion.statistics.resampling import Texts, check_texts, take_texts
from layerfusion.statistics.significance import PairedTest

RESAMPLES, LEAST_RESAMPLES = 10_000, 1_000
"""Random exchanges of answers, and how many there are where each takes long; no p-value is below
1 / (RESAMPLES + 1)."""
_WORK = 6e10
"""Multiplications, some seconds, up to which there are as many exchanges as were asked for."""
_CELLS = 4_000_000
"""Most numbers that are drawn at a time: 32 MB."""


def exchanged(
    metric: str,
    a: np.ndarray,
    b: np.ndarray,
    target: np.ndarray,
    *,
    text_of: np.ndarray | None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedTest:
    """Randomisation test of the difference of two systems in F1 (Yeh, COLING 2000).

    If the systems were equal, the answers to each row might as well have been exchanged. The
    p-value is the share of random exchanges after which the mean F1 over the seeds differ at least
    as much as they do; the answers of all seeds to a row, and to all rows that repeat its text, are
    exchanged together.

    Args:
        metric: macro_f1 or micro_f1.
        a: answers of a system. Shape: (seeds, rows), or (seeds, rows, labels).
        b: those of the other one, which may have another number of seeds.
        target: labels. Shape: (rows,), or (rows, labels).
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
        resamples: number of random exchanges; fewer, but `LEAST_RESAMPLES`, for many classes, rows
            and seeds.
        seed: seed of the exchanges.

    Raises:
        UserError: if the systems do not have the same number of rows, or there are none, or there
            is not the text of each.
    """
    if a.shape[1:] != b.shape[1:] or not len(target):
        raise UserError(f"exchanged: {a.shape[1]} and {b.shape[1]} test rows cannot be paired")
    check_texts(text_of, len(target))
    right = [right_rows(one, target).mean(axis=0) for one in (a, b)]
    better, worse = int((right[0] > right[1]).sum()), int((right[1] > right[0]).sum())
    seeds = math.lcm(len(a), len(b))
    has, said = members(target, np.concatenate([a, b]))
    ones = np.repeat(said[: len(a)], seeds // len(a), axis=0)
    others = np.repeat(said[len(a) :], seeds // len(b), axis=0)
    occurs = has.sum(axis=0)
    # Rows with the same label and the same answers are interchangeable, and so are texts with such
    # rows.
    differ = (ones != others).any(axis=(0, 2))
    if not differ.any():
        return PairedTest(0, 0, 1.0)
    rows = np.concatenate([has[None], ones, others])[:, differ]
    packed = np.packbits(np.moveaxis(rows, 1, 0).reshape(rows.shape[1], -1), axis=1)
    _, first, kind_of = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    texts = Texts.of(kind_of.reshape(-1), take_texts(text_of, differ))
    sizes, has_first, widest = texts.counts, rows[0, first], max(len(texts.counts), len(first))
    # What an exchange adds to the answers of the first, and takes from those of the second. Counts
    # of rows are exact in float32.
    kinds = [
        rows[1 + seeds + n, first].astype(np.float32) - rows[1 + n, first] for n in range(seeds)
    ]
    tallies = [
        [(2.0 * (whose & has).sum(axis=0), whose.sum(axis=0) + occurs) for whose in pair]
        for pair in zip(ones, others, strict=True)
    ]
    work = 4 * seeds * len(first) * len(occurs)
    resamples = max(min(resamples, LEAST_RESAMPLES), min(resamples, int(_WORK / work)))

    def difference(drawn: np.ndarray) -> np.ndarray:
        found, drawn = np.zeros(len(drawn)), texts.rows_of(drawn).astype(np.float32, copy=False)
        for kind, pair in zip(kinds, tallies, strict=True):
            said, hits = drawn @ kind, drawn @ (kind * has_first)
            for sign, (two, counts) in zip((1, -1), pair, strict=True):
                found += sign * f1_of_counts(metric, two + sign * 2.0 * hits, counts + sign * said)
        return found / seeds

    far = abs(float(difference(np.zeros((1, len(sizes)), np.float32))[0])) - 1e-12
    rng, as_far = np.random.default_rng(seed), 0
    chunk = max(1, _CELLS // (widest + 4 * len(occurs)))
    for start in range(0, resamples, chunk):
        many = min(chunk, resamples - start)
        drawn = rng.binomial(sizes, 0.5, size=(many, len(sizes))).astype(np.float32)
        as_far += int((np.abs(difference(drawn)) >= far).sum())
    return PairedTest(better, worse, (1 + as_far) / (1 + resamples))
