"""Figures and verdicts as they stand in a sentence."""

from __future__ import annotations

from typing import Protocol

from layerfusion.findings.tests import Finding
from layerfusion.records.format import capital, plural
from layerfusion.report.format import NONE, P_VALUE, PERCENT, POINTS, REGRET, SPACE, Format
from layerfusion.statistics.intervals import Difference

MARKS = "▲ ▼ better or worse; △ ▽ probably, but not after correction; no mark: cannot be told."


class Interval(Protocol):
    """Anything with the two ends of a 95 % interval, or with none for them."""

    @property
    def low(self) -> float | None: ...  # noqa: D102
    @property
    def high(self) -> float | None: ...  # noqa: D102


def percent(share: float) -> str:
    """0.8123 → 81.2 %."""
    return f"{PERCENT(share)}{SPACE}%"


def bracket(interval: Interval, form: Format = PERCENT) -> str:
    """(0.77, 0.853) → [77.0, 85.3]; a dash where there is no interval."""
    if interval.low is None or interval.high is None:
        return NONE
    return f"[{form(interval.low)},{SPACE}{form(interval.high)}]"


def p_value(p: float, *, bound: bool = False) -> str:
    """0.0123 → 0.012; 0.0001 → < 0.001; ≤ 0.012 where p is only known to be no larger."""
    return f"≤{SPACE}{P_VALUE(p)}" if bound and p >= 0.001 else P_VALUE(p)


def shortened(text: str, most: int) -> str:
    """Cut a text to a number of characters, the last one an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def told(finding: Finding, *, than: str = "") -> str:
    """Word a comparison: better or worse, probably so, or not to be told.

    It is better or worse where the test shows it after correction for the number of comparisons,
    and probably so where it shows it only without. Otherwise the smallest difference is named that
    so many rows would show.

    Args:
        finding: the comparison.
        than: what it is compared with, where the sentence does not say.
    """
    difference, bound = finding.difference, not finding.exact
    p = f"p{SPACE}{p_value(finding.test.p, bound=bound)}"
    if finding.among > 1:
        p += f", corrected{SPACE}{p_value(finding.adjusted, bound=bound)}"
    than = f" than {than}" if than else ""
    if finding.lean == "open":
        return f"{open_words(difference, finding.smallest_shown)} ({p})"
    word = "better" if finding.lean == "gain" else "worse"
    size = f"by {REGRET(abs(difference.mean))} points {bracket(difference, POINTS)}"
    if finding.verdict != "open":
        return f"{word}{than} {size} ({p})"
    doubt = f"not after correction for {plural(finding.among, 'comparison')}"
    return f"probably {word}{than} {size}, but {doubt} ({p})"


def verdict(what: str, finding: Finding, against: str) -> str:
    """Say in a sentence whether something is better than something else: see `told`."""
    if finding.lean == "open":
        return f"Whether {what} beats {against} {told(finding)}."
    return f"{capital(what)} is {told(finding, than=against)}."


def open_words(difference: Difference, smallest: float) -> str:
    """Word a difference that may be chance, and what these rows would show."""
    return (
        f"cannot be told: {POINTS(difference.mean)} points {bracket(difference, POINTS)};"
        f" {plural(difference.rows, 'row')} would show {REGRET(smallest)} or more"
    )


def says(difference: Difference) -> str:
    """Word a difference by its interval: `gains 1.2 points [0.3, 2.0]`, or not to be told."""
    if difference.verdict == "open":
        return f"makes a difference that {open_words(difference, difference.smallest_shown)}"
    verb = "gains" if difference.verdict == "gain" else "loses"
    return f"{verb} {REGRET(abs(difference.mean))} points {bracket(difference, POINTS)}"
