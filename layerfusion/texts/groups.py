"""Groups of rows, such as those of an author: no split or fold that is made here divides one.

Rows of one group are alike in more than their labels. A classifier that has seen an author is
better on that author than on the next one, so that figures of divided groups are too good.
"""

from __future__ import annotations

import math
import re
import unicodedata
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
"""Most parts that rows are dealt to, some of which leave train for another split, unless that is to
have fewer rows than one of them, or leave fewer."""
SMALLEST_PART = 1000
"""Most parts that rows are dealt to then."""
ALWAYS_LEARNED = -1
"""Stands for a part of rows that are never held out."""
_WHOLE_NUMBER = re.compile(r"(-?\d+)\.0", re.ASCII)
"""A whole number as pandas writes it in a column that has an empty cell too."""


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
    if groups is None:
        return None
    return groups_of(cells_beside(groups, texts, rows, place), f"{place}: groups")


def groups_of(cells: Sequence[Any] | None, key: str) -> tuple[str | None, ...] | None:
    """Name the groups of rows: whole numbers have no point, and an empty cell is no group.

    That holds for numbers that are written as text too, as pandas writes a column of whole numbers
    with an empty cell. Letters are composed: one name may be stored in either form of Unicode.

    Args:
        cells: group of each row as it was read; None if there are no groups.
        key: what names them, for messages.

    Raises:
        UserError: if a cell is neither text nor number.

    Example:
        >>> groups_of(["ann", 7, 7.0, "7.0", " ", None], "groups")
        ('ann', '7', '7', '7', None, None)
    """
    if cells is None:
        return None
    wrong = next((cell for cell in cells if isinstance(cell, list | tuple | dict | set)), None)
    if wrong is not None:
        raise UserError(f"{key}: {short(wrong)} is no name of a group; one text or number a row is")
    return tuple(None if is_missing(cell) else _name_of(cell) for cell in cells)


