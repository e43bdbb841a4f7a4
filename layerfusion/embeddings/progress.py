"""A bar that counts tokens and says how long is left."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class TokenBar:
    """Progress of an extraction; on a terminal it moves, in a log it writes a line now and then.

    Args:
        name: what is being extracted.
        total: tokens to pass through the model.
    """

    def __init__(self, name: str, total: int) -> None:
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            desc=f"extract {name}",
            unit="tok",
            unit_scale=True,
            mininterval=0.2 if terminal else 15.0,
            ascii=not terminal,
            ncols=None if terminal else 100,
            file=sys.stderr,
        )

    def expect(self, tokens: int) -> None:
        """Say how many tokens there will be, as far as is known so far."""
        self._bar.total = tokens
        self._bar.refresh()

    def update(self, tokens: int) -> None:
        """Count tokens that have passed."""
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
        """Leave the bar as it stands."""
        self._bar.close()
