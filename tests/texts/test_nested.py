from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from layerfusion.errors import UserError
from layerfusion.texts.columns import Columns
from layerfusion.texts.readers import read_file

ROWS = [
    {"id": 7, "review": {"body": f"a film {n}", "stars": n % 2}, "tags": [{"name": "x"}]}
    for n in range(4)
]


def read(folder: Path, rows: object, text: str, label: str | None) -> list[Any]:
    (folder / "x.json").write_text(json.dumps(rows))
    table = read_file(folder / "x.json", Columns(text, label, {}, keep_others=label is None))
    return [table.texts, table.labels, dict(table.others)]


def test_a_path_names_what_lies_inside_a_column(tmp_path: Path) -> None:
    texts, labels, _ = read(tmp_path, ROWS, "review.body", "review.stars")
    assert (texts, labels) == ([f"a film {n}" for n in range(4)], [0, 1, 0, 1])
    texts, _, others = read(tmp_path, ROWS, "tags.0.name", None)
    assert texts == ["x"] * 4
    assert list(others) == ["id", "review", "tags"]  # as the file has them


def test_a_column_goes_before_a_path(tmp_path: Path) -> None:
    rows = [{"a.b": "whole", "a": {"b": "part", "c": "other"}}]
    assert read(tmp_path, rows, "a.b", "a.c")[:2] == [["whole"], ["other"]]


def test_a_part_that_a_row_lacks_is_missing(tmp_path: Path) -> None:
    rows = [*ROWS, {"id": 8, "review": None}, {"review": {"stars": 1}}, {"review": "flat"}]
    assert read(tmp_path, rows, "review.body", "review.stars")[0][4:] == [None] * 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("body", "did you mean dataset.text=review.body?"),
        ("review.title", "there is no column 'review.title'"),
        ("tags.1.name", "in lists there are: 'tags.0.name', where 0 is the first item"),
        ("id.x", "there is no column 'id.x'"),
    ],
)
def test_a_path_that_leads_nowhere_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, ROWS, text, "review.stars")
    assert message in str(error.value)


def test_lists_of_words_are_joined_and_a_label_leaves_its_list(tmp_path: Path) -> None:
    rows = [{"text": ["a", "fine", "film"], "label": ["good"]}, {"text": "plain", "label": "bad"}]
    (tmp_path / "x.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    table = read_file(tmp_path / "x.jsonl", Columns("text", "label", {}))
    assert (table.texts, table.labels) == (["a fine film", "plain"], ["good", "bad"])
    assert table.notes == (
        "x.jsonl: 1 text is a list of words, which are joined by spaces",
        "x.jsonl: 1 label stands in a list of one, and is taken out",
    )
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": ["a", "b"], "n": [1, 2, 3]}))
    one = read_file(tmp_path / "x.jsonl", Columns("text", None, {}))
    assert one.texts == ["a b"]  # a row, and no columns, as its lists are of different length
