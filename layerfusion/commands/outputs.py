"""Tables that are written part by part: printed, or to a file that a killed run goes on with.

The parts lie in `OUT.partial`, beside a journal, `OUT.partial.jsonl`: a line that says what they
depend on, and one for each part with the hash of the rows of the input. The same command reads the
input again, passes over the parts that are there, and goes on after them. The file gets its name
once it is whole.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfusion.assets.files import disk_errors_told, sync_folder, temporary_beside
from layerfusion.assets.paths import data_suffix
from layerfusion.errors import UserError
from layerfusion.texts.encoding import whole_characters

if TYPE_CHECKING:
    import pyarrow
    from pandas import DataFrame

    from layerfusion.texts.table import Table

GZ = ".gz"
"""A second suffix, for a file that gzip packs."""
COMMA, TAB = ",", "\t"
_MADE = "layerfusion predict"
"""Stands in the first line of a journal."""
_GROUP_ROWS, _GROUP_BYTES = 1 << 16, 64 << 20
"""Rows and bytes of a row group of parquet, at least, the last one aside."""


class Printed:
    """Parts of a table that are printed as csv, with the delimiter of the input."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._begun = False
        self._delimiter = COMMA

    def __enter__(self) -> Printed:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def has(self, number: int, table: Table) -> bool:
        """Return False: a part that was printed cannot be looked up."""
        self._delimiter = table.delimiter or COMMA
        return False

    def add(self, frame: DataFrame) -> None:
        """Print a part in UTF-8, whatever the terminal's encoding."""
        content = encoded(frame, self._delimiter, header=not self._begun)
        self._begun = True
        binary = getattr(sys.stdout, "buffer", None)  # none where a program put its own text there
        if binary is None:
            sys.stdout.write(content.decode())
            return
        binary.write(content)
        binary.flush()

    def finish(self) -> None:
        """Do nothing: all parts are printed."""


