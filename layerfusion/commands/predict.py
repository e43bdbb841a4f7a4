"""`layerfusion predict` classifies new texts with the classifier that a job left."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from layerfusion.assets.files import temporary_beside
from layerfusion.assets.paths import data_suffix
from layerfusion.commands.arguments import ArgumentParser
from layerfusion.config.imports import import_from
from layerfusion.config.registry import READERS
from layerfusion.errors import UserError, unknown
from layerfusion.texts.encoding import read_text
from layerfusion.texts.readers import names_column, read_file
from layerfusion.texts.table import Columns, Table, make_table

if TYPE_CHECKING:
    from pandas import DataFrame

OUTPUTS = (".csv", ".tsv", ".jsonl", ".parquet")
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
    out = None if options.out is None else Path(options.out)
    if out is not None and out.suffix not in OUTPUTS:  # checked before the work starts
        raise unknown("-o: suffix", out.suffix, OUTPUTS)
    if out is not None and not out.parent.is_dir():
        raise UserError(f"-o {out}: there is no folder {out.parent}")
    given = Path(options.input)
    if out is not None and out.exists() and given.exists() and out.samefile(given):
        raise UserError(f"-o {out}: this is the input itself; choose another file")
    from layerfusion.runs.bundle import load_bundle

    bundle = load_bundle(
        options.bundle,
        device=options.device,
        cache=options.cache,
        models=_models(options.model),
        modules=_modules(options.config_dir),
    )
    column = options.text or bundle.config.dataset.text
    table = read_table(given, column, options.encoding, bundle.config.dataset.reader)
    kept = [row for row, text in enumerate(table.texts) if _has_text(text)]
    probabilities = bundle.probabilities([table.texts[row].strip() for row in kept])
    frame = with_predictions(table, kept, probabilities, bundle.label_names)
    for note in table.notes:
        print(f"note: {note}", file=sys.stderr)
    for name in ("label", "probability"):
        if name in table.others:
            print(
                f"note: {given.name} has a column {name!r}; the new one is predicted_{name}",
                file=sys.stderr,
            )
    if len(kept) < len(table.texts):
        empty = len(table.texts) - len(kept)
        print(f"note: {empty:,} empty texts have no label", file=sys.stderr)
    if out is None:
        _write_csv(frame, sys.stdout)
        return 0
    with temporary_beside(out) as temporary:
        _write(frame, temporary, out.suffix)
    print(f"{len(table.texts)} texts: {out}", file=sys.stderr)
    return 0


def read_table(
    path: Path, column: str, encoding: str = "utf-8", reader: str | None = None
) -> Table:
    """Read texts without labels, with all columns that stand beside them.

    Args:
        path: a table (csv, tsv, json, jsonl, parquet), or a .txt file. A .txt file whose first line
            names the column of texts between delimiters is a table, as in training; any other has
            one text on each line.
        column: column of the table that has the texts.
        encoding: encoding of a text file.
        reader: a function of the user's for files of any other suffix (see `read_file`).

    Raises:
        UserError: if the file cannot be read; the message names the file and the column.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    columns = Columns(column, None, {}, keep_others=True, text_key="--text")
    if data_suffix(path) == LINES:
        content = read_text(path, encoding, "--encoding")
        if not names_column(content, column):
            lines = [line.removesuffix("\r") for line in content.split("\n")]
            lines = lines[:-1] if lines[-1] == "" else lines
            return make_table(path.name, {column: lines}, columns, typed=False)
    reader = None if data_suffix(path) in READERS else reader
    return read_file(path, columns, encoding=encoding, reader=reader)


def with_predictions(
    table: Table, kept: Sequence[int], probabilities: Any, label_names: Sequence[str]
) -> DataFrame:
    """Put the predictions beside the columns of a table.

    The new columns are label, probability (of that label), and `p(NAME)` by class. Where the table
    has a column of such a name, the new one is called `predicted_NAME`.

    Args:
        table: the rows, with all their columns.
        kept: the rows that have a text; the others get no label.
        probabilities: probabilities of each class for these rows. Shape: (rows, classes).
        label_names: names of the classes.
    """
    import pandas

    # Objects stay as they are: pandas would round large whole numbers beside a gap.
    frame = pandas.DataFrame(dict(table.others), dtype=object)
    best = probabilities.argmax(axis=1)
    new: dict[str, Any] = {
        "label": [label_names[k] for k in best],
        "probability": probabilities.max(axis=1, initial=0.0),
    }
    new |= {f"p({name})": probabilities[:, k] for k, name in enumerate(label_names)}
    rows = frame.index[list(kept)]
    for name, values in new.items():
        free = name if name not in frame else f"predicted_{name}"
        frame[free] = pandas.Series(values, index=rows)
    return frame


def _has_text(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


def _write(table: DataFrame, path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        import pyarrow

        try:
            table.to_parquet(path, index=False)
        except (pyarrow.ArrowException, OverflowError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"-o: a parquet file cannot hold these columns, choose .jsonl: {reason}"
            ) from error
    elif suffix == ".jsonl":
        with path.open("w", encoding="utf-8") as file:
            for row in table.astype(object).where(table.notna(), None).to_dict("records"):
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    else:
        _write_csv(table, path, "\t" if suffix == ".tsv" else ",")


def _write_csv(table: DataFrame, place: Path | TextIO, delimiter: str = ",") -> None:
    """Write a table; in quotation marks where a carriage return would else end a row too early."""
    cells = (cell for name in table for cell in (name, *table[name]))
    broken = any(isinstance(cell, str) and "\r" in cell for cell in cells)
    quoting = csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL
    table.to_csv(place, index=False, sep=delimiter, quoting=quoting)


def _models(given: Sequence[str]) -> dict[str, str]:
    models = {}
    for word in given:
        name, equals, folder = word.partition("=")
        if not equals:
            raise UserError(f"--model {word}: NAME=FOLDER is needed, such as minilm=models/minilm")
        models[name] = folder
    return models


def _modules(folders: Sequence[str]) -> list[str]:
    """Let the modules of some folders be imported, and return their names."""
    places = [Path(folder) for folder in folders]
    import_from(places)
    return [path.stem for place in places for path in place.iterdir() if path.stem.isidentifier()]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "layerfusion predict",
        description="Classify new texts with the classifier that a job left.",
    )
    parser.add_argument("bundle", metavar="JOB", help="folder of the job, or of its classifier")
    parser.add_argument("input", metavar="INPUT", help="a table, or a .txt with one text a line")
    parser.add_argument("-o", dest="out", metavar="OUT", help=f"output file: {', '.join(OUTPUTS)}")
    parser.add_argument(
        "--text", metavar="COLUMN", help="column of the texts; as in the job's data"
    )
    parser.add_argument("--encoding", default="utf-8")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--cache", metavar="FOLDER", help="folder of downloaded models")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="folder of a language model's files, if they are not where the job found them",
    )
    parser.add_argument(
        "--config-dir",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a folder of yours with the operator that the job was trained with",
    )
    return parser
