"""The numbered parts that one table was cut into: their order, and the numbers that are missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerfusion.errors import UserError

_OF = re.compile(r"[-_. ]?(\d+)[-_. ]?of[-_. ]?(\d+)(?:-[0-9a-f]{16})?$")
"""As of `train-00000-of-00002` and `train-00000-of-00002-0123456789abcdef`."""
_WORDED = re.compile(r"(?:^|[-_. ])(?:part|shard|chunk|piece)[-_. ]?(\d+)(?:-.*)?$")
"""As of `train_part1`, and of `part-00000-1b6f….c000` as Spark writes it."""
_NUMBERED = re.compile(r"(?:data|file)?[-_]?(\d+)\b")
"""As of `0001`, where all files of a folder are called so."""
_WHOLE = "_SUCCESS"
"""File that Spark leaves beside all parts; a part without rows may be missing among them."""


@dataclass(frozen=True)
class Part:
    """What the name of a part says."""

    base: str
    """The name without its number."""
    number: int
    total: int | None = None
    """The number of parts, where the name states it."""


def part_of(stem: str) -> Part | None:
    """Read the number of a part off a name, in lower case and without its suffix.

    A bare number is none: `train1` may be the train of a fold.

    Example:
        >>> part_of("train-00000-of-00002"), part_of("train_part7"), part_of("train1")
        (Part(base='train', number=0, total=2), Part(base='train', number=7, total=None), None)
    """
    if found := _OF.search(stem):
        return Part(stem[: found.start()], int(found[1]), int(found[2]))
    if found := _WORDED.search(stem):
        return Part(stem[: found.start()], int(found[1]))
    return None


def number_of(stem: str) -> Part | None:
    """Do the same for a name that may be a bare number, such as `0001` and `data_1`."""
    found = _NUMBERED.match(stem)
    return part_of(stem) or (Part("", int(found[1])) if found else None)


def states_total(stem: str) -> bool:
    """Tell whether a name says how many parts there are."""
    return _OF.search(stem) is not None


def in_order(place: str, what: str, parts: Mapping[str, Part]) -> list[str]:
    """Put the names of parts in the order of their numbers.

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
    missing = sorted(set(range(first, last + 1)) - numbers)
    if missing or len(totals) > 1:
        kind, way_out = "shard", f"numbered from {first} to {last}"
        if total is None:
            kind, way_out = "part", "numbered; if none is missing, number them without a gap"
        which = ", ".join(map(str, missing[:5])) or "some"
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
    found = {name: number_of(stem) for name, stem in stems.items()}
    parts = {name: part for name, part in found.items() if part is not None}
    one = len({part.base for part in parts.values()}) == 1 and len(parts) == len(found)
    sure = any(part_of(stem) for stem in stems.values())
    counted = min((part.number for part in parts.values()), default=2) < 2
    if one and (sure or counted) and not (folder / _WHOLE).exists():
        in_order(str(folder), folder.name, parts)


def are_parts(stems: Sequence[str]) -> bool:
    """Tell whether all of several names are those of numbered parts."""
    return len(stems) > 1 and all(map(number_of, stems))
