"""Block on the mistakes of the job that is used: by class, by confidence, and the worst of all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

import numpy as np
from matplotlib.axes import Axes

from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.mistakes import Answers, Confidence
from layerfusion.findings.tests import Findings
from layerfusion.report.block import Block, Folded
from layerfusion.report.blocks.summary import all_names
from layerfusion.report.figures.canvas import Drawing, drawing, new_axes
from layerfusion.report.figures.colors import INK, MUTED
from layerfusion.report.format import (
    COUNT,
    PERCENT,
    SHARE,
    shortened,
)
from layerfusion.report.table import Cell, Column, Table
from layerfusion.statistics.intervals import bootstrap_interval

MATRIX = 12
"""Most classes whose confusions are a square table; of more, the most frequent are a list."""
PAIRS = 20
WORST = 50
"""Most confusions of the list, and most mistakes."""
LONG = 300
"""Most characters of a text that are shown."""
LEAST = 5
"""Fewest rows of a bin that is drawn."""


def error_block(group: DataGroup, findings: Findings) -> Block | None:
    """Show where the job that is used errs."""
    job = group.best
    if job.answer is None or job.confidence is None:
        return None
    found = Answers(
        group.data.label_names, job.target, job.answer, job.confidence, group.test_texts
    )
    wrong = int((~found.right).sum())
    return Block(
        "Where it errs",
        (
            f"{all_names(group)[job]}: {COUNT(wrong)} of {COUNT(group.rows)} test rows are wrong."
            + _seeds(job)
            + calibration_words(job),
            class_table(found),
            confusion_table(found),
            _calibration_figure(group, found),
            Folded((calibration_table(found),)),
            Folded((mistake_table(found),)),
        ),
    )


def _seeds(job: FinishedJob) -> str:
    if len(job.record.seeds) == 1:
        return ""
    return " An answer here is the class with the highest mean probability over the seeds."


def calibration_words(job: FinishedJob) -> str:
    """Say what calibration changed; nothing for a stack or an older record."""
    seeds = [seed for seed in job.record.seeds if seed.temperature is not None]
    if not seeds:
        return ""
    temperature = mean(seed.temperature or 1.0 for seed in seeds)
    before, after = (
        100 * mean(figures["calibration_error"] for figures in each)
        for each in (
            [seed.uncalibrated or seed.test for seed in seeds],
            [seed.test for seed in seeds],
        )
    )
    if not any(seed.uncalibrated for seed in seeds):
        return (
            " Validation asked for no temperature: the probabilities are those of the trained head,"
            f" with a calibration error of {after:.1f} % on test."
        )
    what = (
        "shifted towards rare classes, as its objective asks"
        if temperature == 1
        else f"calibrated on validation, with a temperature of {temperature:.2f}"
    )
    return (
        f" Its probabilities are {what}: the calibration error on test is {after:.1f} %, and was"
        f" {before:.1f} % before."
    )


def class_table(found: Answers) -> Table:
    """List precision, recall and F1 of each class."""
    confusion, figures = found.confusion, found.classes()

    def recall(label: int) -> Cell:
        right = (found.answer[found.target == label] == label).astype(float)
        if not right.size:
            return Cell()
        low, high = bootstrap_interval(right, np.zeros(right.size, int))
        return Cell(float(right.mean()), None, low, high)

    def other(label: int) -> str:
        wrong = np.where(np.arange(len(figures)) == label, 0, confusion[label])
        most = int(wrong.argmax())
        return f"{found.names[most]} ({COUNT(wrong[most])})" if wrong[most] else ""

    def known(share: float) -> float | None:
        return None if math.isnan(share) else share

    return Table(
        "Each class",
        (
            Column("Class", lambda k: found.names[k]),
            Column("Rows", lambda k: figures[k].rows, COUNT),
            Column("Recall %", recall, PERCENT),
            Column("Precision %", lambda k: known(figures[k].precision), PERCENT),
            Column("F1 %", lambda k: known(figures[k].f1), PERCENT),
            Column("Most often taken for", other),
        ),
        range(len(found.names)),
        "Recall: share of the rows of the class that are found, with its 95 % interval. Precision:"
        " share of the rows with this answer that are of the class.",
    )


def confusion_table(found: Answers) -> Table:
    """Count what was taken for what; with many classes, list the most frequent confusions."""
    confusion, names = found.confusion, found.names
    if len(names) <= MATRIX:
        return Table(
            "What was taken for what",
            (
                Column("True class", lambda k: names[k]),
                *(
                    Column(name, lambda k, other=other: int(confusion[k, other]), COUNT)
                    for other, name in enumerate(names)
                ),
            ),
            range(len(names)),
            "Test rows by true class (down) and answer (across).",
        )
    pairs = found.confused(PAIRS)
    return Table(
        "What was taken for what",
        (
            Column("True class", lambda pair: names[pair[0]]),
            Column("Answer", lambda pair: names[pair[1]]),
            Column("Rows", lambda pair: int(confusion[pair]), COUNT),
        ),
        pairs,
        f"The {len(pairs)} most frequent confusions.",
    )


def mistake_table(found: Answers) -> Table:
    """List the mistakes that the job was most sure of."""
    worst = found.worst()[:WORST].tolist()
    text = (
        (Column("Text", lambda row: shortened(str(found.texts[row]), LONG)),) if found.texts else ()
    )
    return Table(
        "The surest mistakes",
        (
            Column("Row", lambda row: row, COUNT),
            Column("True class", lambda row: found.names[int(found.target[row])]),
            Column("Answer", lambda row: found.names[int(found.answer[row])]),
            Column("Confidence %", lambda row: float(found.confidence[row]), PERCENT),
            *text,
        ),
        worst,
        "Rows of test, counted from 0 in the order of predictions.parquet. A mistake that is very"
        " sure may be a wrong label."
        + ("" if found.texts else " `layerfusion report --texts` shows the texts too."),
    )


# -- calibration --------------------------------------------------------------------------------


def _interval(one: Confidence) -> tuple[float, float]:
    return bootstrap_interval(one.right.astype(float), np.zeros(one.right.size, int))


def calibration_table(found: Answers) -> Table:
    """Compare confidence with accuracy, bin by bin."""

    def accuracy(one: Confidence) -> Cell:
        return Cell(float(one.right.mean()), None, *_interval(one))

    return Table(
        "Confidence and accuracy",
        (
            Column("From %", lambda one: one.low, SHARE),
            Column("Rows", lambda one: one.right.size, COUNT),
            Column("Mean confidence %", lambda one: one.probability, PERCENT),
            Column("Right %", accuracy, PERCENT),
        ),
        found.by_confidence(),
        "Confidence: the mean probability of the answer over the seeds.",
    )


def _calibration_figure(group: DataGroup, found: Answers) -> Drawing | None:
    bins = [one for one in found.by_confidence() if one.right.size >= LEAST]
    if len(bins) < 2:
        return None
    return drawing(
        f"{group.key}-calibration",
        lambda ax: plot_calibration(bins, ax),
        alt=f"{group.label}: share of right answers against their confidence.",
        caption="Share of right answers against their confidence, in bins of ten points with at"
        f" least {LEAST} rows, with 95 % intervals. On the line, confidence is what it says; below"
        " it, the job is too sure.",
        wide=460.0,
    )


def plot_calibration(bins: Sequence[Confidence], ax: Axes | None = None) -> Axes:
    """Draw the accuracy of each bin against its mean confidence."""
    ax = new_axes(ax, 260, 260, grid="y")
    least = 100 * min(one.low for one in bins)
    ax.plot([least, 100], [least, 100], color=MUTED, linewidth=1)
    for one in bins:
        low, high = _interval(one)
        x = 100 * one.probability
        ax.plot([x, x], [100 * low, 100 * high], color=INK, linewidth=1.6)
        ax.plot(x, 100 * one.right.mean(), marker="o", markersize=6, color=INK)
    ax.set(xlabel="mean confidence, %", ylabel="right, %")
    return ax
