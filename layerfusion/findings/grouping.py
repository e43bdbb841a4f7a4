"""Things sorted into groups, and names that tell things apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import TypeVar

Thing = TypeVar("Thing")
Key = TypeVar("Key", bound=Hashable)


def grouped(things: Iterable[Thing], key: Callable[[Thing], Key]) -> dict[Key, list[Thing]]:
    """Sort things into groups by a key; groups and things keep their order."""
    groups: dict[Key, list[Thing]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return groups


def told_apart(names: Mapping[Key, str], mark: Callable[[Key], str]) -> dict[Key, str]:
    """Add a mark to each name that several things share."""
    seen = Counter(names.values())
    return {
        thing: name if seen[name] == 1 else f"{name} ({mark(thing)})"
        for thing, name in names.items()
    }


def data_labels(
    data: Iterable[tuple[str, str]], drawn: Collection[tuple[str, str]] = ()
) -> dict[tuple[str, str], str]:
    """Name data sets, with the fingerprint where several samples share a name.

    Args:
        data: name and fingerprint of each.
        drawn: those that are the draws of a learning curve. They leave the plain name to the data
            that they are drawn from.
    """
    names = {key: key[0] for key in data}
    whole = {key: name for key, name in names.items() if key not in drawn}

    def mark(key: tuple[str, str]) -> str:
        return f"data {key[1][:8]}"

    return told_apart(names, mark) | told_apart(whole, mark)


def file_names(texts: Iterable[str], without: str) -> list[str]:
    """Turn texts into distinct lower-case file names.

    Args:
        texts: the texts.
        without: name of a text without letters and numbers.
    """
    names: list[str] = []
    for text in texts:
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80].rstrip("-") or without
        name, again = base, 1
        while name in names:
            again += 1
            name = f"{base}-{again}"
        names.append(name)
    return names
