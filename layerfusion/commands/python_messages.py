"""Messages of a call from Python name its arguments, where a shell would be told the keys."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from layerfusion.errors import UserError

_PLAIN = r"[^\s;,?)']+?(?=[:.]?(?:[\s;,?)']|$))"
"""A value that needs no quotation marks, without what ends the sentence."""
_QUOTED = r"""(?:'"'"'|[^'])*"""
"""What stands between the quotation marks of a shell, in which a mark is written `'"'"'`."""


@contextmanager
def naming_arguments(arguments: Mapping[str, str]) -> Iterator[None]:
    """Name arguments in the place of keys in what a UserError says.

    Args:
        arguments: key of the config to the argument that sets it.
    """
    try:
        yield
    except UserError as error:
        error.args = (with_arguments(str(error), arguments), *error.args[1:])
        raise


def with_arguments(message: str, arguments: Mapping[str, str]) -> str:
    r"""Write a message with arguments in the place of keys.

    Example:
        >>> line = "did you mean 'dataset.text=\"The review\"' (dataset.text)?"
        >>> with_arguments(line, {"dataset.text": "text"})
        "did you mean text='The review' (text=)?"
    """
    keys = "|".join(re.escape(key) for key in sorted(arguments, key=len, reverse=True))
    one = rf"'(?:{keys})={_QUOTED}'|(?<![\w.])(?:{keys})(?![\w.])(?:={_PLAIN})?"

    def argument(option: str) -> str:
        (word,) = shlex.split(option)
        key, _, value = word.partition("=")
        return f"{arguments[key]}={_literal(value) if value else ''}"

    def several(found: re.Match[str]) -> str:
        return ", ".join(map(argument, re.findall(one, found[0])))

    return re.sub(rf"(?:{one})(?: (?:{one}))*", several, message)


def _literal(value: str) -> str:
    """Write a value of a config, as `config.options.as_option` writes it, in Python's words."""
    if value.startswith("["):
        items = re.findall(r'"(?:\\.|[^"\\])*"|[^,]+', value[1:-1])
        return f"[{', '.join(map(_literal, items))}]"
    if value.startswith('"'):
        return repr(re.sub(r'\\(["\\])', r"\1", value[1:-1]))
    if value.lower() in ("true", "false"):
        return value.capitalize()
    return value if re.fullmatch(r"-?\d+(\.\d+)?", value) else repr(value)
