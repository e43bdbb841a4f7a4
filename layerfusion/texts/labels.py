"""Cleaning texts, and mapping labels to class indices and names."""

from __future__ import annotations

import itertools
import math
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from layerfusion.assets.files import parse_json
from layerfusion.config.options import as_option
from layerfusion.errors import Mendable, UserError, short
from layerfusion.texts.cells import (
    NO_LABEL,
    READ_SEVERAL,
    are_vectors,
    is_missing,
    joined_labels,
    numbers_of,
    written_list,
)
from layerfusion.texts.class_doubts import GAPS, alike_names, as_number, notes_on_names, written_out
from layerfusion.texts.encoding import refuse_no_text, whole_characters
from layerfusion.texts.split_files import LABELS_FILE
from layerfusion.texts.table import Table, each_label

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]+)?")
"""A number as a label. "01" is none: leading zeros are part of a name."""
_NO_TEXT = GAPS - {"-", "?", "-1", "unknown", "missing", "undefined", "nil", "na"}
"""Words of `GAPS` that no person writes as a text."""
_PRINTED_BYTES = re.compile(r"""b'.*'|b".*\"""", re.DOTALL)
"""Bytes as Python prints them."""
_REMOVE, _EMPTY = "remove them", "leave their cells empty"
"""What to do about rows without a label: those of a data set with one label a row, or several."""
_SHOWN = 10
"""At most this many names are listed in a message."""
_LONG = 60
"""At most this many characters of a name are."""


def clean_texts(split: str, table: Table) -> tuple[str, ...]:
    """Strip white space at both ends, and change nothing else.

    Raises:
        UserError: if a text is missing, empty or not a string, naming its row.
    """
    texts: list[str] = []
    for index, text in enumerate(table.texts):
        if text is None or text != text:
            raise UserError(f"{split}: {table.where(index)}: the text is missing")
        if not isinstance(text, str):
            kind = f"{type(text).__name__} {short(text)}"
            way_out = _entries(text, "dataset.text")
            raise UserError(
                f"{split}: {table.where(index)}: the text is no string but {kind}{way_out}"
            )
        stripped = text.strip()
        if not stripped:
            raise UserError(f"{split}: {table.where(index)}: the text is empty")
        texts.append(stripped)
    return tuple(texts)


def _entries(cell: Any, key: str) -> str:
    """Say how an entry of an object in a cell is named, where it is one."""
    if not isinstance(cell, dict) or not cell:
        return ""
    names = ", ".join(map(short, list(cell)[:4]))
    return f"; {key}=COLUMN.ENTRY takes an entry of the object: {names}"


