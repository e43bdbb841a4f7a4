"""The numbered parts that one table was cut into: their order, and the numbers that are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from layerfusion.errors import UserError

_OF = re.compile(r"[-_. ]?(\d+)[-_. ]?of[-_. ]?(\d+)(?:-[0-9a-f]{16})?$")
"""Matches the end of `train-00000-of-00002` and `train-00000-of-00002-0123456789abcdef`."""
_WORDED = re.compile(r"(?:^|[-_. ])(?:part|shard|chunk|piece)[-_. ]?(\d+)(?:-.*)?$")
"""Matches the end of `train_part1`, and all of `part-00000-1b6f….c000`, as Spark writes it."""
_NUMBERED = re.compile(r"(?:data|file)?[-_]?(\d+)\b")
"""As of `0001`, where all files of a folder are called so."""
_DATE = re.compile(r"(19|20)\d\d((0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])?)?")
"""A year, a month or a day, which counts no parts."""
_MOST = 1_000_000
"""Numbers from here on, such as times in seconds, count no parts either."""
_SHOWN = 5
"""At most this many missing numbers are named."""
_WHOLE = "_SUCCESS"
"""File that Spark leaves beside all parts; a part without rows may be missing among them."""


@dataclass(frozen=True)
class NumberedName:
    """What the name of a part says."""

    base: str
    """The name without its number."""
    number: int
    total: int | None = None
    """The number of parts, where the name states it."""
    dated: bool = False
    """The number is a date or the like, and says nothing of other parts."""


def _named(base: str, digits: str) -> NumberedName:
    number = int(digits)
    return NumberedName(base, number, dated=number >= _MOST or bool(_DATE.fullmatch(digits)))


def numbered_name(stem: str) -> NumberedName | None:
    """Read the number of a part off a name, in lower case and without its suffix.

    A bare number is none: `train1` may be the train of a fold.

    Example:
        >>> numbered_name("train-00000-of-00002")
        NumberedName(base='train', number=0, total=2, dated=False)
        >>> numbered_name("train_part7").number, numbered_name("train1")
        (7, None)
    """
    if found := _OF.search(stem):
        return NumberedName(stem[: found.start()], int(found[1]), int(found[2]))
    if found := _WORDED.search(stem):
        return _named(stem[: found.start()], found[1])
    return None


def bare_number(stem: str) -> NumberedName | None:
    """Do the same for a name that may be a bare number, such as `0001` and `data_1`."""
    found = _NUMBERED.match(stem)
    return numbered_name(stem) or (_named("", found[1]) if found else None)


def states_total(stem: str) -> bool:
    """Tell whether a name says how many parts there are."""
    return _OF.search(stem) is not None


def in_order(place: str, what: str, parts: Mapping[str, NumberedName]) -> list[str]:
    """Put the names of parts in the order of their numbers, or of their dates.

    Args:
        place: where they lie, for messages.
        what: the table that they are parts of, for messages.
        parts: name to what it says.

    Raises:
        UserError: if a part is missing.
    """
    numbers = {part.number for part in parts.values()}
    totals = {part.total for part in parts.values()}
    total = max((total for total in totals if total is not None), default=None)
    ends = max(numbers) if total is None else total
    first = 1 if 0 not in numbers and max(numbers) == ends else 0
    last = ends if first or total is None else total - 1
    dated = all(part.dated for part in parts.values())
    counted = range(first, last + 1) if not dated else ()  # seconds of 1970 are far too many
    missing = list(islice((number for number in counted if number not in numbers), _SHOWN))
    if missing or len(totals) > 1:
        kind, way_out = "shard", f"numbered from {first} to {last}"
        if total is None:
            kind, way_out = "part", "numbered; if none is missing, number them without a gap"
        which = ", ".join(map(str, missing)) or "some"
        raise UserError(
            f"{place}: {kind} {which} of {what} is missing; its {kind}s are {way_out}, and there"
            f" are: {', '.join(list(parts)[:20])}"
        )
    return sorted(parts, key=lambda name: parts[name].number)


def refuse_gap(folder: Path, stems: Mapping[str, str]) -> None:
    """Refuse files of one folder that are all called parts of one table, where one is missing.

    Years and the like are no numbers of parts.

    Args:
        folder: has them.
        stems: name of each to its stem in lower case.

    Raises:
        UserError: naming the part that is missing.
    """
    found = {name: bare_number(stem) for name, stem in stems.items()}
    parts = {name: part for name, part in found.items() if part is not None}
    one = len({part.base for part in parts.values()}) == 1 and len(parts) == len(found)
    sure = any(numbered_name(stem) for stem in stems.values())
    counted = min((part.number for part in parts.values()), default=2) < 2
    if one and (sure or counted) and not (folder / _WHOLE).exists():
        in_order(str(folder), folder.name, parts)


def are_numbered(stems: Sequence[str]) -> bool:
    """Tell whether all of several names are those of numbered parts."""
    return len(stems) > 1 and all(map(bare_number, stems))
