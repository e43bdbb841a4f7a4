from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load as load_config
from layerfusion.config.job import DatasetConfig
from layerfusion.config.registry import BINARY, READERS
from layerfusion.errors import UserError
from tests.texts.conftest import Load

TEXTS = [f"text {n}" for n in range(40)]


def write_json(path: Path, texts: list[Any], labels: list[Any]) -> Path:
    rows = [{"text": t, "label": label} for t, label in zip(texts, labels, strict=True)]
    path.write_text(json.dumps(rows))
    return path


def refused(load: Load, **keys: Any) -> str:
    with pytest.raises(UserError) as error:
        load(**keys)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- fingerprint --------------------------------------------------------------------------------


def test_same_content_from_other_files_has_the_same_fingerprint(tmp_path: Path, load: Load) -> None:
    """Integers with labels.json, strings in csv and a saved Hugging Face data set are one."""
    names = ["pear", "apple"]  # not in sorted order: indices differ, names do not
    indices = [n % 2 for n in range(40)]
    strings = [names[index] for index in indices]

    numbered = tmp_path / "numbered"
    numbered.mkdir()
    table = pyarrow.table({"text": [f"{text} " for text in TEXTS], "label": indices})
    pyarrow.parquet.write_table(table, numbered / "train.parquet")
    (numbered / "labels.json").write_text(json.dumps(names))

    csv = tmp_path / "x.csv"
    csv.write_text(
        "text,label\n" + "".join(f"{t},{s}\n" for t, s in zip(TEXTS, strings, strict=True))
    )

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    saved = tmp_path / "saved"
    rows = datasets.Dataset.from_dict({"text": TEXTS, "label": indices}, features=features)
    rows.save_to_disk(saved)

    loaded = [load(path=path) for path in (numbered, csv, saved)]
    assert loaded[0].label_names == ("pear", "apple")
    assert loaded[1].label_names == ("apple", "pear")
    assert loaded[2].label_names == ("pear", "apple")
    assert len({data.fingerprint for data in loaded}) == 1


@pytest.mark.parametrize("change", ["text", "label", "order"])
def test_fingerprint_follows_texts_labels_and_order(
    tmp_path: Path, load: Load, change: str
) -> None:
    texts, labels = list(TEXTS), ["a", "b"] * 20
    before = load(path=write_json(tmp_path / "x.json", texts, labels))
    if change == "text":
        texts[0] = "other"
    elif change == "label":
        labels = ["a", "c"] * 20
    else:
        texts.reverse()
    after = load(path=write_json(tmp_path / "y.json", texts, labels))
    assert after.fingerprint != before.fingerprint


# -- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a"], ("a", "b")),
        ([10, 9], ("9", "10")),
        ([1.0, 0.0], ("0", "1")),
        ([1.5, 2.0], ("1.5", "2")),
        ([True, False], ("False", "True")),
        ([-1, 1], ("-1", "1")),
        ([" b", "a "], ("a", "b")),
        (["10", "9"], ("10", "9")),  # strings where the format knows numbers stay strings
    ],
)
def test_names_of_labels(tmp_path: Path, load: Load, labels: list[Any], names: tuple) -> None:
    data = load(path=write_json(tmp_path / "x.json", TEXTS, labels * 20))
    assert data.label_names == names
    assert all(part.labels.dtype == np.int64 for part in data.splits.values())


@pytest.mark.parametrize(
    ("labels", "names"),
    [(("10", "9"), ("9", "10")), (("1.0", "0"), ("0", "1")), (("01", "1"), ("01", "1"))],
)
def test_numbers_in_csv_are_numbers_if_all_are(
    tmp_path: Path, load: Load, labels: tuple[str, str], names: tuple[str, str]
) -> None:
    lines = [f"{text},{labels[n % 2]}\n" for n, text in enumerate(TEXTS)]
    (tmp_path / "x.csv").write_text("text,label\n" + "".join(lines))
    assert load(path=tmp_path / "x.csv").label_names == names


