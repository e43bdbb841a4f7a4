"""The texts and labels of one split as they were read, before any check."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from layerfusion.errors import UserError, short
from layerfusion.texts.cells import NO_LABEL, labels_in, labels_marked
from layerfusion.texts.columns import Columns
from layerfusion.texts.encoding import EncodingSigns, whole_characters
from layerfusion.texts.nested import paths_inside, with_paths
from layerfusion.texts.split_names import rows_of_splits

_ANSWER, _ANSWERS = "answer", ("accept", "reject", "ignore")
"""The column in which Prodigy keeps what was said of a label, and what it says."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Table:
    """Rows of a file or of a Hugging Face split."""

    place: str
    """Name of the file or split, for messages."""
    texts: list[Any]
    labels: list[Any]
    """The label of each row; where rows have several, a list of them, or none for an empty cell."""
    rows: list[int]
    """Number of each row in its file, counted from 1."""
    typed: bool
    """False if all values are strings because the format, such as csv, has no other type."""
    label_names: tuple[str, ...] | None = None
    """Names of integer labels, if the format has them."""
    notes: tuple[str, ...] = ()
    """Notes on how the table was read, for a reader of the figures."""
    row_names: tuple[str, ...] = ()
    """What messages call the rows, where each is a file of its own; empty: by their numbers."""
    others: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """All columns of the rows as they were read; empty unless they were asked for."""
    groups: list[Any] | None = None
    """The group of each row as it was read; none if no column of groups is named."""
    multilabel: bool = False
    """True where a row has any number of labels, and not one."""
    delimiter: str = ""
    """What stands between the cells of its file, where that has such a delimiter."""

    def where(self, index: int) -> str:
        """Name a row, for messages: `train.csv, row 7`."""
        if self.row_names:
            return self.row_names[index]
        return f"{self.place}, row {self.rows[index]}"


@dataclass
class Changes:
    """What was changed in the rows of a table while they were picked, and what they show."""

    rows: int = 0
    """Rows that were looked at."""
    joined: int = 0
    """Texts that were lists of words."""
    taken: int = 0
    """Labels that stood in lists."""
    halves: int = 0
    """Half characters that were replaced."""
    signs: EncodingSigns = field(default_factory=EncodingSigns)

    def notes(self, place: str, columns: Columns) -> list[str]:
        """Say it of all rows."""
        notes = []
        if self.joined:
            many = f"{self.joined:,} texts are lists" if self.joined > 1 else "1 text is a list"
            notes.append(f"{place}: {many} of words, which are joined by spaces")
        if self.taken:
            one = self.taken == 1
            many = "1 label stands in a list" if one else f"{self.taken:,} labels stand in lists"
            notes.append(f"{place}: {many} of one, and {'is' if one else 'are'} taken out")
        notes += self.signs.notes(place, columns.encoding_key)
        if self.halves:
            notes.append(
                f"{place}: {self.halves:,} half characters (lone surrogates) became U+FFFD"
            )
        return notes


def make_table(
    place: str,
    values: Mapping[str, Sequence[Any]],
    columns: Columns,
    *,
    typed: bool,
    label_names: tuple[str, ...] | None = None,
    notes: Sequence[str] = (),
    changes: Changes | None = None,
) -> Table:
    """Pick the wanted columns and rows.

    Half characters become U+FFFD, a text that is a list of words or sentences is joined by spaces,
    and a label that is the only one of a list is taken out of it, each with a note. Where a row has
    several labels, they are read from their cell, or from a column each. Texts that look as if
    their encoding was another one are noted. With `changes`, the rows are a part of a table,
    and what would be noted is counted there.

    Raises:
        UserError: if a column does not exist, naming those that do, if no row is left, or if
            several labels of a row cannot be read.
    """
    own, counts = values, Changes() if changes is None else changes
    values = with_paths(own, columns.named, empty=counts.rows > 0)
    columns = columns.among(place, list(values), *paths_inside(own))
    total = len(values[columns.text])
    kept = [
        index
        for index in range(total)
        if all(str(values[name][index]) == wanted for name, wanted in columns.where.items())
    ]
    if not kept:
        wanted = ", ".join(f"{name}={value}" for name, value in columns.where.items())
        raise UserError(f"{place}: no rows" + (f" with {wanted}, out of {total}" if total else ""))
    texts = values[columns.text]
    texts, joined = _changed([texts[index] for index in kept], _joined)
    texts, halves_of_texts = _whole(texts)
    labels, taken, halves_of_labels = _labels_of(place, values, columns, kept)
    _refuse_names(place, columns, texts, labels, kept)
    if columns.label_columns:
        label_names = tuple(sorted(_names_of_columns(columns), key=_in_order))
    groups = None
    if columns.group is not None:
        groups, halves_of_groups = _whole([values[columns.group][index] for index in kept])
        counts.halves += halves_of_groups
    others: dict[str, list[Any]] = {}
    if columns.keep_others:
        for name, column in own.items():
            others[whole_characters(name)[0]], halves_of_others = _whole([column[i] for i in kept])
            counts.halves += halves_of_others if name != columns.text else 0
    counts.rows += total
    counts.joined += joined
    counts.taken += taken
    counts.halves += halves_of_texts + halves_of_labels
    counts.signs.add(texts)
    if changes is None:
        notes = [*notes, *counts.notes(place, columns), *_note_on_splits(place, own, columns)]
        notes += _note_on_answers(place, own, columns)
    return Table(
        place=place,
        texts=texts,
        labels=labels,
        rows=[index + 1 for index in kept],
        typed=typed,
        label_names=label_names,
        notes=tuple(notes),
        others=others,
        groups=groups,
        multilabel=columns.multilabel or bool(columns.label_columns),
    )


