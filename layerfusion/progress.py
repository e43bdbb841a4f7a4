"""Tells on stderr how far a job is: `[3/9] layers=last … 4 min left · [2/6] heads`.

What takes steps says so by `steps` or `counted`, wherever it runs; a command shows it by `shown`.
On a terminal this is one line that changes and goes, in a log a line now and then.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

LOG_EVERY = 15.0
"""Seconds between two lines of a log."""
DRAW_EVERY = 0.1
"""Seconds between two changes of a terminal's line."""
SETTLED = 2.0
"""Seconds before which no time left is told."""
STANDING = {"standing": True}
"""The `extra` of a log's lines that would be the same for other jobs of a sweep."""


@dataclass
class Count:
    """Steps of one kind, some of which are done.

    Args:
        what: the steps, in plural, or a single thing that is done.
        total: their number.
        place: number of the current step, if it is not that after those done, and the number of
            all that are counted so.
    """

    what: str
    total: int
    place: tuple[int, int] | None = None
    done: int = 0
    begun: float = field(default_factory=lambda: time.monotonic())
    last: float = 0.0

    def step(self) -> None:
        """Count a step that is done."""
        self.done += 1
        self.last = time.monotonic()

    def left(self) -> float | None:
        """Estimate the seconds that are left, at the mean pace so far; None where none is known."""
        now, ahead = time.monotonic(), self.total - self.done
        if not self.done or ahead < 1 or now - self.begun < SETTLED:
            return None
        mean = (self.last - self.begun) / self.done
        return max(0.0, mean * ahead - min(mean, now - self.last))

    def more(self) -> str:
        """Say the time left, as in ` … 4 min left`; nothing where it is not known."""
        left = self.left()
        return "" if left is None else f" … {duration(left)} left"

    def words(self) -> str:
        """Say where it is, as in `[2/6] heads`."""
        here, of = self.place or (min(self.done + 1, self.total), self.total)
        return self.what if of == 1 else f"[{here}/{of}] {self.what}"


class _Display:
    """The line on stderr, and what it is made of: counts, from the outer to the inner."""

    def __init__(self) -> None:
        self.counts: list[Count] = []
        self.is_shown = False
        self.has_terminal = True
        self._drawn = ""
        self._next = 0.0

    def line(self) -> str:
        """Make the line; the time left stands behind the outermost count that knows it."""
        knows = next((one for one in self.counts if one.more()), None)
        return " · ".join(one.words() + (one.more() if one is knows else "") for one in self.counts)

    def begin(self) -> None:
        """Show from now on."""
        self.is_shown, self._next = True, time.monotonic() + (0.0 if _terminal() else LOG_EVERY)

    def draw(self, *, at_once: bool = False) -> None:
        """Draw the line, unless that was done a moment ago."""
        now = time.monotonic()
        terminal = _terminal()
        soon = now < self._next and not (at_once and terminal)
        if soon or not self.is_shown or not self.counts:
            return
        line = self.line()
        self._next = now + (DRAW_EVERY if terminal else LOG_EVERY)
        if not terminal:
            print(line, file=sys.stderr, flush=True)
        elif line != self._drawn:
            columns = shutil.get_terminal_size().columns
            short = line if len(line) < columns else f"{line[: columns - 2]}…"
            sys.stderr.write(f"\r{short}\x1b[K")
            sys.stderr.flush()
            self._drawn = line

    def end(self, count: Count) -> None:
        """Take out a count and those inside of it, which an error may have left there."""
        place = next((n for n, one in enumerate(self.counts) if one is count), len(self.counts))
        del self.counts[place:]

    def clear(self) -> None:
        """Leave the terminal's line to others, until something is counted again."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = ""


_display = _Display()


class _Clear(logging.Handler):
    """Clears the line before other handlers write theirs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Clear the line."""
        _display.clear()


def _terminal() -> bool:
    return _display.has_terminal and sys.stderr.isatty()


def clear() -> None:
    """Clear the line before something else is printed."""
    _display.clear()


def share_terminal() -> None:
    """Add lines now and then, as to a log: other processes write on this terminal too."""
    _display.has_terminal = False


@contextmanager
def shown() -> Iterator[None]:
    """Show on stderr what is counted inside the block, by the thread that runs it."""
    if _display.is_shown:
        yield
        return
    root, clears = logging.getLogger(), _Clear()
    root.handlers.insert(0, clears)
    _display.begin()
    try:
        yield
    finally:
        _display.clear()
        _display.is_shown = False
        root.removeHandler(clears)


@contextmanager
def hidden() -> Iterator[None]:
    """Show nothing inside the block, such as while a bar of another kind has the terminal."""
    before, _display.is_shown = _display.is_shown, False
    _display.clear()
    try:
        yield
    finally:
        _display.is_shown = before


@contextmanager
def counted(what: str, total: int = 1) -> Iterator[Callable[[], None]]:
    """Tell of steps that the block takes. It calls what it is given after each.

    Steps of other threads than the first one are not told of, as they have no order.

    Example:
        >>> with counted("heads", 6) as step:
        ...     step()
    """
    if total < 1 or threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    count = Count(what, total)

    def step() -> None:
        count.step()
        _display.draw()

    with within(count):
        yield step


@contextmanager
def within(count: Count) -> Iterator[None]:
    """Let a count be told of, outside of those that begin inside the block."""
    _display.counts.append(count)
    _display.draw(at_once=True)
    try:
        yield
    finally:
        _display.end(count)
        if not _display.counts:
            _display.clear()


def steps(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Give items, and tell how many are done.

    Args:
        items: what each step works on.
        what: says in plural what the items are.
        total: their number, where the items do not know it; the largest there may be.

    Example:
        >>> list(steps("ab", "letters"))
        ['a', 'b']
    """
    if total is None:
        items = items if isinstance(items, Collection) else list(items)
        total = len(items)
    with counted(what, total) as step:
        for item in items:
            yield item
            step()


def duration(seconds: float) -> str:
    """Format a duration in the unit that a person would use: seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
