"""The rule of choice: by which rows the jobs on one data set are compared, and in which words.

Validation judges where it has enough rows. Where it has fewer, folds of train judge, if every job
has that figure on the same rows; else validation again, and the words say that it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerfusion.records.format import plural
from layerfusion.records.job import FEW_ROWS, Estimate, RunRecord

FOLDS = "folds of train"
CLOSE = 5
"""From so many jobs within one standard error of the best on, the choice is said to be loose."""
OBJECTIVE = "objective"
"""Key of the objective in the settings of a record."""


@dataclass(frozen=True)
class Judge:
    """The rows that decide between the jobs on one data set."""

    rows: int
    """Rows that each job is judged on."""
    folds: int = 0
    """Number of folds of train; 0 where validation judges."""
    doubt: str = ""
    """Why these rows are not the ones that one would want; empty where they are."""

    @property
    def by_folds(self) -> bool:
        """True where folds of train decide."""
        return self.folds > 0

    @property
    def name(self) -> str:
        """What decides, in a sentence: validation, or folds of train."""
        return FOLDS if self.by_folds else "validation"

    @property
    def chooses(self) -> str:
        """What decides, with its verb: validation chooses, or folds of train choose."""
        return f"{self.name} {'choose' if self.by_folds else 'chooses'}"

    @property
    def reason(self) -> str:
        """Why it is these rows that decide, to end a sentence with; empty where that is usual."""
        return f", {self.doubt}" if self.doubt else ""

    @property
    def title(self) -> str:
        """The beginning of the heading of a column."""
        return "Folds of train" if self.by_folds else "Validation"

    @property
    def rows_words(self) -> str:
        """The rows, in a sentence: 50 validation rows, or 450 rows in 5 folds of train."""
        if self.by_folds:
            return f"{plural(self.rows, 'row')} in {self.folds} {FOLDS}"
        return plural(self.rows, "validation row")

    def figures(self, record: RunRecord) -> Mapping[str, Estimate]:
        """Take the figures from a record that jobs are compared by."""
        on_folds = record.on_folds
        return on_folds.figures if self.by_folds and on_folds else record.validation


def rule_words(measure: str) -> str:
    """Say the rule in a sentence, for pages on several data sets.

    Args:
        measure: what a reader knows the accuracy as.
    """
    return (
        f"the highest {measure} on validation, then the lower log-loss, then fewer and lower"
        f" layers. Where validation has fewer than {FEW_ROWS} rows, these are the figures on"
        f" {FOLDS}, if all jobs on the data have them: all of a job, its choice of layers too, was"
        " fitted anew without each fold"
    )


def judge_of(records: Sequence[RunRecord]) -> Judge:
    """Find the rows that decide between some jobs, which are all jobs on one data set.

    Args:
        records: of the jobs; one at least.
    """
    rows = records[0].dataset.rows["validation"]
    if rows >= FEW_ROWS:
        return Judge(rows)
    found = [record.on_folds for record in records if record.on_folds is not None]
    same = {(one.folds, one.rows) for one in found}
    if len(found) == len(records) and len(same) == 1 and found[0].rows > rows:
        few = f"as validation has {plural(rows, 'row')}, fewer than {FEW_ROWS}"
        return Judge(found[0].rows, found[0].folds, few)
    if len(records) == 1:
        return Judge(rows)
    missing = len(records) - len(found)
    if missing == len(records):
        without = "no job has a figure"
    else:
        jobs = plural(len(records), "job")
        without = f"{missing} of {jobs} {'has' if missing == 1 else 'have'} no figure"
    why = (
        f"{without} on {FOLDS} (by_folds=true adds it)"
        if missing
        else f"the {FOLDS} are not the same for all jobs, or hold no more rows"
    )
    return Judge(rows, doubt=f"with too few rows to judge ({rows}, fewer than {FEW_ROWS}): {why}")


def ties_words(accuracies: Sequence[float], rows: int) -> str:
    """Say how many jobs tie for the highest accuracy: 9 of 9 tie on 30 rows; else nothing."""
    best = max(accuracies)
    ties = sum(round(best - one, 9) == 0 for one in accuracies)
    return f"{ties:,} of {len(accuracies):,} tie on {plural(rows, 'row')}" if ties > 1 else ""


def close_words(accuracies: Sequence[float], rows: int) -> str:
    """Say how many jobs lie within one standard error of the best; nothing of a clear choice.

    A choice is clear where few jobs are so close, none ties with the best and, of few rows, none is
    close at all. Of rows that are all right, one might as well have been wrong.
    """
    best = max(accuracies)
    error = math.sqrt(max(best * (1 - best), (1 - 1 / rows) / rows) / rows)
    close = sum(one >= best - error for one in accuracies)
    if close < CLOSE and not ties_words(accuracies, rows) and (rows >= FEW_ROWS or close < 2):
        return ""
    return (
        f"{close:,} of {len(accuracies):,} jobs lie within one standard error"
        f" ({100 * error:.1f} points)"
    )


def order_of(
    record: RunRecord, figures: Mapping[str, Estimate]
) -> tuple[float, float, int, int, str]:
    """Sort the best job first: accuracy, then log-loss, then fewer and lower layers.

    Rounding keeps the order of summing seeds from breaking a tie.
    """
    accuracy, loss = figures["accuracy"].mean, figures["log_loss"].mean
    first = record.layers[0]
    level = record.backbones[first.backbone].layers.index(first.layer)
    return -round(accuracy, 9), round(loss, 9), len(record.layers), level, record.job
