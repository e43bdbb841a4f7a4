from __future__ import annotations

import json
from pathlib import Path

import pytest

from layerfusion.config.job import DatasetConfig, LimitConfig
from layerfusion.errors import UserError
from layerfusion.texts import TextDataset, load_dataset

FEATURES = """\
dataset_info:
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': bad, '1': good, '2': mixed}}}
"""


def _rows(name: str, rows: int = 30, labels: str = "012") -> str:
    lines = [f"text {n} of {name},{labels[n % len(labels)]}\n" for n in range(rows)]
    return "text,label\n" + "".join(lines)


def _load(
    folder: Path, files: dict[str, str], card: str, named: dict[str, str] | None = None
) -> TextDataset:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    if card:
        (folder / "README.md").write_text(f"---\nlicense: mit\n{card}---\n# About\n")
    config = DatasetConfig("cloned", path=str(folder), files=named or {})
    return load_dataset(config, LimitConfig(), seed=0, cache=folder.parent / "cache")


PARTS = {"data/a-0.csv": _rows("a"), "data/a-1.csv": _rows("b"), "data/b.csv": _rows("c")}


@pytest.mark.parametrize(
    "files",
    [
        "[{split: train, path: data/a-*.csv}, {split: test, path: [data/b.csv]}]",
        "{train: [data/a-0.csv, data/a-1.csv], test: data/b.csv}",
        "{training: 'data/a-?.csv', test: data/b.csv}",
    ],
)
def test_a_card_says_which_files_are_which_split_and_names_the_classes(
    files: str, tmp_path: Path
) -> None:
    card = f"configs:\n- config_name: default\n  data_files: {files}\n{FEATURES}"
    dataset = _load(tmp_path / "set", PARTS, card)
    assert dataset.available == {"train": 54, "validation": 6, "test": 30}
    assert dataset.label_names == ("bad", "good", "mixed")
    assert [dataset.splits["test"].texts[n] for n in (0, 29)] == ["text 0 of c", "text 29 of c"]
    assert f"README.md in {tmp_path / 'set'} says which files are which split" in dataset.notes


def test_a_single_list_of_files_is_train_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    card = "configs:\n- config_name: default\n  data_dir: data\n  data_files: a-*.csv\n"
    dataset = _load(tmp_path / "set", PARTS, card)
    assert sum(dataset.available.values()) == 60
    assert dataset.label_names == ("0", "1", "2")
    (left,) = [note for note in dataset.notes if "not used" in note]
    assert left.startswith("data/b.csv in ")


@pytest.mark.parametrize(
    ("card", "line"),
    [
        ("[{split: train, path: data/c*.csv}]", "no file is called data/c*.csv, which it names"),
        ("[{split: train, path: ../a.csv}]", "../a.csv of train lies outside of it"),
        ("[{split: train, path: 'hf://datasets/x/a.csv'}]", "lies outside of it"),
        ("[{split: all, path: data/b.csv}]", "it names no split train; there are: all"),
    ],
)
def test_a_card_that_names_no_file_of_the_folder_is_one_line(
    card: str, line: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="README") as error:
        _load(tmp_path / "set", PARTS, f"configs:\n- config_name: x\n  data_files: {card}\n")
    assert line in str(error.value)


def test_a_part_that_is_missing_is_refused_though_the_pattern_matches_others(
    tmp_path: Path,
) -> None:
    files = {f"data/train-0000{n}-of-00003.csv": _rows(str(n)) for n in (0, 2)}
    card = "configs:\n- config_name: x\n  data_files: {train: 'data/train-*'}\n"
    with pytest.raises(UserError, match="shard 1 of data is missing"):
        _load(tmp_path / "set", files, card)


def test_of_several_subsets_the_default_is_read_and_without_one_none(tmp_path: Path) -> None:
    subsets = "configs:\n- {config_name: one, data_files: {train: data/a-0.csv}}\n"
    subsets += "- {config_name: two, data_files: {train: data/b.csv}"
    dataset = _load(tmp_path / "set", PARTS, f"{subsets}, default: true}}\n")
    assert dataset.splits["train"].texts[0].endswith("of c")
    with pytest.raises(UserError, match=r"several subsets \(one, two\)") as error:
        _load(tmp_path / "set", PARTS, f"{subsets}}}\n")
    assert "dataset.files.train=data/a-0.csv" in str(error.value)
    dataset = _load(tmp_path / "set", PARTS, f"{subsets}}}\n", {"train": "data/a-0.csv"})
    assert dataset.splits["train"].texts[0].endswith("of a")  # what the line proposes


@pytest.mark.parametrize(("second", "names"), [("good", "bad good"), ("fine", "0 1")])
def test_subsets_that_name_the_classes_otherwise_name_none(
    second: str, names: str, tmp_path: Path
) -> None:
    infos = "".join(
        f"- {{config_name: {name}, features: [{{name: label, dtype: {{class_label: {{names: "
        f"[bad, {good}]}}}}}}]}}\n"
        for name, good in (("one", "good"), ("two", second))
    )
    files = {"train.csv": _rows("a", labels="01"), "test.csv": _rows("b", labels="01")}
    dataset = _load(tmp_path / "set", files, f"dataset_info:\n{infos}")
    assert " ".join(dataset.label_names) == names
    # Named files may be those of another subset than the default one.
    card = "configs: [{config_name: one, default: true, data_files: train.csv}]\n"
    card += f"dataset_info:\n{infos}"
    assert _load(tmp_path / "set", files, card).label_names == ("bad", "good")
    dataset = _load(tmp_path / "set", files, card, {"train": "test.csv"})
    assert " ".join(dataset.label_names) == names


@pytest.mark.parametrize("name", ["dataset_info.json", "dataset_infos.json"])
def test_older_facts_name_the_classes_of_numbers(name: str, tmp_path: Path) -> None:
    info: dict[str, object] = {
        "features": {
            "text": {"dtype": "string", "_type": "Value"},
            "label": {"names": ["bad", "good", "mixed"], "_type": "ClassLabel"},
        }
    }
    content = info if name == "dataset_info.json" else {"plain_text": info}
    files = {"train.csv": _rows("a"), "test.csv": _rows("b"), name: json.dumps(content)}
    assert _load(tmp_path / "set", files, "").label_names == ("bad", "good", "mixed")


def test_names_that_do_not_fit_the_labels_are_not_taken(tmp_path: Path) -> None:
    files = {"train.csv": _rows("a", labels="0123"), "test.csv": _rows("b")}
    assert _load(tmp_path / "set", files, FEATURES).label_names == ("0", "1", "2", "3")
    words = {"train.csv": _rows("a", labels="xyz"), "test.csv": _rows("b", labels="xyz")}
    assert _load(tmp_path / "other", words, FEATURES).label_names == ("x", "y", "z")


@pytest.mark.parametrize(
    "content",
    [
        ": [",
        "a: " + "[" * 5000,
        "date: 2020-13-01",
        "- a list",
        "configs: {data_files: {}}",
        "dataset_info: {features: &a {label: *a, dtype: *a}}",
    ],
)
def test_a_readme_that_is_no_card_changes_nothing(content: str, tmp_path: Path) -> None:
    files = {"train.csv": _rows("a"), "test.csv": _rows("b")}
    files["README.md"] = f"---\n{content}\n---\n"
    dataset = _load(tmp_path / "set", files, "")
    assert dataset.label_names == ("0", "1", "2")
    assert not [note for note in dataset.notes if "README" in note]