def _name_of(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():  # whole numbers beside an empty cell
        cell = int(cell)
    name = str(cell).strip()
    whole = _WHOLE_NUMBER.fullmatch(name)
    return unicodedata.normalize("NFC", whole[1] if whole else name)


def has_groups(units: Sequence[Hashable]) -> bool:
    """Tell units of which some are groups from those that are all texts."""
    return any(isinstance(unit, Group) for unit in units)


def deal_groups(
    labels: np.ndarray, units: Sequence[Hashable], parts: int, *, seed: int
) -> np.ndarray:
    """Deal rows to parts of about the same size and classes, all rows of a unit to the same part.

    No part has all rows of a class. A unit that has them is never held out, and is learned from
    whatever part is; of several units that are dealt to one part and have them together, the one
    with most of them is not.

    Args:
        labels: class indices, shape (rows,), or true where a row has a label, shape (rows, labels).
        units: those of the rows, as `units_of` gives them.
        parts: most parts, at least 2; there are no more than units that can be held out.
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
    of_row = _numbered(units)
    counts = _by_class(labels, of_row)
    return _parts(counts, counts, parts, seed)[of_row]


def refuse_few(parts: np.ndarray, before: str, what: str = "be held out") -> None:
    """Refuse rows that were dealt to a single part or to none, so that nothing is left to learn.

    Args:
        parts: those of the rows or units, as `deal_groups` gives them.
        before: how the message begins, such as with the key that asks for parts.
        what: what groups were to do, for the message.

    Raises:
        UserError: for fewer than two parts.
    """
    if parts.max() < 1:
        raise UserError(
            f"{before}fewer than two groups of train can {what}, as each of the others has all rows"
            " of some class; more groups are needed"
        )


def _numbered(units: Sequence[Hashable]) -> np.ndarray:
    """Number the units of rows from 0. Shape: (rows,)."""
    return np.unique(first_rows(units), return_inverse=True)[1].reshape(-1)


def _by_class(labels: np.ndarray, of_row: np.ndarray) -> np.ndarray:
    """Count the rows of each unit by class, as they are stratified. Shape: (units, classes)."""
    classes = np.unique(strata(labels), return_inverse=True)[1].reshape(-1)
    return _counted(np.arange(len(labels)), classes, of_row)


def _by_side(labels: np.ndarray, of_row: np.ndarray) -> np.ndarray:
    """Count the rows of each unit with each label and without it. Shape: (units, 2 * labels)."""
    rows, sides = np.nonzero(np.concatenate([labels, ~labels], axis=1))
    return _counted(rows, sides, of_row)


def _counted(rows: np.ndarray, kinds: np.ndarray, of_row: np.ndarray) -> np.ndarray:
    """Count, by unit and kind, rows that are of a kind each. Shape: (units, kinds)."""
    counts = np.zeros((int(of_row.max()) + 1, int(kinds.max()) + 1))
    np.add.at(counts, (of_row[rows], kinds), 1)
    return counts


def _parts(counts: np.ndarray, needed: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """Deal units to parts, none of which has all rows of a kind that is needed elsewhere.

    Args:
        counts: rows of each class in each unit, by which they are dealt. Shape: (units, classes).
        needed: rows of each kind that each part leaves some of. Shape: (units, kinds).
        parts: most parts.
        seed: draws the order of units.

    Returns:
        The part of each unit, from 0 on without a gap, or `ALWAYS_LEARNED`. Shape: (units,).
    """
    part_of = np.full(len(counts), ALWAYS_LEARNED, np.int64)
    alone = ((needed > 0) & (needed == needed.sum(axis=0))).any(axis=1)
    if alone.all():
        return part_of
    part_of[~alone] = _dealt(counts[~alone], min(parts, int((~alone).sum())), seed)
    for part in range(int(part_of.max()) + 1):
        dealt = part_of == part
        part_of[dealt & ~_without_loss(needed, dealt)] = ALWAYS_LEARNED
    return part_of


def _without_loss(needed: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Keep units back, of those that are out, until some rows of each kind are not out.

    Where no unit has all rows of a kind, one at least stays out.

    Args:
        needed: rows of each kind in each unit. Shape: (units, kinds).
        out: true for the units that are to be held out. Shape: (units,).

    Returns:
        True for those that may be. Shape: (units,).
    """
    out, total = out.copy(), needed.sum(axis=0)
    for kind in np.flatnonzero((needed[out].sum(axis=0) == total) & (total > 0)):
        if needed[out, kind].sum() == total[kind]:
            out[needed[:, kind].argmax()] = False
    return out


def _dealt(counts: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """Deal units to parts by their numbers of rows. Shapes: (units, classes) to (units,)."""
    total = np.maximum(counts.sum(axis=0), 1)
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
    """Choose whole units that leave train for another split; every label keeps one in train.

    Args:
        labels: as for `deal_groups`.
        units: as for `deal_groups`.
        share: share of the rows that leave, between 0 and 1; it is met as nearly as units allow.
        seed: draws the units.
        purpose: the split that they go to; each purpose has independent draws for a seed.

    Returns:
        True for the rows that leave. Shape: (rows,).

    Raises:
        UserError: if fewer than two units can leave without the last rows of some class.
    """
    most = max(MOST_PARTS, min(math.ceil(1 / min(share, 1 - share)), SMALLEST_PART))
    wanted = Fraction(share).limit_denominator(most)
    wanted = min(max(wanted, Fraction(1, most)), 1 - Fraction(1, most))
    drawn = zlib.crc32(f"{seed} {purpose}".encode())
    of_row = _numbered(units)
    counts = _by_class(labels, of_row)
    # Of several labels a text, train keeps a row with each, and one without it.
    needed = counts if labels.ndim == 1 else _by_side(labels, of_row)
    part_of = _parts(counts, needed, wanted.denominator, drawn)
    refuse_few(part_of, "", f"become {purpose}")
    sizes = np.bincount(part_of[of_row] + 1)[1:]
    taken, left = [], share * len(of_row)
    for part in np.random.default_rng(drawn).permutation(len(sizes)).tolist():
        if abs(left - sizes[part]) < abs(left):
            taken.append(part)
            left -= sizes[part]
    leaves = np.isin(part_of, taken or [int(sizes.argmin())])
    return _without_loss(needed, leaves)[of_row]
