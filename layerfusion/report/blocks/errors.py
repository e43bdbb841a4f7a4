"""Block on the mistakes of the job that is used: by class, by confidence, and the worst of all.

Where texts have several labels, each label is judged by itself, as it was had or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes

from layerfusion.config.job import NAMED_FROM
from layerfusion.findings.calibration import calibration_words
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import read_predictions
from layerfusion.findings.mistakes import Answers, Confidence
from layerfusion.findings.names import all_names
from layerfusion.findings.set_mistakes import Likelihood, SetAnswers, answers_of_job
from layerfusion.findings.tests import Findings
from layerfusion.records.label_words import SHOWN, label_words
from layerfusion.report.block import Block, Folded
from layerfusion.report.figures.axes import new_axes
from layerfusion.report.figures.canvas import Drawing, drawing
from layerfusion.report.figures.colors import INK, MUTED
from layerfusion.report.format import COUNT, PERCENT, SHARE, decimals
from layerfusion.report.sentences import shortened
from layerfusion.report.table import Column, Table

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
    if job.folder is None:
        return None
    read = read_predictions(job.folder, job.record)
    found = answers_of_job(job.record.dataset.label_names, read, group.test_texts)
    wrong = int((~found.right).sum())
    name, verb = all_names(group)[job], "is" if wrong == 1 else "are"
    words = f"{COUNT(wrong)} of {COUNT(group.rows)} test rows {verb} wrong with {name}"
    tables, folded = [class_table(found)], [bin_table(found), mistake_table(found)]
    if isinstance(found, SetAnswers):
        words += ", in one label or more"
        answer = "every label with a mean probability over the seeds of one half or more"
        folded.insert(1, threshold_table(found))
    else:
        answer = "the class with the highest mean probability over the seeds"
        tables.append(confusion_table(found))
    figure = _calibration_figure(group, found)
    words += f". An answer here is {answer}." if len(job.record.seeds) > 1 else "."
    words += calibration_words(job.record)
    return Block("Where it errs", (words, *tables, figure, *(Folded((x,)) for x in folded)))


def class_table(found: Answers | SetAnswers) -> Table:
    """List precision, recall and F1 of each class or label."""
    figures = found.classes()
    if isinstance(found, SetAnswers):
        thing = "label"
        note = (
            "Recall: share of the rows with the label that have it in their answer, with its 95 %"
            " interval. Precision: share of the rows with the label in their answer that have it."
        )
        answer = found.answer
        last = Column("Answered in % of rows", lambda k: float(answer[:, k].mean()), PERCENT)
    else:
        thing = "class"
        note = (
            "Recall: share of the rows of the class that are found, with its 95 % interval."
            " Precision: share of the rows with this answer that are of the class."
        )
        last = Column("Most often taken for", partial(_taken_for, found), later=True)
    return Table(
        f"Each {thing}",
        range(len(found.names)),
        Column(thing.capitalize(), lambda k: found.names[k]),
        Column("Rows", lambda k: figures[k].rows, COUNT, later=True),
        Column("Recall %", found.recall, PERCENT),
        Column("Precision %", lambda k: figures[k].precision, PERCENT),
        Column("F1 %", lambda k: figures[k].f1, PERCENT),
        last,
        note=note,
    )


def _taken_for(found: Answers, label: int) -> str:
    wrong = np.where(np.arange(len(found.names)) == label, 0, found.confusion[label])
    most = int(wrong.argmax())
    return f"{found.names[most]} ({COUNT(wrong[most])})" if wrong[most] else ""


def confusion_table(found: Answers) -> Table:
    """Count what was taken for what; with many classes, list the most frequent confusions."""
    confusion, names = found.confusion, found.names
    if len(names) <= MATRIX:
        return Table(
            "What was taken for what",
            range(len(names)),
            Column("True class", lambda k: names[k]),
            *(
                Column(name, lambda k, other=other: int(confusion[k, other]), COUNT)
                for other, name in enumerate(names)
            ),
            note="Test rows by true class (down) and answer (across).",
        )
    pairs = found.confused(PAIRS)
    return Table(
        "What was taken for what",
        pairs,
        Column("True class", lambda pair: names[pair[0]]),
        Column("Answer", lambda pair: names[pair[1]]),
        Column("Rows", lambda pair: int(confusion[pair]), COUNT),
        note=f"The {len(pairs)} most frequent confusions.",
    )


def mistake_table(found: Answers | SetAnswers) -> Table:
    """List the mistakes that the job was most sure of; of several labels, those that cost most."""
    if isinstance(found, SetAnswers):
        title, true, most = "The worst mistakes", "Labels", SHOWN
        cost = Column("Log-loss", lambda row: float(found.losses[row]), decimals(2))
        note = (
            "Log-loss: that of all labels of the row together, in nats. A very high one may be a"
            " wrong label."
        )
    else:
        title, true, most = "The surest mistakes", "True class", None
        cost = Column("Confidence %", lambda row: float(found.confidence[row]), PERCENT)
        note = "A mistake that is very sure may be a wrong label."
    texts = found.texts
    return Table(
        title,
        found.worst()[:WORST].tolist(),
        Column("Row", lambda row: row, COUNT),
        Column(true, lambda row: label_words(found.names, found.target[row], most=most)),
        Column("Answer", lambda row: label_words(found.names, found.answer[row], most=most)),
        cost,
        *([Column("Text", lambda row: shortened(str(texts[row]), LONG))] if texts else []),
        note=rows_note(f". {note}", shown=bool(texts)),
    )


def rows_note(words: str, *, shown: bool) -> str:
    """Say how the test rows of a table are counted and, where texts are not shown, how to."""
    return f"Rows of test, counted from 0 in the order of predictions.parquet{words}" + (
        "" if shown else " `layerfusion report --texts` shows the texts too."
    )


def threshold_table(found: SetAnswers) -> Table:
    """Say what is answered if labels are named from other probabilities on."""
    return Table(
        "Other thresholds",
        found.by_threshold(),
        Column("From %", lambda one: one.threshold, SHARE),
        Column("Labels a row", lambda one: one.labels, decimals(2)),
        Column("Precision %", lambda one: one.precision, PERCENT),
        Column("Recall %", lambda one: one.recall, PERCENT),
        Column("Micro-F1 %", lambda one: one.micro_f1, PERCENT),
        Column("Exact match %", lambda one: one.exact, PERCENT),
        note="What the answers would be worth if each label counted from another probability on"
        f" than {SHARE(NAMED_FROM)} %, the marked row: precision, recall and F1 of all labels of"
        " all rows together. A threshold picked here is picked on test, and its figures are too"
        " high.",
        mark=lambda one: "chosen" if one.threshold == NAMED_FROM else "",
    )


# -- calibration --------------------------------------------------------------------------------


def bin_table(found: Answers | SetAnswers) -> Table:
    """Compare probabilities with what came true, bin by bin."""
    if isinstance(found, SetAnswers):
        title, members, what, right = "Probability and share", "Labels", "Mean probability", "Had"
        note = (
            "All labels of all test rows by the probability that the job gives them, the mean over"
            " the seeds. Had: share of them that the row has; rows are resampled with all their"
            " labels."
        )
    else:
        title, members, what, right = "Confidence and accuracy", "Rows", "Mean confidence", "Right"
        note = "Confidence: the mean probability of the answer over the seeds."
    return Table(
        title,
        found.ranges(),
        Column("From %", lambda one: one.low, SHARE),
        Column(members, lambda one: one.size, COUNT),
        Column(f"{what} %", lambda one: one.probability, PERCENT),
        Column(f"{right} %", lambda one: (one.share, *one.interval), PERCENT),
        note=note,
    )


def _calibration_figure(group: DataGroup, found: Answers | SetAnswers) -> Drawing | None:
    drawn = [one for one in found.ranges() if one.size >= LEAST]
    if len(drawn) < 2:
        return None
    if isinstance(found, SetAnswers):
        words = "Share of the labels that rows have against the probability of the labels"
        count, names = "labels", ("mean probability", "had")
        sure = "probability is what it says; below it, the job names too much."
    else:
        words = "Share of right answers against their confidence"
        count, names = "rows", ("mean confidence", "right")
        sure = "confidence is what it says; below it, the job is too sure."
    return drawing(
        f"{group.key}-calibration",
        lambda ax: plot_calibration(drawn, ax, names),
        alt=f"{group.label}: {words[0].lower()}{words[1:]}.",
        caption=f"{words}, in bins of ten points with at least {LEAST} {count}, with 95 %"
        f" intervals. On the line, {sure}",
        wide=460.0,
    )


def plot_calibration(
    bins: Sequence[Confidence | Likelihood], ax: Axes, names: tuple[str, str]
) -> None:
    """Draw the share of each bin that is right, or had, against its mean probability."""
    new_axes(ax, 260, 260, grid="y")
    least = 100 * min(one.low for one in bins)
    ax.plot([least, 100], [least, 100], color=MUTED, linewidth=1)
    for one in bins:
        low, high = one.interval
        x = 100 * one.probability
        ax.plot([x, x], [100 * low, 100 * high], color=INK, linewidth=1.6)
        ax.plot(x, 100 * one.share, marker="o", markersize=6, color=INK)
    ax.set(xlabel=f"{names[0]}, %", ylabel=f"{names[1]}, %")
