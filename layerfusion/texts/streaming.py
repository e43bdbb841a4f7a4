"""Texts without labels: a table as a whole, or in parts where it is large or still comes.

A small file is read whole, as in training. A larger one, and the standard input, is read in parts
of a few thousand rows by the same functions. What a whole file shows, a file is read for once more
before its first part is given: its columns, and the rules of its quotation marks.
"""

from __future__ import annotations

import json
import os
import re
import select
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from layerfusion.assets.paths import data_suffix, refuse_stream
from layerfusion.config.registry import BINARY, PACKED
from layerfusion.errors import UserError, short
from layerfusion.texts.class_files import header_note
from layerfusion.texts.columns import Columns
from layerfusion.texts.delimited import (
    Rows,
    Rules,
    first_rows,
    line_feeds,
    lines_of,
    settle_rules,
    streamed_rows,
)
from layerfusion.texts.encoding import (
    decoded,
    decoded_blocks,
    refuse_page,
)
from layerfusion.texts.fasttext import begins_fasttext, fasttext_table
from layerfusion.texts.form import (
    Form,
    begins_table,
    distinct_columns,
    form_of,
    refuse_headless,
    refuse_second_header,
)
from layerfusion.texts.json_tables import begins_json, object_of
from layerfusion.texts.packed import BLOCK, blocks_of, is_packed, unpacked
from layerfusion.texts.readers import delimited_table, json_table, read_file
from layerfusion.texts.reading import Reading
from layerfusion.texts.table import Changes, Table, make_table

STANDARD = "-"
"""What stands for the standard input or output in the place of a file."""
ENCODING_KEY = "--encoding"
LINES = ".txt"
"""Suffix of a file with one text on each line. All other files are tables."""
WHOLE = 64 << 20
"""Bytes of the largest file, unpacked, that is read whole."""
ROWS = 2048
"""Rows of a part."""
_SIZE = 8 << 20
"""Characters of a part, about, where its rows are long."""
_HEAD = 100_000
"""Characters that say how a file is read."""
_LINE = 64 << 20
"""Characters of the longest line."""
_IDLE = 0.2
"""Seconds after which what has come on the standard input is given as it is."""
_OBJECTS = (".json", ".jsonl", ".ndjson")
_JSON = re.compile(r'\s*(\[\s*[\[{]|\{\s*")')
"""How rows of JSON begin."""
_USUAL = {".csv": ",", ".tsv": "\t", ".tab": "\t"}

Item = TypeVar("Item")


class Parts:
    """The rows of a table in parts, in order.

    Args:
        place: what they are read from, for messages.
        tables: the parts, each with all of its columns.
        notes: gives the notes on all of them, once they are read.
    """

    def __init__(
        self, place: str, tables: Iterator[Table], notes: Callable[[], Sequence[str]]
    ) -> None:
        self._place = place
        self._tables = tables
        self._notes = notes

    def __iter__(self) -> Iterator[Table]:
        """Give part after part.

        Raises:
            UserError: if there is none, or one cannot be read.
        """
        first = next(self._tables, None)
        if first is None:
            raise UserError(f"{self._place}: no rows")
        yield first
        yield from self._tables

    @property
    def notes(self) -> list[str]:
        """Notes on how the table was read, whole only after its last part."""
        return list(self._notes())


def read_parts(
    name: str | Path, column: str, encoding: str = "utf-8", reader: str | None = None
) -> Parts:
    """Read texts without labels in parts. Arguments and errors are as for `read_table`.

    A file is refused before its first part where its rows cannot be read; the standard input at the
    row.
    """
    reading = _reading(column, encoding)
    if str(name) == STANDARD:
        return _of_standard_input(reading)
    path = Path(name)
    if reader is None and os.path.isfile(path):
        if data_suffix(path) == ".parquet":
            from layerfusion.texts.columnar import parquet_bytes, parquet_parts

            if parquet_bytes(path) > WHOLE:
                changes = Changes()
                tables, notes = parquet_parts(path, reading, ROWS, _SIZE, changes)
                return Parts(
                    path.name,
                    tables,
                    lambda: (*notes, *changes.notes(path.name, reading.columns)),
                )
        elif data_suffix(path) not in BINARY and _is_large(path):
            if data_suffix(path) != LINES:
                refuse_page(path)

            def lines() -> _Lines:
                texts = decoded_blocks(blocks_of(path), str(path), encoding, ENCODING_KEY)
                return _Lines(texts, str(path))

            parts = _of_lines(path, lines(), reading, data_suffix(path) or ".data", lines)
            if parts is not None:
                return parts
    return _in_parts(read_table(path, column, encoding, reader))


