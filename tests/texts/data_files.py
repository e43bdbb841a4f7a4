"""Kinds of data files and folders, as the table of docs/add_a_data_set.md lists them."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

LABELS = ("bad", "good")
Case = Callable[[Path], list[str]]
"""Writes files to a folder, and returns settings of the command line that read them."""


def rows_of_both() -> list[tuple[str, str]]:
    return [(f"a film that is number {n}", LABELS[n % 2]) for n in range(40)]


def csv_of(rows: list[tuple[str, str]] | None = None, extra: str = "", comma: str = ",") -> str:
    lines = [comma.join(row) for row in [("text", "label"), *(rows or rows_of_both())]]
    return "\n".join(lines) + f"\n{extra}"


def in_file(
    content: str, encoding: str = "utf-8", *settings: str, name: str = "reviews.csv"
) -> Case:
    def write(folder: Path) -> list[str]:
        (folder / name).write_bytes(content.encode(encoding))
        return ["dataset=local", f"dataset.path={folder / name}", *settings]

    return write


def in_folder(files: Mapping[str, str], *settings: str, path: str = "") -> Case:
    def write(folder: Path) -> list[str]:
        for name, content in files.items():
            (folder / name).write_text(content)
        return ["dataset=local", f"dataset.path={folder / path}", *settings]

    return write


def json_of(change: Mapping[str, Any]) -> str:
    objects = [{"text": text, "label": label} for text, label in rows_of_both()]
    return json.dumps([{**objects[0], **change}, *objects[1:]])


def labelled_csv(*labels: str) -> str:
    return csv_of([(text, labels[n % len(labels)]) for n, (text, _) in enumerate(rows_of_both())])


def shard_files(folder: Path, numbers: tuple[int, ...]) -> list[str]:
    for number in numbers:
        rows = [(f"{text} of shard {number}", label) for text, label in rows_of_both()]
        (folder / f"train-{number:05d}-of-00002.csv").write_text(csv_of(rows))
    return ["dataset=local", f"dataset.path={folder}"]


def parquet_files(
    folder: Path, orders: Mapping[str, tuple[str, ...]], missing: bool = False
) -> None:
    for split, names in orders.items():
        rows = rows_of_both()
        numbers = [names.index(label) for _, label in rows]
        if missing:
            numbers[0] = -1
        features = {"label": {"names": list(names), "_type": "ClassLabel"}}
        facts = {"huggingface": json.dumps({"info": {"features": features}})}
        table = pa.table({"text": [f"{text} of {split}" for text, _ in rows], "label": numbers})
        pq.write_table(table.replace_schema_metadata(facts), folder / f"{split}.parquet")


def other_order(folder: Path) -> list[str]:
    parquet_files(folder, {"train": LABELS, "test": LABELS[::-1]})
    return ["dataset=local", f"dataset.path={folder}"]


def numbered_test(folder: Path) -> list[str]:
    parquet_files(folder, {"train": LABELS})
    rows = [(f"{text} of test", str(LABELS.index(label))) for text, label in rows_of_both()]
    (folder / "test.csv").write_text(csv_of(rows))
    return ["dataset=local", f"dataset.path={folder}"]


def some_unlabelled(folder: Path) -> list[str]:
    parquet_files(folder, {"train": LABELS}, missing=True)
    return ["dataset=local", f"dataset.path={folder}"]


def several_case(
    form: str, *settings: str, last: list[str] | None = None, always: str | None = None
) -> Case:
    """A csv with several labels in a cell: as a list of Python, or between marks."""

    def write(folder: Path) -> list[str]:
        sets = SETS if last is None else [*SETS[:-1], last]
        sets = [[*({always, *labels} if always else labels)] for labels in sets]
        cells = [str(labels) if form == "python" else form.join(labels) for labels in sets]
        rows = [[text, cell] for (text, _), cell in zip(rows_of_both(), cells, strict=True)]
        with (folder / "reviews.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["text", "label"], *rows])
        return ["dataset=local", f"dataset.path={folder / 'reviews.csv'}", *settings]

    return write


def yaml_words(folder: Path) -> list[str]:
    (folder / "reviews.csv").write_text(labelled_csv("no", "yes"))
    (folder / "dataset").mkdir()
    content = f"name: mine\npath: {folder / 'reviews.csv'}\nlabel_names: [no, yes]\n"
    (folder / "dataset/mine.yaml").write_text(content)
    return [f"--config-dir={folder}", "dataset=mine"]


def packed_case(folder: Path) -> list[str]:
    for name, content in (("Train.CSV.GZ", csv_of()), ("TEST.Csv.gz", TEST)):
        (folder / name).write_bytes(gzip.compress(content.encode()))
    return ["dataset=local", f"dataset.path={folder}"]


def arrow_case(folder: Path) -> list[str]:
    table = pa.table(dict(zip(NAMES, COLUMNS, strict=True)))
    with pa.ipc.new_stream(str(folder / "csv-train.arrow"), table.schema) as writer:
        writer.write_table(table)
    (folder / "dataset_info.json").write_text("{}")
    test = [f"{text} of test" for text in COLUMNS[0]]
    pyarrow.feather.write_feather(table.set_column(0, "text", [test]), folder / "test.feather")
    return ["dataset=local", f"dataset.path={folder}"]


def cut_arrow(folder: Path) -> list[str]:
    table = pa.table(dict(zip(NAMES, COLUMNS, strict=True)))
    sizes = []
    with (folder / "x.arrow").open("wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        for start in (0, 20):
            writer.write_table(table.slice(start, 20))
            sizes.append(file.tell())
    content = (folder / "x.arrow").read_bytes()
    (folder / "x.arrow").write_bytes(content[: sizes[0]])
    return ["dataset=local", f"dataset.path={folder / 'x.arrow'}"]


def dead_link(folder: Path) -> list[str]:
    (folder / "train.csv").write_text(csv_of())
    (folder / "test.csv").symlink_to("gone.csv")
    return ["dataset=local", f"dataset.path={folder}"]


def pipe_case(folder: Path) -> list[str]:
    (folder / "train.csv").write_text(csv_of())
    os.mkfifo(folder / "test.csv")
    return ["dataset=local", f"dataset.path={folder}"]


def kinds_case(folder: Path) -> list[str]:
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


def saved_case(folder: Path, how: str) -> list[str]:
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


def saved_but(folder: Path, gone: str) -> list[str]:
    """A saved data set that lacks a file or a folder."""
    words = saved_case(folder, "whole")
    (folder / "saved" / gone).rename(folder / "gone")
    return words


def saved_and(folder: Path, more: str) -> list[str]:
    """A saved data set with a file, or a split, that it does not name."""
    words = saved_case(folder, "whole")
    place = folder / "saved" / more
    if place.suffix:
        place.write_bytes(next(place.parent.glob("*.arrow")).read_bytes())
    else:
        (place.parent / "dataset_dict.json").write_text('{"splits": ["train"]}')
    return words


def lines_of_json() -> str:
    return "".join(f"{json.dumps(row)}\n" for row in json.loads(json_of({})))


def fasttext() -> str:
    return "".join(f"__label__{label} {text}\n" for text, label in rows_of_both())


def first_words() -> str:
    ends = (" ?", ", or so ?")
    return "".join(
        f"{label} {text}{ends[n % 3 == 0]}\n" for n, (text, label) in enumerate(rows_of_both())
    )


def class_files(*splits: str) -> Case:
    """A file for each class, with a text on each line."""
    return folder_of(
        {
            f"{split}{name}.txt": "".join(
                f"{text} of {split or 'all'}\n" for text, label in rows_of_both() if label == name
            )
            for split in splits or ("",)
            for name in LABELS
        }
    )


def class_folders(*splits: str, beside: str = "", rows: int = 40, suffix: str = ".txt") -> Case:
    """A file for each text, and other files, with commas between them, beside them."""
    files = {
        f"{split}{label}/{number}{suffix}": f"{text} of {split or 'all'}"
        for split in splits or ("",)
        for number, (text, label) in enumerate(rows_of_both()[:rows])
    }
    return folder_of({**files, **dict.fromkeys(filter(None, beside.split(",")), "any text")})


def class_tables(column: str) -> Case:
    return folder_of(
        {
            f"{label}/1.csv": f"text,{column}\n"
            + "".join(
                f"{text},{n}\n" for n, (text, own) in enumerate(rows_of_both()) if own == label
            )
            for label in LABELS
        }
    )


def texts_of(label: str) -> str:
    return "text\n" + "".join(f"{text}\n" for text, own in rows_of_both() if own == label)


def of_values(column: str, *more: str) -> Case:
    """A table in a folder for each value of a column."""
    tables = {
        f"{column}={label}/0.csv": "text\n"
        + "".join(f"{t}\n" for t, own in rows_of_both() if own == label)
        for label in LABELS
    }
    return folder_of(tables | {f"{column}={value}/0.csv": "text\na film\n" for value in more})


def folder_of(files: Mapping[str, str | bytes]) -> Case:
    def write(folder: Path) -> list[str]:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            raw = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(raw)
        return ["dataset=local", f"dataset.path={folder}"]

    return write


def beside_classes(name: str, *settings: str) -> Case:
    def write(folder: Path) -> list[str]:
        words = class_folders()(folder)
        (folder / name).write_text(csv_of())
        return [*words, *settings]

    return write


BY_NUMBER = ("dataset.text=1", "dataset.label=2")
NAMES = ("text", "label")
ANSWERS = ("accept", "accept", "accept", "reject")
SPLIT = ("train", "test")
COLUMNS = tuple(zip(*rows_of_both(), strict=True))
TYPED = "the shop\u2019s \u201cparcel\u201d"
TEST = csv_of([(f"{text} of test", label) for text, label in rows_of_both()])
LINES = tuple("".join(f"{cell}\n" for cell in column) for column in COLUMNS)
TEST_ROWS = [{"text": f"{text} of test", "label": label} for text, label in rows_of_both()]
SETS = [["bad", "dull"], ["bad"], ["dull"], ["good", "bad"]] * 10
MARKED = "text,bad,dull\n" + "".join(
    f"{text},{int('bad' in labels)},{int('dull' in labels)}\n"
    for (text, _), labels in zip(rows_of_both(), SETS, strict=True)
)
INSIDE = json.dumps(
    [{"id": 1, "review": {"body": text, "stars": label}} for text, label in rows_of_both()]
)
NUMBERS = [{"text": f"a text of test {n}", "label": n % 2} for n in range(20)]
LABEL_ROWS = [f"{number},{label}" for number, (_, label) in enumerate(rows_of_both())]
PAIR = {
    "X_train.csv": "\n".join(
        ["id,text", *(f"{n},{text}" for n, (text, _) in enumerate(rows_of_both()))]
    ),
    "y_train.csv": "\n".join(["id,label", *LABEL_ROWS]),
}


def cloned(facts: str, without: str = "") -> Case:
    files = {"data/a.csv": csv_of(), "data/b.csv": csv_of(rows_of_both()[::-1])}
    card = f"---\n{facts}\n---\n# About\n"
    kept = {name: content for name, content in files.items() if name != without}
    return folder_of({**kept, "README.md": card})
