"""`layerfusion predict` classifies new texts with the classifier that a job left."""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfusion import __version__
from layerfusion.assets.paths import data_suffix
from layerfusion.commands.arguments import ArgumentParser, pairs
from layerfusion.commands.classifier import add_classifier, open_classifier, user_modules
from layerfusion.commands.outputs import GZ, Partial, Printed
from layerfusion.config.imports import require_named
from layerfusion.config.registry import BINARY, PACKED, READERS
from layerfusion.errors import UserError, unknown
from layerfusion.records.job import METRICS, PREDICTIONS
from layerfusion.records.label_words import SEPARATOR, can_be_joined
from layerfusion.texts.streaming import (
    LINES,
    STANDARD,
    Parts,
    one_text,
    read_parts,
    read_table,
    refuse_no_file,
)
from layerfusion.texts.table import Table

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

    from layerfusion.runs.bundle import Bundle

OUTPUTS = (".csv", ".tsv", ".jsonl", ".parquet")
TABLES = (".csv", ".tsv")
"""Forms in whose cells the labels of a text are joined; the others hold lists."""
WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""A letter of a script that has no space between words: Thai, Lao, Burmese, Khmer, Japanese and
Chinese."""


def main(arguments: Sequence[str]) -> int:
    """Read the texts, classify them and write a table.

    Returns:
        0 for success.

    Raises:
        UserError: for a missing file or column, an empty text or a damaged classifier.
    """
    options = _parser().parse_args(arguments)
    # Checked before the work starts, and before torch is imported for it.
    if options.input != STANDARD and not _is_text(options.input):
        refuse_no_file(Path(options.input))
    out = None if options.out in (None, STANDARD) else _output(options.out, options.input)
    modules = user_modules(options.config_dir)
    bundle = open_classifier(options, modules, options.device)
    bundle = with_vectors(bundle, options)
    parts = parts_in(options.input, options, bundle, modules)
    output = Printed() if out is None else Partial(out, _identity(bundle, options, out))
    from layerfusion.runs.bundle import counted_together

    form = TABLES[0] if out is None else data_suffix(out)
    between = _separator(bundle) if bundle.multilabel and form in TABLES else None
    counts, renamed, place = Counts(bundle.multilabel), dict[str, str](), ""
    with output, counted_together() as tallies:
        for number, table in enumerate(parts):
            kept = counts.add(table.texts)
            if not output.has(number, table):
                frame, renamed = _classified(
                    bundle, table, kept, gates=options.gates, separator=between
                )
                output.add(frame)
            place = table.place
        output.finish()
    notes = [*parts.notes, *output.notes]
    notes += [f"{place} has a column {old!r}; the new one is {new}" for old, new in renamed.items()]
    notes += counts.notes()
    notes += [
        f"{name} reads {'1 text' if tally.cut == 1 else f'{tally.cut:,} texts'} up to its longest"
        " length, and not to the end"
        for name, tally in tallies.items()
        if tally.cut
    ]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if out is not None:
        texts = "1 text" if counts.texts == 1 else f"{counts.texts:,} texts"
        print(f"{texts}: {out}", file=sys.stderr)
    return 0


def _identity(bundle: Bundle, options: Namespace, out: Path) -> dict[str, Any]:
    """Name everything that the rows of an output depend on, besides the rows of the input."""
    from layerfusion.runs.bundle_files import bundle_identity

    return {
        "classifier": bundle.folder and bundle_identity(bundle.folder),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "layerfusion": __version__,
        "options": [
            options.text,
            options.encoding,
            options.gates,
            options.device,
            options.vectors,
            options.endpoint,
        ],
        "vectors": {name: bundle.identity_of_vectors(name) for name in _named_vectors(options)},
        "form": data_suffix(out),
    }


def _named_vectors(options: Namespace) -> dict[str, str]:
    """Return the files of vectors that the user names, by the source that takes them."""
    return pairs("--vectors", options.vectors, "NAME=FILE", "paid=new.parquet")


def _separator(bundle: Bundle) -> str | None:
    """Return what stands between the labels of a text in a cell.

    It is what the job's own labels were cut at, so that its data and its answers are read alike.

    Returns:
        None if a cell could then be read in two ways, as one of the labels holds the separator or
        looks like a list: the cells are lists of JSON.
    """
    separator = getattr(bundle.config.dataset, "label_separator", None) or SEPARATOR
    return separator if can_be_joined(tuple(bundle.label_names), separator) else None


def _classified(
    bundle: Bundle, table: Table, kept: Sequence[int], *, gates: bool, separator: str | None
) -> tuple[DataFrame, dict[str, str]]:
    """Classify the rows of a table, and put the answers beside its columns.

    Args:
        bundle: the classifier.
        table: the rows.
        kept: the rows that have a text.
        gates: whether what each source says is wanted too.
        separator: joins several labels of a text in a cell. None for lists, and for the one label
            that a text has.

    Returns:
        As `with_columns`. The new columns are label; probability, that of this label, where a text
        has one; `p(NAME)` by class; and for each source its gate and the label that it gives alone.
    """
    texts = [table.texts[row].strip() for row in kept]

    def cells(probabilities: np.ndarray) -> list[Any]:
        labels: list[Any] = list(bundle.labels_of(probabilities))
        return labels if separator is None else [separator.join(several) for several in labels]

    more: dict[str, Any] = {}
    if gates:
        explained = bundle.explain(texts)
        probabilities = explained.probabilities
        if explained.gates is not None:
            more |= {f"gate({x})": explained.gates[:, k] for k, x in enumerate(bundle.layers)}
        more |= {f"alone({x})": cells(explained.alone[:, k]) for k, x in enumerate(bundle.layers)}
    else:
        probabilities = bundle.probabilities(texts)
    new: dict[str, Any] = {"label": cells(probabilities)}
    if not bundle.multilabel:
        new["probability"] = probabilities.max(axis=1, initial=0.0)
    new |= {f"p({name})": probabilities[:, k] for k, name in enumerate(bundle.label_names)}
    return with_columns(table, kept, new | more)


def with_vectors(bundle: Bundle, options: Namespace) -> Bundle:
    """Give a classifier the files of vectors that the user names, or else the input's own column.

    Raises:
        UserError: for a source that has no such file.
    """
    named = _named_vectors(options)
    for name in bundle.unasked:
        table = options.input != STANDARD and data_suffix(Path(options.input)) != LINES
        if bundle.config.backbone[name].column and table:
            named.setdefault(name, options.input)
    for name, file in named.items():
        of_rows = Path(file).suffix.lower() == ".npy"
        rows = options.input if of_rows else None
        bundle = bundle.with_vectors(name, file, rows=rows, text=options.text or "")
    return bundle


@dataclass
class Counts:
    """Counts of texts, and of those that get no label."""

    multilabel: bool = False
    """Whether no label is an answer too, which a text that is missing does not have."""
    texts: int = 0
    empty: int = 0
    strange: int = 0

    def add(self, texts: Sequence[Any]) -> list[int]:
        """Count texts, and return the places of those that are to be classified."""
        kept = [row for row, text in enumerate(texts) if has_text(text)]
        strange = sum(
            text is not None and text == text and not isinstance(text, str) for text in texts
        )
        self.texts += len(texts)
        self.strange += strange
        self.empty += len(texts) - len(kept) - strange
        return kept

    def notes(self) -> list[str]:
        """Note how many rows have no answer, as they have no text."""
        one, many = "has no label", "have no label"
        if self.multilabel:
            one, many = "is not classified", "are not classified"
        notes = []
        if self.empty == 1:
            notes.append(f"1 empty text {one}")
        elif self.empty:
            notes.append(f"{self.empty:,} empty texts {many}")
        if self.strange:
            notes.append(f"rows whose text is no string {many}: {self.strange:,}")
        return notes


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
        same = os.path.exists(given) and out.samefile(given)
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
    parser.add_argument("--encoding", default="utf-8", help="of the texts; by default utf-8")


def add_vectors(parser: ArgumentParser) -> None:
    """Add the argument that `with_vectors` reads."""
    parser.add_argument(
        "--vectors",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="vectors of a source that come from a file: a table, or a .npy of INPUT's rows",
    )


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
    return read_table(*_how(name, options, bundle, modules))


def parts_in(name: str, options: Namespace, bundle: Bundle, modules: Sequence[str]) -> Parts:
    """Read the same in parts. Arguments and errors are as for `texts_in`.

    Words that are no file are a text themselves.
    """
    if _is_text(name):
        return one_text(name, options.text or bundle.config.dataset.text)
    return read_parts(*_how(name, options, bundle, modules))


def _how(
    name: str, options: Namespace, bundle: Bundle, modules: Sequence[str]
) -> tuple[str, str, str, str | None]:
    """Give the arguments of `read_table`."""
    settings = bundle.config.dataset
    reader = settings.reader if _needs_reader(name) else None
    if reader is not None:
        require_named("dataset.reader", reader, modules)
    return name, options.text or settings.text, options.encoding, reader


def _is_text(name: str) -> bool:
    """Tell a text of several words from the name of a file that is not there."""
    named = data_suffix(Path(name)) in (*READERS, LINES)
    words = len(name.split()) > 1 or (WITHOUT_SPACES.search(name) and os.sep not in name)
    return bool(words) and not named and not os.path.exists(name)


def _needs_reader(name: str) -> bool:
    return name != STANDARD and data_suffix(Path(name)) not in READERS


def with_columns(
    table: Table, kept: Sequence[int], new: Mapping[str, Any]
) -> tuple[DataFrame, dict[str, str]]:
    """Put new columns beside those of a table.

    Where the table has a column of such a name, the new one is called `predicted_NAME`, or
    `predicted_NAME_2`.

    Args:
        table: the rows, with all their columns.
        kept: the rows that have a value in the new columns.
        new: the new columns by name, with a value for each of these rows.

    Returns:
        The table, and the usual name of each new column to the one that it got instead.
    """
    import pandas

    # Objects, so that a column of numbers with a gap keeps its whole numbers.
    frame = pandas.DataFrame(dict(table.others), dtype=object)
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


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "layerfusion predict",
        description="Classify new texts with the classifier that a job left.",
    )
    add_classifier(parser)
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a table, a .txt with one text a line, - for the standard input, or a text of several"
        " words",
    )
    parser.add_argument(
        "-o",
        dest="out",
        metavar="OUT",
        help=f"output file: {', '.join(OUTPUTS)}, also with .gz; - or none prints csv",
    )
    add_reading(parser)
    add_vectors(parser)
    parser.add_argument(
        "--gates",
        action="store_true",
        help="for each source, also its gate and the label that it gives alone",
    )
    return parser
