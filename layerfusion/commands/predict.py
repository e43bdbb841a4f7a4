"""`layerfusion predict` classifies new texts with the classifier that a job left."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfusion.assets.files import temporary_beside
from layerfusion.assets.paths import data_suffix
from layerfusion.commands.arguments import ArgumentParser
from layerfusion.config.imports import import_from
from layerfusion.config.registry import READERS
from layerfusion.errors import UserError, unknown
from layerfusion.texts.labels import clean_texts
from layerfusion.texts.readers import read_file
from layerfusion.texts.table import Columns, Table

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
    from layerfusion.runs.bundle import load_bundle

    bundle = load_bundle(
        options.bundle,
        device=options.device,
        cache=options.cache,
        models=_models(options.model),
        modules=_modules(options.config_dir),
    )
    column = options.text or bundle.config.dataset.text
    reader = bundle.config.dataset.reader
    texts = read_texts(Path(options.input), column, options.encoding, reader)
    table = as_table(texts, bundle.probabilities(texts), bundle.label_names)
    if out is None:
        table.to_csv(sys.stdout, index=False)
        return 0
    with temporary_beside(out) as temporary:
        _write(table, temporary, out.suffix)
    print(f"{len(texts)} texts: {out}", file=sys.stderr)
    return 0


def read_texts(
    path: Path, column: str, encoding: str = "utf-8", reader: str | None = None
) -> tuple[str, ...]:
    """Read the texts of a file without labels, and strip outer white space.

    Args:
        path: a table (csv, tsv, json, jsonl, parquet), or .txt with one text a line.
        column: column of the table that has the texts.
        encoding: encoding of a text file.
        reader: a function of the user's for files of any other suffix (see `read_file`).

    Raises:
        UserError: if the file cannot be read; the message names the file and the column or row.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    if path.suffix != LINES:
        reader = None if data_suffix(path) in READERS else reader
        table = read_file(path, Columns(column, None, {}), encoding=encoding, reader=reader)
        return clean_texts("predict", table)
    try:
        lines = path.read_text(encoding=encoding).splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not {encoding}; set --encoding, for example latin-1") from error
    rows = list(range(1, len(lines) + 1))
    return clean_texts("predict", Table(path.name, lines, [], rows, typed=False))


def as_table(texts: Sequence[str], probabilities: Any, label_names: Sequence[str]) -> DataFrame:
    """Build a table with columns text, label, probability (of that label), and `p(NAME)` by class.

    Args:
        texts: the texts, one for each row of the table.
        probabilities: probabilities of each class. Shape: (texts, classes).
        label_names: names of the classes.
    """
    import pandas

    best = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        "text": list(texts),
        "label": [label_names[k] for k in best],
        "probability": probabilities.max(axis=1, initial=0.0),
    }
    columns |= {f"p({name})": probabilities[:, k] for k, name in enumerate(label_names)}
    return pandas.DataFrame(columns)


def _write(table: DataFrame, path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")


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
    for place in places:
        if not place.is_dir():
            raise UserError(f"--config-dir {place}: there is no such folder")
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
