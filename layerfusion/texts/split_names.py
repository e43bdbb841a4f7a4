"""The names by which files and folders say which split they are."""

from __future__ import annotations

import re
from collections.abc import Iterable

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""Split to the file names that mean it, in lower case and without their suffix."""


def named_parts(names: Iterable[str]) -> dict[str, list[str]]:
    """Give each split those of some names that mean it, in any case."""
    there = list(names)
    found = {split: [n for n in there if n.lower() in known] for split, known in ALIASES.items()}
    return {split: members for split, members in found.items() if members}


def splits_in(name: str) -> set[str]:
    """The splits that a name has among its words: `20news-bydate-train` is of train."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return {split for split, known in ALIASES.items() if words & set(known)}


def parts_by_word(names: Iterable[str]) -> dict[str, list[str]]:
    """Give each split those of some names that mean it, or else those that have it as a word."""
    there = list(names)
    exact = named_parts(there)
    if "train" in exact:
        return exact
    found = {split: [name for name in there if splits_in(name) == {split}] for split in ALIASES}
    return {split: members for split, members in found.items() if members}