def one_text(text: str, column: str) -> Parts:
    """Give a single text the form of a table with one row."""
    columns = _reading(column, "utf-8").columns
    note = "there is no such file, so the words are taken as a text"
    return _in_parts(
        make_table("the command line", {column: [text]}, columns, typed=False, notes=(note,))
    )


def read_table(
    name: str | Path, column: str, encoding: str = "utf-8", reader: str | None = None
) -> Table:
    """Read texts without labels, with all columns that stand beside them.

    Args:
        name: a table (csv, tsv, json, jsonl, parquet), a .txt file, or `-` for the standard input.
            In the last two, a first line that names the column of texts begins a table, as in
            training, and an object begins rows of JSON; else there is one text on each line.
        column: column of the table that has the texts.
        encoding: encoding of a text file.
        reader: a function of the user's that reads the file (see `read_file`); none: by its suffix.

    Raises:
        UserError: if the file cannot be read; the message names the file and the column.
    """
    reading = _reading(column, encoding)
    if str(name) == STANDARD:
        place = Path("standard input")
        return _read_lines(place, decoded(standard_input(), str(place), encoding, ENCODING_KEY),
                           reading)  # fmt: skip
    path = Path(name)
    refuse_no_file(path)
    if data_suffix(path) == LINES:
        return _read_lines(path, reading.text(path), reading)
    return read_file(path, reading.columns, encoding=encoding, reader=reader)


def refuse_no_file(path: Path) -> None:
    """Refuse a folder, a pipe, and what does not exist.

    Raises:
        UserError: naming it.
    """
    if os.path.isdir(path):
        raise UserError(f"{path}: it is a folder; a file is needed")
    refuse_stream(path)
    if not os.path.isfile(path):  # a name may be longer than the system allows
        raise UserError(f"{path}: there is no such file")


def standard_input() -> bytes:
    """Read all of the standard input."""
    binary = getattr(sys.stdin, "buffer", None)  # none where a program put its own text there
    return sys.stdin.read().encode() if binary is None else binary.read()


def _reading(column: str, encoding: str) -> Reading:
    columns = Columns(
        column, None, {}, keep_others=True, text_key="--text", encoding_key=ENCODING_KEY
    )
    return Reading(columns, encoding, ())


def _read_lines(path: Path, content: str, reading: Reading) -> Table:
    """Read a text on each line, unless the first one begins a table."""
    column = reading.columns.text
    if begins_json(content):
        return json_table(path, content, reading.columns, lines=True)
    if begins_fasttext(content):
        return delimited_table(path, content, reading)
    if begins_table(content, column):
        table = delimited_table(path, content, reading)
        return replace(table, notes=(*table.notes, _table_note(path.name)))
    lines = lines_of(content)
    notes: tuple[str, ...] = ()
    if len(lines) > 1 and lines[0].strip() == column:
        lines = lines[1:]
        notes = (header_note(path.name, column),)
    return make_table(path.name, {column: lines}, reading.columns, typed=False, notes=notes)


def _in_parts(table: Table) -> Parts:
    """Give a table that was read whole in parts."""

    def parts() -> Iterator[Table]:
        for start in range(0, len(table.texts), ROWS):
            some = slice(start, start + ROWS)
            others = {name: column[some] for name, column in table.others.items()}
            yield replace(
                table, texts=table.texts[some], labels=table.labels[some], rows=table.rows[some],
                others=others,
            )  # fmt: skip

    return Parts(table.place, parts(), lambda: table.notes)


# -- where lines come from ----------------------------------------------------------------------


class _Lines:
    """The lines of a text that comes in blocks, each with its number, counted from 1.

    Args:
        blocks: the text; an empty block says that nothing more has come for now.
        place: the file, for messages.
    """

    def __init__(self, blocks: Iterator[str], place: str) -> None:
        self._blocks = blocks
        self._place = place
        self._lines: deque[str] = deque()
        self._rest = ""
        self._ended = False
        self._given = 0

    def head(self) -> str:
        """Give the beginning of the text, which stays to be read."""
        text = ""
        for block in self._blocks:
            text += block
            if len(text) >= _HEAD or (not block and "\n" in text):
                break
        self._blocks = chain([text], self._blocks)
        return text

    def rest(self) -> str:
        """Return what is left of the text after the lines that were given."""
        return "".join(self._blocks)

    def ready(self) -> bool:
        """Wait for a moment; return False if there is no whole line by then."""
        while not self._lines and not self._ended:
            if not self._take():
                return False
        return True

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self

    def __next__(self) -> tuple[int, str]:
        while not self._lines:
            if self._ended:
                raise StopIteration
            self._take()
        self._given += 1
        return self._given, self._lines.popleft()

    def _take(self) -> bool:
        """Take a block; return False if it is empty."""
        block = next(self._blocks, None)
        if block is None:
            self._ended = True
            self._lines.extend([self._rest] if self._rest else [])
            return True
        *lines, self._rest = (self._rest + block).split("\n")
        self._lines.extend(lines)
        if len(self._rest) > _LINE:
            line = self._given + len(self._lines) + 1
            raise UserError(f"{self._place}, line {line}: it has more than {_LINE:,} characters")
        return bool(block)


