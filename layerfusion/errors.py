"""The one exception for mistakes that a user can make and mend."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a config, a file or a command: one clear line, no traceback, exit code 2.

    The message names the thing (config key, file, row, label), what was found, and what is allowed.
    """


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def short(value: object) -> str:
    """Show a value in a message as `repr` does, with its middle left out where it is long.

    Example:
        >>> short("a good film"), len(short("a" * 5000))
        ("'a good film'", 120)
    """
    return _SHORT.repr(value)


def unknown(kind: str, value: object, allowed: Iterable[object]) -> UserError:
    """Return the error for a name that does not exist. It lists the names that do."""
    names = ", ".join(map(str, allowed))
    return UserError(f"{kind}: there is no {short(str(value))}; there are: {names or 'none'}")
