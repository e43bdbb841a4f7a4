"""A progress bar that counts tokens and estimates the time left."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from types import TracebackType

from tqdm import tqdm

from layerfusion.progress import hidden

SHORT = 5.0
"""Seconds of an extraction that no log tells of."""


class TokenBar:
    """Progress bar of an extraction. It moves on a terminal and adds a line to a log now and then.

    A log has none of what takes a few seconds alone, such as the texts of a request to a server.

    Args:
        name: the model, for the label of the bar.
        total: number of tokens that will pass through the model.
        unit: what is counted, if not tokens.
    """

    def __init__(self, name: str, total: int, unit: str = "tok") -> None:
        terminal = sys.stderr.isatty()
        self._alone = ExitStack()
        self._alone.enter_context(hidden())
        self._at_once = terminal
        """Whether it is shown from the beginning."""
        self._bar = tqdm(
            total=total,
            desc=f"extract {name}",
            unit=unit,
            unit_scale=True,
            mininterval=0.2 if terminal else 15.0,
            delay=0.0 if terminal else SHORT,
            ascii=not terminal,
            ncols=None if terminal else 100,
            file=sys.stderr,
        )

    def expect(self, tokens: int) -> None:
        """Set the total number of tokens, as far as it is known so far."""
        self._bar.total = tokens
        if self._at_once:  # a refresh would not wait
            self._bar.refresh()

    def update(self, tokens: int) -> None:
        """Count tokens that have passed through the model."""
        self._bar.update(tokens)

    def __enter__(self) -> TokenBar:
        """Show the bar."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bar and leave it on the screen."""
        self._bar.close()
        self._alone.close()
