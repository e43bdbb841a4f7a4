"""Tables in a folder for each class: the name of the folder is the label of each row."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from layerfusion.commands.guesses import with_data
from layerfusion.errors import UserError
from tests.texts.conftest import Load

SPLITS = ("train", "test")


def frame(label: str, split: str, column: str = "text") -> pd.DataFrame:
    return pd.DataFrame({
        "id": range(20),
        column: [f"a film of {split}, number {n}, which is {label}" for n in range(20)],
    })  # fmt: skip


def write(path: Path, rows: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows.to_dict("records")))
    elif path.suffix == ".parquet":
        rows.to_parquet(path)
    else:
        rows.to_csv(path, index=False)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".parquet"])
@pytest.mark.parametrize("below", [True, False])
def test_each_row_has_the_label_of_its_folder(
    suffix: str, below: bool, tmp_path: Path, load: Load
) -> None:
    for split in SPLITS if below else ("all",):
        for label in ("good", "1"):
            above = tmp_path / split if below else tmp_path
            rows = frame(label, split)
            write(above / label / f"a{suffix}", rows.iloc[:12])
            write(above / label / f"b{suffix}", rows.iloc[12:])
    data = load(path=tmp_path)
    assert sum(map(len, data.splits.values())) == (80 if below else 40)
    for split, rows in data.splits.items():
        for text, label in zip(rows.texts, rows.labels, strict=True):
            assert text.endswith(f"which is {data.label_names[label]}")
            assert not below or ("film of test," in text) == (split == "test")
    assert any("the name of the folder is the label of each row" in note for note in data.notes)


def test_the_column_of_texts_is_guessed_and_a_wrong_row_is_named(
    tmp_path: Path, load: Load
) -> None:
    for label in ("good", "bad"):
        write(tmp_path / label / "x.csv", frame(label, "all", "review"))
    words = with_data("train", [str(tmp_path)])
    assert "dataset.text=review" in words
    assert not any("dataset.label" in word for word in words)
    assert load(path=tmp_path, text="review").label_names == ("bad", "good")
    rows = frame("bad", "all", "review")
    rows.loc[4, "review"] = ""
    write(tmp_path / "bad" / "x.csv", rows)
    with pytest.raises(UserError, match=r"bad/x\.csv, row 5: the text is empty"):
        load(path=tmp_path, text="review")


def test_folders_of_other_data_are_no_classes(tmp_path: Path, load: Load) -> None:
    for label in ("books", "films"):
        write(tmp_path / label / "x.csv", frame(label, "all").assign(stars=[1, 5] * 10))
    with pytest.raises(UserError, match=r"books/x\.csv has labels of its own, in the column 'star"):
        load(path=tmp_path)
    with pytest.raises(UserError, match=r"books/x\.csv has labels of its own, in the column 'id'"):
        load(path=tmp_path, label="id")
    write(tmp_path / "films" / "test.csv", frame("films", "all"))
    with pytest.raises(UserError, match="a file named train is needed"):
        load(path=tmp_path)


def test_a_class_in_another_form_is_not_left_out(tmp_path: Path, load: Load) -> None:
    for label in ("good", "bad"):
        write(tmp_path / label / "x.csv", frame(label, "all"))
    (tmp_path / "labels.json").write_text('["good", "bad"]')
    data = load(path=tmp_path)
    assert data.label_names == ("good", "bad")
    assert not any("labels.json in" in note for note in data.notes)
    (tmp_path / "fair").mkdir()
    for number in range(20):
        (tmp_path / "fair" / f"{number}.txt").write_text("a film")
    with pytest.raises(UserError, match="a file named train is needed"):
        load(path=tmp_path)


def test_what_is_not_used_is_said(tmp_path: Path, load: Load) -> None:
    for split in SPLITS:
        for label in ("good", "bad", "unsup"):
            write(tmp_path / split / label / "x.csv", frame(label, split))
    (tmp_path / "train" / "good" / "README.md").write_text("about the data")
    write(tmp_path / "more" / "y.csv", frame("good", "more").assign(label="good"))
    data = load(path=tmp_path)
    assert data.label_names == ("bad", "good")
    for said in (
        "train: train/unsup is left out, as its name says that its texts have no label",
        f"train/good/README.md in {tmp_path} is not used",
        f"more in {tmp_path} is not used",
    ):
        assert any(said in note for note in data.notes), said


@pytest.mark.parametrize("below", ["", "train/"])
def test_an_object_of_json_is_a_row_whatever_its_column_is_called(
    below: str, tmp_path: Path, load: Load
) -> None:
    for number in range(40):
        for split in ("train", "test") if below else ("",):
            file = tmp_path / split / ("bad", "good")[number % 2] / f"{number}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            row = {"id": number, "review": f"a film of {split} {number}", "tags": ["a", "b"]}
            file.write_text(json.dumps(row, indent=1))
    words = with_data("train", [str(tmp_path)])
    assert "dataset.text=review" in words
    data = load(path=tmp_path, text="review")
    assert sum(map(len, data.splits.values())) == (80 if below else 40)
    for rows in data.splits.values():
        for text, label in zip(rows.texts, rows.labels, strict=True):
            assert int(text.split()[-1]) % 2 == ("bad", "good").index(data.label_names[label])


def test_a_table_without_the_column_of_texts_is_named_by_its_folder(
    tmp_path: Path, load: Load
) -> None:
    for label in ("good", "bad"):
        write(tmp_path / label / "x.csv", frame(label, "all"))
    write(tmp_path / "good" / "y.csv", frame("good", "all", "body"))
    with pytest.raises(UserError, match=r"^good/y\.csv: there is no column 'text'"):
        load(path=tmp_path)
