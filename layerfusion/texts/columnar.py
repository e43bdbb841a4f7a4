"""Reading parquet and Arrow files, and data sets that the `datasets` library saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfusion.assets.files import parse_json
from layerfusion.assets.paths import data_suffix
from layerfusion.config.options import as_option
from layerfusion.config.registry import READERS
from layerfusion.errors import UserError, library_errors, short
from layerfusion.texts.columns import Columns, find_column
from layerfusion.texts.encoding import refuse_no_text
from layerfusion.texts.form import distinct_columns
from layerfusion.texts.nested import column_of_path
from layerfusion.texts.reading import Reading
from layerfusion.texts.split_names import parts_by_word, split_columns
from layerfusion.texts.table import Changes, Table, make_table

if TYPE_CHECKING:
    import pyarrow

PARTS, FILES = SAVED = ("dataset_dict.json", "state.json")
"""Files that say of a folder that `save_to_disk` of the `datasets` library wrote it."""

_END = b"\xff\xff\xff\xff\0\0\0\0"
"""The end of an Arrow stream, a message of no bytes. Each of its messages begins as this one."""
FEW = 20
"""Rows that are read where a column is missing, to say what lies inside the others."""
_SHOWN = 4
"""At most this many files are named in a note."""


def read_parquet(path: Path, reading: Reading) -> Table:
    """Read the columns that are needed from a parquet file."""
    import pyarrow.parquet

    _refuse_others(path, b"PAR1", "parquet")
    with _faults(path, "parquet"):
        file = pyarrow.parquet.ParquetFile(path)
    names, notes = distinct_columns(path, file.schema_arrow.names, reading.columns)
    needed = _needed(names, reading.columns)
    with _faults(path, "parquet"):
        if needed is None:
            batches = list(file.iter_batches(FEW))[:1]
            read = pyarrow.Table.from_batches(batches, file.schema_arrow)
        else:
            read = file.read(columns=None if reading.columns.keep_others else needed)
    return _table(path, "parquet", read, names, reading.columns, notes)


def parquet_bytes(path: Path) -> int:
    """Size of a parquet file's cells before they were compressed, as the file says.

    Raises:
        UserError: if it is no parquet file.
    """
    import pyarrow.parquet

    _refuse_others(path, b"PAR1", "parquet")
    with _faults(path, "parquet"):
        groups = pyarrow.parquet.read_metadata(path)
        return sum(groups.row_group(n).total_byte_size for n in range(groups.num_row_groups))


def parquet_parts(
    path: Path, reading: Reading, rows: int, size: int, changes: Changes
) -> tuple[Iterator[Table], tuple[str, ...]]:
    """Read a parquet file in parts.

    Args:
        path: the file.
        reading: its columns.
        rows: most rows of a part.
        size: about as many bytes of it, uncompressed, at most.
        changes: counts what was changed in the rows.

    Returns:
        The parts, and notes on the file.

    Raises:
        UserError: naming what is wrong, as `read_parquet` does.
    """
    import pyarrow
    import pyarrow.parquet

    with _faults(path, "parquet"):
        file = pyarrow.parquet.ParquetFile(path)
    schema = file.schema_arrow
    names, notes = distinct_columns(path, schema.names, reading.columns)
    if _needed(names, reading.columns) is None:
        read_parquet(path, reading)  # which says what there is
    mean = parquet_bytes(path) / max(1, file.metadata.num_rows)
    rows = max(1, min(rows, int(size / max(1.0, mean))))
    # Whether bytes are strings is a fact about the whole column.
    binary = [n for n, column in enumerate(schema) if _is_binary(column.type)]
    strings = set(binary)
    with _faults(path, "parquet"):
        for batch in (
            file.iter_batches(rows, columns=[schema.names[n] for n in binary]) if binary else ()
        ):
            found = {
                schema.names.index(name): column
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            }
            strings -= {n for n, column in found.items() if _utf8(column) is None}

    def parts() -> Iterator[Table]:
        with _faults(path, "parquet"):
            for batch in file.iter_batches(rows):
                columns = [
                    _utf8(column) if n in strings else column
                    for n, column in enumerate(batch.columns)
                ]
                read = pyarrow.Table.from_arrays(columns, list(names))
                read = read.replace_schema_metadata(schema.metadata)
                yield _table(path, "parquet", read, names, reading.columns, (), changes)

    return parts(), notes


def read_arrow(path: Path, reading: Reading) -> Table:
    """Read an Arrow file: a stream, as the `datasets` library writes, or one with a footer."""
    import pyarrow

    _refuse_others(path, b"ARROW1")
    with path.open("rb") as file:
        begin = file.read(6)
    _refuse_cut(path)
    with _faults(path, "arrow"), pyarrow.memory_map(str(path)) as mapped:
        opened = pyarrow.ipc.open_file if begin == b"ARROW1" else pyarrow.ipc.open_stream
        read = opened(mapped).read_all()
        names, notes = distinct_columns(path, read.schema.names, reading.columns)
        needed = _needed(names, reading.columns)
        if needed is None:
            read = read.slice(0, FEW)
        elif not reading.columns.keep_others:
            read = read.select([names.index(name) for name in needed])
        # Offsets that point anywhere would crash the process that follows them.
        read.validate(full=True)
        return _table(path, "arrow", read, names, reading.columns, notes)


def _needed(names: Sequence[str], columns: Columns) -> list[str] | None:
    """The columns that are needed for those that are named, or for parts of them.

    Where rows have labels, a column that may say their split is looked at too.

    Returns:
        None where one is missing. A few rows of all columns then say what there is.
    """
    found = [find_column(name, names) or column_of_path(name, names) for name in columns.named]
    also = split_columns(names) if columns.of_labels else []
    return None if None in found else [name for name in names if name in (*found, *also)]


def _table(
    path: Path,
    kind: str,
    read: pyarrow.Table,
    names: Sequence[str],
    columns: Columns,
    notes: Sequence[str],
    changes: Changes | None = None,
) -> Table:
    """Take the cells out of what was read. Columns that were not read have no cells.

    With `changes`, it is a part of a file, whose bytes were made strings where that can be.
    """
    with _faults(path, kind):
        read_columns = map(_as_written if changes else _as_strings, read.columns)
        cells = [column.to_pylist() for column in read_columns]
    found = names if len(cells) == len(names) else read.column_names
    values: dict[str, Any] = dict.fromkeys(names, ())
    values |= dict(zip(found, cells, strict=True))
    label = columns.label and (find_column(columns.label, names) or columns.label)
    label_names = _written_names(read.schema.metadata or {}, label)
    return make_table(path.name, values, columns, typed=True, label_names=label_names, notes=notes,
                      changes=changes)  # fmt: skip


def _as_strings(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Read bytes as UTF-8, as which some programs write their strings; others stay bytes."""
    found = _utf8(column) if _is_binary(column.type) else None
    return _as_written(column) if found is None else found


