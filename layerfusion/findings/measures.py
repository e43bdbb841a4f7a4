"""What figures on several data sets are called, where texts of some have several labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from layerfusion.config.job import ACCURACY, MACRO_F1, MICRO_F1
from layerfusion.records.job import DataRecord

SETS = (
    "Where a text has several labels, “exact match” stands for accuracy: the share of the texts"
    " whose labels are all right, none too many and none too few. Micro-F1 counts every label of"
    " every text by itself, and macro-F1 is the mean F1 over the labels, a rare one counting as"
    " much as a frequent one. Such texts belong to no class, and their intervals are drawn from all"
    " rows together."
)
"""What the figures of data with several labels a text mean."""


F1_KINDS = {MICRO_F1: ", over all labels of all texts", MACRO_F1: ", mean over the labels"}
"""The two F1 of texts with several labels to what tells them apart, as the end of a sentence."""


class Measured(Protocol):
    """Anything with figures of one measure, such as a data set or the jobs on it."""

    @property
    def measure(self) -> str: ...  # noqa: D102


def test_name(metric: str) -> str:
    """Name the test of a difference in a metric."""
    return "exact sign-flip test" if metric == ACCURACY else "randomisation test"


def test_words(metric: str) -> str:
    """Say what the test of a difference in a metric does, in a note."""
    if metric != ACCURACY:
        return (
            "randomisation test of the same difference: random exchanges of the two answers to a"
            " row (Yeh, 2000)"
        )
    return (
        "exact sign-flip test of the same difference (McNemar's test where each has one seed), on"
        " the rows that one of the two has right more often"
    )


def tests_words(metrics: Iterable[str]) -> str:
    """Name the test of each of the metrics that a page compares by, in the middle of a sentence."""
    found = set(metrics) or {ACCURACY}
    if found == {ACCURACY}:
        return "the exact sign-flip test, which for one seed is McNemar's"
    f1 = "the randomisation test, which exchanges the answers of the two to random rows"
    if ACCURACY not in found:
        return f1
    return f"the exact sign-flip test (for one seed McNemar's) or, for an F1, {f1}"


def measure_of(data: Iterable[Measured]) -> str:
    """Name what figures on several data sets are: `accuracy`, `exact match`, `macro-F1`."""
    return " or ".join(sorted({one.measure for one in data})) or "accuracy"


def drawn_words(data: Iterable[DataRecord]) -> str:
    """Say how the rows of an interval are drawn; texts with several labels have no class."""
    words = {False: "drawn class by class", True: "drawn from all rows together"}
    found = [words[several] for several in sorted({one.multilabel for one in data})]
    return " or, where a text has several labels, ".join(found) or words[False]
