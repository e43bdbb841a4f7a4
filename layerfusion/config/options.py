"""Options as a user types them on the command line."""

from __future__ import annotations

import re
import shlex

_PLAIN = re.compile(r"[A-Za-z_./][\w./-]*|0|[1-9]\d*", re.ASCII)
"""Values that neither a shell nor Hydra takes for anything but a string or a number."""


def as_option(key: str, value: str | list[str]) -> str:
    """Write an option as a shell takes it: `--text 'the text'`, `'dataset.text="the text"'`.

    Args:
        key: an option that begins with dashes, or a key of a config.
        value: any string; of a config, also a list of strings.
    """
    if isinstance(value, list):
        return shlex.quote(f"{key}=[{','.join(map(_for_hydra, value))}]")
    if key.startswith("-"):
        return f"{key} {shlex.quote(value)}"
    written = _for_hydra(value)
    return f"{key}={value}" if written == value else shlex.quote(f"{key}={written}")


def _for_hydra(value: str) -> str:
    """Write a string as Hydra reads it, in quotation marks where it needs them."""
    if _PLAIN.fullmatch(value) and value.lower() not in ("null", "true", "false", "nan", "inf"):
        return value
    # Hydra reads backslashes as such, but for those before a quotation mark.
    quoted = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), value)
    return f'"{quoted}"'