class Partial:
    """Parts of a table that become a file.

    Args:
        out: the file.
        identity: everything that the parts depend on, besides the rows of the input.
    """

    def __init__(self, out: Path, identity: Mapping[str, Any]) -> None:
        self.notes: list[str] = []
        self._out = out
        self._data = out.with_name(f"{out.name}.partial")
        self._journal = out.with_name(f"{out.name}.partial.jsonl")
        self._identity = dict(identity)
        self._parts: list[dict[str, Any]] = []
        self._asked = ""
        self._delimiter = ""
        self._going_on = False
        self._listed = False
        self._journal_end = 0
        self._lock: int | None = None
        self._schema: pyarrow.Schema | None = None

    def __enter__(self) -> Partial:
        """Take what an earlier run has left."""
        if self._journal.exists():
            self._take_lock()
            self._read_journal()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the parts for the next run of the same command."""
        if self._lock is not None:
            os.close(self._lock)

    def has(self, number: int, table: Table) -> bool:
        """Tell whether the part of this number is there; if not, those after it are left out.

        Args:
            number: of the part, from 0.
            table: the rows of the input that it is made of.
        """
        self._delimiter = self._form(table)
        self._asked = _digest(table, self._delimiter)
        if number < len(self._parts) and self._parts[number]["of"] == self._asked:
            return True
        if number < len(self._parts):
            del self._parts[number:]
            self._tell("is of other rows", "is of other rows after these")
        elif not self._going_on:
            self._tell("", "had them")
        self._going_on = True
        return False

    def _form(self, table: Table) -> str:
        """Return what stands between the cells of the file; nothing where it has none.

        A csv has the delimiter of the file that it is made of, for the program that wrote that one.
        A tab is taken over only if that file says .csv too: .tsv to .csv is a wish for commas.
        """
        suffix = data_suffix(self._out)
        if suffix == ".tsv":
            return TAB
        if suffix != ".csv":
            return ""
        other = table.delimiter == TAB and data_suffix(Path(table.place)) != suffix
        return COMMA if other else table.delimiter or COMMA

    def _tell(self, anew: str, kept: str) -> None:
        """Say what stayed of an earlier run."""
        if rows := sum(part["rows"] for part in self._parts):
            many = "the first row is" if rows == 1 else f"the first {rows:,} rows are"
            self.notes.append(f"{many} of an earlier run; {self._data} {kept}")
        elif anew:
            self.notes.append(f"{self._data} {anew}: started anew")

    def add(self, frame: DataFrame) -> None:
        """Add the part that `has` was asked for last, so that it outlives a kill."""
        if data_suffix(self._out) == ".parquet":
            content = self._arrow(frame)
        else:
            content = encoded(frame, self._delimiter, header=not self._parts)
            # A member of its own for each part, without the time, so that the file stays the same.
            content = gzip.compress(content, mtime=0) if self._out.suffix.lower() == GZ else content
        with disk_errors_told(self._out.parent):
            if self._lock is None:
                self._take_lock()
            end = self._parts[-1]["end"] if self._parts else 0
            if not self._listed:
                # Parts of another identity are gone before the journal has the new one: a kill
                # while it is written may leave their lines below it, and nothing else would tell.
                if self._data.exists():
                    _write_end(self._data, end)
                entries = [{"made by": _MADE, **self._identity}, *self._parts]
                self._write(0, b"".join(map(_line, entries)))
                self._listed = True
            self._data.touch()
            _write_end(self._data, end, content)
            self._parts.append({"of": self._asked, "rows": len(frame), "end": end + len(content)})
            self._write(self._journal_end, _line(self._parts[-1]))

    def finish(self) -> None:
        """Give the file its name."""
        if not self._going_on:
            self._tell("", "had them")
        with disk_errors_told(self._out.parent):
            if self._out.is_dir():
                raise UserError(f"{self._out}: a folder lies where a file is written")
            if data_suffix(self._out) == ".parquet":
                with temporary_beside(self._out) as temporary:
                    self._write_parquet(temporary)
                self._data.unlink()
            else:
                os.truncate(self._data, self._parts[-1]["end"])
                self._data.replace(self._out)
            self._journal.unlink()
            sync_folder(self._out.parent)

    def _take_lock(self) -> None:
        """Lock the journal as long as this process writes it.

        Raises:
            UserError: if another one does, or the file is not a journal.
        """
        while True:
            lock = os.open(self._journal, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(lock)
                raise UserError(
                    f"-o {self._out}: another `layerfusion predict` writes it; wait, or choose"
                    " another file"
                ) from error
            if os.fstat(lock).st_nlink:
                self._lock = lock
                break
            os.close(lock)  # the other one has finished and removed it
        begin = self._journal.read_bytes()[:100]
        ours = begin.startswith(_line({"made by": _MADE})[:-2]) or not begin
        if not ours or (not begin and self._data.exists()):
            raise UserError(
                f"{self._journal if begin else self._data}: `layerfusion predict` would write its"
                " parts there; move the file elsewhere"
            )

    def _read_journal(self) -> None:
        """Read the parts that are whole, if they are of the same classifier and options."""
        lines = self._journal.read_bytes().split(b"\n")[:-1]
        try:
            first, *parts = [json.loads(line) for line in lines] or [{}]
        except ValueError:
            first, parts = {}, []
        size = self._data.stat().st_size if self._data.exists() else 0
        if first == {"made by": _MADE, **self._identity}:
            self._parts = [part for part in parts if part["end"] <= size]
        elif parts:
            self._tell("is of another classifier or of other options", "")

    def _write(self, at: int, content: bytes) -> None:
        """Write at a place of the journal, and let it end there."""
        _write_end(self._journal, at, content)
        self._journal_end = at + len(content)

    # -- parquet ---------------------------------------------------------------------------------

    def _arrow(self, frame: DataFrame) -> bytes:
        """Give a part as a stream of Arrow's, from which parquet is made at the end."""
        import pyarrow

        content = io.BytesIO()
        with _parquet_errors():
            table = pyarrow.Table.from_pandas(frame, preserve_index=False)
            self._schema = _united(self._schema, table.schema)
            with pyarrow.ipc.new_stream(content, table.schema) as writer:
                writer.write_table(table)
        return content.getvalue()

    def _tables(self) -> Iterator[pyarrow.Table]:
        import pyarrow

        start = 0
        with self._data.open("rb") as file:
            for part in self._parts:
                file.seek(start)
                with pyarrow.ipc.open_stream(file.read(part["end"] - start)) as reader:
                    yield reader.read_all()
                start = part["end"]

    def _write_parquet(self, path: Path) -> None:
        """Write the parts in row groups, each column with the one type that all parts can have."""
        import pyarrow
        import pyarrow.parquet

        schema: Any = None
        with _parquet_errors():
            for table in self._tables():
                schema = _united(schema, table.schema)
            with pyarrow.parquet.ParquetWriter(path, schema) as writer:
                group: list[pyarrow.Table] = []
                for table in self._tables():
                    group.append(_with_schema(table, schema))
                    rows = sum(one.num_rows for one in group)
                    if rows >= _GROUP_ROWS or sum(one.nbytes for one in group) >= _GROUP_BYTES:
                        _write_group(writer, group)
                        group = []
                if group:
                    _write_group(writer, group)