@pytest.mark.parametrize("written", [["no", "yes"], {"0": "no", "1": "yes"}, {"yes": 1, "no": 0}])
def test_labels_json_names_the_numbers(tmp_path: Path, load: Load, written: Any) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(written))
    data = load(path=write_json(tmp_path / "train.json", TEXTS, [0, 1] * 20))
    assert data.label_names == ("no", "yes")


def test_label_names_of_the_config_go_first(tmp_path: Path, load: Load) -> None:
    (tmp_path / "labels.json").write_text('["no", "yes"]')
    file = write_json(tmp_path / "train.json", TEXTS, [0, 1] * 20)
    assert load(path=file, label_names=["bad", "good"]).label_names == ("bad", "good")


def test_named_classes_without_rows_are_left_out(tmp_path: Path, load: Load) -> None:
    file = write_json(tmp_path / "x.json", TEXTS, [0, 2] * 20)
    assert load(path=file, label_names=["a", "b", "c"]).label_names == ("a", "c")


@pytest.mark.parametrize("written", ['{"1": "no", "2": "yes"}', '"no"', "[0, 1]", "{", '{"a": []}'])
def test_labels_json_of_another_form(tmp_path: Path, load: Load, written: str) -> None:
    (tmp_path / "labels.json").write_text(written)
    file = write_json(tmp_path / "x.json", TEXTS, [0, 1] * 20)
    assert "labels.json: a list of names" in refused(load, path=file)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([None, "a"], "train: x.json, row 1: the label is missing"),
        ([" ", "a"], "train: x.json, row 1: the label is missing"),
        ([["a", "b"], ["b"]], "row 1: it has 2 labels (['a', 'b']); one is needed"),
        ([{"a": 1}, {"b": 1}], "row 1: the label {'a': 1} is no class"),
        (["a", 1], "labels are numbers and strings at once: 'a' in train (x.json, row 1) and 1"),
        (["a", "a"], "train has one label only (a); two are needed"),
    ],
)
def test_labels_that_are_none(tmp_path: Path, load: Load, labels: list[Any], message: str) -> None:
    file = write_json(tmp_path / "x.json", TEXTS, labels * 20)
    assert message in refused(load, path=file)


def test_label_without_a_name(tmp_path: Path, load: Load) -> None:
    file = write_json(tmp_path / "x.json", TEXTS, [0, 1, 1, -1] * 10)
    message = refused(load, path=file, label_names=["no", "yes"])
    assert "x.json, row 4: the label -1 (-1 stands for no label) has no name" in message
    assert "0 to 1 for no, yes" in message


def test_label_that_train_never_has(tmp_path: Path, load: Load) -> None:
    train = write_json(tmp_path / "a.json", TEXTS, ["a", "b"] * 20)
    test = write_json(tmp_path / "b.json", ["x", "y"], ["a", "new"])
    message = refused(load, train=train, test=test)
    assert "dataset local: test has labels that train never has: new; train has: a, b" in message


# -- texts --------------------------------------------------------------------------------------


def test_only_outer_white_space_goes(tmp_path: Path, load: Load) -> None:
    texts = ["  Two  Words\n", *TEXTS[1:]]
    data = load(path=write_json(tmp_path / "x.json", texts, ["a", "b"] * 20))
    assert "Two  Words" in {text for part in data.splits.values() for text in part.texts}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "the text is missing"),
        (float("nan"), "the text is missing"),
        (" \n", "the text is empty"),
        (3, "the text is no string but int 3"),
    ],
)
def test_text_that_is_none(tmp_path: Path, load: Load, text: Any, message: str) -> None:
    train = write_json(tmp_path / "a.json", TEXTS, ["a", "b"] * 20)
    test = write_json(tmp_path / "b.json", ["fine", text], ["a", "b"])
    assert f"test: b.json, row 2: {message}" in refused(load, train=train, test=test)


# -- where the files are ------------------------------------------------------------------------


def test_nothing_named(load: Load) -> None:
    assert "dataset.path (file or folder), dataset.train (file)" in refused(load)
    assert "dataset.train: a file is needed" in refused(load, test="x.csv")


def test_path_that_is_not_there(load: Load) -> None:
    assert "path absent.csv: not found in" in refused(load, path="absent.csv")


