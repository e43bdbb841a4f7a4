"""`layerfusion predict` classifies new texts with the classifier that a job left."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfusion.assets.files import write_atomically
from layerfusion.assets.paths import data_suffix
from layerfusion.commands.arguments import ArgumentParser
from layerfusion.commands.classifier import add_classifier, open_classifier, pairs, user_modules
from layerfusion.config.imports import require_named
from layerfusion.config.registry import BINARY, PACKED, READERS
from layerfusion.errors import UserError, unknown
from layerfusion.records.job import METRICS, PREDICTIONS
from layerfusion.texts.class_files import header_note
from layerfusion.texts.columns import Columns
from layerfusion.texts.delimited import lines_of
from layerfusion.texts.encoding import decoded, whole_characters
from layerfusion.texts.fasttext import begins_fasttext
from layerfusion.texts.readers import (
    Reading,
    begins_json,
    begins_table,
    delimited_table,
    json_table,
    read_file,
)
from layerfusion.texts.table import Table, make_table

if TYPE_CHECKING:
    from pandas import DataFrame

    from layerfusion.runs.bundle import Bundle, Explained

OUTPUTS = (".csv", ".tsv", ".jsonl", ".parquet")
GZ = ".gz"
"""A second suffix, for a file that gzip packs."""
STANDARD = "-"
"""What stands for the standard input or output in the place of a file."""
ENCODING_KEY = "--encoding"
LINES = ".txt"
"""Suffix of a file with one text on each line. All other files are tables."""


def main(arguments: Sequence[str]) -> int:
    """Read the texts, classify them and write a table.

    Returns:
        0 for success.

    Raises:
        UserError: for a missing file or column, an empty text or a damaged classifier.
    """
    options = _parser().parse_args(arguments)
    # Checked before the work starts.
    out = None if options.out in (None, STANDARD) else _output(options.out, options.input)
    modules = user_modules(options.config_dir)
    bundle = open_classifier(options, modules, options.device)
    bundle = _with_vectors(bundle, options)
    table = texts_in(options.input, options, bundle, modules)
    kept = [row for row, text in enumerate(table.texts) if has_text(text)]
    texts = [table.texts[row].strip() for row in kept]
    more: dict[str, Any] = {}
    if options.gates:
        explained = bundle.explain(texts)
        probabilities, more = explained.probabilities, _of_sources(bundle, explained)
    else:
        probabilities = bundle.probabilities(texts)
    frame, renamed = with_predictions(table, kept, probabilities, bundle.label_names, more)
    notes = [*table.notes]
    notes += [
        f"{table.place} has a column {old!r}; the new one is {new}" for old, new in renamed.items()
    ]
    notes += _unlabelled(table.texts, len(kept))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if out is None:
        _print(_content(frame, ".csv"))
        return 0
    content = _content(frame, data_suffix(out))
    write_atomically(out, gzip.compress(content) if out.suffix.lower() == GZ else content)
    texts = "1 text" if len(table.texts) == 1 else f"{len(table.texts):,} texts"
    print(f"{texts}: {out}", file=sys.stderr)
    return 0


def _with_vectors(bundle: Bundle, options: Namespace) -> Bundle:
    """Give a classifier the files of vectors that the user names, or else the input's own column.

    Raises:
        UserError: for a source that has no such file.
    """
    named = pairs("--vectors", options.vectors, "NAME=FILE", "paid=new.parquet")
    for name in bundle.unasked:
        table = options.input != STANDARD and data_suffix(Path(options.input)) != LINES
        if bundle.config.backbone[name].column and table:
            named.setdefault(name, options.input)
    for name, file in named.items():
        of_rows = Path(file).suffix.lower() == ".npy"
        rows = options.input if of_rows else None
        bundle = bundle.with_vectors(name, file, rows=rows, text=options.text or "")
    return bundle


def _of_sources(bundle: Bundle, explained: Explained) -> dict[str, Any]:
    """Make the columns of each source: its gate, and the label that it gives alone."""
    columns: dict[str, Any] = {}
    if explained.gates is not None:
        columns |= {f"gate({x})": explained.gates[:, k] for k, x in enumerate(bundle.layers)}
    best = explained.alone.argmax(axis=2)
    names = bundle.label_names
    return columns | {
        f"alone({x})": [names[row] for row in best[:, k]] for k, x in enumerate(bundle.layers)
    }


def _unlabelled(texts: Sequence[Any], kept: int) -> list[str]:
    """Note how many rows have no label, as they have no text."""
    strange = sum(text is not None and text == text and not isinstance(text, str) for text in texts)
    empty = len(texts) - kept - strange
    notes = ["1 empty text has no label" if empty == 1 else f"{empty:,} empty texts have no label"]
    if strange:
        notes.append(f"rows whose text is no string have no label: {strange:,}")
    return notes if empty else notes[1:]


def _output(name: str, given: str) -> Path:
    """Check the output file, and that it is not the input under another name."""
    out = Path(name)
    packed = out.suffix.lower() in PACKED
    wrong = packed and (out.suffix.lower() != GZ or data_suffix(out) in BINARY)
    if data_suffix(out) not in OUTPUTS or wrong:
        raise unknown("-o: suffix", "".join(out.suffixes[-2:]) if packed else out.suffix,
                      [*OUTPUTS, *(f"{suffix}{GZ}" for suffix in OUTPUTS[:-1])])  # fmt: skip
    if out.is_dir():
        raise UserError(f"-o {out}: it is a folder; a file is needed")
    if not out.parent.is_dir():
        raise UserError(f"-o {out}: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise UserError(f"-o {out}: you may not write to the folder {out.parent}")
    if not out.exists():
        return out
    if given == STANDARD:
        same = os.path.samestat(os.fstat(0), out.stat())
    else:
        same = Path(given).exists() and out.samefile(given)
    if out.name == PREDICTIONS and (out.parent / METRICS).exists():
        raise UserError(
            f"-o {out}: these are the job's own predictions of test; choose another file"
        )
    if same:
        raise UserError(f"-o {out}: this is the input itself; choose another file")
    return out


def add_reading(parser: ArgumentParser) -> None:
    """Add the arguments that say how `texts_in` reads a file of texts."""
    parser.add_argument(
        "--text", metavar="COLUMN", help="column of the texts; as in the job's data"
    )
    parser.add_argument("--encoding", default="utf-8", help="of the texts; utf-8 if none")


def texts_in(name: str, options: Namespace, bundle: Bundle, modules: Sequence[str]) -> Table:
    """Read a file of texts as the job of a classifier read its own, unless options say otherwise.

    Args:
        name: the file, as for `read_table`.
        options: the arguments of `add_reading`.
        bundle: the classifier.
        modules: modules of the user's that the job's function for reading files may come from.

    Raises:
        UserError: if the file cannot be read, or by a function that the user has not named.
    """
    settings = bundle.config.dataset
    reader = settings.reader if _needs_reader(name) else None
    if reader is not None:
        require_named("dataset.reader", reader, modules)
    return read_table(name, options.text or settings.text, options.encoding, reader)


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
    columns = Columns(
        column, None, {}, keep_others=True, text_key="--text", encoding_key=ENCODING_KEY
    )
    reading = Reading(columns, encoding, ())
    if str(name) == STANDARD:
        place = Path("standard input")
        return _read_lines(place, decoded(standard_input(), str(place), encoding, ENCODING_KEY),
                           reading)  # fmt: skip
    path = Path(name)
    if path.is_dir():
        raise UserError(f"{path}: it is a folder; a file is needed")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if data_suffix(path) == LINES:
        return _read_lines(path, reading.text(path), reading)
    return read_file(path, columns, encoding=encoding, reader=reader)


def _read_lines(path: Path, content: str, reading: Reading) -> Table:
    """Read a text on each line, unless the first one begins a table."""
    column = reading.columns.text
    if begins_json(content):
        return json_table(path, content, reading.columns, lines=True)
    if begins_fasttext(content) or begins_table(content, column):
        return delimited_table(path, content, reading)
    lines = lines_of(content)
    notes: tuple[str, ...] = ()
    if len(lines) > 1 and lines[0].strip() == column:
        lines = lines[1:]
        notes = (header_note(path.name, column),)
    return make_table(path.name, {column: lines}, reading.columns, typed=False, notes=notes)


def standard_input() -> bytes:
    """Read all of the standard input."""
    binary = getattr(sys.stdin, "buffer", None)  # none where a program put its own text there
    return sys.stdin.read().encode() if binary is None else binary.read()


def _needs_reader(name: str) -> bool:
    return name != STANDARD and data_suffix(Path(name)) not in READERS


def with_predictions(
    table: Table,
    kept: Sequence[int],
    probabilities: Any,
    label_names: Sequence[str],
    more: Mapping[str, Any] | None = None,
) -> tuple[DataFrame, dict[str, str]]:
    """Put the predictions beside the columns of a table.

    The new columns are label, probability (of that label), and `p(NAME)` by class. Where the table
    has a column of such a name, the new one is called `predicted_NAME`, or `predicted_NAME_2`.

    Args:
        table: the rows, with all their columns.
        kept: the rows that have a text; the others get no label.
        probabilities: probabilities of each class for these rows. Shape: (rows, classes).
        label_names: names of the classes.
        more: further columns by name, with a value for each of these rows.

    Returns:
        The table, and the usual name of each new column to the one that it got instead.
    """
    import pandas

    # Objects, so that a column of numbers with a gap keeps its whole numbers.
    frame = pandas.DataFrame(dict(table.others), dtype=object)
    best = probabilities.argmax(axis=1)
    new: dict[str, Any] = {
        "label": [label_names[k] for k in best],
        "probability": probabilities.max(axis=1, initial=0.0),
    }
    new |= {f"p({name})": probabilities[:, k] for k, name in enumerate(label_names)}
    new |= more or {}
    rows = frame.index[list(kept)]
    renamed = {}
    for name, values in new.items():
        free, number = name, 1
        while free in frame:
            free = f"predicted_{name}" if number == 1 else f"predicted_{name}_{number}"
            number += 1
        if free != name:
            renamed[name] = free
        frame[free] = pandas.Series(values, index=rows)
    return frame, renamed


def has_text(text: Any) -> bool:
    """Return True for a string that is not blank."""
    return isinstance(text, str) and bool(text.strip())


def _content(frame: DataFrame, suffix: str) -> bytes:
    """Write a table in one of the forms of `OUTPUTS`."""
    if suffix == ".parquet":
        return _parquet(frame)
    if suffix == ".jsonl":
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
        text, index=False, sep="\t" if suffix == ".tsv" else ",", lineterminator="\r\n"
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


def _parquet(frame: DataFrame) -> bytes:
    import pyarrow

    content = io.BytesIO()
    try:
        frame.to_parquet(content, index=False)
    except (pyarrow.ArrowException, UnicodeEncodeError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"-o: a column holds values that parquet cannot keep together ({reason}); choose .jsonl"
        ) from error
    return content.getvalue()


def _print(content: bytes) -> None:
    """Write to the standard output in UTF-8, whatever the terminal's encoding."""
    binary = getattr(sys.stdout, "buffer", None)  # none where a program put its own text there
    if binary is None:
        sys.stdout.write(content.decode())
        return
    binary.write(content)
    binary.flush()


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "layerfusion predict",
        description="Classify new texts with the classifier that a job left.",
    )
    add_classifier(parser)
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a table, a .txt with one text a line, or - for the standard input",
    )
    parser.add_argument(
        "-o",
        dest="out",
        metavar="OUT",
        help=f"output file: {', '.join(OUTPUTS)}, also with .gz; - or none prints csv",
    )
    add_reading(parser)
    parser.add_argument(
        "--vectors",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="vectors of a source that come from a file: a table, or a .npy of INPUT's rows",
    )
    parser.add_argument(
        "--gates",
        action="store_true",
        help="for each source, also its gate and the label that it gives alone",
    )
    return parser
