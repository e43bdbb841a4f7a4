"""The names by which files and folders say which split they are."""

from __future__ import annotations

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