def test_a_folder_with_several_splits_is_no_split(tmp_path: Path, load: Load) -> None:
    write_json(tmp_path / "train.json", TEXTS, ["a", "b"] * 20)
    assert len(load(train=tmp_path).splits["train"]) == 29
    write_json(tmp_path / "test.json", TEXTS, ["a", "b"] * 20)
    message = f"it holds several splits (train, test); dataset.path={tmp_path} reads them"
    assert message in refused(load, train=tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a.json", "b.json"],
            "a file named train is needed, or a single data file; there are: a.j",
        ),
        (["test.json"], "a file named train is needed"),
        (["train.json", "training.json"], "several files for train (train.json, training.json)"),
    ],
)
def test_folder_that_cannot_be_told_apart(
    tmp_path: Path, load: Load, names: list[str], message: str
) -> None:
    for name in names:
        write_json(tmp_path / name, TEXTS, ["a", "b"] * 20)
    assert message in refused(load, path=tmp_path)


# -- one list of suffixes -----------------------------------------------------------------------


def test_a_folder_of_any_suffix_that_is_read_is_found_and_identified(
    tmp_path: Path, load: Load
) -> None:
    rows = "".join(f"{text},{'ab'[n % 2]}\n" for n, text in enumerate(TEXTS))
    for suffix in [*READERS, ".CSV", ".data.gz"]:
        if suffix in BINARY or "json" in suffix:
            continue
        folder = tmp_path / suffix
        folder.mkdir()
        content = f"text,label\n{rows}".encode()
        file = folder / f"train{suffix}"
        file.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
        assert load(path=str(folder)).available["train"] > 0, suffix


@pytest.mark.parametrize(
    ("keys", "title"),
    [
        ({"path": "some/reviews.csv.gz"}, "reviews"),
        ({"path": "some/My reviews (new).csv"}, "My_reviews_new"),
        ({"path": "some/reviews/"}, "reviews"),
        ({"path": "some/reviews/train.csv"}, "reviews"),
        ({"train": "reviews/train/train-00000-of-00002.parquet", "test": "x.csv"}, "reviews"),
        ({"hub": "owner/reviews"}, "reviews"),
        ({"path": "some/reviews.csv", "name": "mine"}, "mine"),
        ({}, "local"),
    ],
)
def test_data_without_a_name_are_called_after_their_file(keys: dict[str, str], title: str) -> None:
    settings: dict[str, Any] = {"name": "local", **keys}
    assert DatasetConfig(**settings).title == title


@pytest.mark.parametrize("name", ["a,b.csv", "my (new) texts = x.csv", "it's;new.csv"])
def test_a_path_that_hydra_cannot_read_is_shown_in_quotation_marks(name: str) -> None:
    word = f"dataset.path={name}"
    with pytest.raises(UserError) as error:
        compose("train", ["dataset=local", word])
    (quoted,) = shlex.split(str(error.value).rsplit("if its value is one string, ", 1)[1])
    assert load_config(compose("train", ["dataset=local", quoted])).dataset.path == name


LINES = {"bad": "a dull film\n\na flat plot\n" * 9, "good": "a fine film\na warm plot\n" * 9}
TABLE = "text,label\n" + "a dull film,bad\na fine film,good\n" * 9