def _as_written(column: pyarrow.ChunkedArray) -> pyarrow.ChunkedArray:
    """Make numbers of half or single precision those that are written alike: 0.1 stays 0.1."""
    import pyarrow

    if not (pyarrow.types.is_float16(column.type) or pyarrow.types.is_float32(column.type)):
        return column
    precise = np.float16 if pyarrow.types.is_float16(column.type) else np.float32
    written = [None if x is None else float(str(precise(x))) for x in column.to_pylist()]
    return pyarrow.chunked_array([pyarrow.array(written, pyarrow.float64())])


def _is_binary(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _utf8(column: Any) -> Any:
    """Read a column of bytes as strings; none if they are not UTF-8."""
    import pyarrow

    try:
        return column.cast(pyarrow.large_string())
    except pyarrow.ArrowInvalid:
        return None


def _written_names(metadata: Mapping[bytes, bytes], label: str | None) -> tuple[str, ...] | None:
    """Read the class names that the `datasets` library writes into its files."""
    try:
        features = parse_json(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return None
    return _class_names(features, label)


def _class_names(features: Any, label: str | None) -> tuple[str, ...] | None:
    """The class names of a column, also one of lists or one inside of another column."""
    found = features
    whole = isinstance(features, Mapping) and label in features
    for step in [label] if whole else str(label).split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    if isinstance(found, Mapping) and isinstance(found.get("feature"), Mapping):
        found = found["feature"]
    names = found.get("names") if isinstance(found, Mapping) else None
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if named and names else None


def _refuse_others(path: Path, but: bytes, kind: str = "") -> None:
    """Refuse a file that is of another kind than its name says, such as a Git LFS pointer.

    Args:
        path: the file.
        but: what files of the right kind begin with.
        kind: the right kind, if all its files begin so.
    """
    with path.open("rb") as file:
        begin = file.read(512)
    refuse_no_text(begin, str(path), but=but)
    if kind and begin and not begin.startswith(but):
        raise UserError(f"{path}: it is no {kind} file; it begins with {short(begin[:20])}")


def _refuse_cut(path: Path) -> None:
    """Refuse an Arrow file without its end: a stream may be cut between two batches of rows."""
    with path.open("rb") as file:
        begin = file.read(6)
        file.seek(max(0, path.stat().st_size - 8))
        end = file.read()
    ends = {b"ARROW1": b"ARROW1", _END[:4]: _END}
    if any(begin.startswith(one) and not end.endswith(last) for one, last in ends.items()):
        raise UserError(
            f"{path}: it lacks its end, as of a download that was cut; fetch or write it again"
        )


@contextmanager
def _faults(path: Path, kind: str) -> Iterator[None]:
    """Refuse a file that pyarrow cannot read.

    Besides its own errors, it raises Python's: for a string that is not UTF-8, for a date that
    Python does not know, for what is too large.
    """
    with library_errors(f"{path}: not readable as {kind}"):
        yield


# -- saved data sets ----------------------------------------------------------------------------


def is_saved(folder: Path) -> bool:
    """Tell a folder that `save_to_disk` of the `datasets` library wrote."""
    return any((folder / name).is_file() for name in SAVED)


def saved_parts(folder: Path) -> dict[str, Any]:
    """Open a data set that `datasets` saved.

    Returns:
        Name of each part to the part; one without parts is called `train`.

    Raises:
        UserError: if it cannot be opened.
    """
    import datasets

    _refuse_gaps(folder)
    for file in sorted(folder.rglob("*.arrow")):
        _refuse_others(file, b"ARROW1")
        _refuse_cut(file)
    with library_errors(f"{folder}: not readable as a saved data set"):
        saved: Any = datasets.load_from_disk(str(folder))
    if isinstance(saved, Mapping):
        return {str(name): part for name, part in saved.items()}
    return {"train": saved}


def _refuse_gaps(folder: Path) -> None:
    """Refuse a saved data set without a file, or a part, that its own list names."""
    for file, names in _listed(folder).items():
        for name in names:
            if not (file.parent / name).exists():
                raise UserError(
                    f"{file.parent}: {file.name} names {name}, which is not there; fetch it, or"
                    " save the data set again"
                )


def not_in_saved(folder: Path) -> tuple[str, ...]:
    """Note what lies in a saved data set and is not read, as its own list does not name it."""
    notes = []
    for file, names in _listed(folder).items():
        above, of_parts = file.parent, file.name == PARTS
        kind = is_saved if of_parts else _is_rows
        left = [one.name for one in sorted(above.iterdir()) if one.name not in names and kind(one)]
        if left:
            are = "is" if len(left) == 1 else "are"
            way_out = f"; {_by_splits(above, [*names, *left])}" if of_parts else ""
            notes.append(
                f"{', '.join(left[:_SHOWN])} in {above} {are} not used, as {file.name} names others"
                f"{way_out}"
            )
    return tuple(notes)


def _by_splits(folder: Path, names: Sequence[str]) -> str:
    """The settings that read the folders of splits one by one."""
    found = parts_by_word(names)
    words = [as_option(f"dataset.{split}", str(folder / one[0])) for split, one in found.items()]
    return f"{' '.join(words)} would use these"


def _is_rows(file: Path) -> bool:
    """Tell rows from what `datasets` keeps of its own work beside them, and from facts."""
    rows = data_suffix(file) in READERS and data_suffix(file) != ".json"
    return rows and not file.name.startswith((".", "_", "cache-", "tmp"))


def _listed(folder: Path) -> dict[Path, list[str]]:
    """The lists of a saved data set and of its parts, to the names that each has.

    One that cannot be read is left out, as `datasets` says what is wrong with it.
    """
    found = {}
    try:
        if (folder / PARTS).is_file():
            parts = parse_json((folder / PARTS).read_bytes())["splits"]
            found[folder / PARTS] = [str(name) for name in parts]
        for above in [folder / name for name in found.get(folder / PARTS, [""])]:
            if (above / FILES).is_file():
                files = parse_json((above / FILES).read_bytes())["_data_files"]
                found[above / FILES] = [str(file["filename"]) for file in files]
    except (ValueError, KeyError, TypeError):
        return found
    return found


def saved_table(place: str, part: Any, columns: Columns) -> Table:
    """Read the wanted columns of a part of a saved data set."""
    plain = part.with_format(None)  # whatever tensors the part was saved to give
    values: dict[str, Any] = dict.fromkeys(plain.column_names, ())
    with library_errors(f"{place}: not readable as a saved data set"):
        needed = _needed(plain.column_names, columns)
        plain.data.table.select(needed or plain.column_names).validate(full=True)
        rows = plain if needed is not None else plain.select(range(min(FEW, len(plain))))
        for column in needed or plain.column_names:
            values[column] = rows[column][:]
        features = plain.features.to_dict()
    names = _class_names(features, columns.label)
    return make_table(place, values, columns, typed=True, label_names=names)
