from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.options import as_option
from layerfusion.errors import UserError
from layerfusion.texts.columns import Columns
from layerfusion.texts.form import begins_table
from layerfusion.texts.readers import read_file

COLUMNS = Columns("text", "label", {})
TEXTS = ["NA", "null", "  naïve, 🙂 ", 'a "quoted" word', "001", "two\nlines"]
LABELS = ["a", "b", "a", "b", "a", "b"]
ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


def delimited(delimiter: str) -> bytes:
    import csv
    import io

    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerows([["text", "label"], *zip(TEXTS, LABELS, strict=True)])
    return buffer.getvalue().encode()


TABLE = pyarrow.table({"text": TEXTS, "label": LABELS})
NAMES = ["text", "label"]


def parquet(path: Path) -> None:
    pyarrow.parquet.write_table(TABLE, path)


def arrow(path: Path, new: Callable[..., Any], kind: Any = None) -> None:
    columns = [column.cast(kind or pyarrow.string()) for column in TABLE.columns]
    table = pyarrow.table(columns, NAMES)
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


JSONL = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
WRITERS: dict[str, Callable[[Path], object]] = {
    "x.csv": lambda path: path.write_bytes(delimited(",")),
    "X.CSV": lambda path: path.write_bytes(delimited(",")),
    "semicolons.csv": lambda path: path.write_bytes(delimited(";")),
    "x.tsv": lambda path: path.write_bytes(delimited("\t")),
    "x.tab": lambda path: path.write_bytes(delimited("\t")),
    "x.txt": lambda path: path.write_bytes(delimited(";")),
    "x.json": lambda path: path.write_bytes(json.dumps(ROWS).encode()),
    "x.jsonl": lambda path: path.write_bytes(JSONL),
    "lines.json": lambda path: path.write_bytes(JSONL),
    "x.parquet": parquet,
    "x.ndjson": lambda path: path.write_bytes(JSONL),
    "old_mac.jsonl": lambda path: path.write_bytes(JSONL.replace(b"\n", b"\r")),
    "pretty.jsonl": lambda path: path.write_text("\n".join(json.dumps(r, indent=1) for r in ROWS)),
    "stream.arrow": lambda path: arrow(path, pyarrow.ipc.new_stream),
    "file.arrow": lambda path: arrow(path, pyarrow.ipc.new_file),
    "x.feather": lambda path: pyarrow.feather.write_feather(TABLE, path),
    "categories.parquet": lambda path: pyarrow.parquet.write_table(
        pyarrow.table([column.dictionary_encode() for column in TABLE.columns], NAMES), path
    ),
    "bytes.parquet": lambda path: pyarrow.parquet.write_table(
        pyarrow.table([column.cast(pyarrow.binary()) for column in TABLE.columns], NAMES), path
    ),
    "large.arrow": lambda path: arrow(path, pyarrow.ipc.new_file, pyarrow.large_string()),
    "x.csv.bz2": lambda path: path.write_bytes(bz2.compress(delimited(","))),
    "x.csv.xz": lambda path: path.write_bytes(lzma.compress(delimited(","))),
    "x.csv.gz": lambda path: path.write_bytes(gzip.compress(delimited(","))),
    "x.jsonl.gz": lambda path: path.write_bytes(gzip.compress(JSONL)),
    "x.txt.gz": lambda path: path.write_bytes(gzip.compress(delimited("|"))),
    "by_columns.json": lambda path: path.write_text(json.dumps({"text": TEXTS, "label": LABELS})),
    "pandas.json": lambda path: path.write_text(
        json.dumps({"text": dict(enumerate(TEXTS)), "label": dict(enumerate(LABELS))})
    ),
    "by_row.json": lambda path: path.write_text(json.dumps(dict(enumerate(ROWS)))),
    "split.json": lambda path: path.write_text(
        json.dumps(
            {
                "columns": ["label", "text"],
                "data": list(zip(LABELS, TEXTS, strict=True)),
            }
        )
    ),
    "nested.json": lambda path: path.write_text(
        json.dumps({"version": "1", "set": {"rows": ROWS, "authors": ["A", "B"]}})
    ),
    "array.jsonl": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "excel.csv": lambda path: path.write_bytes(b"\xef\xbb\xbfsep=^\r\n" + delimited("^")),
    "packed.csv": lambda path: path.write_bytes(gzip.compress(delimited(";"))),
    "blank.csv": lambda path: path.write_bytes(b"\n\r\n" + delimited(";")),
    "bom.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + delimited(",")),
    "bom.txt": lambda path: path.write_bytes(b"\xef\xbb\xbf" + delimited(";")),
    "bom.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + JSONL),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_texts_and_labels(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    table = read_file(tmp_path / name, COLUMNS)
    assert (table.texts, table.labels) == (TEXTS, LABELS)
    assert table.rows == [1, 2, 3, 4, 5, 6]


def test_other_encodings(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes("text,label\ncafé £5,a\n".encode("latin-1"))
    assert read_file(file, COLUMNS, encoding="latin-1").texts == ["café £5"]
    with pytest.raises(
        UserError, match=r"byte 0xe9 at position 14 is not utf-8; set dataset.encoding"
    ):
        read_file(file, COLUMNS)
    with pytest.raises(UserError, match=r"dataset.encoding=klingon: there is no such encoding"):
        read_file(file, COLUMNS, encoding="klingon")


def test_skipped_rows_and_where(tmp_path: Path) -> None:
    file = tmp_path / "x.tab"
    file.write_text(
        "label\ttext\tsource\nd\tstring\t\nclass\t\t\n\na\tone\tx\nb\ttwo\ty\nc\tthree\tx\n"
    )
    table = read_file(file, Columns("text", "label", {"source": "x"}), skip_rows=[1, 2, 3])
    assert (table.texts, table.labels, table.rows) == (["one", "three"], ["a", "c"], [1, 3])
    with pytest.raises(UserError, match="no rows with source=z, out of 3"):
        read_file(file, Columns("text", "label", {"source": "z"}), skip_rows=[1, 2, 3])


def test_label_names_in_parquet_of_the_datasets_library(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = datasets.Dataset.from_dict({"text": ["x", "y"], "label": [0, 1]}, features=features)
    rows.to_parquet(tmp_path / "x.parquet")
    assert read_file(tmp_path / "x.parquet", COLUMNS).label_names == ("no", "yes")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.csv",
            b"Text,class\na,b\n",
            "no column 'text' (dataset.text); there are: 'Text', 'class'",
        ),
        ("x.csv", b"text:label\na:b\n", "':' stands between the columns of its first line"),
        ("x.csv", b"text-id\na:b\n", "there are: 'text-id'"),
        ("x.jsonl", b'{"text": "a"}\n', "no column 'label' (dataset.label); there are: 'text'"),
        ("x.csv", b"", "the file is empty"),
        ("x.csv", b"text,label\n", "no rows"),
        ("x.json", b"[]", "x.json: no rows"),
        (
            "x.csv",
            b"text,label\na,b\nc,d,e\n",
            "x.csv, row 2 (line 3): it has 3 cells where the header has 2",
        ),
        ("x.csv", b"text,label\na,b,c\nd,e,f\n", "row 1 (line 2): it has 3 cells"),
        (
            "x.csv",
            b'text,label\n"a, b",1\n"open, 2\n',
            "row 2 (line 3): a quotation mark is opened",
        ),
        ("x.csv", b"text,label,label\na,b,c\n", "2 columns are called 'label'; rename all but one"),
        ("x.json", b'{"text": "a"', "not readable as json"),
        ("x.json", b'{"text": "a"}', "a list of objects is needed"),
        ("x.jsonl", b'{"text": "a", "label": 1}\n{"text"\n', "line 2: not readable as json"),
        ("x.parquet", b"no parquet", "it is no parquet file; it begins with b'no parquet'"),
        ("x.json", b"text,label\na,b\n", "not readable as json: it begins with 'text,label'"),
        (
            "x.csv",
            b"0,Mon,NO_QUERY,a long film\n4,Mon,NO_QUERY,a dull film\n",
            "its columns go by number: dataset.text=4 dataset.label=1",
        ),
        ("x.txt", b"some prose\n", "the first line does not name the columns 'text' and 'label'"),
        ("x.txt", b"id\tsentence\n1\tgood\n", "did you mean dataset.text=sentence?"),
        ("x.csv", b"a,b\n1,2\n", "there are: 'a', 'b'; choose one, as dataset.text=a does"),
        (
            "x.csv",
            b"TEXT,stars\na,b\n",
            "did you mean dataset.text=TEXT dataset.label=stars?",
        ),
        (
            "x.csv",
            b"bad,a long film\nbad,a dull film\n",
            "if the file has no header, its columns go by number: dataset.text=2 dataset.label=1",
        ),
        ("x.csv", b"text,label\na,b\ntext,label\n", "row 2 (line 3): it repeats the header"),
        ("x.json", b'{"text": ["a", "b"], "label": [1]}', "of different length: text 2, label 1"),
        ("x.json", b'[["a", 1], ["b"]]', "row 2: it has 1 cells; 2 are needed"),
        (
            "x.jsonl",
            b'{"text": "a"}\n{"text": "a", "text": "b"}\n',
            "line 2: an object has the key 'text'",
        ),
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.csv", b"PAR1\0", "it is a parquet file"),
        ("x.xml", b"", "cannot read '.xml'; allowed: .parquet, .arrow"),
        ("x.xlsx", b"", "it is a spreadsheet; save its sheet as csv"),
        ("x.tar.gz", b"", "it is an archive; unpack it"),
        ("x.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        ("x.arrow", b"PAR1\0", "it is a parquet file"),
        ("x.arrow", b"no arrow", "not readable as arrow"),
        ("x.csv", b"\n<!DOCTYPE html>\n<html>\n", "it is a web page"),
        ("x.json", b"[1, 2]", "it holds a list of int"),
        ("x.json", b'{"bad": ["a"], "good": ["b"]}', "'bad' with a list of str"),
        ("x.csv.bz2", b"no bzip2", "cannot be read"),
        ("x.csv.xz", b"\xfd7zXZ\x00cut", "cannot be read"),
        ("x.csv.gz", b"no gzip", "cannot be read"),
    ],
)
def test_errors_are_one_line_that_names_the_file(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_file(tmp_path / name, COLUMNS)
    assert message in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x.csv", "x.json"])
def test_columns_by_number(tmp_path: Path, name: str) -> None:
    rows = [["7", "a film", "good"], ["8", "a plot", "bad"], ["9", "a bank", "good"]]
    lines = "\n".join(",".join(row) for row in rows)
    (tmp_path / name).write_text(lines if name == "x.csv" else json.dumps(rows))
    table = read_file(tmp_path / name, Columns("2", "3", {}))
    assert (table.texts, table.labels) == (["a film", "a plot", "a bank"], ["good", "bad", "good"])
    with pytest.raises(
        UserError, match=r"no column '4' \(dataset.text\); there are: '1', '2', '3'"
    ):
        read_file(tmp_path / name, Columns("4", "3", {}))


@pytest.mark.parametrize(
    "value", ["text", "text (en)", "a=b, c", 'x"y', "null", "1", "01", "é", "a\\b"]
)
def test_an_option_is_written_as_the_shell_and_hydra_read_it(value: str) -> None:
    (word,) = shlex.split(as_option("dataset.text", value))
    assert load(compose("train", ["dataset=local", word])).dataset.text == value
    assert shlex.split(as_option("--text", value)) == ["--text", value]


MODULE = """
import pandas

def frame(path):
    return pandas.DataFrame({"text": path.read_text().split("|"), "label": [1, 0]})

def columns(path):
    return {"text": path.read_text().split("|"), "label": ["1", "0"]}

def rows(path):
    return [{"text": text, "label": n} for n, text in enumerate(path.read_text().split("|"))]

def uneven(path):
    return {"text": ["a"], "label": ["x", "y"]}

def nothing(path):
    return [1, 2]
"""


@pytest.fixture
def own_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_readers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "x.xml").write_text("one|two")
    return tmp_path / "x.xml"


def test_a_reader_of_the_user_reads_any_suffix(own_readers: Path) -> None:
    for name, labels in (("frame", [1, 0]), ("columns", ["1", "0"]), ("rows", [0, 1])):
        table = read_file(own_readers, COLUMNS, reader=f"own_readers:{name}")
        assert (table.texts, table.labels) == (["one", "two"], labels)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uneven", "columns of different length for .*: text 1, label 2"),
        ("nothing", "it gave an object of type list for .*; a pandas DataFrame, a dict"),
        ("missing", "own_readers has no 'missing'; it has: columns, frame"),
    ],
)
def test_what_a_reader_of_the_user_gives_is_checked(
    own_readers: Path, name: str, message: str
) -> None:
    with pytest.raises(UserError, match=f"dataset.reader=own_readers:{name}: {message}"):
        read_file(own_readers, COLUMNS, reader=f"own_readers:{name}")


@pytest.mark.parametrize(
    "suffix", [".csv", ".data", ".txt", ".tsv", ".json", ".jsonl", ".train", ""]
)
@pytest.mark.parametrize("content", ["", "\n", "\ufeff", " \n \n", "sep=;\n", "# nothing\n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, suffix: str, content: str) -> None:
    file = tmp_path / f"reviews{suffix}"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"reviews"):
        read_file(file, COLUMNS)


@pytest.mark.parametrize(
    ("content", "table"),
    [
        ('text\n"a, b"\nc\n', True),
        ('text\r\n"a ""b"""\r\n"c"\r\n', True),
        ('"text"\n"two\nlines"\nx\n', True),
        ("text\n" + '"long, with a comma"\n' * 2000, True),
        ('mine\n"a, b"\n', True),
        ('text\n"quotation" at the start\nplain\n', False),
        ("text\nplain\n", False),
        ('hello\n"a"\n', False),
        ('text\n"a"\nb, c\n', False),
    ],
)
def test_a_quoted_column_is_told_from_lines(content: str, table: bool) -> None:
    assert begins_table(content, "mine") == table