@pytest.mark.parametrize(
    ("files", "rows"),
    [
        ({f"{label}.txt": lines for label, lines in LINES.items()}, [36]),
        ({f"{label}.txt.gz": lines for label, lines in LINES.items()}, [36]),
        ({f"{k}_{n}.txt": v for n, v in LINES.items() for k in ("train", "test")}, [36, 36]),
        ({f"train/{label}.txt": lines for label, lines in LINES.items()}, [36]),
        ({"rt.neg": LINES["bad"], "rt.pos": LINES["good"], "README": "x"}, [36]),
        (
            {
                f"{split}.{suffix}": lines
                for split in ("train", "test")
                for suffix, lines in zip(("neg", "pos"), LINES.values(), strict=True)
            },
            [36, 36],
        ),
        ({"good.txt": f"text\n{LINES['good']}", "bad.txt": LINES["bad"]}, [36]),
        ({"train/part-0.csv": TABLE, "train/part-1.csv": TABLE, "train/_SUCCESS": ""}, [36]),
        ({"train/x.csv": TABLE, "train/README.txt": "x", "test/y.csv": TABLE}, [18, 18]),
        ({"part-00000.csv": TABLE, "part-00001.csv": TABLE, "_SUCCESS": ""}, [36]),
        ({"train": TABLE, "test": TABLE, "LICENSE": "x"}, [18, 18]),
        ({"set.train": TABLE, "set.test": TABLE}, [18, 18]),
        (
            {
                f"news-{split}/{label}/{number}": f"text {number} of {split}"
                for split in ("train", "test")
                for label in LINES
                for number in range(9)
            },
            [18, 18],
        ),
    ],
)
def test_folders_whose_names_say_what_they_hold(
    files: dict[str, str], rows: list[int], tmp_path: Path, load: Load
) -> None:
    write_files(tmp_path, files)
    available = load(path=tmp_path).available
    total = rows[0] if len(rows) == 1 else sum(rows)
    assert sum(available.values()) == total
    assert len(rows) == 1 or available["test"] == rows[1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"data.txt": "a\nb\n", "labels.txt": "x\n"},
            "labels.txt, which would have the label of each",
        ),
        (
            {"data.txt": "a\nb\n", "more.txt": "", "words.txt": "x\n"},
            "a file named train is needed",
        ),
        ({"1.txt": "a\nb\n", "2.txt": "x\ny\n"}, "1.txt: the first line does not name"),
        ({"bad.txt": "a\tb\n", "good.txt": "x\ty\n"}, "a file named train is needed"),
        ({"bad.txt": "a\n", "good.txt": ""}, "good.txt: no rows"),
        ({"train/x.csv": TABLE, "test.csv": TABLE}, "some splits are folders and some are files"),
        ({"train/x.csv": TABLE, "dev/x.csv": TABLE, "val/x.csv": TABLE}, "several folders for val"),
        ({"train/x.csv": TABLE, "train/y.jsonl": "{}"}, "its files are of several kinds"),
        ({"a/b/c/train.csv": TABLE}, "a/b/c would read what lies below it"),
        ({"a.xlsx": ""}, "a.xlsx: it is a spreadsheet; save its sheet as csv"),
        ({"trainset.csv": TABLE, "testset.csv": TABLE}, "did you mean dataset.files.train=trains"),
        ({"trn.csv": TABLE, "tst.csv": TABLE}, "dataset.files.train=FILE dataset.files.test=FILE"),
        ({"bad.csv": TABLE, "good.csv": TABLE}, "if each is of one class, give each a column of"),
        ({"good/train.txt": "a\n", "bad/train.txt": "b\n"}, "move it to train/bad.txt, and so"),
        ({"data/0.csv": TABLE, "metadata/v1.metadata.json": "{}"}, "it is a table of Iceberg"),
        ({"train/0.csv": TABLE, "train/.hoodie/x": "", "test/0.csv": TABLE}, "a table of Hudi"),
        ({"x.pkl": ""}, "x.pkl: a pickle may run code; save its table as csv"),
    ],
)
def test_folders_that_are_refused(
    files: dict[str, str], message: str, tmp_path: Path, load: Load
) -> None:
    write_files(tmp_path, files)
    assert message in refused(load, path=tmp_path)


