"""Tables of nasty texts and labels, and writers of files of them that are not LayerFusion's."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from hypothesis import strategies as st

from layerfusion.config.registry import BINARY

NASTY = (
    '"', '""', "'", ",", ";", "\t", "|", "\n", "\r\n", "\r", "\\", '\\"', "\n\n", "\u2028",
    "\u2029", "\x85", "\v", "\f", "\x1c", "\x1e", "\xa0", "\u3000", "\u200b", "\ufeff", "#", "é",
    "漢", "🎬", "e\u0301", "=1+1", "NaN", "null", "{", "}", "[", "]", " ", "  ", "a", "film", "1",
    "text", "label", "pos", "\ufffd", "\x7f", "\x01", "https://x.y/?a=b&c=d", "x" * 70,
)  # fmt: skip
"""Pieces of cells that formats treat in a way of their own."""
LABELS = (
    ("pos", "neg"), ("nan", "none", "null"), ("None", "nan"), ("1", "2"), ("1.0", "2.0"),
    ("0", "1", "-1"), ("no", "yes"), ("true", "false"), ("True", "False"), ("TRUE", "true"),
    (" spaced ", "spaced out"), ("１", "２"), ("1２", "12"), ("١", "٢"), ("01", "1"), 
    ("1e3", "1000"), ("a,b", "a;b", "a\tb"), ('"', "'"),
    ('say "a"', "b"), ("é", "e\u0301"), ("Spam", "spam", "ham"),
    ("NA", "N/A"), ("-", "?"), ("inf", "-inf"), ("0x1", "1_000"), ("a\u2028b", "a\x85c"),
    ("x" * 120, "y"), ("9007199254740993", "9007199254740992"), ("+1", "1"), ("-0", "0", "1"),
    ("0.1", "0.10000000000000000001"), ("1.5", "1.50", "2"), ("漢", "字"), ("a b", "a  b"),
    ("a\nb", "a\nc"), ("#1", "#2"), ("=1", "@2"), ("\ufeffa", "a"), ("12345678901234567", "1"),
)  # fmt: skip
"""Sets of labels, each of a table of its own."""
TEXT_NAMES = (
    "text",
    "review",
    "the text",
    "te,xt",
    "te;xt",
    'te"xt',
    "tëxt",
    "te\u2028xt",
    "te\nxt",
)
LABEL_NAMES = ("label", "stars", "la|bel", "Label", "label\x85", "lab\tel")
OTHERS = ("", "id", "text2", "label.1", "a,b", 'a"b', "a\nb", "meta.x", "0", "note", "é", "a\vb")

cells = st.lists(st.sampled_from(NASTY) | st.text('ab ,"\n\t', max_size=3), max_size=6).map("".join)
texts = st.tuples(st.sampled_from(("a", "film", '"', "é")), cells, cells).map(
    lambda parts: parts[1] + parts[0] + parts[2]
)


@dataclass(frozen=True)
class Made:
    """A table as it was made, before any format."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text: str
    label: str

    def column(self, name: str) -> list[str]:
        """All cells of the first column of a name."""
        place = self.names.index(name)
        return [row[place] for row in self.rows]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Text and label of every row."""
        return list(zip(self.column(self.text), self.column(self.label), strict=True))

    @property
    def reasons(self) -> list[str]:
        """Why a reader may refuse the content, whatever the format."""
        found = []
        if any(not text.strip() for text in self.column(self.text)):
            found.append("empty text")
        labels = [label.strip() for label in self.column(self.label)]
        if not all(labels):
            found.append("missing label")
        if (
            sum(not any(same_label(a, b) for b in set(labels[:n])) for n, a in enumerate(labels))
            < 2
        ):
            found.append("one class")
        return found


@st.composite
def made_tables(draw: st.DrawFn, *, gaps: bool = True, most: int = 8) -> Made:
    """A table with its columns in any order, some of them doubled."""
    text, label = draw(st.sampled_from(TEXT_NAMES)), draw(st.sampled_from(LABEL_NAMES))
    if draw(st.booleans()):
        text, label = "text", "label"
    others = draw(st.lists(st.sampled_from(OTHERS), max_size=3))
    names = draw(st.permutations([text, label, *others]))
    known = draw(st.sampled_from(LABELS))
    rows = []
    for number in range(draw(st.integers(2, most))):
        row = {
            text: draw(texts),
            label: known[number % len(known)] if number < 2 else draw(st.sampled_from(known)),
        }
        if gaps and draw(st.integers(0, 30)) == 0:
            row[draw(st.sampled_from((text, label)))] = draw(st.sampled_from(("", " ", "\n")))
        rows.append(tuple(row[name] if name in row else draw(cells) for name in names))
    return Made(tuple(names), tuple(rows), text, label)


def same_label(name: str, label: str) -> bool:
    """Tell whether a class may have this name where the file has this label.

    Outer white space means nothing, numbers are compared by value, and true by its letters.
    """
    name, label = name.strip(), label.strip()
    if name == label or name.lower() == label.lower() in ("true", "false"):
        return True
    return is_number(name) and is_number(label) and Decimal(name) == Decimal(label)


def is_number(label: str) -> bool:
    """Tell a number in plain digits from a name; leading zeros are part of a name."""
    digits = label.removeprefix("-")
    whole, _, part = digits.partition(".")
    ascii_digits = whole.isascii() and whole.isdigit() and (not part or part.isdigit())
    return ascii_digits and (whole == "0" or not whole.startswith("0"))


# -- writers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A way to write a file."""

    name: str
    suffix: str
    write: Callable[[Made], bytes]
    encoding: str = "utf-8"
    delimiter: str = ","

    def __repr__(self) -> str:
        return f"{self.name}{self.suffix}"


