"""Servers of vectors that fail are left alone for a while, so that each text does not wait anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from layerfusion.errors import OutOfTime, Unavailable, UserError

FAILURES, LOST = 3, 10.0
"""Failures in a row, or seconds they have taken together, after which a server is left alone."""
PAUSE = 10.0
"""Seconds for which it is left alone."""
TRIAL = 5.0
"""Seconds that the first texts after that may take, so that a server that still hangs holds up no
more than these."""


class Breaker:
    """Refuses at once, for some seconds, what a server has failed to give several times in a row.

    Args:
        where: the server, for its messages.
        clock: gives the seconds.
    """

    def __init__(self, where: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._where = where
        self._clock = clock
        self._failures, self._lost = 0, 0.0
        self._until = 0.0
        """When it may be asked again."""
        self._why = ""
        """What the last failure was."""

    @contextmanager
    def asking(self, end: float) -> Iterator[Callable[[], float]]:
        """Note whether what is asked for inside the block is given.

        Args:
            end: when the time for it is over.

        Yields:
            A function that gives the seconds that are left, to be called before each request.

        Raises:
            Unavailable: from that function while the server is left alone; and in the place of
                `OutOfTime`.
        """
        begun = 0.0
        asked = False

        def left() -> float:
            nonlocal asked, begun, end
            if not asked:
                begun = self._clock()
                self._refuse(begun)
                asked = True
                end = min(end, begun + TRIAL) if self._broken else end
            return end - self._clock()

        try:
            yield left
        except (Unavailable, OutOfTime) as error:
            told = str(error) or f"{self._where} gave no vectors in the time for them"
            if asked:
                self._fail(told, self._clock() - begun)
            if isinstance(error, OutOfTime):
                raise Unavailable(told, self._where) from error
            raise
        except UserError:  # the server refuses a text, and so it answers
            self._failures, self._lost = 0, 0.0
            raise
        if asked:
            self._failures, self._lost = 0, 0.0

    @property
    def _broken(self) -> bool:
        return self._failures >= FAILURES or self._lost >= LOST

    def _fail(self, told: str, seconds: float) -> None:
        self._failures += 1
        self._lost += seconds
        self._why = told
        if self._broken:
            self._until = self._clock() + PAUSE

    def _refuse(self, now: float) -> None:
        if self._broken and now < self._until:
            raise Unavailable(
                f"{self._why}; after {self._failures} of these in a row it is not asked for"
                f" another {self._until - now:.0f} s",
                self._where,
            )