def strange_texts(texts: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Note texts that hardly anybody wrote.

    These are what programs write for a missing value, bytes as Python prints them, and numbers
    alone in every row.

    Args:
        texts: split to its texts.
    """
    every = [text for part in texts.values() for text in part]
    notes = []
    if gaps := [text for text in every if text.casefold() in _NO_TEXT]:
        notes.append(
            f"{_many(gaps)} {gaps[0]!r} and the like; if that marks rows without a text, remove"
            " them"
        )
    if printed := [text for text in every if _PRINTED_BYTES.fullmatch(text)]:
        notes.append(
            f"{_many(printed)} bytes as Python prints them ({short(printed[0])}); decode them"
            " before they are written, as in text.decode()"
        )
    if every and all(as_number(text) is not None for text in every):
        notes.append(
            f"every text is a number ({short(every[0])}); is another column that of the texts?"
        )
    return tuple(notes)


def _many(texts: Sequence[str]) -> str:
    return "1 text is" if len(texts) == 1 else f"{len(texts):,} texts are"


Label = int | float | str
"""A class as found: a number, which is a float where it is not whole, or a stripped string."""


def read_label_names(path: Path) -> tuple[str, ...] | None:
    """Read the class names in `labels.json` beside the data: a list, or an object of index to name.

    Raises:
        UserError: if the file has another form.
    """
    file = (path if path.is_dir() else path.parent) / LABELS_FILE
    if not file.is_file():
        return None
    content = file.read_bytes()
    refuse_no_text(content, str(file))
    try:
        names = parse_json(content.removeprefix(BOM_UTF8))
        if isinstance(names, dict):
            if all(isinstance(value, int) for value in names.values()):
                names = {str(index): name for name, index in names.items()}
            names = [names[str(index)] for index in range(len(names))]
    except (ValueError, KeyError) as error:
        raise UserError(f"{file}: a list of names, or {{index: name}} from 0, is needed") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: a list of names, or {{index: name}} from 0, is needed")
    return tuple(names)


def class_indices(
    tables: Mapping[str, Table], names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray], tuple[str, ...]]:
    """Map the labels of all splits to indices of the classes that train has.

    Args:
        tables: split to table.
        names: names of integer labels, or the order of string labels. If none, strings are sorted,
            and numbers are sorted by value and named by their digits.

    Returns:
        The class names by index; split to indices, shape (rows,), int64; and notes on classes that
        a reader may not expect.

    Raises:
        UserError: if a label is missing, is no class or is unknown to train, or if there are fewer
            than two classes.
    """
    label_names, indices, notes = _indexed(tables, names, _REMOVE)
    if len(label_names) < 2:
        raise UserError(f"train has one label only ({_listed(label_names)}); two are needed")
    return label_names, indices, notes


def class_matrix(
    tables: Mapping[str, Table], names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray], tuple[str, ...]]:
    """Map the labels of all splits to those that train has, where a row has any number of them.

    Args:
        tables: split to table, whose labels are lists.
        names: as for `class_indices`.

    Returns:
        The label names by column; split to a matrix that is true where a row has a label, shape
        (rows, labels), bool; and notes on what a reader may not expect.

    Raises:
        UserError: as `class_indices` does, but for rows without a label.
    """
    tables, names, notes = _without_vectors(tables, names)
    flat = {split: _one_by_one(split, table) for split, table in tables.items()}
    if not flat["train"].labels:
        raise UserError("no row of train has a label")
    label_names, indices, doubts = _indexed(flat, names, _EMPTY)
    if len(label_names) < 2:
        raise UserError(
            f"train has one label only ({_listed(label_names)}); two are needed; where a text has"
            " it or not, that is a label of its own: write yes or no to a column, and name it by"
            " dataset.label without dataset.multilabel"
        )
    matrices = {}
    for split, table in tables.items():
        sizes = [len(labels or ()) for labels in table.labels]
        matrix = np.zeros((len(sizes), len(label_names)), dtype=bool)
        matrix[np.repeat(np.arange(len(sizes)), sizes), indices[split]] = True
        matrices[split] = matrix
    return label_names, matrices, (*notes, *doubts, *_notes_on_rows(flat, matrices))


def refuse_constant(labels: np.ndarray, names: Sequence[str]) -> None:
    """Refuse labels that every row of train has: nothing tells when a text does not have them.

    Args:
        labels: those of train, one a row or a matrix.
        names: of the labels.

    Raises:
        UserError: naming them.
    """
    always = [bool(column.all()) for column in labels.T] if labels.ndim == 2 else []
    if any(always):
        raise UserError(
            f"every row of train has {_listed(itertools.compress(names, always))}; a label can be"
            " learned from rows with it and rows without it, so leave it out, or add rows"
        )


def _without_vectors(
    tables: Mapping[str, Table], names: Sequence[str] | None
) -> tuple[Mapping[str, Table], Sequence[str] | None, tuple[str, ...]]:
    """Read rows of yes and no, one for each label, as the labels with a yes, and note it."""
    rows = [labels for table in tables.values() for labels in table.labels]
    if not are_vectors(rows):
        return tables, names, ()
    size = len(rows[0])
    if names is not None and len(names) != size:
        raise UserError(
            f"each row has {size} items of 0 and 1, one for each label, and there are {len(names)}"
            f" label names: {_listed(names)}"
        )
    note = f"labels: the {size} items of each row are read as yes or no for each of {size} labels"
    read = {
        split: replace(table, labels=[numbers_of(vector) for vector in table.labels])
        for split, table in tables.items()
    }
    return read, names or tuple(map(str, range(size))), (note,)


def _one_by_one(split: str, table: Table) -> Table:
    """Give each label of each row a row of its own, which has the name of that row."""
    for index, labels in enumerate(table.labels):
        share = next((one for one in labels or () if _is_share(one)), None)
        if share is not None:
            raise UserError(
                f"{split}: {table.where(index)}: {share} is a share of a label, which a row has or"
                " has not; write the labels that it has"
            )
        if table.label_names is not None and labels == [NO_LABEL]:
            raise UserError(
                f"{split}: {table.where(index)}: nothing says which labels it has (-1 and empty"
                " cells stand for that); remove it"
            )
    place = [index for index, labels in enumerate(table.labels) for _ in labels or ()]
    return replace(
        table,
        labels=[label for labels in table.labels for label in labels or ()],
        rows=[table.rows[index] for index in place],
        row_names=tuple(table.row_names[index] for index in place) if table.row_names else (),
    )


def _is_share(label: Any) -> bool:
    """Tell a number between those that name labels, as models give probabilities."""
    return isinstance(label, float) and math.isfinite(label) and not label.is_integer()


def _notes_on_rows(
    flat: Mapping[str, Table], matrices: Mapping[str, np.ndarray]
) -> tuple[str, ...]:
    """Notes on rows without a label, with one twice, and of which none has several."""
    sizes = {split: matrix.sum(axis=1) for split, matrix in matrices.items()}
    every = np.concatenate(list(sizes.values()))
    notes = []
    if none := int((every == 0).sum()):
        have = "1 text has" if none == 1 else f"{none:,} of {len(every):,} texts have"
        notes.append(f"labels: {have} none")
    if twice := sum(len(table.labels) for table in flat.values()) - int(every.sum()):
        stand = "1 label stands" if twice == 1 else f"{twice:,} labels stand"
        notes.append(f"labels: {stand} in a row that has it already, and counts once")
    notes += [
        f"{split}: none of its {len(found):,} rows has a label; if nothing says which they have,"
        f" leave {split} out"
        for split, found in sizes.items()
        if not found.any()
    ]
    if every.max() < 2:
        notes.append(
            "labels: no row has more than one; if they stand in one cell,"
            " dataset.label_separator takes them apart; if a text has one label at most, leave out"
            " dataset.multilabel"
        )
    return tuple(notes)


def _indexed(
    tables: Mapping[str, Table], names: Sequence[str] | None, way_out: str
) -> tuple[tuple[str, ...], dict[str, np.ndarray], tuple[str, ...]]:
    """Map labels, one a row, to indices of those that train has, as `class_indices` says it.

    Args:
        tables: split to table.
        names: as for `class_indices`.
        way_out: what to do about rows without a label.
    """
    labels = {split: _values(split, table) for split, table in tables.items()}
    if not _are_names(tables, labels):
        labels = _one_kind(labels, all(table.typed for table in tables.values()))
    _refuse_mixture(tables, labels)
    if names is None:
        order = sorted({value for values in labels.values() for value in values})  # type: ignore[type-var]
        named = {value: str(value) for value in order}
    else:
        named = _named(tables, labels, names)
    trained = set(labels["train"])
    for split, values in labels.items():
        strange = sorted({named[value] for value in values if value not in trained})
        if strange:
            known = _listed(named[value] for value in named if value in trained)
            gaps = any(name.casefold() in GAPS for name in strange)
            more = f"; if it marks rows without a label, {way_out}" if gaps else ""
            alike = alike_names([*strange, *(named[value] for value in trained)])
            if same := next((names for names in alike if set(names) & {*strange}), None):
                more += f"; if {' and '.join(map(written_out, same))} are one, write them the same"
            raise UserError(
                f"{split} has labels that train never has: {_listed(strange)};"
                f" train has: {known}{more}"
            )
    classes = [value for value in named if value in trained]
    index = {value: number for number, value in enumerate(classes)}
    indices = {
        split: np.fromiter((index[value] for value in values), np.int64, len(values))
        for split, values in labels.items()
    }
    label_names = tuple(named[value] for value in classes)
    empty = [named[value] for value in named if value not in trained]
    unseen = (f"labels: no row of train has {_listed(empty)}",) if empty else ()
    doubts = (
        *notes_on_names(label_names, way_out),
        *_of_one_row(tables["train"], labels["train"], named),
    )
    if not tables["train"].multilabel and (joined := _joined(label_names)):
        doubts += (f"labels: {joined}",)
    return label_names, indices, (*unseen, *doubts)


def _of_one_row(
    table: Table, labels: Sequence[Label], named: Mapping[Label, str]
) -> tuple[str, ...]:
    """Note the classes that one row has, as a sum at the foot of a table does."""
    times = Counter(labels)
    alone = [index for index, label in enumerate(labels) if times[label] == 1]
    if not alone:
        return ()
    shown = [f"{short(named[labels[index]])} ({table.where(index)})" for index in alone[:_SHOWN]]
    more = f", … ({len(alone)} in all)" if len(alone) > _SHOWN else ""
    have, way_out = "have", "if some are no classes, remove their rows"
    if len(alone) == 1:
        have, way_out = "has", "if it is no class, remove its row"
    return (f"labels: {', '.join(shown)}{more} {have} a single row in train; {way_out}",)


def _joined(names: Sequence[str]) -> str:
    """Say which class may be several labels, and how they are read; nothing where none seems so."""
    found = joined_labels(names)
    if found is None:
        return ""
    name, mark = found
    return (
        f"{short(name)} is one class; if it is several labels, {' and '.join(_apart(mark))} take"
        " them apart"
    )


def _apart(mark: str) -> tuple[str, str]:
    """The options that take labels apart which a mark stands between."""
    return "dataset.multilabel=true", as_option("dataset.label_separator", mark)


def without_unlabelled(tables: Mapping[str, Table]) -> tuple[dict[str, Table], tuple[str, ...]]:
    """Leave out a validation or test split none of whose rows has a label, and note it."""
    none: tuple[Any, ...] = (NO_LABEL, str(NO_LABEL))
    if any(label in none for label in each_label(tables["train"])):
        none = ()  # a class like any other

    def is_none(label: Any) -> bool:
        if tables["train"].multilabel and isinstance(label, list):
            return len(label) == 1 and label[0] in none
        return is_missing(label) or label in none

    kept = {
        split: table
        for split, table in tables.items()
        if split == "train" or not all(map(is_none, table.labels))
    }
    notes = tuple(
        f"{split}: left out, as none of its {len(tables[split].labels):,} rows has a label"
        + ("" if all(map(is_missing, tables[split].labels)) else f" ({NO_LABEL} stands for none)")
        for split in tables
        if split not in kept
    )
    return kept, notes


def _values(split: str, table: Table) -> list[Label]:
    """Every label as a number or a stripped string."""
    if not table.multilabel:
        _refuse_written_lists(split, table)
    values: list[Label] = []
    for index, label in enumerate(table.labels):
        if is_missing(label):
            strings = {one.strip() for one in table.labels if isinstance(one, str)}
            line = f"{split}: {table.where(index)}: the label is missing"
            found = None if table.multilabel else joined_labels(sorted(strings))
            if found is None:
                raise UserError(line)
            more = f"{_joined(sorted(strings))}, and an empty cell is none"
            raise Mendable(f"{line}; {more}", *_apart(found[1]))
        if isinstance(label, bool) and table.label_names is None:
            values.append(str(label))
        elif isinstance(label, str):
            values.append(label.strip())
        elif isinstance(label, int):
            values.append(int(label))
        elif isinstance(label, float) and math.isfinite(label):
            values.append(int(label) if label.is_integer() else label)
        elif isinstance(label, Decimal) and label.is_finite():
            values.append(int(label) if label == int(label) else float(label))
        elif isinstance(label, list | tuple):
            raise _several(split, table, index, label)
        else:
            raise UserError(
                f"{split}: {table.where(index)}: the label {short(label)} is no class; numbers,"
                f" strings and true or false are allowed{_entries(label, 'dataset.label')}"
            )
    return values


def _refuse_written_lists(split: str, table: Table) -> None:
    """Refuse texts that are lists of several labels, where a row has one.

    Lists of as many numbers in each row, such as `[0, 10]`, may be names of classes.
    """
    lists = {
        index: found
        for index, label in enumerate(table.labels)
        if isinstance(label, str) and (found := written_list(label.strip())) is not None
    }
    strings = any(isinstance(item, str) for found in lists.values() for item in found)
    alike = len(lists) == len(table.labels) and len(set(map(len, lists.values()))) == 1
    several = next((index for index, found in lists.items() if len(found) > 1), None)
    if several is not None and (strings or not alike):
        raise _several(split, table, several, lists[several])


def _several(split: str, table: Table, index: int, labels: Sequence[Any]) -> UserError:
    where = f"{split}: {table.where(index)}"
    if table.multilabel:
        return UserError(f"{where}: a label is a list itself: {short(labels)}")
    return UserError(
        f"{where}: it has {len(labels)} labels ({short(labels)}); one is needed; {READ_SEVERAL}"
    )


def _are_names(tables: Mapping[str, Table], labels: Mapping[str, list[Label]]) -> bool:
    """Tell labels that were matched by name: `"1"` is the name of a class, and no number of one."""
    strings = all(isinstance(value, str) for values in labels.values() for value in values)
    return strings and all(table.label_names for table in tables.values())


def _one_kind(found: dict[str, list[Label]], typed: bool) -> dict[str, list[Label]]:
    """Give labels that formats write differently one form, so that 1, 1.0 and "1" are one class.

    Strings of digits become numbers where all labels are numbers or such strings; not where every
    format could have held numbers and none did. `true` becomes what JSON's true is called.
    """
    values = {value for part in found.values() for value in part}
    strings = {value for value in values if isinstance(value, str)}
    digits = bool(strings) and all(_is_number(value) for value in strings)
    if digits and not (typed and len(strings) == len(values)):
        return {split: [_number(value) for value in part] for split, part in found.items()}
    if (
        len(strings) == len(values)
        and strings & {"True", "False"}
        and {value.lower() for value in strings} <= {"true", "false"}
    ):
        return {split: [str(value).capitalize() for value in part] for split, part in found.items()}
    return found


def _is_number(text: str) -> bool:
    """Tell whether a label is a number, and one that no rounding makes another."""
    return bool(_NUMBER.fullmatch(text)) and Decimal(str(_number(text))) == Decimal(text)


def _number(value: Label) -> Label:
    if not isinstance(value, str):
        return value
    number = Decimal(value)
    return int(number) if number == int(number) else float(number)


def _refuse_mixture(tables: Mapping[str, Table], labels: Mapping[str, list[Label]]) -> None:
    first: dict[bool, str] = {}
    for split, values in labels.items():
        for index, value in enumerate(values):
            if (kind := isinstance(value, str)) not in first:
                first[kind] = f"{short(value)} in {split} ({tables[split].where(index)})"
    if len(first) > 1:
        raise UserError(f"labels are numbers and strings at once: {' and '.join(first.values())}")


def _named(
    tables: Mapping[str, Table], labels: Mapping[str, list[Label]], names: Sequence[str]
) -> dict[Label, str]:
    """The value of each class to its name, in the order of the names."""
    names = [whole_characters(name)[0] for name in names]
    if len(set(names)) != len(names):
        raise UserError(f"the label names are not all different: {_listed(names)}")
    if not all(name.strip() for name in names):
        raise UserError(f"one of the label names is empty: {_listed(names)}")
    numbers = any(not isinstance(value, str) for values in labels.values() for value in values)
    named: dict[Label, str] = dict(enumerate(names)) if numbers else {n: n for n in names}
    numbered = {_number(name): name for name in names if _is_number(name)} if numbers else {}
    for split, values in labels.items():
        for index, value in enumerate(values):
            by_name = numbered.get(value) if tables[split].label_names is None else None
            if by_name is not None and by_name != named.get(value, by_name):
                raise UserError(
                    f"{split}: {tables[split].where(index)}: the label {value} is the name of one"
                    f" class and the number of another, as the names ({_listed(names)}) are numbers"
                    " themselves; write other names"
                )
            if value not in named:
                missing = " (-1 stands for no label)" if value == NO_LABEL else ""
                allowed = (
                    f"0 to {len(names) - 1} for {_listed(names)}" if numbers else _listed(names)
                )
                raise UserError(
                    f"{split}: {tables[split].where(index)}: the label {short(value)}{missing} has"
                    f" no name; there are: {allowed}"
                )
    return named


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f", … ({len(shown)} in all)" if len(shown) > _SHOWN else ""
    return ", ".join(_cut(name) for name in shown[:_SHOWN]) + more


def _cut(name: str) -> str:
    """A name as it stands, or its beginning."""
    return name if len(name) <= _LONG else f"{name[:_LONG]}…"
