"""The time that a job still has, for steps that can be left out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

EXTRACTION = 0.7
"""Share of the time left that forward passes may take; probes, heads and the baseline need the
rest."""


class Deadline:
    """The end of the time that a job may take, and what it left out to keep to it.

    Nothing is interrupted: a step is not begun if it would end too late. Without a limit there is
    always time.

    >>> Deadline().allows(1e9), Deadline(60, begun=0, now=lambda: 50).allows(11)
    (True, False)

    Args:
        limit: seconds that the job may take; None for no limit.
        begun: what `now` gave when the job began; this moment if None.
        now: a clock, in seconds.
    """

    def __init__(
        self,
        limit: float | None = None,
        begun: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit, self.now = limit, now
        self.begun = now() if begun is None else begun
        self.left_out: list[str] = []

    @property
    def key(self) -> str:
        """The setting, as a user writes it."""
        return f"time_limit={self.limit:g}" if self.limit is not None else "time_limit=null"

    def left(self) -> float:
        """Return the seconds that are left, below 0 if the time is over; infinity if no limit."""
        return math.inf if self.limit is None else self.begun + self.limit - self.now()

    def for_extraction(self) -> float:
        """Return the seconds that forward passes may take of those left, not below 0."""
        return max(0.0, EXTRACTION * self.left())

    def allows(self, seconds: float) -> bool:
        """Return true if a step of so many seconds would end in time."""
        return seconds <= self.left()

    def leave_out(self, line: str) -> None:
        """Tell the user what is left out, and keep it for the record."""
        self.left_out.append(f"{line} ({self.key})")
        log.warning(self.left_out[-1])

    def steps(self, items: Iterable[T], words: str) -> Iterator[T]:
        """Give items as long as there is time for one like the slowest so far; always the first.

        Args:
            items: what each step works on.
            words: says in plural what the items are, for the line on those that were left out.
        """
        everything, pace = list(items), Pace(self)
        for number, item in enumerate(everything):
            if number and not pace.allows():
                self.leave_out(f"{number} of {len(everything)} {words}; there was no time for more")
                return
            with pace.step():
                yield item

    def notes(self) -> list[str]:
        """Say for the record what was left out, and that this depends on the machine."""
        if self.limit is None:
            return []
        taken = f"{self.now() - self.begun:.0f} s were taken"
        if not self.left_out:
            return [f"nothing was left out, and {taken} ({self.key})"]
        why = "a faster machine, or a fuller cache, may leave out less and give another result"
        return [*self.left_out, f"{why}; here {taken} ({self.key})"]


class Pace:
    """Tells by the slowest step so far whether there is time for more of them.

    Args:
        deadline: end of the time.
    """

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.slowest = 0.0

    def allows(self, steps: int = 1) -> bool:
        """Return true if so many steps would end in time."""
        return self.deadline.allows(steps * self.slowest)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure the block as a step."""
        begun = self.deadline.now()
        yield
        self.slowest = max(self.slowest, self.deadline.now() - begun)