def _digest(table: Table, delimiter: str) -> str:
    """Hash the rows of a table, with all columns, and a delimiter of the output that is unusual."""
    digest = hashlib.sha256(b"" if delimiter in ("", COMMA, TAB) else delimiter.encode())
    for name, column in table.others.items():
        digest.update(f"{name!r}\0{list(column)!r}\n".encode(errors="backslashreplace"))
    return digest.hexdigest()


def _write_end(path: Path, at: int, content: bytes = b"") -> None:
    """Cut a file off at a place, and write its new end, so that it outlives a kill."""
    with path.open("r+b") as file:
        file.truncate(at)
        file.seek(at)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


@contextmanager
def _parquet_errors() -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"-o: a column holds values that parquet cannot keep together ({reason}); choose .jsonl"
        ) from error


def _united(first: pyarrow.Schema | None, second: pyarrow.Schema) -> pyarrow.Schema:
    """Give each column a type that holds the values of both parts."""
    import pyarrow

    if first is None or first.equals(second):
        return second if first is None else first
    united = pyarrow.unify_schemas([first, second], promote_options="permissive")
    # Pandas' notes on the columns are taken from the part that has the united types.
    source = second if united.types == second.types else first
    return united.with_metadata(source.metadata)


def _with_schema(table: pyarrow.Table, schema: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow

    columns = []
    for field, column in zip(schema, table.columns, strict=True):
        try:
            columns.append(column.cast(field.type))
        except pyarrow.ArrowNotImplementedError:  # objects whose keys differ between the parts
            columns.append(pyarrow.chunked_array([pyarrow.array(column.to_pylist(), field.type)]))
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _write_group(writer: Any, tables: list[pyarrow.Table]) -> None:
    import pyarrow

    table = pyarrow.concat_tables(tables).combine_chunks()
    writer.write_table(table, row_group_size=max(1, table.num_rows))


# -- csv and JSON -------------------------------------------------------------------------------


def encoded(frame: DataFrame, delimiter: str, *, header: bool) -> bytes:
    """Write rows as a table, or as an object a line.

    Args:
        frame: the rows.
        delimiter: what stands between the cells; nothing for objects.
        header: begin with the names of the columns, where there are cells.
    """
    if not delimiter:
        return _json_lines(frame)
    import pandas

    # Pandas would make floats of whole numbers with a gap among them, if it chose the types.
    cells = {
        name: [_cell(value) for value in column] if column.dtype == object else column
        for name, column in frame.items()
    }
    text = _LineFeeds(newline="")
    # With this end of a line, the writer also quotes cells that hold a carriage return.
    pandas.DataFrame(cells, index=frame.index, dtype=object).to_csv(
        text,
        index=False,
        header=header,
        sep=delimiter,
        lineterminator="\r\n",
    )
    return text.getvalue().encode()


class _LineFeeds(io.StringIO):
    """Takes a row at a time, and ends it with a line feed."""

    def write(self, row: str, /) -> int:
        return super().write(row.removesuffix("\r\n") + "\n")


def _cell(value: Any) -> Any:
    """Write a list or an object in a cell as JSON does."""
    if not isinstance(value, list | dict):
        return value
    return whole_characters(json.dumps(value, ensure_ascii=False, default=str))[0]


def _json_lines(frame: DataFrame) -> bytes:
    """Write an object a line. What JSON has no form for, such as a date, is written as a string."""
    lines = []
    for row in frame.astype(object).where(frame.notna(), None).to_dict("records"):
        line = json.dumps(row, ensure_ascii=False, default=str)
        lines.append(whole_characters(line)[0])  # a list in a cell may hold half characters
    return "".join(f"{line}\n" for line in lines).encode()
