"""Rules of settings, said once, in the metadata of the field that they are about.

    width: int = field(default=256, metadata=at_least(1))

`check_rules` holds a whole group against the rules of its fields. A setting that is None is off and
breaks no rule; a list obeys a rule where each of its items does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from layerfusion.errors import UserError, unknown

RULE = "rule"
"""Key of a field's metadata."""


@dataclass(frozen=True)
class Rule:
    """A condition on the value of a setting."""

    holds: Callable[[Any], bool]
    words: str
    """Completes the sentence `KEY=VALUE: it must …`."""
    allowed: Callable[[], Iterable[str]] | None = None
    """Lists the values, where a rule has a list of them."""

    def check(self, key: str, value: Any) -> None:
        """Raise a UserError where the value breaks the rule."""
        if self.holds(value):
            return
        if self.allowed is not None:
            raise unknown(key, value, self.allowed())
        raise UserError(f"{key}={value}: it must {self.words}")


def at_least(least: float) -> dict[str, Rule]:
    """A number that is not below `least`."""
    return {RULE: Rule(lambda value: value >= least, f"be at least {least}")}


def above(bound: float) -> dict[str, Rule]:
    """A number that is larger than `bound`."""
    return {RULE: Rule(lambda value: value > bound, f"be above {bound}")}


def between(low: float, high: float, *, ends: str = "[]") -> dict[str, Rule]:
    """A number from `low` to `high`; a round bracket in `ends` leaves that end out."""

    def holds(value: float) -> bool:
        above_low = value >= low if ends[0] == "[" else value > low
        return above_low and (value <= high if ends[1] == "]" else value < high)

    return {RULE: Rule(holds, f"lie in {ends[0]}{low}, {high}{ends[1]}")}


def a_seed() -> dict[str, Rule]:
    """A seed that NumPy, scikit-learn and Lightning all take: a whole number of 32 bits."""
    return between(0, 2**32 - 1)


def one_of(*values: str, more: Callable[[], Iterable[str]] = tuple) -> dict[str, Rule]:
    """One of some names.

    Args:
        values: the names.
        more: gives further names, looked up when a value is checked.
    """

    def allowed() -> tuple[str, ...]:
        return (*more(), *values)

    return {RULE: Rule(lambda value: value in allowed(), "", allowed)}


LONGEST_NAME = 120
"""Bytes of a name; with what is put before and after it, it still is the name of a file."""


def check_name(key: str, value: str) -> None:
    """Refuse a name that becomes part of a file's name and could lead to another folder.

    Args:
        key: the setting, for messages.
        value: the name.

    Raises:
        UserError: for a separator, `..`, an invisible character, or too many characters.

    Example:
        >>> check_name("lexical", "words")
        >>> check_name("lexical", "../words")
        Traceback (most recent call last):
        ...
        layerfusion.errors.UserError: lexical: a name must have no / and be visible characters, at \
most 120 bytes, other than . and ..; found '../words'
    """
    plain = value.isprintable() and value.strip(". ") != "" and not set(value) & set("/\\")
    if not plain or len(value.encode()) > LONGEST_NAME:
        raise UserError(
            f"{key}: a name must have no / and be visible characters, at most {LONGEST_NAME} bytes,"
            f" other than . and ..; found {_shown(value)}"
        )


def check_inside(key: str, value: str) -> None:
    """Refuse a path of folders that could leave the folder it is put in: each part is a name.

    Raises:
        UserError: as `check_name` does, and for an absolute path.
    """
    if value.startswith("/"):
        raise UserError(f"{key}={_shown(value)}: it must lie inside its folder, so without / first")
    for part in value.rstrip("/").split("/"):
        check_name(key, part)


def _shown(value: str) -> str:
    return repr(value if len(value) <= LONGEST_NAME else f"{value[:20]}…")


def check_rules(group: Any, key: str) -> None:
    """Hold the fields of a config group, and of the groups inside it, against their rules.

    Args:
        group: an instance of a dataclass.
        key: the group's key, for messages.

    Raises:
        UserError: naming the key, the value and what is allowed.
    """
    for item in fields(group):
        where = f"{key}.{item.name}" if key else item.name
        value, rule = getattr(group, item.name), item.metadata.get(RULE)
        if isinstance(rule, Rule):
            for part in value if isinstance(value, list) else [value]:
                if part is not None:
                    rule.check(where, part)
        elif is_dataclass(value):
            check_rules(value, where)
        elif isinstance(value, Mapping):
            for name, part in value.items():
                if is_dataclass(part):
                    check_rules(part, f"{where}.{name}")
