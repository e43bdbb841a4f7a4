"""The one exception for mistakes that a user can make and mend."""


class UserError(ValueError):
    """A mistake in a config, a file or a command: one clear line, no traceback, exit code 2.

    The message names the thing (config key, file, row, label), what was found, and what is allowed.
    """


def unknown(kind: str, value: object, allowed: object) -> UserError:
    """The error for a name that does not exist, listing the names that do."""
    names = ", ".join(str(name) for name in allowed)  # type: ignore[attr-defined]
    return UserError(f"{kind}: there is no {str(value)!r}; there are: {names or 'none'}")