def _refuse_names(
    place: str, columns: Columns, texts: Sequence[Any], labels: Sequence[Any], kept: Sequence[int]
) -> None:
    """Refuse a row that holds the names of the columns, as of files that were joined."""
    if columns.label is None or columns.numbered:
        return
    text, label = columns.text.strip().casefold(), columns.label.strip().casefold()
    for index, cells in zip(kept, zip(texts, labels, strict=True), strict=True):
        found = [cell.strip('\ufeff" ').casefold() for cell in cells if isinstance(cell, str)]
        if found == [text, label]:
            raise UserError(
                f"{place}, row {index + 1}: it repeats the names of the columns,"
                f" {short(columns.text)} and {short(columns.label)}; remove it"
            )


def _note_on_splits(
    place: str, values: Mapping[str, Sequence[Any]], columns: Columns
) -> tuple[str, ...]:
    """Note a column that parts the rows of labelled data into splits, and is not used."""
    found = rows_of_splits(values) if columns.of_labels else None
    if found is None or found[0] in columns.named:
        return ()
    name, counts = found
    listed = ", ".join(f"{word} {total:,}" for word, total in counts.items())
    return (
        f"{place}: the column {name!r} says which split a row is of ({listed}), and is not used;"
        " write the rows of each to a file of its own: dataset.train=FILE dataset.test=FILE",
    )


def _note_on_answers(
    place: str, values: Mapping[str, Sequence[Any]], columns: Columns
) -> tuple[str, ...]:
    """Note rows whose labels whoever looked at them did not accept, as Prodigy writes it."""
    counts = Counter(str(cell) for cell in values.get(_ANSWER, ()))
    if not columns.of_labels or _ANSWER in columns.named or not set(counts) <= {*_ANSWERS}:
        return ()
    refused = sum(counts.values()) - counts[_ANSWERS[0]]
    if not refused:
        return ()
    return (
        f"{place}: the column {_ANSWER!r} says that {refused:,} of {sum(counts.values()):,} labels"
        " were not accepted, and is not used; remove these rows",
    )


def _labels_of(
    place: str, values: Mapping[str, Sequence[Any]], columns: Columns, kept: Sequence[int]
) -> tuple[list[Any], int, int]:
    """Read the labels of the kept rows.

    Returns:
        The label of each row, or a list of them; how many were taken out of lists of one; and how
        many half characters were replaced.
    """
    if not columns.of_labels:
        return [None] * len(kept), 0, 0
    if not (columns.multilabel or columns.label_columns):
        labels, taken = _changed([values[columns.of_labels[0]][index] for index in kept], _only)
        whole, halves = _whole(labels)
        _refuse_merged(place, labels, whole)
        return whole, taken, halves
    labels, total = [], 0
    for index in kept:
        try:
            label = _labels_of_row(values, columns, index)
        except UserError as error:
            raise UserError(f"{place}, row {index + 1}: {error}") from error
        if label is not None:
            label, halves = _whole(label)
            total += halves
        labels.append(label)
    return labels, 0, total


def _labels_of_row(
    values: Mapping[str, Sequence[Any]], columns: Columns, index: int
) -> list[Any] | None:
    """The labels in the cell of a row, or those whose columns have a yes in it."""
    if not columns.label_columns:
        return labels_in(values[columns.of_labels[0]][index], columns.label_separator)
    names = zip(_names_of_columns(columns), columns.label_columns, strict=True)
    return labels_marked({name: values[column][index] for name, column in names})


def _names_of_columns(columns: Columns) -> list[str]:
    return [whole_characters(name)[0].strip() for name in columns.label_columns]


def _in_order(name: str) -> tuple[int, str]:
    """Order names as strings, and numbers before them by their value."""
    return (int(name) if name.isdecimal() else sys.maxsize, name)


def _changed(values: Sequence[Any], change: Callable[[Any], Any]) -> tuple[list[Any], int]:
    """Change the values that are lists, and count those that became others."""
    result = [change(value) if isinstance(value, list | tuple) else value for value in values]
    return result, sum(new is not old for new, old in zip(result, values, strict=True))


def _joined(text: Sequence[Any]) -> Any:
    return " ".join(text) if all(isinstance(word, str) for word in text) else text


