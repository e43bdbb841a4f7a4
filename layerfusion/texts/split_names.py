"""The names by which files and folders say which split they are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""Split to the file names that mean it, in lower case and without their suffix."""

COLUMNS = ("split", "set", "partition", "subset", "data_split", "dataset_split")
"""What columns are often called, in lower case, that say the split of each row."""


def split_columns(names: Iterable[str]) -> list[str]:
    """The columns that, by their names, may say which split each row is of."""
    return [name for name in names if name.strip().casefold() in COLUMNS]


def rows_of_splits(values: Mapping[str, Sequence[Any]]) -> tuple[str, Counter[str]] | None:
    """Find the column that says of each row which split it is of, train and others.

    Args:
        values: name of each column to its cells.

    Returns:
        Its name, and how many rows each of its words has; none where there is no such column.
    """
    for name in split_columns(values):
        counts = Counter(str(cell).strip() for cell in values[name])
        found = named_parts(counts)
        if "train" in found and len(found) > 1 and sum(map(len, found.values())) == len(counts):
            return name, counts
    return None


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
