"""The one exception for mistakes that a user can make and mend."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a config, a file or a command: one clear line, no traceback, exit code 2.

    The message names the thing (config key, file, row, label), what was found, and what is allowed.
    """


def unknown(kind: str, value: object, allowed: Iterable[object]) -> UserError:
    """Return the error for a name that does not exist. It lists the names that do."""
    names = ", ".join(map(str, allowed))
    return UserError(f"{kind}: there is no {str(value)!r}; there are: {names or 'none'}")
