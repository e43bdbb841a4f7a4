"""The table of docs/add_a_data_set.md says what becomes of each kind of file."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import re
from pathlib import Path

import pytest

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.errors import UserError
from layerfusion.texts import load_dataset
from tests.texts.data_files import (
    ANSWERS,
    BY_NUMBER,
    COLUMNS,
    INSIDE,
    LABEL_ROWS,
    LABELS,
    LINES,
    MARKED,
    NAMES,
    NUMBERS,
    PAIR,
    SPLIT,
    TEST,
    TEST_ROWS,
    TYPED,
    Case,
    arrow_case,
    beside_classes,
    class_files,
    class_folders,
    class_tables,
    cloned,
    csv_of,
    cut_arrow,
    dead_link,
    fasttext,
    first_words,
    folder_of,
    in_file,
    in_folder,
    json_of,
    kinds_case,
    labelled_csv,
    lines_of_json,
    numbered_test,
    of_values,
    other_order,
    packed_case,
    pipe_case,
    rows_of_both,
    saved_and,
    saved_but,
    saved_case,
    several_case,
    shard_files,
    some_unlabelled,
    texts_of,
    yaml_words,
)

PAGE = Path(__file__).parents[2] / "docs" / "add_a_data_set.md"
CASES: dict[str, Case] = {
    "UTF-8 with a byte-order mark": in_file(csv_of(), "utf-8-sig"),
    "files with byte-order marks, joined to one": in_file(f"\ufeff{csv_of()}\ufeffa film,good\n"),
    "UTF-16 without `dataset.encoding`": in_file(csv_of(), "utf-16"),
    "cp1252 without `dataset.encoding`": in_file(csv_of(extra=f"{TYPED},good\n"), "cp1252"),
    "GB 18030, Shift-JIS, windows-1251 and the like, without `dataset.encoding`": in_file(
        csv_of([(f"一部很好的电影{n}", "good") for n in range(40)]), "gb18030"
    ),
    "Polish, Turkish, Vietnamese and the like in encodings of their own": in_file(
        csv_of(extra="obsługa bardzo słaba i nigdy więcej,good\n"), "cp1250"
    ),
    "a short text in such an encoding, where several fit": in_file(
        "text,label\nхороший фильм,good\n", "koi8_r"
    ),
    "UTF-8 but for a few bytes": folder_of(
        {
            "x.csv": csv_of(extra="café ÿ crème brûlée à Évreux,good\n")
            .encode()
            .replace("ÿ".encode(), b"\xff")
        }
    ),
    "UTF-8 read as latin-1, or written so": in_file(
        csv_of(extra=f"{TYPED},good\n"), "utf-8", "dataset.encoding=latin-1"
    ),
    "cp1252 read as latin-1": in_file(
        csv_of(extra=f"{TYPED},good\n"), "cp1252", "dataset.encoding=latin-1"
    ),
    "NUL characters": in_file(csv_of(extra="a\0b,good\n")),
    "semicolons between the cells of a `.csv`": in_file(csv_of(comma=";")),
    "tabs between the cells of a `.csv`": in_file(csv_of(comma="\t")),
    "`sep=;` as the first line, as Excel has it": in_file(f"sep=;\n{csv_of(comma=';')}"),
    "spaces around the names of the columns": in_file(
        csv_of().replace("text,label", '" text", label')
    ),
    "a column called `Text` where `text` is wanted": in_file(csv_of().replace("text", "Text", 1)),
    "a column called `text (en)` where `text` is wanted": in_file(
        csv_of().replace("text", "text (en)", 1)
    ),
    "no header": in_file(csv_of().partition("\n")[2]),
    "no header, with `dataset.text=1 dataset.label=2`": in_file(
        csv_of().partition("\n")[2], "utf-8", *BY_NUMBER
    ),
    "the same, where the label of the first row is in no other": in_file(
        f"a film that nobody saw,odd\n{csv_of().partition(chr(10))[2]}", "utf-8", *BY_NUMBER
    ),
    "a first line that is no usual header, and reads like a row": in_file(
        f"so very odd,odd\n{csv_of().partition(chr(10))[2]}"
    ),
    "a label as the first word of each line, as in TREC": in_file(first_words(), name="trec.txt"),
    "the same, with `dataset.text=2 dataset.label=1`": in_file(
        first_words(), "utf-8", "dataset.text=2", "dataset.label=1", name="trec.txt"
    ),
    "a header, with `dataset.text=1 dataset.label=2`": in_file(csv_of(), "utf-8", *BY_NUMBER),
    "comments (`#`) above the header": in_file(f"# made by us, by hand\n# in 2024\n{csv_of()}"),
    "a title above the header": in_file(f"Reviews of 2024,\n,\n{csv_of()}"),
    "other characters between the names of the columns": in_file(csv_of(comma="^")),
    "fastText's form (`__label__good a fine film`)": in_file(fasttext(), name="reviews.txt"),
    "two labels on a line of fastText's form": in_file(
        f"__label__dull {fasttext()}", name="x.train"
    ),
    "two labels on such a line, with `dataset.multilabel=true`": in_file(
        f"__label__dull {fasttext()}", "utf-8", "dataset.multilabel=true", name="x.train"
    ),
    "a word and its label on each line (CoNLL)": in_file(
        "\n".join(["a O\nfilm B"] * 9).replace("B\n", "B\n\n"), name="x.txt"
    ),
    "suffixes in upper case, and gzip": packed_case,
    "files that bzip2 or xz packed (`.csv.bz2`, `.csv.xz`)": folder_of(
        {
            "train.csv.bz2": bz2.compress(csv_of().encode()),
            "test.csv.xz": lzma.compress(TEST.encode()),
        }
    ),
    "rows behind the packed part of a file, as of `cat more.csv >> reviews.csv.gz`": folder_of(
        {"train.csv.gz": gzip.compress(csv_of().encode()) + b"a film,good\n"}
    ),
    "`.ndjson`, as `.jsonl`": in_file(lines_of_json(), name="reviews.ndjson"),
    "`.arrow` and `.feather`, also as the `datasets` library caches them": arrow_case,
    "a folder of `save_to_disk`, of one data set or of several splits, in any number of shards": (
        lambda folder: saved_case(folder, "whole")
    ),
    "folders `train` and `test` of `save_to_disk`": lambda folder: saved_case(folder, "apart"),
    "such a folder, a shard of which is missing": lambda folder: saved_but(
        folder, "train/data-00001-of-00003.arrow"
    ),
    "a folder of `save_to_disk` without the folder of a split that it names": lambda folder: (
        saved_but(folder, "test")
    ),
    "rows in such a folder that its list does not name": lambda folder: saved_and(
        folder, "train/more.arrow"
    ),
    "a split in such a folder that its list does not name": lambda folder: saved_and(
        folder, "test"
    ),
    "a folder cloned from the hub, whose `README.md` lists the files of each split": cloned(
        "configs: [{config_name: default, data_files: {train: data/a.csv, test: data/b*.csv}}]"
    ),
    "such a folder, whose `README.md` lists files of a split that are not there": cloned(
        "configs: [{config_name: default, data_files: {train: data/a.csv, test: data/b*.csv}}]",
        without="data/b.csv",
    ),
    "such a folder with several subsets, none of them the default": cloned(
        "configs: [{config_name: one, data_files: data/a.csv},"
        " {config_name: two, data_files: data/b.csv}]"
    ),
    "numbers that the `README.md` or `dataset_info.json` of such a folder names": folder_of(
        {
            "train.csv": labelled_csv("0", "1"),
            "dataset_info.json": '{"features": {"label": {"names": ["bad", "good"]}}}',
        }
    ),
    "a table of Delta Lake, Iceberg, Hudi or Lance": folder_of(
        {"part-00000-a.csv": csv_of(), "part-00001-b.csv": TEST, "_delta_log/0.json": "{}"}
    ),
    "the folder in which the hub's client keeps a data set": folder_of(
        {"blobs/1": csv_of(), "refs/main": "0a", "snapshots/0a/train.csv": csv_of()}
    ),
    "a spreadsheet (`.xlsx`, `.ods`)": in_file("PK\x03\x04 and so on", name="reviews.xlsx"),
    "a spreadsheet beside `train.csv`": folder_of(
        {"train.csv": csv_of(), "test.xlsx": "PK\x03\x04"}
    ),
    "an archive (`.zip`, `.tar.gz`)": in_file("", name="reviews.tar.gz"),
    "a Git LFS pointer in the place of the data": in_file(
        "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", name="x.jsonl"
    ),
    "a web page named `.csv`": in_file("<!DOCTYPE html>\n<html><body>Not found</body></html>\n"),
    "rows of JSON in a `.csv`": in_file(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows_of_both())
    ),
    "an Arrow file that was cut off": cut_arrow,
    "a link to a file that does not exist": dead_link,
    "a pipe or a device in the place of a file": pipe_case,
    "an Excel file or a zip archive named `.csv`": in_file("PK\x03\x04 and so on"),
    "a file of HDF5, Avro or lz4 named `.csv`": folder_of({"x.csv": b"\x89HDF\r\n and so on"}),
    "a line break inside a quoted cell": in_file(csv_of(extra='"two\nlines",good\n')),
    "rows that end in carriage returns, as on old Macs": in_file(
        csv_of().replace("\n", "\r") + '"two\nlines",good\r'
    ),
    "blank lines between rows of several columns, which are no rows": in_file(
        csv_of().replace("\n", "\n\n")
    ),
    "blank lines between rows of a single column, which have an empty cell each": in_folder(
        {
            "X_train.csv": "\n".join(["text", *(text for text, _ in rows_of_both())]).replace(
                rows_of_both()[19][0], ""
            ),
            "y_train.csv": "\n".join(["label", *(label for _, label in rows_of_both())]),
        }
    ),
    "a carriage return inside a row": in_file(csv_of(extra="two\rlines,good\n")),
    "HTML entities (`&amp;`), which stay as they are": in_file(
        csv_of(extra="a &lt;br&gt; b,good\n")
    ),
    "spaces between commas and quotation marks": in_file(
        "text, label\n" + "".join(f'"{text}, yes", "{label}"\n' for text, label in rows_of_both())
    ),
    "quotation marks that do not enclose whole cells": in_file(csv_of(extra='"good" film,good\n')),
    "quotation marks after a backslash": in_file(csv_of(extra='"a \\"good\\", long film",good\n')),
    "a quotation mark that is never closed, beside a cell with a comma": in_file(
        csv_of(extra='"long, dull",bad\n"never closed,good\n')
    ),
    "a row with too many cells": in_file(csv_of(extra="long, dull,bad\n")),
    "the header once more among the rows": in_file(csv_of() + TEST),
    "the names of both columns in a row of any other format": in_file(
        json.dumps([{"text": text, "label": label} for text, label in [*rows_of_both(), NAMES]]),
        name="reviews.json",
    ),
    "a sum at the foot of a table (`Total,60`)": in_file(csv_of(extra="Total,60\n")),
    "dashes below the header, as in Markdown": in_file(
        "| text | label |\n|------|------|\n"
        + "".join(f"| {text} | {label} |\n" for text, label in rows_of_both()),
        name="reviews.txt",
    ),
    "two columns called `text`": in_file(
        "text,text,label\n" + "".join(f"{text},b,{label}\n" for text, label in rows_of_both())
    ),
    "two columns of one name that is neither the text's nor the label's": in_file(
        "id,id,text,label\n" + "".join(f"1,2,{text},{label}\n" for text, label in rows_of_both())
    ),
    "all shards of a split": lambda folder: shard_files(folder, (0, 1)),
    "a missing shard": lambda folder: shard_files(folder, (0,)),
    "`train_part1.csv` and `train_part2.csv`": in_folder(
        {"train_part1.csv": csv_of(), "train_part2.csv": TEST}
    ),
    "a missing part": in_folder({"train_part1.csv": csv_of(), "train_part3.csv": TEST}),
    "`train1.csv` and `train2.csv`, which may be folds": in_folder(
        {"train1.csv": csv_of(), "train2.csv": TEST}
    ),
    "the same, with `'dataset.files.train=\"train*.csv\"'`": in_folder(
        {"train1.csv": csv_of(), "train2.csv": TEST}, 'dataset.files.train="train*.csv"'
    ),
    "two files for one split": in_folder({"train.csv": csv_of(), "training.csv": TEST}),
    "a file that no split takes": in_folder({"train.csv": csv_of(), "holdout.csv": TEST}),
    "a column that says which split a row is of": in_file(
        "text,label,split\n"
        + "".join(
            f"{text},{label},{SPLIT[n // 20]}\n" for n, (text, label) in enumerate(rows_of_both())
        )
    ),
    "a file called `test` in a format that is not read": in_folder(
        {"train.csv": csv_of(), "test.xml": "<a/>"}
    ),
    "a folder with data beside `train.csv`": folder_of(
        {"train.csv": csv_of(), "more/train.csv": TEST}
    ),
    "a folder `eval` beside the folders `train` and `test`": folder_of(
        {"train/x.csv": csv_of(), "test/x.csv": TEST, "eval/x.csv": TEST}
    ),
    "`train.csv` and a folder `test`": folder_of({"train.csv": csv_of(), "test/x.csv": TEST}),
    "`test.csv` in the folder `train`": folder_of(
        {"train/train.csv": csv_of(), "train/test.csv": TEST}
    ),
    "the same file, named by `dataset.files`": in_folder(
        {"train.csv": csv_of(), "holdout.csv": TEST},
        "dataset.files={train: train.csv, test: holdout.csv}",
    ),
    "`train.csv` alone, with `test.csv` beside it": in_folder(
        {"train.csv": csv_of(), "test.csv": TEST}, path="train.csv"
    ),
    "a folder of `.txt` files for each class": class_folders(),
    "the same below `train` and `test`": class_folders("train/", "test/"),
    "texts without a suffix in a folder for each class": class_folders(suffix=""),
    "web pages in a folder for each class": class_folders(suffix=".html"),
    "tables in a folder for each class (`good/1.csv`)": class_tables("id"),
    "the same, where the tables have labels of their own": class_tables("stars"),
    "an object of JSON for each text (`good/7.json`)": folder_of(
        {
            f"{label}/{number}.json": json.dumps({"id": number, "text": text})
            for number, (text, label) in enumerate(rows_of_both())
        }
    ),
    "folders like `label=good`, as Spark writes them": of_values("label"),
    "such folders with one for rows without a label": of_values(
        "label", "__HIVE_DEFAULT_PARTITION__"
    ),
    "folders like `year=2020`": of_values("year"),
    "a text of its own in the folder of one class, and a table in that of another": folder_of(
        {"bad/1.csv": "text\na film\n", "good/7.txt": "a film"}
    ),
    "such a text beside tables of every class": folder_of(
        {
            **{f"{label}/1.csv": texts_of(label) for label in LABELS},
            "good/7.txt": "a film",
        }
    ),
    "a `.txt` file for each class, with a text on each line": class_files(),
    "such files below `train` and `test`": class_files("train/", "test/"),
    "files of any name below `train` and `test`": folder_of(
        {"train/mine.csv": csv_of(), "test/yours.csv": TEST}
    ),
    "several files below `train`": folder_of({"train/a.csv": csv_of(), "train/b.csv": TEST}),
    "folders in the folders of the classes": folder_of(
        {
            f"{split}/{label}/{number % 3}/{number}.txt": text
            for split in ("train", "test")
            for number, (text, label) in enumerate(rows_of_both())
        }
    ),
    "a folder `unsup` among those of the classes": class_folders(
        "train/", "test/", beside="train/unsup/1.txt"
    ),
    "other files among those of the classes": class_folders(beside="good/notes.md,README"),
    "a `README.txt` among the texts of a class": class_folders(beside="good/README.txt"),
    "a file for each split in the folder of each class (`good/train.txt`)": folder_of(
        {f"{label}/{split}.txt": texts_of(label) for label in LABELS for split in SPLIT}
    ),
    "a folder without texts among those of the classes": class_folders(beside="neutral/1.md"),
    "what systems and open programs leave among the texts (`Thumbs.db`, `~$7.txt`)": class_folders(
        beside="good/Thumbs.db,good/~$7.txt,bad/.DS_Store,__MACOSX/good/._7.txt"
    ),
    "a table without texts beside the folders of the classes": class_folders(
        beside="meta.csv,README"
    ),
    "a table with texts, or with other labels, beside them": beside_classes("data.csv"),
    "the same, with `dataset.files.train=.`": beside_classes("data.csv", "dataset.files.train=."),
    "a table called `test` beside them": beside_classes("test.csv"),
    "`train.txt` with `train.label`, a text and a label on each line": in_folder(
        {"train.txt": LINES[0], "train.label": LINES[1]}
    ),
    "`train_text.txt` with `train_labels.txt`, and so for each split": in_folder(
        {
            f"{split}_{kind}.txt": lines.replace("\n", f" {split}\n") if kind == "text" else lines
            for split in ("train", "test")
            for kind, lines in zip(("text", "labels"), LINES, strict=True)
        }
    ),
    "such files with different numbers of lines": in_folder(
        {"train.txt": LINES[0], "train.label": LINES[1].partition("\n")[2]}
    ),
    "such files, and a test without labels": in_folder(
        {"train.txt": LINES[0], "train.label": LINES[1], "test.txt": LINES[0]}
    ),
    "`X_train.csv` with `y_train.csv`, a text and a label on each row": in_folder(PAIR),
    "such tables with different numbers of rows": in_folder(
        {**PAIR, "y_train.csv": PAIR["y_train.csv"].rpartition("39,")[0]}
    ),
    "such tables whose rows have other `id`s": in_folder(
        {**PAIR, "y_train.csv": "\n".join(["id,label", *LABEL_ROWS[::-1]])}
    ),
    "`train.csv` and `test.csv` one folder deeper": class_folders(
        beside="data/train.csv,data/test.csv", rows=0
    ),
    "folders of classes two folders deeper": class_folders("more/data/train/", "more/data/test/"),
    "class names in another order in train and test": other_order,
    "the same class names in another order in `dataset.label_names`": lambda folder: [
        *other_order(folder),
        f"dataset.label_names=[{','.join(LABELS[::-1])}]",
    ],
    "numbers without names in test, where train has class names": numbered_test,
    "numbers in CSV and the same numbers in JSON": in_folder(
        {"train.csv": labelled_csv("0", "1"), "test.json": json.dumps(NUMBERS)}
    ),
    "numbers and words as labels of one column": in_file(
        json_of({"label": 1}), name="reviews.json"
    ),
    "labels such as `01`, with leading zeros": in_file(labelled_csv("01", "02")),
    "true and 1 as labels of one column, in JSON": in_file(
        json.dumps(
            [{"text": x, "label": (True, 1)[n % 2]} for n, (x, _) in enumerate(rows_of_both())]
        ),
        name="reviews.json",
    ),
    "a number as a label that is written in two ways": in_file(labelled_csv("7", "007", "8")),
    "`Spam` and `spam`": in_file(labelled_csv("Spam", "spam")),
    "a class that differs by marks around it, or by marks that nobody sees": in_file(
        csv_of(extra="a film,good\u200b\nb film,good\u200b\nc film,good\u200b\n")
    ),
    "a class that differs by letters of another alphabet that look the same": in_file(
        labelled_csv("bad", "good", "g\u043eod")
    ),
    "yes or no as a label that is written in two ways": in_file(labelled_csv("no", "yes", "False")),
    "labels as Python prints them (`['good']`, `b'good'`, `tensor(1)`), or in quotation marks": (
        in_file(labelled_csv("tensor(0)", "tensor(1)"))
    ),
    "a name for which train has no row": in_file(
        labelled_csv("0", "1"), "utf-8", "dataset.label_names=[bad,good,more]"
    ),
    "a file that lists the classes": in_folder(
        {"train.csv": labelled_csv("0", "1"), "classes.txt": "bad\ngood\n"}
    ),
    "`None` or `n/a` as a label": in_file(labelled_csv("None", "good")),
    "`nan` or `NULL` as a text": in_file(csv_of(extra="NULL,good\n")),
    "bytes as Python prints them (`b'a film'`) as a text": in_file(
        csv_of(extra="b'a film',good\n")
    ),
    "numbers alone as texts": in_file(csv_of([(str(n), LABELS[n % 2]) for n in range(40)])),
    "labels that were not accepted, in the column `answer` of Prodigy": in_file(
        "".join(
            json.dumps({"text": text, "label": label, "answer": ANSWERS[n % 4]}) + "\n"
            for n, (text, label) in enumerate(rows_of_both())
        ),
        name="reviews.jsonl",
    ),
    "-1 as every label of test": in_folder(
        {"train.csv": labelled_csv("0", "1"), "test.csv": "text,label\none text,-1\ntwo texts,-1\n"}
    ),
    "no label in any row of test": in_folder(
        {"train.csv": csv_of(), "test.csv": "text,label\none text,\ntwo texts, \n"}
    ),
    "a test without a column of labels": in_folder(
        {"train.csv": csv_of(), "test.csv": "id,text\n1,one text\n2,two texts\n"}
    ),
    "-1 as some labels of test": in_folder(
        {"train.csv": csv_of(), "test.csv": "text,label\none text,-1\ntwo texts,good\n"}
    ),
    "-1 as some labels, where the classes have names": some_unlabelled,
    "a label in test that train never has": in_folder(
        {"train.csv": csv_of(), "test.csv": "text,label\none text,fair\n"}
    ),
    "the same, where it differs from one of train by case, or by marks that nobody sees": in_folder(
        {"train.csv": csv_of(), "test.csv": TEST.replace(",good", ",Good")}
    ),
    "half characters in JSON (lone surrogates)": in_file(
        json_of({"text": "half \ud83d"}), name="reviews.json"
    ),
    "labels that differ in half characters alone": in_file(
        json_of({"label": "\ud83d"}).replace('"bad"', '"\\ud83e"'), name="reviews.json"
    ),
    'JSON by columns (`{"text": […], "label": […]}`)': in_file(
        json.dumps({name: list(column) for name, column in zip(NAMES, COLUMNS, strict=True)}),
        name="reviews.json",
    ),
    'JSON with the rows under one key (`{"data": […]}`)': in_file(
        json.dumps({"version": 1, "data": json.loads(json_of({}))}), name="reviews.json"
    ),
    'JSON with the rows of each split under a key (`{"train": […], "test": […]}`)': in_file(
        json.dumps({"train": json.loads(json_of({})), "test": TEST_ROWS}), name="reviews.json"
    ),
    "JSON with rows under other keys": in_file(
        json.dumps({"mine": json.loads(json_of({})), "yours": TEST_ROWS}), name="reviews.json"
    ),
    "rows of JSON that are lists, the first of which names the columns": in_file(
        json.dumps([NAMES, *rows_of_both()]), name="reviews.json"
    ),
    "`null` among the rows of JSON": in_file(f"{lines_of_json()}null\n", name="reviews.jsonl"),
    "an object a line with a comma after each": in_file(
        lines_of_json().replace("\n", ",\n"), name="reviews.jsonl"
    ),
    "objects as Python prints them": in_file(
        "".join(f"{{'text': '{text}', 'label': '{label}'}}\n" for text, label in rows_of_both()),
        name="reviews.jsonl",
    ),
    "objects in a column, with `dataset.text=review.body dataset.label=review.stars`": in_file(
        INSIDE, "utf-8", "dataset.text=review.body", "dataset.label=review.stars", name="x.json"
    ),
    "objects in a column, without it": in_file(INSIDE, name="x.json"),
    "several texts in a row, as in SQuAD and in chats": in_file(
        json.dumps(
            [{"messages": [{"role": "user", "content": text}]} for text, _ in rows_of_both()]
        ),
        name="x.json",
    ),
    "a text that is a list of words": in_file(
        json.dumps([{"text": text.split(), "label": label} for text, label in rows_of_both()]),
        name="x.json",
    ),
    'a label in a list of its own (`["good"]`)': in_file(
        json.dumps([{"text": text, "label": [label]} for text, label in rows_of_both()]),
        name="x.json",
    ),
    "several labels in a list": in_file(json_of({"label": ["bad", "dull"]}), name="x.json"),
    "several labels in a list that is a text (`['bad', 'dull']`) of a csv": several_case("python"),
    "the same, with `dataset.multilabel=true`": several_case("python", "dataset.multilabel=true"),
    "labels between semicolons, without `dataset.multilabel`": in_file(
        labelled_csv("bad", "good", "dull", "bad;dull")
    ),
    "labels between semicolons, with `dataset.multilabel=true`": several_case(
        ";", "dataset.multilabel=true"
    ),
    "the same, with `'dataset.label_separator=\";\"'`": several_case(
        ";", "dataset.multilabel=true", 'dataset.label_separator=";"'
    ),
    "a text without labels, with `dataset.multilabel=true`": several_case(
        "python", "dataset.multilabel=true", last=[]
    ),
    "a label twice in a row, with `dataset.multilabel=true`": several_case(
        "python", "dataset.multilabel=true", last=["bad", "bad"]
    ),
    "shares of labels in a list (`[0.7, 0.3]`), with `dataset.multilabel=true`": in_file(
        "".join(
            json.dumps({"text": text, "label": [0.7, 0.3]}) + "\n" for text, _ in rows_of_both()
        ),
        "utf-8",
        "dataset.multilabel=true",
        name="reviews.jsonl",
    ),
    "one label in every row, with `dataset.multilabel=true`": in_file(
        csv_of(), "utf-8", "dataset.multilabel=true"
    ),
    "a column of 0 and 1 for each label, with `dataset.label_columns=[bad,dull]`": in_file(
        MARKED, "utf-8", "dataset.label_columns=[bad,dull]"
    ),
    "such a column with another cell": in_file(
        MARKED.replace("1,1\n", "1,2\n", 1), "utf-8", "dataset.label_columns=[bad,dull]"
    ),
    "a label that every row of train has, with `dataset.multilabel=true`": several_case(
        "python", "dataset.multilabel=true", always="bad"
    ),
    "categories, large strings and bytes of UTF-8 in parquet": kinds_case,
    "a key twice in one object of JSON": in_file(
        json_of({}).replace("{", '{"label": "bad", ', 1), name="reviews.json"
    ),
    "a number where a text should be, in JSON": in_file(json_of({"text": 7}), name="reviews.json"),
    "an object where a text should be": in_file(
        json_of({"text": {"en": "a film"}}), name="reviews.json"
    ),
    "`no` and `yes` in a YAML file's `label_names`, without quotation marks": yaml_words,
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
