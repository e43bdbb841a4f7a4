"""What figures on several data sets are called, where texts of some have several labels."""

from __future__ import annotations

from collections.abc import Iterable

from layerfusion.records.job import DataRecord

SETS = (
    "Where a text has several labels, “exact match” stands for accuracy: the share of the texts"
    " whose labels are all right, none too many and none too few. Micro-F1 counts every label of"
    " every text by itself, and macro-F1 is the mean F1 over the labels, a rare one counting as"
    " much as a frequent one. Such texts belong to no class, and their intervals are drawn from all"
    " rows together."
)
"""What the figures of data with several labels a text mean."""


def measure_of(data: Iterable[DataRecord]) -> str:
    """Name the accuracy on several data sets: `exact match` where a text of any has many labels."""
    return " or ".join(sorted({one.measure for one in data})) or "accuracy"


def drawn_words(data: Iterable[DataRecord]) -> str:
    """Say how the rows of an interval are drawn; texts with several labels have no class."""
    words = {False: "drawn class by class", True: "drawn from all rows together"}
    found = [words[several] for several in sorted({one.multilabel for one in data})]
    return " or, where a text has several labels, ".join(found) or words[False]
