"""Groups of rows, such as those of an author: no split or fold that is made here divides one.

Rows of one group are alike in more than their labels. A classifier that has seen an author is
better on that author than on the next one, so that figures of divided groups are too good.
"""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from layerfusion.errors import UserError, short
from layerfusion.texts.cells import is_missing, plain
from layerfusion.texts.sampling import first_rows, hold_out_texts, strata
from layerfusion.texts.strings import other_order

MOST_PARTS = 20
"""Most parts that rows are dealt to, some of which leave train for another split."""
ALWAYS_LEARNED = -1
"""Stands for a part of rows that are never held out."""


class Group(NamedTuple):
    """A group of rows, by its name; no text is equal to it."""

    name: str


def units_of(texts: Sequence[str], groups: Sequence[str | None] | None) -> tuple[Hashable, ...]:
    """Return what tells apart the rows that are independent of one another.

    That is the group of a row. Where there are no groups, and of a row without one, it is the text.
    A text that stands in several groups does not join them: else a short one, such as "thanks",
    would make a single group of all.

    Args:
        texts: text of each row.
        groups: group of each row, None for a row without one; None if there are no groups.

    Example:
        >>> units_of(["a", "b", "a"], None)
        ('a', 'b', 'a')
        >>> units_of(["a", "b", "a"], ["ann", None, "bob"])
        (Group(name='ann'), 'b', Group(name='bob'))
    """
    if groups is None:
        return tuple(texts)
    return tuple(
        text if name is None else Group(name) for text, name in zip(texts, groups, strict=True)
    )


def cells_beside(groups: Any, texts: Any, rows: int, place: str) -> list[Any]:
    """Read groups that a program has in memory, beside texts.

    Args:
        groups: one for each text: a list, an array, a Series, or a table with one column.
        texts: in any form.
        rows: number of texts.
        place: what they are for, for messages.

    Raises:
        UserError: for anything else, groups of another number, or those of a Series with the rows
            of the texts in another order.
    """
    if isinstance(groups, Set | Mapping | str | bytes) or not isinstance(groups, Iterable):
        raise UserError(
            f"{place}: groups= is an object of type {type(groups).__name__}, which has no rows in"
            " an order; a list has"
        )
    if other_order(texts, groups):
        raise UserError(
            f"{place}: the groups have the rows of the texts in another order, as their index says;"
            " groups.loc[texts.index] puts them in it"
        )
    listed: Any = groups
    if len(getattr(groups, "columns", ())) == 1:
        listed = listed[listed.columns[0]]
    if getattr(listed, "ndim", 1) == 2 and listed.shape[1] == 1:
        listed = listed[:, 0]
    cells = [plain(cell) for cell in listed]
    if len(cells) != rows:
        raise UserError(
            f"{place}: {rows} texts and {len(cells)} groups; each text needs one, or None"
        )
    return cells


def groups_beside(groups: Any, texts: Any, rows: int, place: str) -> tuple[str | None, ...] | None:
    """Read and name groups that a program has in memory: see `cells_beside` and `groups_of`."""
    return None if groups is None else groups_of(cells_beside(groups, texts, rows, place))


def groups_of(cells: Sequence[Any] | None) -> tuple[str | None, ...] | None:
    """Name the groups of rows: whole numbers have no point, and an empty cell is no group.

    Args:
        cells: group of each row as it was read; None if there are no groups.

    Raises:
        UserError: if a cell is neither text nor number.

    Example:
        >>> groups_of(["ann", 7, 7.0, " ", None])
        ('ann', '7', '7', None, None)
    """
    if cells is None:
        return None
    return tuple(None if is_missing(cell) else _name_of(cell) for cell in cells)