def by_csv(delimiter: str, quoting: Any, end: str, encoding: str) -> Callable[[Made], bytes]:
    def write(made: Made) -> bytes:
        rows = [made.names, *made.rows]
        # Without quotation marks, a carriage return at the end of a row is a part of its end.
        ends = any(row[-1].endswith("\r") for row in rows)
        out = io.StringIO(newline="")
        writer = csv.writer(
            out, delimiter=delimiter, quoting=csv.QUOTE_ALL if ends else quoting, lineterminator=end
        )
        writer.writerows(rows)
        return out.getvalue().encode(encoding)

    return write


def by_pandas(delimiter: str) -> Callable[[Made], bytes]:
    def write(made: Made) -> bytes:
        frame = pd.DataFrame(list(made.rows), columns=list(made.names))
        return str(frame.to_csv(index=False, sep=delimiter)).encode()

    return write


def by_pyarrow(delimiter: str) -> Callable[[Made], bytes]:
    def write(made: Made) -> bytes:
        out = io.BytesIO()
        options = pyarrow.csv.WriteOptions(delimiter=delimiter)
        pyarrow.csv.write_csv(arrow(made), out, options)
        return out.getvalue()

    return write


def arrow(made: Made) -> pa.Table:
    columns = [[row[place] for row in made.rows] for place in range(len(made.names))]
    return pa.Table.from_arrays([pa.array(c, pa.string()) for c in columns], list(made.names))


def records(made: Made) -> list[dict[str, str]]:
    return [dict(zip(made.names, row, strict=True)) for row in made.rows]


def by_json(*, lines: bool, ascii_only: bool, indent: int | None = None) -> Callable[[Made], bytes]:
    def write(made: Made) -> bytes:
        if not lines:
            return json.dumps(records(made), ensure_ascii=ascii_only, indent=indent).encode()
        each = [json.dumps(record, ensure_ascii=ascii_only) for record in records(made)]
        return "".join(f"{line}\n" for line in each).encode()

    return write


def by_pandas_json(made: Made) -> bytes:
    frame = pd.DataFrame(records(made))
    return str(frame.to_json(orient="records", lines=True, force_ascii=False)).encode()


def parquet(table: pa.Table, **options: Any) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out, **options)
    return out.getvalue()


def categories(made: Made) -> pa.Table:
    table = arrow(made)
    place = made.names.index(made.label)
    return table.set_column(place, made.label, table.column(place).dictionary_encode())


def ipc(table: pa.Table, new: Callable[..., Any], **options: Any) -> bytes:
    """An Arrow file with two rows in each of its batches."""
    out = io.BytesIO()
    with new(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=2)
    return out.getvalue()


def fasttext(made: Made) -> bytes:
    """A text on each line, behind its label; only for texts and labels that such a line holds."""
    return "".join(f"__label__{label} {text}\n" for text, label in made.pairs).encode()


DELIMITED = (
    *(
        Form(f"csv {delimiter!r} {quoting} {end!r} {encoding}", suffix,
             by_csv(delimiter, quoting, end, encoding), encoding.removesuffix("-sig"), delimiter)
        for suffix, delimiter in (
            (".csv", ","), (".csv", ";"), (".tsv", "\t"), (".tab", "\t"), (".txt", "\t"),
            (".txt", "|"), (".data", ","),
        )
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL)
        for end in ("\n", "\r\n")
        for encoding in ("utf-8", "utf-8-sig", "utf-16")
    ),
    Form("pandas", ".csv", by_pandas(",")), Form("pandas", ".tsv", by_pandas("\t")),
    Form("pyarrow", ".csv", by_pyarrow(",")), Form("pyarrow", ".tsv", by_pyarrow("\t")),
)  # fmt: skip
TYPED = (
    Form("list", ".json", by_json(lines=False, ascii_only=True)),
    Form("list", ".json", by_json(lines=False, ascii_only=False, indent=1)),
    Form("lines", ".json", by_json(lines=True, ascii_only=False)),
    Form("lines", ".jsonl", by_json(lines=True, ascii_only=True)),
    Form("lines", ".jsonl", by_json(lines=True, ascii_only=False)),
    Form("pandas", ".jsonl", by_pandas_json),
    Form("pyarrow", ".parquet", lambda made: parquet(arrow(made))),
    Form("plain", ".parquet",
         lambda made: parquet(arrow(made), use_dictionary=False, compression="none")),
    Form("categories", ".parquet", lambda made: parquet(categories(made))),
    Form("lines", ".ndjson", by_json(lines=True, ascii_only=False)),
    Form("stream", ".arrow", lambda made: ipc(arrow(made), pa.ipc.new_stream)),
    Form("file", ".arrow", lambda made: ipc(arrow(made), pa.ipc.new_file)),
    Form("categories", ".arrow",
         lambda made: ipc(categories(made), pa.ipc.new_stream, emit_dictionary_deltas=True)),
    Form("packed", ".feather", lambda made: ipc(arrow(made), pa.ipc.new_file, compression="lz4")),
)  # fmt: skip


def write_file(folder: Path, stem: str, form: Form, made: Made, *, packed: bool = False) -> Path:
    """Write a file; one that is packed has `.gz` after its suffix."""
    content = form.write(made)
    packed = packed and form.suffix not in BINARY
    path = folder / f"{stem}{form.suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


def multi_line(made: Made, names: Sequence[str] | None = None) -> bool:
    """Tell whether a cell runs over several lines; its lines may look like rows of their own."""
    return any("\n" in cell for row in (names or made.names, *made.rows) for cell in row)
