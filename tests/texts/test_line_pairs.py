from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from layerfusion.config.assets import DataSourceConfig
from layerfusion.errors import UserError
from layerfusion.texts.columns import Columns
from layerfusion.texts.layout import read_tables

TEXTS, LABELS = ["a warm film", "a dull\u2028plot", "a cold, long play"], ["good", "bad", "bad"]
COLUMNS = Columns("text", "label", {})


def lines(column: list[str], end: str = "\n") -> bytes:
    return "".join(f"{cell}{end}" for cell in column).encode()


def pairs(path: Path) -> dict[str, list[tuple[str, str]]]:
    tables = read_tables(path, DataSourceConfig(path=str(path)), COLUMNS)
    return {s: list(zip(t.texts, t.labels, strict=True)) for s, t in tables.items()}


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        ("train.txt", "train.label"),
        ("train.txt", "TRAIN.LABELS"),
        ("train_text.txt", "train_labels.txt"),
        ("x_train.txt", "y_train.txt"),
        ("reviews.txt", "labels.txt"),
        ("train/seq.in", "train/label"),
        ("train.text", "train.lbl"),
        ("train.txt.gz", "train.label"),
    ],
)
def test_texts_get_the_labels_of_their_lines(texts: str, labels: str, tmp_path: Path) -> None:
    for name, content in ((texts, lines(TEXTS)), (labels, lines(LABELS, "\r\n"))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    right = list(zip(TEXTS, LABELS, strict=True))
    assert pairs(tmp_path) == {"train": right}
    assert pairs(tmp_path / texts) == {"train": right}, "the file of the texts alone"


def test_a_table_is_not_read_as_lines(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("text\tlabel\na warm film\tgood\na dull plot\tbad\n")
    (tmp_path / "train.labels").write_text("x\ny\nz\n")
    assert pairs(tmp_path / "train.txt") == {
        "train": [("a warm film", "good"), ("a dull plot", "bad")]
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train.txt": "a\nb\n", "train.label": "x\n\ny\n"}, "train.txt: it has 2 lines"),
        ({"train.txt": "a b\nc\n", "train.label": "O B\nO\n"}, "it has a label for each word"),
        ({"train.txt": "a\n", "train.label": "x\n", "dev.txt": "a\n"}, "the labels of dev.txt"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        pairs(tmp_path)
