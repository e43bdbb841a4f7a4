"""The table of docs/add_a_data_set.md says what becomes of each kind of file."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.errors import UserError
from layerfusion.texts import load_dataset

PAGE = Path(__file__).parents[2] / "docs" / "add_a_data_set.md"
LABELS = ("bad", "good")
Case = Callable[[Path], list[str]]
"""Writes files to a folder, and returns settings of the command line that read them."""


def _rows() -> list[tuple[str, str]]:
    return [(f"a film that is number {n}", LABELS[n % 2]) for n in range(40)]


def _csv(rows: list[tuple[str, str]] | None = None, extra: str = "", comma: str = ",") -> str:
    lines = [comma.join(row) for row in [("text", "label"), *(rows or _rows())]]
    return "\n".join(lines) + f"\n{extra}"


def _file(content: str, encoding: str = "utf-8", *settings: str, name: str = "reviews.csv") -> Case:
    def write(folder: Path) -> list[str]:
        (folder / name).write_bytes(content.encode(encoding))
        return ["dataset=local", f"dataset.path={folder / name}", *settings]

    return write


def _folder(files: Mapping[str, str], *settings: str, path: str = "") -> Case:
    def write(folder: Path) -> list[str]:
        for name, content in files.items():
            (folder / name).write_text(content)
        return ["dataset=local", f"dataset.path={folder / path}", *settings]

    return write


def _json(change: Mapping[str, Any]) -> str:
    objects = [{"text": text, "label": label} for text, label in _rows()]
    return json.dumps([{**objects[0], **change}, *objects[1:]])


def _labelled(*labels: str) -> str:
    return _csv([(text, labels[n % len(labels)]) for n, (text, _) in enumerate(_rows())])


def _shards(folder: Path, numbers: tuple[int, ...]) -> list[str]:
    for number in numbers:
        rows = [(f"{text} of shard {number}", label) for text, label in _rows()]
        (folder / f"train-{number:05d}-of-00002.csv").write_text(_csv(rows))
    return ["dataset=local", f"dataset.path={folder}"]


def _parquet(folder: Path, orders: Mapping[str, tuple[str, ...]], missing: bool = False) -> None:
    for split, names in orders.items():
        rows = _rows()
        numbers = [names.index(label) for _, label in rows]
        if missing:
            numbers[0] = -1
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        facts = {"huggingface": json.dumps({"info": {"features": features}})}
        table = pa.table({"text": [f"{text} of {split}" for text, _ in rows], "label": numbers})
        pq.write_table(table.replace_schema_metadata(facts), folder / f"{split}.parquet")


def _other_order(folder: Path) -> list[str]:
    _parquet(folder, {"train": LABELS, "test": LABELS[::-1]})
    return ["dataset=local", f"dataset.path={folder}"]


def _test_in_numbers(folder: Path) -> list[str]:
    _parquet(folder, {"train": LABELS})
    rows = [(f"{text} of test", str(LABELS.index(label))) for text, label in _rows()]
    (folder / "test.csv").write_text(_csv(rows))
    return ["dataset=local", f"dataset.path={folder}"]


def _some_unlabelled(folder: Path) -> list[str]:
    _parquet(folder, {"train": LABELS}, missing=True)
    return ["dataset=local", f"dataset.path={folder}"]


def _several(
    form: str, *settings: str, last: list[str] | None = None, always: str | None = None
) -> Case:
    """A csv with several labels in a cell: as a list of Python, or between marks."""

    def write(folder: Path) -> list[str]:
        sets = SETS if last is None else [*SETS[:-1], last]
        sets = [[*({always, *labels} if always else labels)] for labels in sets]
        cells = [str(labels) if form == "python" else form.join(labels) for labels in sets]
        rows = [[text, cell] for (text, _), cell in zip(_rows(), cells, strict=True)]
        with (folder / "reviews.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["text", "label"], *rows])
        return ["dataset=local", f"dataset.path={folder / 'reviews.csv'}", *settings]

    return write


def _yaml_words(folder: Path) -> list[str]:
    (folder / "reviews.csv").write_text(_labelled("no", "yes"))
    (folder / "dataset").mkdir()
    content = f"name: mine\npath: {folder / 'reviews.csv'}\nlabel_names: [no, yes]\n"
    (folder / "dataset/mine.yaml").write_text(content)
    return [f"--config-dir={folder}", "dataset=mine"]


def _packed(folder: Path) -> list[str]:
    for name, content in (("Train.CSV.GZ", _csv()), ("TEST.Csv.gz", TEST)):
        (folder / name).write_bytes(gzip.compress(content.encode()))
    return ["dataset=local", f"dataset.path={folder}"]


def _arrow(folder: Path) -> list[str]:
    table = pa.table(dict(zip(NAMES, COLUMNS, strict=True)))
    with pa.ipc.new_stream(str(folder / "csv-train.arrow"), table.schema) as writer:
        writer.write_table(table)
    (folder / "dataset_info.json").write_text("{}")
    test = [f"{text} of test" for text in COLUMNS[0]]
    pyarrow.feather.write_feather(table.set_column(0, "text", [test]), folder / "test.feather")
    return ["dataset=local", f"dataset.path={folder}"]


def _cut_arrow(folder: Path) -> list[str]:
    table = pa.table(dict(zip(NAMES, COLUMNS, strict=True)))
    sizes = []
    with (folder / "x.arrow").open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for start in (0, 20):
            writer.write_table(table.slice(start, 20))
            sizes.append(file.tell())
    content = (folder / "x.arrow").read_bytes()
    (folder / "x.arrow").write_bytes(content[: sizes[0]])
    return ["dataset=local", f"dataset.path={folder / 'x.arrow'}"]


def _dead_link(folder: Path) -> list[str]:
    (folder / "train.csv").write_text(_csv())
    (folder / "test.csv").symlink_to("gone.csv")
    return ["dataset=local", f"dataset.path={folder}"]


def _pipe(folder: Path) -> list[str]:
    (folder / "train.csv").write_text(_csv())
    os.mkfifo(folder / "test.csv")
    return ["dataset=local", f"dataset.path={folder}"]


def _kinds(folder: Path) -> list[str]:
    texts, labels = map(pa.array, COLUMNS)
    columns = {
        "train": [texts.cast(pa.large_string()), labels.dictionary_encode()],
        "validation": [
            pa.array([f"{text} of dev" for text in COLUMNS[0]]).cast(pa.binary()),
            labels,
        ],
        "test": [pa.array([f"{text} of test" for text in COLUMNS[0]]).dictionary_encode(), labels],
    }
    for split, arrays in columns.items():
        pq.write_table(pa.table(arrays, names=list(NAMES)), folder / f"{split}.parquet")
    return ["dataset=local", f"dataset.path={folder}"]


def _saved(folder: Path, how: str) -> list[str]:
    parts: Any = {
        split: datasets.Dataset.from_dict(
            {"text": [f"{text} of {split}" for text in COLUMNS[0]], "label": list(COLUMNS[1])}
        )
        for split in ("train", "test")
    }
    if how == "whole":
        saved = datasets.DatasetDict(parts)
        saved.save_to_disk(folder / "saved", num_shards={"train": 3, "test": 1})
    else:
        for split, part in parts.items():
            part.with_format("numpy").save_to_disk(folder / "saved" / split)
    return ["dataset=local", f"dataset.path={folder / 'saved'}"]


def _saved_but(folder: Path, gone: str) -> list[str]:
    """A saved data set that lacks a file or a folder."""
    words = _saved(folder, "whole")
    (folder / "saved" / gone).rename(folder / "gone")
    return words


def _saved_and(folder: Path, more: str) -> list[str]:
    """A saved data set with a file, or a split, that it does not name."""
    words = _saved(folder, "whole")
    place = folder / "saved" / more
    if place.suffix:
        place.write_bytes(next(place.parent.glob("*.arrow")).read_bytes())
    else:
        (place.parent / "dataset_dict.json").write_text('{"splits": ["train"]}')
    return words


def _lines_of_json() -> str:
    return "".join(f"{json.dumps(row)}\n" for row in json.loads(_json({})))


def _fasttext() -> str:
    return "".join(f"__label__{label} {text}\n" for text, label in _rows())


def _first_words() -> str:
    ends = (" ?", ", or so ?")
    return "".join(f"{label} {text}{ends[n % 3 == 0]}\n" for n, (text, label) in enumerate(_rows()))


def _class_files(*splits: str) -> Case:
    """A file for each class, with a text on each line."""
    return _folder_of(
        {
            f"{split}{name}.txt": "".join(
                f"{text} of {split or 'all'}\n" for text, label in _rows() if label == name
            )
            for split in splits or ("",)
            for name in LABELS
        }
    )


def _class_folders(*splits: str, beside: str = "", rows: int = 40, suffix: str = ".txt") -> Case:
    """A file for each text, and other files, with commas between them, beside them."""
    files = {
        f"{split}{label}/{number}{suffix}": f"{text} of {split or 'all'}"
        for split in splits or ("",)
        for number, (text, label) in enumerate(_rows()[:rows])
    }
    return _folder_of({**files, **dict.fromkeys(filter(None, beside.split(",")), "any text")})


def _class_tables(column: str) -> Case:
    return _folder_of(
        {
            f"{label}/1.csv": f"text,{column}\n"
            + "".join(f"{text},{n}\n" for n, (text, own) in enumerate(_rows()) if own == label)
            for label in LABELS
        }
    )


def _texts_of(label: str) -> str:
    return "text\n" + "".join(f"{text}\n" for text, own in _rows() if own == label)


def _of_values(column: str, *more: str) -> Case:
    """A table in a folder for each value of a column."""
    tables = {
        f"{column}={label}/0.csv": "text\n"
        + "".join(f"{t}\n" for t, own in _rows() if own == label)
        for label in LABELS
    }
    return _folder_of(tables | {f"{column}={value}/0.csv": "text\na film\n" for value in more})


def _folder_of(files: Mapping[str, str | bytes]) -> Case:
    def write(folder: Path) -> list[str]:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            raw = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(raw)
        return ["dataset=local", f"dataset.path={folder}"]

    return write


def _beside_classes(name: str, *settings: str) -> Case:
    def write(folder: Path) -> list[str]:
        words = _class_folders()(folder)
        (folder / name).write_text(_csv())
        return [*words, *settings]

    return write


BY_NUMBER = ("dataset.text=1", "dataset.label=2")
NAMES = ("text", "label")
ANSWERS = ("accept", "accept", "accept", "reject")
SPLIT = ("train", "test")
COLUMNS = tuple(zip(*_rows(), strict=True))
TYPED = "the shop\u2019s \u201cparcel\u201d"
TEST = _csv([(f"{text} of test", label) for text, label in _rows()])
LINES = tuple("".join(f"{cell}\n" for cell in column) for column in COLUMNS)
TEST_ROWS = [{"text": f"{text} of test", "label": label} for text, label in _rows()]
SETS = [["bad", "dull"], ["bad"], ["dull"], ["good", "bad"]] * 10
MARKED = "text,bad,dull\n" + "".join(
    f"{text},{int('bad' in labels)},{int('dull' in labels)}\n"
    for (text, _), labels in zip(_rows(), SETS, strict=True)
)
INSIDE = json.dumps(
    [{"id": 1, "review": {"body": text, "stars": label}} for text, label in _rows()]
)
NUMBERS = [{"text": f"a text of test {n}", "label": n % 2} for n in range(20)]
LABEL_ROWS = [f"{number},{label}" for number, (_, label) in enumerate(_rows())]
PAIR = {
    "X_train.csv": "\n".join(["id,text", *(f"{n},{text}" for n, (text, _) in enumerate(_rows()))]),
    "y_train.csv": "\n".join(["id,label", *LABEL_ROWS]),
}
CASES: dict[str, Case] = {
    "UTF-8 with a byte-order mark": _file(_csv(), "utf-8-sig"),
    "files with byte-order marks, joined to one": _file(f"\ufeff{_csv()}\ufeffa film,good\n"),
    "UTF-16 without `dataset.encoding`": _file(_csv(), "utf-16"),
    "cp1252 without `dataset.encoding`": _file(_csv(extra=f"{TYPED},good\n"), "cp1252"),
    "GB 18030, Shift-JIS, windows-1251 and the like, without `dataset.encoding`": _file(
        _csv([(f"一部很好的电影{n}", "good") for n in range(40)]), "gb18030"
    ),
    "Polish, Turkish, Vietnamese and the like in encodings of their own": _file(
        _csv(extra="obsługa bardzo słaba i nigdy więcej,good\n"), "cp1250"
    ),
    "a short text in such an encoding, where several fit": _file(
        "text,label\nхороший фильм,good\n", "koi8_r"
    ),
    "UTF-8 but for a few bytes": _folder_of(
        {
            "x.csv": _csv(extra="café ÿ crème brûlée à Évreux,good\n")
            .encode()
            .replace("ÿ".encode(), b"\xff")
        }
    ),
    "UTF-8 read as latin-1, or written so": _file(
        _csv(extra=f"{TYPED},good\n"), "utf-8", "dataset.encoding=latin-1"
    ),
    "cp1252 read as latin-1": _file(
        _csv(extra=f"{TYPED},good\n"), "cp1252", "dataset.encoding=latin-1"
    ),
    "NUL characters": _file(_csv(extra="a\0b,good\n")),
    "semicolons between the cells of a `.csv`": _file(_csv(comma=";")),
    "tabs between the cells of a `.csv`": _file(_csv(comma="\t")),
    "`sep=;` as the first line, as Excel has it": _file(f"sep=;\n{_csv(comma=';')}"),
    "spaces around the names of the columns": _file(_csv().replace("text,label", '" text", label')),
    "a column called `Text` where `text` is wanted": _file(_csv().replace("text", "Text", 1)),
    "a column called `text (en)` where `text` is wanted": _file(
        _csv().replace("text", "text (en)", 1)
    ),
    "no header": _file(_csv().partition("\n")[2]),
    "no header, with `dataset.text=1 dataset.label=2`": _file(
        _csv().partition("\n")[2], "utf-8", *BY_NUMBER
    ),
    "the same, where the label of the first row is in no other": _file(
        f"a film that nobody saw,odd\n{_csv().partition(chr(10))[2]}", "utf-8", *BY_NUMBER
    ),
    "a first line that is no usual header, and reads like a row": _file(
        f"so very odd,odd\n{_csv().partition(chr(10))[2]}"
    ),
    "a label as the first word of each line, as in TREC": _file(_first_words(), name="trec.txt"),
    "the same, with `dataset.text=2 dataset.label=1`": _file(
        _first_words(), "utf-8", "dataset.text=2", "dataset.label=1", name="trec.txt"
    ),
    "a header, with `dataset.text=1 dataset.label=2`": _file(_csv(), "utf-8", *BY_NUMBER),
    "comments (`#`) above the header": _file(f"# made by us, by hand\n# in 2024\n{_csv()}"),
    "a title above the header": _file(f"Reviews of 2024,\n,\n{_csv()}"),
    "other characters between the names of the columns": _file(_csv(comma="^")),
    "fastText's form (`__label__good a fine film`)": _file(_fasttext(), name="reviews.txt"),
    "two labels on a line of fastText's form": _file(
        f"__label__dull {_fasttext()}", name="x.train"
    ),
    "two labels on such a line, with `dataset.multilabel=true`": _file(
        f"__label__dull {_fasttext()}", "utf-8", "dataset.multilabel=true", name="x.train"
    ),
    "a word and its label on each line (CoNLL)": _file(
        "\n".join(["a O\nfilm B"] * 9).replace("B\n", "B\n\n"), name="x.txt"
    ),
    "suffixes in upper case, and gzip": _packed,
    "files that bzip2 or xz packed (`.csv.bz2`, `.csv.xz`)": _folder_of(
        {
            "train.csv.bz2": bz2.compress(_csv().encode()),
            "test.csv.xz": lzma.compress(TEST.encode()),
        }
    ),
    "rows behind the packed part of a file, as of `cat more.csv >> reviews.csv.gz`": _folder_of(
        {"train.csv.gz": gzip.compress(_csv().encode()) + b"a film,good\n"}
    ),
    "`.ndjson`, as `.jsonl`": _file(_lines_of_json(), name="reviews.ndjson"),
    "`.arrow` and `.feather`, also as the `datasets` library caches them": _arrow,
    "a folder of `save_to_disk`, of one data set or of several splits, in any number of shards": (
        lambda folder: _saved(folder, "whole")
    ),
    "folders `train` and `test` of `save_to_disk`": lambda folder: _saved(folder, "apart"),
    "such a folder, a shard of which is missing": lambda folder: _saved_but(
        folder, "train/data-00001-of-00003.arrow"
    ),
    "a folder of `save_to_disk` without the folder of a split that it names": lambda folder: (
        _saved_but(folder, "test")
    ),
    "rows in such a folder that its list does not name": lambda folder: _saved_and(
        folder, "train/more.arrow"
    ),
    "a split in such a folder that its list does not name": lambda folder: _saved_and(
        folder, "test"
    ),
    "a table of Delta Lake, Iceberg, Hudi or Lance": _folder_of(
        {"part-00000-a.csv": _csv(), "part-00001-b.csv": TEST, "_delta_log/0.json": "{}"}
    ),
    "the folder in which the hub's client keeps a data set": _folder_of(
        {"blobs/1": _csv(), "refs/main": "0a", "snapshots/0a/train.csv": _csv()}
    ),
    "a spreadsheet (`.xlsx`, `.ods`)": _file("PK\x03\x04 and so on", name="reviews.xlsx"),
    "a spreadsheet beside `train.csv`": _folder_of(
        {"train.csv": _csv(), "test.xlsx": "PK\x03\x04"}
    ),
    "an archive (`.zip`, `.tar.gz`)": _file("", name="reviews.tar.gz"),
    "a Git LFS pointer in the place of the data": _file(
        "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", name="x.jsonl"
    ),
    "a web page named `.csv`": _file("<!DOCTYPE html>\n<html><body>Not found</body></html>\n"),
    "rows of JSON in a `.csv`": _file(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in _rows())
    ),
    "an Arrow file that was cut off": _cut_arrow,
    "a link to a file that does not exist": _dead_link,
    "a pipe or a device in the place of a file": _pipe,
    "an Excel file or a zip archive named `.csv`": _file("PK\x03\x04 and so on"),
    "a file of HDF5, Avro or lz4 named `.csv`": _folder_of({"x.csv": b"\x89HDF\r\n and so on"}),
    "a line break inside a quoted cell": _file(_csv(extra='"two\nlines",good\n')),
    "rows that end in carriage returns, as on old Macs": _file(
        _csv().replace("\n", "\r") + '"two\nlines",good\r'
    ),
    "blank lines between rows of several columns, which are no rows": _file(
        _csv().replace("\n", "\n\n")
    ),
    "blank lines between rows of a single column, which have an empty cell each": _folder(
        {
            "X_train.csv": "\n".join(["text", *(text for text, _ in _rows())]).replace(
                _rows()[19][0], ""
            ),
            "y_train.csv": "\n".join(["label", *(label for _, label in _rows())]),
        }
    ),
    "a carriage return inside a row": _file(_csv(extra="two\rlines,good\n")),
    "HTML entities (`&amp;`), which stay as they are": _file(_csv(extra="a &lt;br&gt; b,good\n")),
    "spaces between commas and quotation marks": _file(
        "text, label\n" + "".join(f'"{text}, yes", "{label}"\n' for text, label in _rows())
    ),
    "quotation marks that do not enclose whole cells": _file(_csv(extra='"good" film,good\n')),
    "quotation marks after a backslash": _file(_csv(extra='"a \\"good\\", long film",good\n')),
    "a quotation mark that is never closed, beside a cell with a comma": _file(
        _csv(extra='"long, dull",bad\n"never closed,good\n')
    ),
    "a row with too many cells": _file(_csv(extra="long, dull,bad\n")),
    "the header once more among the rows": _file(_csv() + TEST),
    "the names of both columns in a row of any other format": _file(
        json.dumps([{"text": text, "label": label} for text, label in [*_rows(), NAMES]]),
        name="reviews.json",
    ),
    "a sum at the foot of a table (`Total,60`)": _file(_csv(extra="Total,60\n")),
    "dashes below the header, as in Markdown": _file(
        "| text | label |\n|------|------|\n"
        + "".join(f"| {text} | {label} |\n" for text, label in _rows()),
        name="reviews.txt",
    ),
    "two columns called `text`": _file(
        "text,text,label\n" + "".join(f"{text},b,{label}\n" for text, label in _rows())
    ),
    "two columns of one name that is neither the text's nor the label's": _file(
        "id,id,text,label\n" + "".join(f"1,2,{text},{label}\n" for text, label in _rows())
    ),
    "all shards of a split": lambda folder: _shards(folder, (0, 1)),
    "a missing shard": lambda folder: _shards(folder, (0,)),
    "`train_part1.csv` and `train_part2.csv`": _folder(
        {"train_part1.csv": _csv(), "train_part2.csv": TEST}
    ),
    "a missing part": _folder({"train_part1.csv": _csv(), "train_part3.csv": TEST}),
    "`train1.csv` and `train2.csv`, which may be folds": _folder(
        {"train1.csv": _csv(), "train2.csv": TEST}
    ),
    "the same, with `'dataset.files.train=\"train*.csv\"'`": _folder(
        {"train1.csv": _csv(), "train2.csv": TEST}, 'dataset.files.train="train*.csv"'
    ),
    "two files for one split": _folder({"train.csv": _csv(), "training.csv": TEST}),
    "a file that no split takes": _folder({"train.csv": _csv(), "holdout.csv": TEST}),
    "a column that says which split a row is of": _file(
        "text,label,split\n"
        + "".join(f"{text},{label},{SPLIT[n // 20]}\n" for n, (text, label) in enumerate(_rows()))
    ),
    "a file called `test` in a format that is not read": _folder(
        {"train.csv": _csv(), "test.xml": "<a/>"}
    ),
    "a folder with data beside `train.csv`": _folder_of(
        {"train.csv": _csv(), "more/train.csv": TEST}
    ),
    "a folder `eval` beside the folders `train` and `test`": _folder_of(
        {"train/x.csv": _csv(), "test/x.csv": TEST, "eval/x.csv": TEST}
    ),
    "`train.csv` and a folder `test`": _folder_of({"train.csv": _csv(), "test/x.csv": TEST}),
    "`test.csv` in the folder `train`": _folder_of(
        {"train/train.csv": _csv(), "train/test.csv": TEST}
    ),
    "the same file, named by `dataset.files`": _folder(
        {"train.csv": _csv(), "holdout.csv": TEST},
        "dataset.files={train: train.csv, test: holdout.csv}",
    ),
    "`train.csv` alone, with `test.csv` beside it": _folder(
        {"train.csv": _csv(), "test.csv": TEST}, path="train.csv"
    ),
    "a folder of `.txt` files for each class": _class_folders(),
    "the same below `train` and `test`": _class_folders("train/", "test/"),
    "texts without a suffix in a folder for each class": _class_folders(suffix=""),
    "web pages in a folder for each class": _class_folders(suffix=".html"),
    "tables in a folder for each class (`good/1.csv`)": _class_tables("id"),
    "the same, where the tables have labels of their own": _class_tables("stars"),
    "an object of JSON for each text (`good/7.json`)": _folder_of(
        {
            f"{label}/{number}.json": json.dumps({"id": number, "text": text})
            for number, (text, label) in enumerate(_rows())
        }
    ),
    "folders like `label=good`, as Spark writes them": _of_values("label"),
    "such folders with one for rows without a label": _of_values(
        "label", "__HIVE_DEFAULT_PARTITION__"
    ),
    "folders like `year=2020`": _of_values("year"),
    "a text of its own in the folder of one class, and a table in that of another": _folder_of(
        {"bad/1.csv": "text\na film\n", "good/7.txt": "a film"}
    ),
    "such a text beside tables of every class": _folder_of(
        {
            **{f"{label}/1.csv": _texts_of(label) for label in LABELS},
            "good/7.txt": "a film",
        }
    ),
    "a `.txt` file for each class, with a text on each line": _class_files(),
    "such files below `train` and `test`": _class_files("train/", "test/"),
    "files of any name below `train` and `test`": _folder_of(
        {"train/mine.csv": _csv(), "test/yours.csv": TEST}
    ),
    "several files below `train`": _folder_of({"train/a.csv": _csv(), "train/b.csv": TEST}),
    "folders in the folders of the classes": _folder_of(
        {
            f"{split}/{label}/{number % 3}/{number}.txt": text
            for split in ("train", "test")
            for number, (text, label) in enumerate(_rows())
        }
    ),
    "a folder `unsup` among those of the classes": _class_folders(
        "train/", "test/", beside="train/unsup/1.txt"
    ),
    "other files among those of the classes": _class_folders(beside="good/notes.md,README"),
    "a `README.txt` among the texts of a class": _class_folders(beside="good/README.txt"),
    "a file for each split in the folder of each class (`good/train.txt`)": _folder_of(
        {f"{label}/{split}.txt": _texts_of(label) for label in LABELS for split in SPLIT}
    ),
    "a folder without texts among those of the classes": _class_folders(beside="neutral/1.md"),
    "what systems and open programs leave among the texts (`Thumbs.db`, `~$7.txt`)": _class_folders(
        beside="good/Thumbs.db,good/~$7.txt,bad/.DS_Store,__MACOSX/good/._7.txt"
    ),
    "a table without texts beside the folders of the classes": _class_folders(
        beside="meta.csv,README"
    ),
    "a table with texts, or with other labels, beside them": _beside_classes("data.csv"),
    "the same, with `dataset.files.train=.`": _beside_classes("data.csv", "dataset.files.train=."),
    "a table called `test` beside them": _beside_classes("test.csv"),
    "`train.txt` with `train.label`, a text and a label on each line": _folder(
        {"train.txt": LINES[0], "train.label": LINES[1]}
    ),
    "`train_text.txt` with `train_labels.txt`, and so for each split": _folder(
        {
            f"{split}_{kind}.txt": lines.replace("\n", f" {split}\n") if kind == "text" else lines
            for split in ("train", "test")
            for kind, lines in zip(("text", "labels"), LINES, strict=True)
        }
    ),
    "such files with different numbers of lines": _folder(
        {"train.txt": LINES[0], "train.label": LINES[1].partition("\n")[2]}
    ),
    "such files, and a test without labels": _folder(
        {"train.txt": LINES[0], "train.label": LINES[1], "test.txt": LINES[0]}
    ),
    "`X_train.csv` with `y_train.csv`, a text and a label on each row": _folder(PAIR),
    "such tables with different numbers of rows": _folder(
        {**PAIR, "y_train.csv": PAIR["y_train.csv"].rpartition("39,")[0]}
    ),
    "such tables whose rows have other `id`s": _folder(
        {**PAIR, "y_train.csv": "\n".join(["id,label", *LABEL_ROWS[::-1]])}
    ),
    "`train.csv` and `test.csv` one folder deeper": _class_folders(
        beside="data/train.csv,data/test.csv", rows=0
    ),
    "folders of classes two folders deeper": _class_folders("more/data/train/", "more/data/test/"),
    "class names in another order in train and test": _other_order,
    "the same class names in another order in `dataset.label_names`": lambda folder: [
        *_other_order(folder),
        f"dataset.label_names=[{','.join(LABELS[::-1])}]",
    ],
    "numbers without names in test, where train has class names": _test_in_numbers,
    "numbers in CSV and the same numbers in JSON": _folder(
        {"train.csv": _labelled("0", "1"), "test.json": json.dumps(NUMBERS)}
    ),
    "numbers and words as labels of one column": _file(_json({"label": 1}), name="reviews.json"),
    "labels such as `01`, with leading zeros": _file(_labelled("01", "02")),
    "true and 1 as labels of one column, in JSON": _file(
        json.dumps([{"text": x, "label": (True, 1)[n % 2]} for n, (x, _) in enumerate(_rows())]),
        name="reviews.json",
    ),
    "a number as a label that is written in two ways": _file(_labelled("7", "007", "8")),
    "`Spam` and `spam`": _file(_labelled("Spam", "spam")),
    "a class that differs by marks around it, or by marks that nobody sees": _file(
        _csv(extra="a film,good\u200b\nb film,good\u200b\nc film,good\u200b\n")
    ),
    "a class that differs by letters of another alphabet that look the same": _file(
        _labelled("bad", "good", "g\u043eod")
    ),
    "yes or no as a label that is written in two ways": _file(_labelled("no", "yes", "False")),
    "labels as Python prints them (`['good']`, `b'good'`, `tensor(1)`), or in quotation marks": (
        _file(_labelled("tensor(0)", "tensor(1)"))
    ),
    "a name for which train has no row": _file(
        _labelled("0", "1"), "utf-8", "dataset.label_names=[bad,good,more]"
    ),
    "a file that lists the classes": _folder(
        {"train.csv": _labelled("0", "1"), "classes.txt": "bad\ngood\n"}
    ),
    "`None` or `n/a` as a label": _file(_labelled("None", "good")),
    "`nan` or `NULL` as a text": _file(_csv(extra="NULL,good\n")),
    "bytes as Python prints them (`b'a film'`) as a text": _file(_csv(extra="b'a film',good\n")),
    "numbers alone as texts": _file(_csv([(str(n), LABELS[n % 2]) for n in range(40)])),
    "labels that were not accepted, in the column `answer` of Prodigy": _file(
        "".join(
            json.dumps({"text": text, "label": label, "answer": ANSWERS[n % 4]}) + "\n"
            for n, (text, label) in enumerate(_rows())
        ),
        name="reviews.jsonl",
    ),
    "-1 as every label of test": _folder(
        {"train.csv": _labelled("0", "1"), "test.csv": "text,label\none text,-1\ntwo texts,-1\n"}
    ),
    "no label in any row of test": _folder(
        {"train.csv": _csv(), "test.csv": "text,label\none text,\ntwo texts, \n"}
    ),
    "a test without a column of labels": _folder(
        {"train.csv": _csv(), "test.csv": "id,text\n1,one text\n2,two texts\n"}
    ),
    "-1 as some labels of test": _folder(
        {"train.csv": _csv(), "test.csv": "text,label\none text,-1\ntwo texts,good\n"}
    ),
    "-1 as some labels, where the classes have names": _some_unlabelled,
    "a label in test that train never has": _folder(
        {"train.csv": _csv(), "test.csv": "text,label\none text,fair\n"}
    ),
    "the same, where it differs from one of train by case, or by marks that nobody sees": _folder(
        {"train.csv": _csv(), "test.csv": TEST.replace(",good", ",Good")}
    ),
    "half characters in JSON (lone surrogates)": _file(
        _json({"text": "half \ud83d"}), name="reviews.json"
    ),
    "labels that differ in half characters alone": _file(
        _json({"label": "\ud83d"}).replace('"bad"', '"\\ud83e"'), name="reviews.json"
    ),
    'JSON by columns (`{"text": […], "label": […]}`)': _file(
        json.dumps({name: list(column) for name, column in zip(NAMES, COLUMNS, strict=True)}),
        name="reviews.json",
    ),
    'JSON with the rows under one key (`{"data": […]}`)': _file(
        json.dumps({"version": 1, "data": json.loads(_json({}))}), name="reviews.json"
    ),
    'JSON with the rows of each split under a key (`{"train": […], "test": […]}`)': _file(
        json.dumps({"train": json.loads(_json({})), "test": TEST_ROWS}), name="reviews.json"
    ),
    "JSON with rows under other keys": _file(
        json.dumps({"mine": json.loads(_json({})), "yours": TEST_ROWS}), name="reviews.json"
    ),
    "rows of JSON that are lists, the first of which names the columns": _file(
        json.dumps([NAMES, *_rows()]), name="reviews.json"
    ),
    "`null` among the rows of JSON": _file(f"{_lines_of_json()}null\n", name="reviews.jsonl"),
    "an object a line with a comma after each": _file(
        _lines_of_json().replace("\n", ",\n"), name="reviews.jsonl"
    ),
    "objects as Python prints them": _file(
        "".join(f"{{'text': '{text}', 'label': '{label}'}}\n" for text, label in _rows()),
        name="reviews.jsonl",
    ),
    "objects in a column, with `dataset.text=review.body dataset.label=review.stars`": _file(
        INSIDE, "utf-8", "dataset.text=review.body", "dataset.label=review.stars", name="x.json"
    ),
    "objects in a column, without it": _file(INSIDE, name="x.json"),
    "several texts in a row, as in SQuAD and in chats": _file(
        json.dumps([{"messages": [{"role": "user", "content": text}]} for text, _ in _rows()]),
        name="x.json",
    ),
    "a text that is a list of words": _file(
        json.dumps([{"text": text.split(), "label": label} for text, label in _rows()]),
        name="x.json",
    ),
    'a label in a list of its own (`["good"]`)': _file(
        json.dumps([{"text": text, "label": [label]} for text, label in _rows()]), name="x.json"
    ),
    "several labels in a list": _file(_json({"label": ["bad", "dull"]}), name="x.json"),
    "several labels in a list that is a text (`['bad', 'dull']`) of a csv": _several("python"),
    "the same, with `dataset.multilabel=true`": _several("python", "dataset.multilabel=true"),
    "labels between semicolons, without `dataset.multilabel`": _file(
        _labelled("bad", "good", "dull", "bad;dull")
    ),
    "labels between semicolons, with `dataset.multilabel=true`": _several(
        ";", "dataset.multilabel=true"
    ),
    "the same, with `'dataset.label_separator=\";\"'`": _several(
        ";", "dataset.multilabel=true", 'dataset.label_separator=";"'
    ),
    "a text without labels, with `dataset.multilabel=true`": _several(
        "python", "dataset.multilabel=true", last=[]
    ),
    "a label twice in a row, with `dataset.multilabel=true`": _several(
        "python", "dataset.multilabel=true", last=["bad", "bad"]
    ),
    "shares of labels in a list (`[0.7, 0.3]`), with `dataset.multilabel=true`": _file(
        "".join(json.dumps({"text": text, "label": [0.7, 0.3]}) + "\n" for text, _ in _rows()),
        "utf-8",
        "dataset.multilabel=true",
        name="reviews.jsonl",
    ),
    "one label in every row, with `dataset.multilabel=true`": _file(
        _csv(), "utf-8", "dataset.multilabel=true"
    ),
    "a column of 0 and 1 for each label, with `dataset.label_columns=[bad,dull]`": _file(
        MARKED, "utf-8", "dataset.label_columns=[bad,dull]"
    ),
    "such a column with another cell": _file(
        MARKED.replace("1,1\n", "1,2\n", 1), "utf-8", "dataset.label_columns=[bad,dull]"
    ),
    "a label that every row of train has, with `dataset.multilabel=true`": _several(
        "python", "dataset.multilabel=true", always="bad"
    ),
    "categories, large strings and bytes of UTF-8 in parquet": _kinds,
    "a key twice in one object of JSON": _file(
        _json({}).replace("{", '{"label": "bad", ', 1), name="reviews.json"
    ),
    "a number where a text should be, in JSON": _file(_json({"text": 7}), name="reviews.json"),
    "an object where a text should be": _file(
        _json({"text": {"en": "a film"}}), name="reviews.json"
    ),
    "`no` and `yes` in a YAML file's `label_names`, without quotation marks": _yaml_words,
}


def _table() -> dict[str, tuple[str, str]]:
    """Case to its outcome and its message, as the page has them."""
    (section,) = re.findall(r"^## What is accepted.*?(?=^## )", PAGE.read_text(), re.M | re.S)
    rows = re.findall(r"^\| (.+?) \| (read|note|refused) \| (?:`(.*)` )?\|$", section, re.M)
    return {case: (outcome, message) for case, outcome, message in rows}


def test_every_row_of_the_page_has_its_case() -> None:
    assert list(_table()) == list(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_row_of_the_page_holds(case: str, tmp_path: Path) -> None:
    outcome, message = _table()[case]
    pattern = ".*".join(re.escape(part) for part in message.split("…"))
    (tmp_path / "given").mkdir()
    settings = CASES[case](tmp_path / "given")

    def read() -> tuple[str, ...]:
        config = load(compose("train", settings))
        return load_dataset(config.dataset, config.limit, seed=0, cache=tmp_path / "cache").notes

    if outcome == "refused":
        with pytest.raises(UserError, match=pattern):
            read()
        return
    # Every data set without a test or a validation split has notes on how these were made.
    notes = [note for note in read() if not re.match("(test|validation): .* of train,", note)]
    assert bool(notes) == (outcome == "note"), notes
    assert outcome == "read" or any(re.search(pattern, note) for note in notes), notes


def test_files_of_splits_are_set_together_or_one_by_one() -> None:
    files = {"train": "a.csv", "test": "b.csv"}
    together = ["dataset.files={train: a.csv, test: b.csv}"]
    for settings in (together, [f"dataset.files.{split}={name}" for split, name in files.items()]):
        config = load(compose("train", ["dataset=local", "dataset.path=folder", *settings]))
        assert config.dataset.files == files