def _name_of(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():  # whole numbers beside an empty cell
        cell = int(cell)
    if isinstance(cell, list | tuple | dict | set):
        raise UserError(f"groups: {short(cell)} is no name of a group; one text or number a row is")
    return str(cell).strip()


def has_groups(units: Sequence[Hashable]) -> bool:
    """Tell units of which some are groups from those that are all texts."""
    return any(isinstance(unit, Group) for unit in units)


def deal_groups(
    labels: np.ndarray, units: Sequence[Hashable], parts: int, *, seed: int
) -> np.ndarray:
    """Deal rows to parts of about the same size and classes, all rows of a unit to the same part.

    No part has all rows of a class: of a class that would, the unit with most of its rows is never
    held out, and is learned from whatever part is.

    Args:
        labels: class indices, shape (rows,), or true where a row has a label, shape (rows, labels).
        units: those of the rows, as `units_of` gives them.
        parts: most parts, at least 2; there are no more than units.
        seed: draws the order in which units of the same classes are dealt.

    Returns:
        The part of each row, from 0 on without a gap, or `ALWAYS_LEARNED`. Shape: (rows,), int64.

    Source:
        The rule of scikit-learn's `StratifiedGroupKFold`: units whose numbers of rows by class
        differ most go first, each to the part that leaves the shares of the classes most alike.
        That one may hold out all rows of a class, and takes fifteen times as long.

    Example:
        >>> units = units_of(list("abcdef"), ["ann", "ann", "bob", "bob", "cat", "cat"])
        >>> deal_groups(np.array([0, 1, 0, 1, 0, 1]), units, 3, seed=0).tolist()
        [0, 0, 2, 2, 1, 1]
    """
    of_row, counts = _counted(labels, units)
    part_of = _dealt(counts, min(parts, len(counts)), seed)
    for part in range(int(part_of.max()) + 1):
        part_of[_wanted_in_train(counts, part_of == part)] = ALWAYS_LEARNED
    dealt = part_of != ALWAYS_LEARNED
    part_of[dealt] = np.unique(part_of[dealt], return_inverse=True)[1].reshape(-1)
    return part_of[of_row]


def _counted(labels: np.ndarray, units: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Number the units, (rows,), and count the rows of each by class, (units, classes)."""
    classes = np.unique(strata(labels), return_inverse=True)[1].reshape(-1)
    of_row = np.unique(first_rows(units), return_inverse=True)[1].reshape(-1)
    counts = np.zeros((int(of_row.max()) + 1, int(classes.max()) + 1))
    np.add.at(counts, (of_row, classes), 1)
    return of_row, counts


def _wanted_in_train(counts: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Choose the units without which some class has all of its rows among those that are out.

    Args:
        counts: rows of each class in each unit. Shape: (units, classes).
        out: true for the units that are to be held out. Shape: (units,).

    Returns:
        True for them: the one with most rows of each such class. Shape: (units,).
    """
    lost = counts[out].sum(axis=0) == counts.sum(axis=0)
    wanted = np.zeros(len(counts), dtype=bool)
    wanted[counts[:, lost].argmax(axis=0)] = True
    return wanted


def _dealt(counts: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """Deal units to parts by their numbers of rows. Shapes: (units, classes) to (units,)."""
    total = counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(counts))
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    part_of = np.zeros(len(counts), dtype=np.int64)
    held = np.zeros((parts, counts.shape[1]))  # shares of the rows of each class
    rows = np.zeros(parts)
    for unit in order:
        own = counts[unit] / total
        # Of (held + e_p · own), the variance over parts differs between the p by this alone.
        uneven = np.round(held @ own, 12)
        best = np.lexsort((rows, uneven))[0]
        part_of[unit] = best
        held[best] += own
        rows[best] += counts[unit].sum()
    return part_of


def hold_out_units(
    labels: np.ndarray, units: Sequence[Hashable], share: float, *, seed: int, purpose: str
) -> np.ndarray:
    """Choose whole groups as `hold_out_groups` does, or whole texts as `hold_out_texts` does."""
    hold_out = hold_out_groups if has_groups(units) else hold_out_texts
    return hold_out(labels, units, share, seed=seed, purpose=purpose)


def hold_out_groups(
    labels: np.ndarray, units: Sequence[Hashable], share: float, *, seed: int, purpose: str
) -> np.ndarray:
    """Choose whole units that leave train for another split; every class keeps one in train.

    Args:
        labels: as for `deal_groups`.
        units: as for `deal_groups`.
        share: share of the rows that leave, between 0 and 1; it is met as nearly as units allow.
        seed: draws the units.
        purpose: the split that they go to; each purpose has independent draws for a seed.

    Returns:
        True for the rows that leave. Shape: (rows,).

    Raises:
        UserError: if no class has rows of two units.
    """
    wanted = Fraction(share).limit_denominator(MOST_PARTS)
    wanted = min(max(wanted, Fraction(1, MOST_PARTS)), 1 - Fraction(1, MOST_PARTS))
    drawn = zlib.crc32(f"{seed} {purpose}".encode())
    parts = deal_groups(labels, units, wanted.denominator, seed=drawn)
    sizes = np.bincount(parts[parts != ALWAYS_LEARNED])
    if len(sizes) < 2:
        raise UserError(
            f"no class of train has rows of two groups, so none can become {purpose}; more groups"
            " are needed"
        )
    taken, left = [], share * len(parts)
    for part in np.random.default_rng(drawn).permutation(len(sizes)).tolist():
        if abs(left - sizes[part]) < abs(left):
            taken.append(part)
            left -= sizes[part]
    of_row, counts = _counted(labels, units)
    leaves = np.zeros(len(counts), dtype=bool)
    leaves[of_row] = np.isin(parts, taken or [int(sizes.argmin())])
    return (leaves & ~_wanted_in_train(counts, leaves))[of_row]
