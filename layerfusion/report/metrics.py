"""The metrics that tables show. A further one, such as a Brier score, is one line here.

A metric is shown wherever some record holds an estimate of it on test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from layerfusion.config.job import ACCURACY
from layerfusion.findings.jobs import FinishedJob
from layerfusion.records.format import capital, listing
from layerfusion.records.job import Estimate
from layerfusion.records.profile import Profile
from layerfusion.report.format import PERCENT, Format, decimals
from layerfusion.report.table import Column


@dataclass(frozen=True)
class Metric:
    """A metric of predictions on test."""

    name: str
    """Its key in a record."""
    title: str
    """Its heading, with the unit."""
    format: Format
    low_is_good: bool = False


METRICS = (
    Metric("accuracy", "Test %", PERCENT),
    Metric("micro_f1", "Micro-F1 %", PERCENT),
    Metric("macro_f1", "Macro-F1 %", PERCENT),
    Metric("log_loss", "Log-loss", decimals(3), low_is_good=True),
    Metric("calibration_error", "Calibration error %", PERCENT, low_is_good=True),
)
_LOW = [m.title.removesuffix(" %").lower() for m in METRICS if m.low_is_good]
LOW_IS_GOOD = f"Low is good for {listing(_LOW)}."
"""A sentence for the notes of tables."""


def titled(split: str, measure: str) -> str:
    """Give the heading of a measure on a split: `Test %` of accuracy, or `Test, macro-F1 %`."""
    return f"{split} %" if measure == "accuracy" else f"{split}, {measure} %"


def metric_columns(test: Callable[[Any], Mapping[str, Estimate]], job: FinishedJob) -> list[Column]:
    """Make a column for each metric, which a table leaves out where no row has it.

    Args:
        test: takes the estimates from a row.
        job: one of the rows; the figure that its like are compared by comes first.
    """
    ordered = sorted(METRICS, key=lambda metric: metric.name != job.metric)
    if job.metric != ACCURACY:
        title = f"{capital(job.record.dataset.measure)} %"
        ordered = [replace(x, title=title) if x.name == ACCURACY else x for x in ordered]
    first, *others = (_column(metric, test) for metric in ordered)
    first = replace(first, title=titled("Test", job.measure))
    return [first, *(replace(column, later=True) for column in others)]


def set_columns(test: Callable[[Any], Mapping[str, Estimate]]) -> list[Column]:
    """Make columns of both F1, for the rows that have one beside an exact match."""

    def f1(row: Any) -> Mapping[str, Estimate]:
        return found if "micro_f1" in (found := test(row)) else {}

    return [_column(x, f1) for x in METRICS if x.name in ("micro_f1", "macro_f1")]


def _column(x: Metric, test: Callable[[Any], Mapping[str, Estimate]]) -> Column:
    return Column(x.title, lambda row: test(row).get(x.name), x.format, optional=True)


def score_format(profile: Profile, score: str) -> Format:
    """Choose how a score of layers is written: with as many decimals as four digits need."""
    if score == "accuracy":
        return PERCENT
    values = [layer.scores.get(score) for layer in profile.layers]
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    size = math.floor(math.log10(largest)) if largest > 0 else 0
    pattern = f".{max(0, 3 - size)}f" if -4 <= size < 6 else ".2e"
    return Format(lambda value: f"{value:{pattern}}")