def _is_large(path: Path) -> bool:
    """Tell whether a file is larger than what is read whole, without reading more of it."""
    if path.suffix.lower() not in PACKED:
        return path.stat().st_size > WHOLE
    size = 0
    try:
        for block in blocks_of(path):
            size += len(block)
            if size > WHOLE:
                return True
    except UserError:
        pass  # said when it is read
    return False


def _of_standard_input(reading: Reading) -> Parts:
    place = Path("standard input")
    blocks = _standard_blocks()
    head, ended = b"", True
    for block in blocks:
        head += block
        if len(head) >= _HEAD or (not block and b"\n" in head):
            ended = False
            break
    if ended:
        return _in_parts(
            _read_lines(place, decoded(head, str(place), reading.encoding, ENCODING_KEY), reading)
        )
    blocks = chain([head], blocks)
    blocks = unpacked(blocks, str(place)) if is_packed(head) else blocks
    texts = decoded_blocks(blocks, str(place), reading.encoding, ENCODING_KEY)
    lines = _Lines(texts, str(place))
    parts = _of_lines(place, lines, reading, LINES, None)
    return parts or _in_parts(_read_lines(place, lines.rest(), reading))


def _standard_blocks() -> Iterator[bytes]:
    """Read the standard input as it comes; an empty block says that nothing has come for now."""
    binary = getattr(sys.stdin, "buffer", None)
    if binary is None:
        yield sys.stdin.read().encode()
        return
    try:
        waited = [binary.fileno()]
    except OSError:  # it lies in memory
        waited = []
    while True:
        if waited and not select.select(waited, [], [], _IDLE)[0]:
            yield b""
            continue
        block = binary.read1(BLOCK)
        if not block:
            return
        yield block


# -- what lines hold ----------------------------------------------------------------------------


def _of_lines(
    path: Path, lines: _Lines, reading: Reading, suffix: str, again: Callable[[], _Lines] | None
) -> Parts | None:
    """Read a text in parts, by the form that its beginning has.

    Args:
        path: the file, for messages.
        lines: its lines.
        reading: its columns.
        suffix: says the form; of `LINES` and of `_OBJECTS`, the beginning says it.
        again: gives its lines from the start once more; none where they come only once.

    Returns:
        None for a form that has to be read whole.
    """
    head = lines.head()[:_HEAD]
    if suffix in _OBJECTS or _JSON.match(head):
        if not _is_object(head.lstrip().partition("\n")[0]):
            return None
        return _of_objects(path, lines, reading, again)
    if "\n" not in head:
        return None
    labelled = begins_fasttext(head)
    if suffix == LINES and not labelled and not begins_table(head, reading.columns.text):
        return _of_texts(path, lines, reading)  # a progress bar has returns within a line
    if line_feeds(head) != head:
        return None
    if labelled:
        return _of_fasttext(path, lines, reading)
    parts = _of_rows(path, lines, head, reading, _USUAL.get(suffix), again)
    if suffix != LINES:
        return parts
    return Parts(path.name, iter(parts), lambda: (*parts.notes, _table_note(path.name)))


def _table_note(name: str) -> str:
    return f"{name}: read as a table, as its first line reads like the names of its columns"


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _gathered(
    items: Iterator[Item], size: Callable[[Item], int], ready: Callable[[], bool]
) -> Iterator[list[Item]]:
    """Gather items to parts: of `ROWS`, of about `_SIZE`, or of what has come by now."""
    part: list[Item] = []
    total = 0
    while True:
        if part and (len(part) == ROWS or total >= _SIZE or not ready()):
            yield part
            part, total = [], 0
        try:
            item = next(items)
        except StopIteration:
            break
        part.append(item)
        total += size(item)
    if part:
        yield part


