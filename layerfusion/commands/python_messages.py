"""Messages of a call from Python name its arguments, where a shell would be told the keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from layerfusion.errors import UserError

_VALUE = r'"(?:\\.|[^"\\])*"|\[[^\]]*\]|[^\s;,?)\']+?(?=[:.]?(?:[\s;,?)\']|$))'
"""A value as `config.options.as_option` writes it, but for the quotation marks of a shell."""


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
    one = rf"'(?:{keys})=(?:{_VALUE})'|(?<![\w.])(?:{keys})(?![\w.])(?:=(?:{_VALUE}))?"

    def argument(option: str) -> str:
        key, _, value = option.strip("'").partition("=")
        return f"{arguments[key]}={_literal(value) if value else ''}"

    def several(found: re.Match[str]) -> str:
        return ", ".join(map(argument, re.findall(one, found[0])))

    return re.sub(rf"(?:{one})(?: (?:{one}))*", several, message)


def _literal(value: str) -> str:
    """Write a value of a config as Python does; a word in capitals stands for the user's own."""
    if value.startswith("["):
        return f"[{', '.join(_literal(one) for one in re.findall(_VALUE, value[1:-1]))}]"
    if value.startswith('"'):
        return repr(re.sub(r'\\(["\\])', r"\1", value[1:-1]))
    if value.lower() in ("true", "false"):
        return value.capitalize()
    number = re.fullmatch(r"-?\d+(\.\d+)?", value)
    return value if number or value.isupper() else repr(value)
