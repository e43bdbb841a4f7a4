"""The rule of choice: by which figure on which rows the jobs on one data set are compared.

The figure is accuracy, or the F1 that all the jobs have as their objective. Validation judges where
it has enough rows. Where it has fewer, folds of train judge, if every job has that figure on the
same rows; else validation again, and the words say that it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerfusion.config.job import ACCURACY, MACRO_F1, MICRO_F1
from layerfusion.records.format import plural
from layerfusion.records.job import FEW_ROWS, DataRecord, Estimate, RunRecord

FOLDS = "folds of train"
CLOSE = 5
"""From so many jobs within one standard error of the best on, the choice is said to be loose."""
METRIC_NAMES = {MACRO_F1: "macro-F1", MICRO_F1: "micro-F1"}
"""What a reader knows the metrics as that jobs are compared by, beside accuracy."""
OBJECTIVE = "objective"
"""Key of the objective in the settings of a record."""


@dataclass(frozen=True)
class Judge:
    """The rows that decide between the jobs on one data set."""

    rows: int
    """Rows that each job is judged on."""
    worth: float
    """How many independent rows these are worth, of different texts or groups; of older records,
    all are."""
    folds: int = 0
    """Number of folds of train; 0 where validation judges."""
    doubt: str = ""
    """Why these rows are not the ones that one would want; empty where they are."""
    metric: str = ACCURACY
    """The figure that decides, by its key in a record: accuracy, macro_f1 or micro_f1."""

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

    @property
    def few(self) -> bool:
        """True where they are too few to choose surely."""
        return self.worth < FEW_ROWS

    def figures(self, record: RunRecord) -> Mapping[str, Estimate]:
        """Take the figures from a record that jobs are compared by."""
        on_folds = record.on_folds
        return on_folds.figures if self.by_folds and on_folds else record.validation

    def figure(self, record: RunRecord) -> Estimate:
        """Take the figure from a record that decides."""
        return self.figures(record)[self.metric]

    def standard_error(self, best: Estimate) -> float | None:
        """Return that of the best figure; None where it is an F1 without an interval.

        Of rows that are all right, one might as well have been wrong. Rows that repeat a text are a
        cluster, whose rows are taken to be right or wrong together.
        """
        if self.metric == ACCURACY:
            share, rows = best.mean, self.worth
            return math.sqrt(max(share * (1 - share), (1 - 1 / rows) / rows) / rows)
        if best.low is None or best.high is None:
            return None
        return (best.high - best.low) / 3.92


def metric_of(records: Sequence[RunRecord]) -> str:
    """Find the metric that some jobs are compared by: the F1 that all have as their objective.

    It is accuracy where their objectives differ or are no F1, and where a record has no such F1:
    micro-F1 of texts with one class each is accuracy.
    """
    objectives = {record.settings.get(OBJECTIVE) for record in records}
    (metric,) = objectives if len(objectives) == 1 else (ACCURACY,)
    known = all(
        metric in found
        for record in records
        for found in (record.validation, record.test, record.baseline.test)
    )
    return metric if metric in METRIC_NAMES and known else ACCURACY


def metric_words(metric: str, data: DataRecord) -> str:
    """Say what a reader knows a metric as on some data."""
    return METRIC_NAMES.get(metric, data.measure)


def rule_words(measure: str) -> str:
    """Say the rule in a sentence, for pages on several data sets.

    Args:
        measure: what a reader knows the accuracy as.
    """
    return (
        f"the highest {measure} on validation, then the lower log-loss, then fewer and lower"
        f" layers. Where validation has fewer than {FEW_ROWS} independent rows, these are"
        f" the figures on {FOLDS}, if all jobs on the data have them: all of a job, its choice of"
        " layers too, was fitted anew without each fold"
    )


def judge_of(records: Sequence[RunRecord]) -> Judge:
    """Find what decides between some jobs, which are all jobs on one data set.

    Args:
        records: of the jobs; one at least.
    """
    # Older records do not know which texts are repeated; a newer one on the same data does.
    data = max((record.dataset for record in records), key=lambda data: bool(data.worth))
    rows, worth, metric = data.rows["validation"], data.worth_of("validation"), metric_of(records)
    if worth >= FEW_ROWS:
        return Judge(rows, worth, metric=metric)
    folds = [record.on_folds for record in records if record.on_folds is not None]
    found = [one for one in folds if metric in one.figures]
    same = {(one.folds, one.rows) for one in found}
    of_folds = next((one.worth for one in found if one.worth), found[0].rows if found else 0)
    if len(found) == len(records) and len(same) == 1 and of_folds > worth:
        repeats = "" if worth == rows else f" that are worth {int(worth)} independent ones"
        few = f"as validation has {plural(rows, 'row')}{repeats}, fewer than {FEW_ROWS}"
        return Judge(found[0].rows, of_folds, found[0].folds, few, metric)
    if len(records) == 1:
        return Judge(rows, worth, metric=metric)
    missing = len(records) - len(found)
    what = "figure" if metric == ACCURACY else METRIC_NAMES[metric]
    if missing == len(records):
        without = f"no job has a {what}"
    else:
        jobs = plural(len(records), "job")
        without = f"{missing} of {jobs} {'has' if missing == 1 else 'have'} no {what}"
    older = "older records lack it; " * (len(folds) > len(found))
    why = (
        f"{without} on {FOLDS} ({older}by_folds=true adds it)"
        if missing
        else f"the {FOLDS} are not the same for all jobs, or hold no more rows"
    )
    doubt = f"with too few rows to judge ({int(worth)}, fewer than {FEW_ROWS}): {why}"
    return Judge(rows, worth, doubt=doubt, metric=metric)


def ties_words(figures: Sequence[Estimate], rows: int) -> str:
    """Say how many jobs tie for the highest figure: 9 of 9 tie on 30 rows; else nothing."""
    best = max(one.mean for one in figures)
    ties = sum(round(best - one.mean, 9) == 0 for one in figures)
    return f"{ties:,} of {len(figures):,} tie on {plural(rows, 'row')}" if ties > 1 else ""


def close_words(figures: Sequence[Estimate], judge: Judge) -> str:
    """Say how many jobs lie within one standard error of the best; nothing of a clear choice.

    A choice is clear where few jobs are so close, none ties with the best and, of few rows, none is
    close at all. Nothing is said of an F1 without an interval.
    """
    best, rows = max(figures, key=lambda one: one.mean), judge.rows
    error = judge.standard_error(best)
    if error is None:
        return ""
    close = sum(one.mean >= best.mean - error for one in figures)
    if close < CLOSE and not ties_words(figures, rows) and (not judge.few or close < 2):
        return ""
    return (
        f"{close:,} of {len(figures):,} jobs lie within one standard error"
        f" ({100 * error:.1f} points)"
    )


def order_of(
    record: RunRecord, figures: Mapping[str, Estimate], metric: str = ACCURACY
) -> tuple[float, float, int, int, str]:
    """Sort the best job first: accuracy or an F1, then log-loss, then fewer and lower layers.

    Rounding keeps the order of summing seeds from breaking a tie.
    """
    accuracy, loss = figures[metric].mean, figures["log_loss"].mean
    first = record.layers[0]
    level = record.backbones[first.backbone].layers.index(first.layer)
    return -round(accuracy, 9), round(loss, 9), len(record.layers), level, record.job
