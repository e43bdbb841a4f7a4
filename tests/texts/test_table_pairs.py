"""Texts in one table and their labels in another, row by row."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from layerfusion.commands.guesses import with_data
from layerfusion.errors import UserError
from tests.texts.conftest import Load

TEXTS = [f"text {number}, with a comma" for number in range(20)]
LABELS = ["bad" if number % 3 else "good" for number in range(20)]
NUMBERS = [str(number % 2) for number in range(20)]


def table(*columns: list[str], header: str = "") -> str:
    rows = [",".join(f'"{cell}"' for cell in row) for row in zip(*columns, strict=True)]
    return "\n".join([header, *rows] if header else rows) + "\n"


INDEX = [str(number) for number in range(20)]


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (
            {
                "X_train.csv": table(TEXTS, header="text"),
                "y_train.csv": table(LABELS, header="label"),
            },
            LABELS,
        ),
        ({"X_train.csv": table(TEXTS), "y_train.csv": table(LABELS)}, LABELS),
        (
            {"X_train.csv": table(TEXTS, header="0"), "y_train.csv": table(NUMBERS, header="0")},
            NUMBERS,
        ),
        (
            {"X_train.csv": table(TEXTS, header="text"), "y_train.csv": table(NUMBERS, header="0")},
            NUMBERS,
        ),
        ({"X_train.csv": table(TEXTS, header="text"), "y_train.csv": table(LABELS)}, LABELS),
        (
            {
                "texts.csv": table(INDEX, TEXTS, header=",text"),
                "labels.csv": table(INDEX, LABELS, header=",stars"),
            },
            LABELS,
        ),
        (
            {
                "train.csv": table(INDEX, TEXTS, header="id,text"),
                "train_labels.csv": table(INDEX, LABELS, header="id,label"),
            },
            LABELS,
        ),
    ],
)
def test_each_text_has_the_label_of_its_row(
    files: dict[str, str], labels: list[str], tmp_path: Path, load: Load
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "test.csv").write_text(table(TEXTS, labels, header="text,label"))
    if "texts.csv" in files:
        (tmp_path / "test.csv").unlink()
    data = load(path=tmp_path)
    rows = {
        text: data.label_names[label]
        for split in data.splits.values()
        for text, label in zip(split.texts, split.labels, strict=True)
    }
    assert rows == dict(zip(TEXTS, labels, strict=True))
    assert any("a text and its label on each row" in note for note in data.notes)


def test_every_split_has_its_own_labels_and_columns_are_guessed(tmp_path: Path, load: Load) -> None:
    for split, labels in (("train", LABELS), ("test", LABELS[::-1])):
        texts = [f"{text} of {split}" for text in TEXTS]
        content = table(texts, TEXTS, header="review,other").encode()
        (tmp_path / f"X_{split}.csv.gz").write_bytes(gzip.compress(content))
        (tmp_path / f"y_{split}.csv").write_text(table(labels, INDEX, header="stars,other id"))
    words = with_data("train", [str(tmp_path)])
    assert {"dataset.text=review", "dataset.label=stars"} <= set(words)
    data = load(path=tmp_path, text="review", label="stars")
    test = data.splits["test"]
    assert [data.label_names[label] for label in test.labels] == LABELS[::-1]


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (
            table(TEXTS, header="text"),
            table(LABELS[1:], header="label"),
            "X_train.csv: it has 21 lines, and y_train.csv, .* has 20; write both into one table",
        ),
        (
            table(INDEX, TEXTS, header="id,text"),
            table(INDEX[::-1], LABELS, header="id,label"),
            "row 1: its id is '0', and that of y_train.csv '19'; put their rows in the same order",
        ),
        (table(TEXTS, header="text"), "", "y_train.csv: the file is empty"),
        (table(INDEX, TEXTS), table(LABELS), "give its columns names of their own"),
        ("text\n", "label\n", "X_train.csv: no rows"),
        ("text,id\n", "label,id\n", "X_train.csv: no rows"),
        (
            table(TEXTS[:-1], header="text") + "\n" + f'"{TEXTS[-1]}"\n',
            table(LABELS, header="label"),
            "X_train.csv: it has 22 lines, and y_train.csv, .* has 21; write both into one table",
        ),
        (
            table(TEXTS, header="text"),
            table(LABELS[:9], header="label") + "\n" + table(LABELS[10:]),
            "X_train.csv, row 10: the label is missing",
        ),
        (
            table([*TEXTS[:4], "", *TEXTS[5:]], header="text"),
            table(LABELS, header="label"),
            "X_train.csv, row 5: the text is empty",
        ),
        (
            table(TEXTS, header="text"),
            table([*LABELS[:4], "", *LABELS[5:]], header="label"),
            "X_train.csv, row 5: the label is missing",
        ),
        (
            table(TEXTS[1:], header="text"),
            table(LABELS, header="label"),
            "X_train.csv: it has 20 lines, and y_train.csv, .* has 21; write both into one table",
        ),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(
    texts: str, labels: str, message: str, tmp_path: Path, load: Load
) -> None:
    (tmp_path / "X_train.csv").write_text(texts)
    (tmp_path / "y_train.csv").write_text(labels)
    with pytest.raises(UserError, match=message):
        load(path=tmp_path)


@pytest.mark.parametrize("label", ["label", "verdict"])
def test_a_table_with_labels_of_its_own_is_read_alone(
    label: str, tmp_path: Path, load: Load
) -> None:
    (tmp_path / "data.csv").write_text(table(TEXTS, NUMBERS, header=f"text,{label}"))
    (tmp_path / "labels.csv").write_text("id,name\n0,bad\n1,good\n")
    data = load(path=tmp_path, label=label)
    assert data.label_names == ("0", "1")
    assert "labels.csv beside data.csv is not used" in data.notes