def _only(label: Sequence[Any]) -> Any:
    """The label in a list of one; none in an empty list. Several stay, and are refused later."""
    if len(label) > 1:
        return label
    return label[0] if label else None


def _whole(values: Sequence[Any]) -> tuple[list[Any], int]:
    """Replace the half characters of all strings among the values, and count them."""
    result, total = [], 0
    for value in values:
        if isinstance(value, str):
            value, halves = whole_characters(value)
            total += halves
        result.append(value)
    return result, total


def _refuse_merged(place: str, labels: Sequence[Any], whole: Sequence[Any]) -> None:
    """Refuse labels that only differ in half characters, and would become one class."""
    known: dict[Any, Any] = {}
    for label, name in zip(labels, whole, strict=True):
        if isinstance(label, str) and known.setdefault(name, label) != label:
            raise UserError(
                f"{place}: the labels {short(known[name])} and {short(label)} differ in half"
                " characters alone, which no file can hold; write them in another way"
            )


def join_tables(tables: Sequence[Table]) -> Table:
    """Join the rows of several files of one split, in order."""
    if len(tables) == 1:
        return tables[0]
    tables = read_by_own_names(tables)
    names = dict.fromkeys(name for table in tables for name in table.others)
    return Table(
        place=f"{tables[0].place} … {tables[-1].place}",
        texts=[text for table in tables for text in table.texts],
        labels=[label for table in tables for label in table.labels],
        rows=[row for table in tables for row in table.rows],
        typed=tables[0].typed,
        label_names=next((table.label_names for table in tables if table.label_names), None),
        notes=tuple(note for table in tables for note in table.notes),
        others={
            name: [
                cell
                for table in tables
                for cell in table.others.get(name, [None] * len(table.texts))
            ]
            for name in names
        },
        groups=None
        if tables[0].groups is None
        else [group for table in tables for group in table.groups or ()],
        multilabel=tables[0].multilabel,
    )


def each_label(table: Table) -> Iterator[Any]:
    """Give the labels of all rows one by one, also where a row has a list of them."""
    for label in table.labels:
        yield from label if isinstance(label, list | tuple) else (label,)


def read_by_own_names(tables: Sequence[Table], names: Sequence[str] = ()) -> list[Table]:
    """Match classes by name where the parts of a data set number them differently.

    Each part's whole numbers are replaced by that part's own class names. Parts that agree on the
    names, or carry none, stay as they are, unless another part writes the names themselves.

    Args:
        tables: the parts.
        names: class names that the user gives; of the same classes in another order, they are
            their order and no other names for the numbers.

    Raises:
        UserError: where a part has numbers without names while the others do not agree on theirs;
            for a number that has no name.
    """
    known = list(dict.fromkeys(table.label_names for table in tables if table.label_names))
    written = any(
        isinstance(label, str) and label.strip() in known[0]
        for table in tables
        if known and not table.label_names
        for label in each_label(table)
    )
    reordered = any(sorted(one) == sorted(names) and one != tuple(names) for one in known)
    clash = any(
        name.strip().isdecimal() and int(name) != number
        for names_of_part in known
        for number, name in enumerate(names_of_part)
    )
    if len(known) < 2 and not written and not reordered and not clash:
        return [_by_names_of(table, tables) for table in tables]
    union = tuple(dict.fromkeys(name for names in known for name in names))
    result = []
    for table in tables:
        if not table.label_names and any(isinstance(label, int) for label in each_label(table)):
            named = [next(t.place for t in tables if t.label_names == names) for names in known]
            others = f"{named[0]} and {named[1]} number" if len(named) > 1 else "other files name"
            how = " differently" if len(named) > 1 else " by numbers" if clash else ""
            raise UserError(
                f"{table.place}: its labels are numbers without names, and {others} their classes"
                f"{how}; write names in place of the numbers"
            )
        labels = [_by_name(table, index, label) for index, label in enumerate(table.labels)]
        result.append(replace(table, labels=labels, label_names=union))
    return result


def _by_names_of(table: Table, others: Sequence[Table]) -> Table:
    """Note it where the numbers of a table are read by the names of another part."""
    named = next((other for other in others if other.label_names), None)
    if table.label_names or named is None or named.label_names is None:
        return table
    known = {*named.label_names, str(NO_LABEL)}
    written = {str(label).strip() for label in each_label(table)} - known
    if not any(label.isdecimal() for label in written):
        return table
    note = f"{table.place}: its labels are numbers, which are read by the names of {named.place}"
    return replace(table, notes=(*table.notes, note))


def _by_name(table: Table, index: int, label: Any) -> Any:
    names = table.label_names
    if table.multilabel and isinstance(label, list):
        return [_by_name(table, index, one) for one in label]
    if names is None or isinstance(label, bool) or not isinstance(label, int) or label == NO_LABEL:
        return label
    if not 0 <= label < len(names):
        raise UserError(
            f"{table.where(index)}: the label {label} has no name; there are {len(names)}, from 0"
            f" to {len(names) - 1}"
        )
    return names[label]