@pytest.mark.parametrize(
    ("files", "notes"),
    [
        (
            {
                f"{split}/{label}/{number}.txt": f"text {number} of {split}"
                for split in ("train", "test", "eval", "more/train")
                for label in LINES
                for number in range(9)
            },
            [
                "eval in … is not used, as no split has such a name; dataset.files.train=train"
                " dataset.files.test=eval would use eval as test",
                "more in … is not used; dataset.path=…/more would read what lies in it",
            ],
        ),
        (
            {f"{name}.csv": TABLE for name in ("train/x", "test/x", "eval/x", "more", "train/y/z")}
            | {"train/w.xlsx": ""},
            [
                "more.csv, eval in … are not used, as no split has such a name; dataset.train=…"
                "/train dataset.test=…/more.csv would use more.csv as test",
                "w.xlsx in …/train is not used: it is a spreadsheet; save its sheet as csv",
                "y in …/train is not used; dataset.path=…/train/y would read what lies in it",
            ],
        ),
        (
            {f"train.{kind}": "a\nb\nc\n" for kind in ("txt", "label")} | {"more/x.csv": TABLE},
            ["more in … is not used; dataset.path=…/more would read what lies in it"],
        ),
    ],
)
def test_folders_that_no_split_takes_are_named(
    files: dict[str, str], notes: list[str], tmp_path: Path, load: Load
) -> None:
    folder = tmp_path / "data"
    write_files(folder, {n: c.replace("c\n", "b\na\na\n") for n, c in files.items()})
    found = [note.replace(str(folder), "…") for note in load(path=folder).notes]
    assert [note for note in found if "not used" in note] == notes


def test_a_class_without_a_name_is_refused(tmp_path: Path, load: Load) -> None:
    (tmp_path / "labels.json").write_text('["a", " "]')
    write_json(tmp_path / "train.json", TEXTS, [1, 0] * 20)
    assert "one of the label names is empty" in refused(load, path=tmp_path)


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_a_table_of_less_precision_has_the_labels_that_are_written(
    kind: type, tmp_path: Path, load: Load
) -> None:
    labels = pyarrow.array(np.array([0.1, 0.5] * 20, kind))
    pyarrow.parquet.write_table(
        pyarrow.table({"text": TEXTS, "label": labels}), tmp_path / "train.parquet"
    )
    lines = "".join(f"{text} too,{(0.1, 0.5)[n % 2]}\n" for n, text in enumerate(TEXTS))
    (tmp_path / "test.csv").write_text(f"text,label\n{lines}")
    assert load(path=tmp_path).label_names == ("0.1", "0.5")


def test_a_link_to_itself_is_one_line(tmp_path: Path, load: Load) -> None:
    (tmp_path / "train.csv").symlink_to("train.csv")
    assert "it is a link to train.csv, which does not exist" in refused(load, path=tmp_path)


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([["id", "text", "label"], [1, "a", "x"], [2, "b", "y"]], {"text": "text"}),
        ([["id", "review", "stars"], [1, "a", "x"], [2, "b", "y"]], {"text": "review"}),
        ([["a", "x"], ["b", "y"]], {"text": "1", "label": "2"}),
        ([["text", "x"], ["text", "y"]], {"text": "1", "label": "2"}),
    ],
)
def test_the_first_of_lists_may_name_the_columns(
    rows: list[list[Any]], names: dict[str, str], tmp_path: Path, load: Load
) -> None:
    (tmp_path / "x.json").write_text(json.dumps([rows[0], *rows[-2:] * 10]))
    named = {"label": rows[0][-1], **names}
    data = load(path=tmp_path / "x.json", **named)
    assert data.label_names == ("x", "y")
    assert sum(data.available.values()) == 20 + (names["text"] == "1")


def test_two_columns_of_one_name_in_json_by_columns(tmp_path: Path, load: Load) -> None:
    """As pandas writes them with orient="split"."""
    columns = ["text", "text", "label"]
    rows = [[f"a {n}", f"b {n}", "xy"[n % 2]] for n in range(20)]
    (tmp_path / "x.json").write_text(json.dumps({"columns": columns, "data": rows}))
    assert "2 columns are called 'text'" in refused(load, path=tmp_path / "x.json")


def test_names_of_classes_may_come_from_test_alone(tmp_path: Path, load: Load) -> None:
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    facts = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pyarrow.table({"text": [f"{text} too" for text in TEXTS], "label": [0, 1] * 20})
    pyarrow.parquet.write_table(table.replace_schema_metadata(facts), tmp_path / "test.parquet")
    write_json(tmp_path / "train.json", TEXTS, [1, 0] * 20)
    data = load(path=tmp_path)
    assert data.label_names == ("bad", "good")
    assert [data.label_names[k] for k in data.splits["test"].labels[:2]] == ["bad", "good"]


