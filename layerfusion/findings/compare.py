"""Choices among jobs, and what they are worth on test."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from layerfusion.config.job import ACCURACY
from layerfusion.findings.choice import order_of
from layerfusion.findings.jobs import FinishedJob
from layerfusion.records.job import Estimate
from layerfusion.statistics.exchanges import exchanged
from layerfusion.statistics.intervals import Difference, f1_interval, paired_interval
from layerfusion.statistics.significance import PairedTest, mcnemar_at_most, sign_flips


def best_chosen(jobs: Sequence[FinishedJob]) -> FinishedJob:
    """Choose the job with the highest figure on the rows that choose, without a look at test.

    These are validation or folds of train, and the figure is accuracy or an F1: see
    `findings.choice`. Ties go to the lower log-loss on the same rows, then to fewer and lower
    layers. Single layers that a job was compared with have only the accuracy of their probes.
    """
    metric = jobs[0].metric if all(job.metric in job.choosing for job in jobs) else ACCURACY
    return min(jobs, key=lambda job: order_of(job.record, job.choosing, metric))


def best_on_test(jobs: Sequence[FinishedJob]) -> FinishedJob:
    """Find the job with the highest figure on test: hindsight, which nobody has when choosing."""
    return min(jobs, key=lambda job: order_of(job.record, job.record.test, job.metric))


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

    def worth(job: FinishedJob) -> tuple[float, float]:
        """Sort the better job first, by the rule of the page without its last ties."""
        figure, loss, *_ = order_of(job.record, job.choosing, job.metric)
        return figure, loss

    found: list[FinishedJob] = []
    for job in sorted(jobs, key=lambda job: (flops(job), worth(job), job.record.job)):
        if not found or worth(job) < worth(found[-1]):
            found.append(job)
    return tuple(found)


def flops(job: FinishedJob) -> float:
    """Count the operations for one text: all models up to their highest layers, and the head.

    They are 0 where they are not known; such jobs are left out.
    """
    return 0.0 if job.flops is None else job.flops + (job.record.cost.head_flops or 0)


def over(job: FinishedJob, reference: FinishedJob) -> Difference:
    """Compare the accuracy or F1 of a job with that of another one on the same rows."""
    if job.metric != ACCURACY:
        return f1_interval(
            job.metric, job.preds, reference.preds, job.target, text_of=texts_of(job, reference)
        )
    return paired_interval(
        job.correct, reference.correct, job.target, text_of=texts_of(job, reference)
    )


def tested(job: FinishedJob, reference: FinishedJob) -> PairedTest:
    """Test the same difference: by flips of signs or, for an F1, by exchanged answers."""
    text_of = texts_of(job, reference)
    if job.metric != ACCURACY:
        return exchanged(job.metric, job.preds, reference.preds, job.target, text_of=text_of)
    seeds = math.lcm(len(job.record.seeds), len(reference.record.seeds))
    return sign_flips(job.correct, reference.correct, text_of=text_of, seeds=seeds)


def texts_of(*jobs: FinishedJob) -> np.ndarray | None:
    """Which text each row has, known from any of the jobs: all predict the same rows."""
    return next((job.text_of for job in jobs if job.text_of is not None), None)


def over_baseline(job: FinishedJob) -> Difference:
    """Compare the accuracy or F1 of a job with that of TF-IDF and logistic regression.

    The interval is paired where the job kept the baseline's predictions; older jobs did not.
    """
    if job.baseline is None or job.baseline_preds is None:
        return unpaired_interval(_ends(job.score), _ends(job.baseline_score), len(job.correct))
    if job.metric != ACCURACY:
        return f1_interval(
            job.metric, job.preds, job.baseline_preds[None], job.target, text_of=job.text_of
        )
    right = job.baseline.astype(float)
    return paired_interval(job.correct, right, job.target, text_of=job.text_of)


def tested_over_baseline(job: FinishedJob) -> PairedTest:
    """Test the same difference; only a bound is known where the baseline's answers are not."""
    if job.baseline is None or job.baseline_preds is None:
        if job.metric != ACCURACY:
            return PairedTest(0, 0, 1.0)
        rows = len(job.consensus)
        right = round(job.record.baseline.test["accuracy"] * rows)
        return mcnemar_at_most(int(job.consensus.sum()), right, rows)
    if job.metric != ACCURACY:
        said = job.baseline_preds[None]
        return exchanged(job.metric, job.preds, said, job.target, text_of=job.text_of)
    right, seeds = job.baseline.astype(float), len(job.record.seeds)
    return sign_flips(job.correct, right, text_of=job.text_of, seeds=seeds)


def score_ends(job: FinishedJob) -> tuple[float, float, float]:
    """Give the score of a job on test with its 95 % interval, or thrice the mean without one."""
    return _ends(job.score)


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    low = estimate.mean if estimate.low is None else estimate.low
    high = estimate.mean if estimate.high is None else estimate.high
    return estimate.mean, low, high
