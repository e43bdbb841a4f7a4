"""Choices among jobs, and what they are worth on test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerfusion.findings.choice import order_of
from layerfusion.findings.jobs import FinishedJob
from layerfusion.statistics.intervals import Difference, paired_interval


def best_chosen(jobs: Sequence[FinishedJob]) -> FinishedJob:
    """Choose the job with the highest accuracy on the rows that choose, without a look at test.

    These are validation or folds of train: see `findings.choice`. Ties go to the lower log-loss on
    the same rows, then to fewer and lower layers.
    """
    return min(jobs, key=lambda job: order_of(job.record, job.choosing))


def best_on_test(jobs: Sequence[FinishedJob]) -> FinishedJob:
    """Find the job with the highest test accuracy: hindsight, which nobody has when choosing."""
    return min(jobs, key=lambda job: order_of(job.record, job.record.test))


def unpaired_interval(
    a: tuple[float, float, float], b: tuple[float, float, float], rows: int
) -> Difference:
    """Compare two (accuracy, low, high) without knowing the rows that each got right.

    The interval is Newcombe's square-and-add interval for independent samples (Statistics in
    Medicine 17, 1998). Since both were measured on the same rows, and rows that are hard for one
    are mostly hard for the other, the interval is too wide rather than too narrow.
    """
    (mean_a, low_a, high_a), (mean_b, low_b, high_b) = a, b
    mean = mean_a - mean_b
    low = mean - float(np.hypot(mean_a - low_a, high_b - mean_b))
    high = mean + float(np.hypot(high_a - mean_a, mean_b - low_b))
    return Difference(mean, low, high, rows)


def front(jobs: Sequence[FinishedJob]) -> tuple[FinishedJob, ...]:
    """Find the jobs that no other beats at the same cost or less, by the rows that choose.

    These decide which jobs are on the front, so that test only says what each is worth.

    Args:
        jobs: with a known cost.

    Returns:
        The jobs, cheapest first.
    """

    def right(job: FinishedJob) -> float:
        return round(job.choosing["accuracy"].mean, 9)

    found: list[FinishedJob] = []
    for job in sorted(jobs, key=lambda job: (flops(job), -right(job), job.record.job)):
        if not found or right(job) > right(found[-1]):
            found.append(job)
    return tuple(found)


def flops(job: FinishedJob) -> float:
    """Count the operations for one text: all models up to their highest layers, and the head.

    They are 0 where they are not known; such jobs are left out.
    """
    return 0.0 if job.flops is None else job.flops + (job.record.cost.head_flops or 0)


def over(job: FinishedJob, reference: FinishedJob) -> Difference:
    """Compare the accuracy of a job with that of another one on the same rows."""
    return paired_interval(job.correct, reference.correct, job.target)


def over_baseline(job: FinishedJob) -> Difference:
    """Compare the accuracy of a job with that of TF-IDF and logistic regression.

    The interval is paired where the job kept the baseline's predictions; older jobs did not.
    """
    if job.baseline is not None:
        return paired_interval(job.correct, job.baseline.astype(float), job.target)
    baseline = job.record.baseline
    return unpaired_interval(
        accuracy(job), (baseline.test["accuracy"], baseline.low, baseline.high), len(job.correct)
    )


def accuracy(job: FinishedJob) -> tuple[float, float, float]:
    """Give a job's test accuracy with its 95 % interval, or thrice the mean without one."""
    estimate = job.accuracy
    low = estimate.mean if estimate.low is None else estimate.low
    high = estimate.mean if estimate.high is None else estimate.high
    return estimate.mean, low, high