def test_a_first_word_is_no_label_where_lines_are_rows(tmp_path: Path, load: Load) -> None:
    lines = "".join(f"{chr(34) * (n % 9 == 5)}a film {n},{'ab'[n % 2]}\n" for n in range(40))
    (tmp_path / "x.csv").write_text(lines)
    data = load(path=tmp_path / "x.csv", text="1", label="2")
    assert data.label_names == ("a", "b")
    assert sum(data.available.values()) == 40


def test_half_a_character_in_the_name_of_a_column(tmp_path: Path, load: Load) -> None:
    rows = [{"text\ud83d": text, "label": "ab"[n % 2]} for n, text in enumerate(TEXTS)]
    (tmp_path / "x.json").write_text(json.dumps(rows))
    assert sum(load(path=tmp_path / "x.json", text="text\ufffd").available.values()) == 40


def write_files(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        raw = content.encode()
        (folder / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train": [], "test": []}, "there are no rows under 'train'"),
        ({"mine": 1, "yours": 2}, "a list of objects is needed"),
        (
            {"train": [{"text": "a"}], "dev": [{"text": "b"}], "val": [{"text": "c"}]},
            "several keys for validation (dev, val); name those to use, as"
            " dataset.files.train=train dataset.files.validation=dev does",
        ),
    ],
)
def test_json_without_the_rows_of_a_split(
    keys: dict[str, Any], message: str, tmp_path: Path, load: Load
) -> None:
    (tmp_path / "x.json").write_text(json.dumps(keys))
    assert message in refused(load, path=tmp_path / "x.json")


def test_keys_of_json_are_named_as_files_are(tmp_path: Path, load: Load) -> None:
    rows = [{"text": f"{text} x", "label": "ab"[n % 2]} for n, text in enumerate(TEXTS)]
    (tmp_path / "x.json").write_text(json.dumps({"mine": rows, "yours": rows[:10]}))
    files = {"train": "mine", "test": "yours"}
    assert len(load(path=tmp_path / "x.json", files=files).splits["test"]) == 10
    message = refused(load, path=tmp_path / "x.json", files={"train": "theirs"})
    assert "key of the rows of train: there is no 'theirs'; there are: mine, yours" in message


def test_a_file_of_a_class_folder_is_named(tmp_path: Path, load: Load) -> None:
    for number in range(20):
        for label in ("bad", "good"):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / label / f"{number}.txt").write_text(f"a {label} film {number}\n")
    dataset = load(path=tmp_path / "data")
    assert dataset.label_names == ("bad", "good")
    assert dataset.name == "data"
    assert all(
        dataset.label_names[label] in text
        for rows in dataset.splits.values()
        for text, label in zip(rows.texts, rows.labels, strict=True)
    )
    (tmp_path / "data/bad/7.txt").write_text(" ")
    with pytest.raises(UserError, match=r"train: bad/7.txt: the text is empty"):
        load(path=tmp_path / "data")
    (tmp_path / "data/bad/7.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"bad/7.txt: byte 0xe9 .* set dataset.encoding"):
        load(path=tmp_path / "data")


def test_names_that_are_digits_stay_names_where_parts_are_matched_by_name(
    tmp_path: Path, load: Load
) -> None:
    facts = {"label": {"names": ["1", "0"], "_type": "ClassLabel"}}
    texts = [f"a text {number}" for number in range(20)]
    table = pyarrow.table({"text": texts, "label": [number % 2 for number in range(20)]})
    metadata = {"huggingface": json.dumps({"info": {"features": facts}})}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "train.parquet")
    rows = "".join(f"test {number},{number % 2}\n" for number in range(4))
    (tmp_path / "test.csv").write_text(f"text,label\n{rows}")
    data = load(path=tmp_path)
    for split, right in (("train", "10"), ("test", "01")):
        rows = zip(data.splits[split].texts, data.splits[split].labels, strict=True)
        for text, label in rows:
            assert data.label_names[label] == right[int(text.split()[-1]) % 2], text
