"""Choosing on validation, and saying on test what the choice is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from layerfusion.report.jobs import Job
from layerfusion.statistics.intervals import Difference, paired_interval


def best_on_validation(jobs: Sequence[Job]) -> Job:
    """The job with the highest validation accuracy: the choice that never looks at test.

    Ties go to the lower validation log-loss, then to fewer and lower layers.
    """
    return min(jobs, key=lambda job: _rank(job, "validation"))


def best_on_test(jobs: Sequence[Job]) -> Job:
    """The job with the highest test accuracy: hindsight, which nobody has when choosing."""
    return min(jobs, key=lambda job: _rank(job, "test"))


def unpaired_interval(
    a: tuple[float, float, float], b: tuple[float, float, float], rows: int
) -> Difference:
    """Difference of two (accuracy, low, high) whose rows are not at hand.

    Newcombe's square-and-add interval (Statistics in Medicine 17, 1998) for independent samples.
    Both were measured on the same rows and hard rows are hard for both, so it errs to the wide
    side: what it calls a difference is one.
    """
    (mean_a, low_a, high_a), (mean_b, low_b, high_b) = a, b
    mean = mean_a - mean_b
    low = mean - float(np.hypot(mean_a - low_a, high_b - mean_b))
    high = mean + float(np.hypot(high_a - mean_a, mean_b - low_b))
    return Difference(mean, low, high, rows)


def over(job: Job, reference: Job) -> Difference:
    """How much more accurate a job is than another one on the same rows."""
    return paired_interval(job.correct, reference.correct, job.target)


def over_baseline(job: Job) -> Difference:
    """How much more accurate a job is than TF-IDF with logistic regression.

    Paired where the job keeps the baseline's predictions, which older ones do not.
    """
    if job.baseline is not None:
        return paired_interval(job.correct, job.baseline.astype(float), job.target)
    baseline = job.record.baseline
    return unpaired_interval(
        accuracy(job), (baseline.test["accuracy"], baseline.low, baseline.high), len(job.correct)
    )


def accuracy(job: Job) -> tuple[float, float, float]:
    """Test accuracy with its 95 % interval; the point alone where none was recorded."""
    estimate = job.record.test["accuracy"]
    low = estimate.mean if estimate.low is None else estimate.low
    high = estimate.mean if estimate.high is None else estimate.high
    return estimate.mean, low, high


def _rank(job: Job, split: Literal["validation", "test"]) -> tuple[float, float, int, int, str]:
    """Sorting key, best first; rounded so that the order of summing seeds cannot break a tie."""
    metrics = job.record.validation if split == "validation" else job.record.test
    accuracy, loss = metrics["accuracy"].mean, metrics["log_loss"].mean
    return -round(accuracy, 9), round(loss, 9), job.sources, job.level, job.record.job
