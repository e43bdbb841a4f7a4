"""Tables in numbered parts: read in order, and never with one missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerfusion.errors import UserError
from tests.texts.conftest import Load

HASHES = ("0123456789abcdef", "fedcba9876543210")


def write(folder: Path, name: str, tag: object) -> None:
    """Write six rows whose texts say which part they are of."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"text {number} of part {tag},{'ab'[number % 2]}" for number in range(6)]
    path.write_text("\n".join(["text,label", *lines]) + "\n")


@pytest.mark.parametrize(
    "names",
    [
        ["train_part1.csv", "train_part2.csv"],
        [f"train_part{number}.csv" for number in range(1, 12)],
        ["reviews_train_shard-0.csv", "reviews_train_shard-1.csv"],
        ["train-00000-of-00002.csv", "train-00001-of-00002.csv"],
        ["train_1_of_2.csv", "train_2_of_2.csv"],
        [f"train-0000{n}-of-00002-{hash_}.csv" for n, hash_ in enumerate(HASHES)],
        ["train/0.csv", "train/1.csv"],
        ["train/part-00001.csv", "train/part-00002.csv"],
        ["train/2019.csv", "train/2021.csv"],
        ["part-00000-1b6f-c000.csv", "part-00001-1b6f-c000.csv"],
        ["part_20240101.csv", "part_20240115.csv"],
        ["train_part_20240101.csv", "train_part_20240115.csv"],
        ["train_part_202401.csv", "train_part_202403.csv"],
        ["train/part-2024-01-01.csv", "train/part-2024-02-01.csv"],
        ["train_part2019.csv", "train_part2021.csv"],
        ["train_part_1700000000.csv", "train_part_1700086400.csv"],
        ["_SUCCESS", "part-00000-1b6f-c000.csv", "part-00002-1b6f-c000.csv"],
    ],
)
def test_parts_are_joined_in_order(names: list[str], tmp_path: Path, load: Load) -> None:
    for number, name in enumerate(names):
        write(tmp_path, name, number)
    parts = [name for name in names if name.endswith(".csv")]
    assert sum(load(path=tmp_path).available.values()) == 6 * len(parts)


def test_parts_stand_in_the_order_of_their_numbers(tmp_path: Path, load: Load) -> None:
    for number in range(1, 12):
        write(tmp_path, f"train_part{number}.csv", number)
    for split in ("validation", "test"):
        write(tmp_path, f"{split}.csv", split)
    texts = load(path=tmp_path).splits["train"].texts
    assert [text.rpartition(" ")[2] for text in texts[::6]] == [str(n) for n in range(1, 12)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train_part1.csv", "train_part3.csv"], "part 2 of train is missing"),
        (["train_part2.csv"], "part 1 of train is missing"),
        (["train.csv", "test_part2.csv"], "part 1 of test is missing"),
        (["train_00000_of_00003.csv", "train_00002_of_00003.csv"], "shard 1 of train is missing"),
        ([f"train-00000-of-00002-{HASHES[0]}.csv"], "shard 1 of train is missing"),
        (["data-00000-of-00002.csv", "data-00002-of-00003.csv"], "is missing"),
        (["part-00000.csv", "part-00002.csv"], "part 1 of .* is missing"),
        (["train/0.csv", "train/2.csv"], "part 1 of train is missing"),
        (["train/x-00001-of-00002.csv"], "shard 0 of train is missing"),
        (["x-0-of-99999999999.csv"], "shard 1, 2, 3, 4, 5 of .* is missing"),
        (["reviews_part2.csv"], "part 1 of .* is missing"),
        (["train_part1.csv", "train_part_999999999999.csv"], "part 2, 3, 4, 5, 6 of train is mis"),
        (["train_part1.csv", "train_part2024.csv"], "part 2, 3, 4, 5, 6 of train is missing"),
    ],
)
def test_a_gap_is_an_error(names: list[str], message: str, tmp_path: Path, load: Load) -> None:
    for number, name in enumerate(names):
        write(tmp_path, name, number)
    with pytest.raises(UserError, match=message):
        load(path=tmp_path)


def test_numbers_may_be_those_of_folds_and_the_line_says_what_reads_them(
    tmp_path: Path, load: Load
) -> None:
    for name in ("train1", "train2", "train10", "test1"):
        write(tmp_path, f"{name}.csv", name)
    with pytest.raises(UserError) as caught:
        load(path=tmp_path)
    line = str(caught.value)
    assert "dataset.files.train=train1.csv dataset.files.test=test1.csv takes the first" in line
    assert """'dataset.files.train="train1*.csv"'""" not in line
    assert """'dataset.files.train="train*.csv"' dataset.files.test=test1.csv all of them""" in line
    data = load(path=tmp_path, files={"train": "train*.csv", "test": "test1.csv"})
    assert data.available["train"] + data.available["validation"] == 18
    assert "train: 3 files are joined: train1.csv, train2.csv, train10.csv" in data.notes
    with pytest.raises(UserError, match=r"there is no 'trains\*.csv'; there are: test1.csv"):
        load(path=tmp_path, files={"train": "trains*.csv"})