def _of_texts(path: Path, lines: _Lines, reading: Reading) -> Parts:
    """Read a text on each line."""
    column, changes, notes = reading.columns.text, Changes(), []

    def texts() -> Iterator[str]:
        own = (line.removesuffix("\r") for _, line in lines)
        first, second = next(own, None), None
        if (
            first is not None
            and first.strip() == column
            and (second := next(own, None)) is not None
        ):
            notes.append(header_note(path.name, column))
            first = None
        yield from (line for line in (first, second) if line is not None)
        yield from own

    def tables() -> Iterator[Table]:
        for part in _gathered(texts(), len, lines.ready):
            yield make_table(
                path.name, {column: part}, reading.columns, typed=False, changes=changes
            )

    return Parts(path.name, tables(), lambda: (*notes, *changes.notes(path.name, reading.columns)))


def _of_fasttext(path: Path, lines: _Lines, reading: Reading) -> Parts:
    """Read fastText's form."""
    changes, notes = Changes(), []

    def tables() -> Iterator[Table]:
        some = (line for _, line in lines if line.strip())
        for part in _gathered(some, len, lines.ready):
            table = fasttext_table(path, "\n".join(part), reading.columns, changes)
            notes[:] = table.notes
            yield table

    return Parts(path.name, tables(), lambda: (*notes, *changes.notes(path.name, reading.columns)))


def _of_objects(
    path: Path, lines: _Lines, reading: Reading, again: Callable[[], _Lines] | None
) -> Parts:
    """Read an object a line.

    The columns are the keys of all rows, or of the first part's, where the lines come only once.
    """
    changes = Changes()

    def rows(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, int, dict[str, Any]]]:
        for number, line in lines:
            if line.strip():
                yield number, len(line), object_of(line, f"{path}, line {number}")

    names: dict[str, None] = {}
    if again is not None:
        for _, _, row in rows(again()):
            names.update(dict.fromkeys(row))

    def tables() -> Iterator[Table]:
        for part in _gathered(rows(lines), lambda row: row[1], lines.ready):
            if not names:
                names.update(dict.fromkeys(key for _, _, row in part for key in row))
            for number, _, row in part:
                if new := row.keys() - names.keys():
                    raise UserError(
                        f"{path}, line {number}: the key {short(min(new))} is in no row before;"
                        " write the rows to a file, all of which is looked through for its keys"
                    )
            values = {name: [row.get(name) for _, _, row in part] for name in names}
            yield make_table(path.name, values, reading.columns, typed=True, changes=changes)

    return Parts(path.name, tables(), lambda: changes.notes(path.name, reading.columns))


def _of_rows(
    path: Path,
    lines: _Lines,
    head: str,
    reading: Reading,
    usual: str | None,
    again: Callable[[], _Lines] | None,
) -> Parts:
    """Read the rows of a delimited file."""
    rules: list[Rules] = []
    start = [(number, line) for number, line in enumerate(head.split("\n"), start=1)][:-1]

    def data(form: Form, lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        skipped = set(form.skipped)
        return ((n, form.parted(line)) for n, line in lines if n - 1 not in skipped)

    def read(form: Form) -> Rows:
        rows, fit = first_rows([*data(form, start)], form.delimiter, headed=form.headed)
        rules[:] = [fit]
        return rows

    form, some = form_of(path, head, reading, usual, read)
    columns, hint = form.columns, ""
    if form.headed:
        refuse_second_header(path, some)
    if form.headed and not columns.are_in(some.names):
        refuse_headless(path, some, columns)
    names, renamed = distinct_columns(path, some.names, columns)
    if again is None:
        hint = "; a file may be read by other rules: write the rows to one"
    else:
        rules = [
            settle_rules(
                str(path), lambda: data(form, again()), form.delimiter, headed=form.headed,
                usual=rules[0],
            )
        ]  # fmt: skip
    changes = Changes()

    def tables() -> Iterator[Table]:
        rows = streamed_rows(
            str(path), data(form, lines), form.delimiter, rules[0], headed=form.headed, hint=hint
        )
        next(rows)  # the names
        before = 0
        for part in _gathered(rows, lambda row: sum(map(len, row.cells)), lines.ready):
            cells = Rows(some.names, [row.cells for row in part], [row.line for row in part])
            if form.headed:
                refuse_second_header(path, cells, before)
            before += len(part)
            values = {name: [row[n] for row in cells.cells] for n, name in enumerate(names)}
            found = make_table(path.name, values, columns, typed=False, changes=changes)
            yield replace(found, delimiter=form.own_delimiter)

    notes = (*form.notes(path.name, rules[0].note), *renamed)
    return Parts(path.name, tables(), lambda: (*notes, *changes.notes(path.name, columns)))
