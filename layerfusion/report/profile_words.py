"""Numbers of layer profiles as people write them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from layerfusion.records.format import duration
from layerfusion.records.profile import FACTS_BEFORE_RECORDED, Accuracy, Regret
from layerfusion.report.names import MINUS, NONE, points
from layerfusion.statistics.intervals import Difference

LOW_IS_GOOD = tuple(name for name, facts in FACTS_BEFORE_RECORDED.items() if facts.low_is_good)


def form(values: Sequence[float | None]) -> str:
    """The format of a score's values: as many decimals as four digits of the largest take."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    size = math.floor(math.log10(largest)) if largest > 0 else 0
    return f".{max(0, 3 - size)}f" if -4 <= size < 6 else ".2e"


def number(value: float | None, form: str) -> str:
    """A value in a format, or a dash where there is none."""
    return NONE if value is None else f"{value:{form}}".replace("-", MINUS)


def percentage(share: float | None) -> str:
    """0.8123 → 81.2, or a dash where there is none."""
    return NONE if share is None else f"{100 * share:.1f}"


def unsigned(share: float) -> str:
    """0.012 → 1.2, in points: of a regret, which has a minus where there is none."""
    return points(share).lstrip("+")


def between(one: Accuracy | Regret | Difference, write: Callable[[float], str]) -> str:
    """[0.4, 2.2]: the interval, each end written in the same way."""
    return f"[{write(one.low)}, {write(one.high)}]"


def seconds(taken: float | None) -> str:
    """0.74 → 0.7 s, 7400 → 2.1 h, or a dash where it is not known."""
    if taken is None:
        return NONE
    return f"{taken:.1f} s" if taken < 90 else duration(taken)
