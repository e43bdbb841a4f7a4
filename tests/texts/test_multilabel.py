"""Data whose texts have any number of labels: every form, every refusal, splits and samples."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

import layerfusion
from layerfusion.commands.overrides import ANY_MODEL, config_of
from layerfusion.composing.hydra import compose
from layerfusion.config.check import load as load_config
from layerfusion.config.identity import _settings, job_id
from layerfusion.config.job import LimitConfig
from layerfusion.errors import UserError
from layerfusion.texts import TextDataset
from layerfusion.texts import load_dataset as load_texts
from layerfusion.texts.cells import labels_in, written_list
from layerfusion.texts.streaming import read_parts
from layerfusion.texts.table import each_label
from tests.texts.conftest import Load

NAMES = ("drama", "science fiction", "war")
SETS = [["war", "drama"], [], ["science fiction"], ["drama"]] * 10
TEXTS = [f"a film that is number {n}" for n in range(40)]
MATRIX = np.array([[name in labels for name in NAMES] for labels in SETS])
FRAME = pd.DataFrame({"text": TEXTS, "label": SETS})
Keys = dict[str, Any]


def marked(words: tuple[Any, Any]) -> pd.DataFrame:
    """A column of yes and no for each label, in another order than that of the names."""
    columns = {name: [words[int(x)] for x in MATRIX[:, n]] for n, name in enumerate(NAMES)}
    return pd.DataFrame({"text": TEXTS, **dict(reversed(columns.items()))})


def csv_of(cells: Sequence[str]) -> Callable[[Path], Keys]:
    def write(folder: Path) -> Keys:
        FRAME.assign(label=list(cells)).to_csv(folder / "x.csv", index=False)
        return {"path": folder / "x.csv", "multilabel": True}

    return write


def _json(folder: Path) -> Keys:
    FRAME.to_json(folder / "x.json", orient="records")
    return {"path": folder / "x.json", "multilabel": True}


def _jsonl(folder: Path) -> Keys:
    FRAME.to_json(folder / "x.jsonl", orient="records", lines=True)
    return {"path": folder / "x.jsonl", "multilabel": True}


def _parquet(folder: Path) -> Keys:
    FRAME.to_parquet(folder / "x.parquet")
    return {"path": folder / "x.parquet", "multilabel": True}


def _separated(folder: Path) -> Keys:
    cells = [" ; ".join(labels) + ";" * (len(labels) > 1) for labels in SETS]
    return {**csv_of(cells)(folder), "label_separator": ";"}


def _columns(*words: Any) -> Callable[[Path], Keys]:
    def write(folder: Path) -> Keys:
        marked((words[0], words[1])).to_csv(folder / "x.csv", index=False)
        return {"path": folder / "x.csv", "label_columns": list(NAMES)}

    return write


def _columns_in_json(folder: Path) -> Keys:
    marked((False, True)).to_json(folder / "x.json", orient="records")
    return {"path": folder / "x.json", "label_columns": list(NAMES)}


def _fasttext(folder: Path) -> Keys:
    words = [" ".join(f"__label__{name.replace(' ', '_')}" for name in one) for one in SETS]
    lines = "".join(f"{word} {text}\n" for word, text in zip(words, TEXTS, strict=True))
    (folder / "x.txt").write_text(lines)
    return {"path": folder / "x.txt", "multilabel": True}


def _numbers(folder: Path) -> Keys:
    (folder / "labels.json").write_text(json.dumps(NAMES))
    numbers = [[NAMES.index(name) for name in labels] for labels in SETS]
    FRAME.assign(label=numbers).to_parquet(folder / "x.parquet")
    return {"path": folder / "x.parquet", "multilabel": True}


def _vectors(folder: Path) -> Keys:
    FRAME.assign(label=MATRIX.astype(float).tolist()).to_parquet(folder / "x.parquet")
    return {"path": folder / "x.parquet", "multilabel": True, "label_names": list(NAMES)}


def _saved(folder: Path) -> Keys:
    names = NAMES[::-1]  # the numbers of the labels are others
    kind = datasets.Sequence(datasets.ClassLabel(names=list(names)))
    features = datasets.Features({"text": datasets.Value("string"), "label": kind})
    numbers = [[names.index(name) for name in labels] for labels in SETS]
    rows = datasets.Dataset.from_dict({"text": TEXTS, "label": numbers}, features=features)
    rows.save_to_disk(folder / "saved")
    return {"path": folder / "saved", "multilabel": True}


def _other_numbers(folder: Path) -> Keys:
    """The parts of a split number the labels differently."""
    for part, names in enumerate((NAMES, NAMES[::-1])):
        rows = slice(20 * part, 20 * part + 20)
        numbers = [[names.index(name) for name in labels] for labels in SETS[rows]]
        kind = {"feature": {"names": list(names), "_type": "ClassLabel"}, "_type": "Sequence"}
        facts = {"huggingface": json.dumps({"info": {"features": {"label": kind}}})}
        table = pa.table({"text": TEXTS[rows], "label": numbers})
        file = folder / f"train-0000{part}-of-00002.parquet"
        pq.write_table(table.replace_schema_metadata(facts), file)
    return {"path": folder, "multilabel": True}


def _two_tables(folder: Path) -> Keys:
    marked((0, 1))[["text"]].to_csv(folder / "X_train.csv")
    marked((0, 1)).drop(columns="text").to_csv(folder / "y_train.csv")
    return {"path": folder, "label_columns": list(NAMES)}


def _headless(folder: Path) -> Keys:
    frame = FRAME.assign(label=[";".join(labels) for labels in SETS])
    frame.to_csv(folder / "x.csv", index=False, header=False)
    return {"path": folder / "x.csv", "text": "1", "label": "2", "multilabel": True,
            "label_separator": ";"}  # fmt: skip


FORMS: dict[str, Callable[[Path], Keys]] = {
    "json": _json,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "csv, lists of JSON": csv_of([json.dumps(labels) for labels in SETS]),
    "csv, lists of Python": csv_of([str(labels) for labels in SETS]),
    "csv, tuples": csv_of([str(tuple(labels)) for labels in SETS]),
    "csv, sets": csv_of([str(set(labels)) for labels in SETS]),
    "csv, arrays": csv_of([str(np.array(labels, object)) for labels in SETS]),
    "csv, separator": _separated,
    "csv without a header": _headless,
    "columns of 0 and 1": _columns("0", "1"),
    "columns of 0.0 and 1.0": _columns("0.0", "1.0"),
    "columns of false and true": _columns("FALSE", "True"),
    "columns of no and yes": _columns("no", "Yes "),
    "columns of JSON": _columns_in_json,
    "columns in a table of their own": _two_tables,
    "numbers with labels.json": _numbers,
    "vectors of 0 and 1": _vectors,
    "saved by datasets": _saved,
    "parts with other numbers": _other_numbers,
}


@pytest.fixture
def same(tmp_path: Path, load: Load) -> TextDataset:
    folder = tmp_path / "same"
    folder.mkdir()
    return load(**_json(folder))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_data(
    form: str, tmp_path: Path, load: Load, same: TextDataset
) -> None:
    data = load(**FORMS[form](tmp_path))
    assert data.multilabel
    assert sorted(data.label_names) == list(NAMES)
    assert data.fingerprint == same.fingerprint
    for split, rows in data.splits.items():
        assert rows.labels.dtype == bool
        order = np.argsort(np.array(data.label_names))
        assert np.array_equal(rows.labels[:, order], same.splits[split].labels)
        for text, labels in zip(rows.texts, rows.labels, strict=True):
            found = {data.label_names[number] for number in np.flatnonzero(labels)}
            assert found == set(SETS[TEXTS.index(text)])
    assert "labels: 10 of 40 texts have none" in data.notes


def test_fasttext_has_its_labels_in_words(tmp_path: Path, load: Load) -> None:
    data = load(**_fasttext(tmp_path))
    assert data.label_names == ("drama", "science_fiction", "war")
    rows = data.splits["train"]
    order = [TEXTS.index(text) for text in rows.texts]
    assert np.array_equal(rows.labels, MATRIX[order])


@pytest.mark.parametrize("form", ["lists", "sets", "array", "frame", "sparse", "cells", "columns",
                                  "datasets", "separator"])  # fmt: skip
def test_what_is_in_memory_is_the_same_data(form: str, same: TextDataset) -> None:
    labels: Any = None
    data: Any = TEXTS
    keys: dict[str, Any] = {}
    if form == "lists":
        labels = SETS
    elif form == "sets":
        labels = [set(one) for one in SETS]
    elif form == "array":
        labels, keys = MATRIX.astype(int), {"label_names": NAMES}
    elif form == "frame":
        labels = pd.DataFrame(MATRIX, columns=list(NAMES))[list(NAMES)[::-1]]
    elif form == "sparse":
        labels, keys = csr_matrix(MATRIX), {"label_names": NAMES}
    elif form == "cells":
        data = FRAME.assign(label=[np.array(one, object) for one in SETS])
    elif form == "columns":
        data, keys = marked((0, 1)).astype({"war": "Int64"}), {"label_columns": NAMES}
    elif form == "datasets":
        data = datasets.Dataset.from_dict({"text": TEXTS, "label": SETS})
    else:
        data = FRAME.assign(label=["|".join(one) for one in SETS])
        keys = {"multilabel": True, "label_separator": "|"}
    found = layerfusion.load_dataset(data, labels, **keys)
    assert found.label_names == NAMES
    assert found.fingerprint == same.fingerprint


def test_a_matrix_without_names_has_numbers_and_lists_of_one_are_classes() -> None:
    assert layerfusion.load_dataset(TEXTS, MATRIX).label_names == ("0", "1", "2")
    wide = np.random.default_rng(0).random((40, 12)) < 0.4
    assert layerfusion.load_dataset(TEXTS, wide).label_names == tuple(map(str, range(12)))
    ones = layerfusion.load_dataset(TEXTS, [[NAMES[n % 2]] for n in range(40)])
    assert not ones.multilabel
    with pytest.raises(UserError, match="has 3 columns, and there are 2 different label names"):
        layerfusion.load_dataset(TEXTS, MATRIX, label_names=["a", "b"])
    with pytest.raises(UserError, match="row 1: the column '0' holds 2"):
        layerfusion.load_dataset(TEXTS, MATRIX + 1)


def test_data_in_memory_are_kept_and_read_back(tmp_path: Path) -> None:
    # The only row of validation, and a row of test, may have no label.
    for data in (layerfusion.load_dataset(TEXTS, SETS),
                 layerfusion.load_dataset(TEXTS[:8], SETS[:8])):  # fmt: skip
        config = config_of(data, ANY_MODEL, {"cache": tmp_path})
        again = load_texts(config.dataset, config.limit, seed=0, cache=tmp_path)
        assert again.multilabel
        assert again.fingerprint == data.fingerprint
        assert again.label_names == data.label_names


# -- refusals -----------------------------------------------------------------------------------


def refused(load: Load, **keys: Any) -> str:
    with pytest.raises(UserError) as error:
        load(**keys)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("a;b", "x.csv, row 1: the cell 'a;b' may hold several labels;"
                " 'dataset.label_separator=\";\"' takes them apart"),
        ("a, b", "'dataset.label_separator=\",\"' takes them apart"),
        ("a|b", "'dataset.label_separator=\"|\"' takes them apart"),
        ("[a, b]", "x.csv, row 1: the cell '[a, b]' looks like a list, and is none"),
        ("['a' ... 'b']", "looks like a list, and is none"),
        ("[['a'], ['b']]", "row 1: a label is a list itself: ['a']"),
        ("['a', '']", "row 1: the label is missing"),
        ("[null]", "row 1: the label is missing"),
        ("[1, 'a']", "labels are numbers and strings at once"),
    ],
)  # fmt: skip
def test_a_cell_that_is_not_clear_is_refused(
    cell: str, says: str, tmp_path: Path, load: Load
) -> None:
    assert says in refused(load, **csv_of([cell, *[str(one) for one in SETS[1:]]])(tmp_path))


def test_a_list_with_brackets_is_not_cut_at_a_separator(tmp_path: Path, load: Load) -> None:
    keys = csv_of(["[a;b]", *[";".join(one) for one in SETS[1:]]])(tmp_path)
    assert "looks like a list" in refused(load, **keys, label_separator=";")


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("2", "x.csv, row 3: the column 'war' holds '2'"),
        ("", "x.csv, row 3: the column 'war' is empty; a label has a yes or a no in each row"),
        ("-1", "the column 'war' holds '-1' (-1 stands for no label)"),
        ("maybe", "the column 'war' holds 'maybe'"),
    ],
)
def test_a_column_of_labels_says_yes_or_no(
    cell: str, says: str, tmp_path: Path, load: Load
) -> None:
    frame = marked(("0", "1"))
    frame.loc[2, "war"] = cell
    frame.to_csv(tmp_path / "x.csv", index=False)
    assert says in refused(load, path=tmp_path / "x.csv", label_columns=list(NAMES))


def test_a_test_whose_labels_are_not_known_is_left_out(tmp_path: Path, load: Load) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    marked((0, 1)).to_csv(folder / "train.csv", index=False)
    other = marked((-1, -1)).assign(text=[f"{text} of test" for text in TEXTS])
    other.to_csv(folder / "test.csv", index=False)
    data = load(path=folder, label_columns=list(NAMES))
    note = "test: left out, as none of its 40 rows has a label (-1 stands for none)"
    assert note in data.notes
    other.loc[:19, list(NAMES)] = 0
    other.to_csv(folder / "test.csv", index=False)
    said = refused(load, path=folder, label_columns=list(NAMES))
    assert "test: test.csv, row 21: nothing says which labels it has" in said


@pytest.mark.parametrize("form", ["list", "json", "python", "arrays", "fasttext"])
def test_without_the_key_several_labels_are_refused_with_the_way_out(
    form: str, tmp_path: Path, load: Load
) -> None:
    form_of = {
        "list": _jsonl,
        "json": FORMS["csv, lists of JSON"],
        "python": FORMS["csv, lists of Python"],
        "arrays": FORMS["csv, arrays"],
        "fasttext": _fasttext,
    }[form]
    said = refused(load, **{**form_of(tmp_path), "multilabel": False})
    assert "row 1: it has 2 labels" in said
    assert said.endswith("dataset.multilabel=true reads several labels of a row")


def test_classes_named_like_ranges_are_classes(tmp_path: Path, load: Load) -> None:
    ranges = ["[0, 10]", "(10, 20)"] * 20
    data = load(**{**csv_of(ranges)(tmp_path), "multilabel": False})
    assert data.label_names == ("(10, 20)", "[0, 10]")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("label_separator=x", "dataset.label_separator=x: it goes with dataset.multilabel=true"),
        ('multilabel=true,label_separator=""', "dataset.label_separator=: it must not be empty"),
        ("label_columns=[a]", "a single column tells two classes apart, which dataset.label=a"),
        ("label_columns=[a,a]", "label_columns=[a,a]: each has to be another column"),
        ("label_columns=[a,text]", "and none that of the texts, 'text'"),
        ("label_columns=[a,b],label=c", "dataset.label=c: dataset.label_columns says which"),
        ("label_columns=[a,b],label_names=[c]", "dataset.label_names=['c']: dataset.label_col"),
        ("label_columns=[a,b],label_separator=x", "dataset.label_separator=x: dataset.label_col"),
        ("label_columns=[false,a]", "dataset.label_columns: YAML reads no, off and false as False"),
    ],
)
def test_keys_that_do_not_go_together(keys: str, says: str) -> None:
    parts = keys.replace(",label", " label").replace("[a label", "[a,label").split()
    words = [f"dataset.{part.rstrip(',')}" for part in parts]
    with pytest.raises(UserError) as error:
        load_config(compose("train", ["dataset=local", "dataset.path=x.csv", *words]))
    assert says in str(error.value)


def test_jobs_from_before_there_were_such_keys_keep_their_names() -> None:
    words = ["dataset=local", "dataset.path=x.csv"]
    plain, several = (load_config(compose("train", [*words, *more]))
                      for more in ([], ["dataset.multilabel=true"]))  # fmt: skip
    kept = _settings(plain)["dataset"].keys()
    assert not kept & {"multilabel", "label_separator", "label_columns"}
    assert job_id(several) != job_id(plain)


# -- what a careful reader is told ---------------------------------------------------------------


def of_lists(folder: Path, labels: Sequence[Any], texts: Sequence[str] = TEXTS) -> Keys:
    frame = pd.DataFrame({"text": list(texts), "label": list(labels)})
    frame.to_json(folder / "x.json", orient="records")
    return {"path": folder / "x.json", "multilabel": True}


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ([["a", "a"], ["b"], ["a", "b"], []] * 10,
         "labels: 10 labels stand in a row that has it already, and counts once"),
        ([["a"], ["b"], []] * 13 + [[]], "labels: no row has more than one; if they stand in one"),
        ([["Spam", "b"], ["spam"]] * 20, "labels: 'Spam' and 'spam' are different classes"),
        ([["nan", "b"], ["c"]] * 20, "'nan' is a class of its own; if it marks rows without a"
         " label, leave their cells empty"),
        ([[True, False], [False, False], [True, True]] * 13 + [[False, True]],
         "labels: the 2 items of each row are read as yes or no for each of 2 labels"),
    ],
)  # fmt: skip
def test_notes(labels: list[Any], note: str, tmp_path: Path, load: Load) -> None:
    notes = load(**of_lists(tmp_path, labels)).notes
    assert any(note in one for one in notes), notes


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([[], None] * 20, "no row of train has a label"),
        ([["a"], []] * 20, "train has one label only (a); two are needed; where a text has"),
        ([["a", "b"], ["a"]] * 20, "every row of train has a; a label can be learned from rows"),
        ([["a", 1], ["a"]] * 20, "labels are numbers and strings at once: 'a' in train"),
        ([["a", {"b": 1}]] * 40, "the label {'b': 1} is no class"),
    ],
)
def test_labels_that_nothing_can_be_learned_of(
    labels: list[Any], says: str, tmp_path: Path, load: Load
) -> None:
    assert says in refused(load, **of_lists(tmp_path, labels))


def test_names_of_numbers_that_no_row_has_are_noted(tmp_path: Path, load: Load) -> None:
    keys = of_lists(tmp_path, [[0, 2], [0], [2], []] * 10)
    data = load(**keys, label_names=["a", "b", "c"])
    assert data.label_names == ("a", "c")
    assert "labels: no row of train has b" in data.notes
    assert "the label 2 has no name" in refused(load, **keys, label_names=["a", "b"])
    assert "each row has 2 items of 0 and 1" in refused(
        load, **of_lists(tmp_path, [[0, 1], [0, 0]] * 20), label_names=["a", "b", "c"]
    )


def test_a_label_of_test_that_train_never_has(tmp_path: Path, load: Load) -> None:
    for split, labels in (("train", [["a", "b"], ["b"], ["a"], []] * 10), ("test", [["c"]] * 40)):
        file = Path(of_lists(tmp_path, labels)["path"])
        file.rename(tmp_path / f"{split}.json")
    said = refused(load, path=tmp_path, multilabel=True)
    assert "test has labels that train never has: c; train has: a, b" in said


def test_texts_whose_labels_differ_are_counted_and_duplicates_dropped(
    tmp_path: Path, load: Load
) -> None:
    texts = [*TEXTS[:38], TEXTS[0], TEXTS[1]]
    sets = [*SETS[:38], SETS[0], ["drama", "science fiction"]]
    notes = load(**of_lists(tmp_path, sets, texts), test_size=0.05, split_seed=3).notes
    assert any("1 text has different labels in different rows" in note for note in notes), notes


# -- splits and samples --------------------------------------------------------------------------


@given(st.integers(0, 50), st.sampled_from(["train", "per_class", "none"]))
def test_no_label_is_lost_by_splits_and_samples(seed: int, how: str) -> None:
    generator = np.random.default_rng(seed)
    shares = np.array([0.97, 0.5, 0.1, 0.03, 0.02])
    matrix = generator.random((120, 5)) < shares
    matrix[0], matrix[1] = [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]
    limits = {"train": {"train": 30}, "per_class": {}, "none": {}}[how]
    texts = [f"text {n}" for n in range(120)]
    data = layerfusion.load_dataset(texts, matrix, split_seed=seed, **limits)
    train = data.splits["train"].labels
    assert train.any(axis=0).all()
    assert not train.all(axis=0).any()
    assert sum(map(len, data.splits.values())) == (30 + 24 if how == "train" else 120)


def test_samples_count_a_row_for_its_rarest_label(tmp_path: Path, load: Load) -> None:
    keys = _json(tmp_path)
    data = load(**keys, limit=LimitConfig(per_class=4))
    rows = sum(len(data.splits[split]) for split in ("train", "validation"))
    assert rows == 4 * 4  # war, science fiction, drama alone, and none
    assert any("where a row counts for its rarest label" in note for note in data.notes)
    said = refused(load, **keys, limit=LimitConfig(train=2))
    assert "train has no more rows than its labels need, so none can become validation" in said
    keys = of_lists(tmp_path, [["a"], ["b"], ["c"], []] * 10)
    said = refused(load, **keys, limit=LimitConfig(train=2))
    assert "fewer than the 3 that it takes for a row with each label and one without it" in said


def test_samples_do_not_depend_on_the_order_of_the_columns(tmp_path: Path, load: Load) -> None:
    marked((0, 1)).to_csv(tmp_path / "x.csv", index=False)
    found = {
        load(path=tmp_path / "x.csv", label_columns=list(names), limit=LimitConfig(train=20)
             ).fingerprint
        for names in (NAMES, NAMES[::-1])
    }  # fmt: skip
    assert len(found) == 1


# -- cells ---------------------------------------------------------------------------------------

words = st.text(st.characters(codec="utf-8", exclude_characters=";"), min_size=1).filter(
    lambda word: word == word.strip()
)


@given(st.lists(words, max_size=5))
def test_lists_that_are_written_are_read_as_they_were(labels: list[str]) -> None:
    for written in (json.dumps(labels), json.dumps(labels, ensure_ascii=False), repr(labels)):
        assert labels_in(written, None) == labels_in(written, ";") == labels
    assert sorted(written_list(repr(tuple(labels))) or []) == sorted(labels)


@given(st.lists(words.filter(lambda word: word[0] not in "[({" and word != "set()"), max_size=5))
def test_labels_between_separators_are_read_as_they_were(labels: list[str]) -> None:
    assert (labels_in(" ; ".join(labels), ";") or []) == labels


@given(st.lists(st.integers(-(10**6), 10**6), max_size=6))
def test_numbers_of_an_array_are_read_as_they_were(numbers: list[int]) -> None:
    assert written_list(str(np.array(numbers, int))) == numbers


@given(st.text(max_size=60))
def test_no_text_of_a_cell_ends_in_a_traceback(text: str) -> None:
    for cell in (text, f"[{text}]", f"({text})", f"{{{text}}}"):
        for separator in (None, ";"):
            with contextlib.suppress(UserError):
                labels_in(cell, separator)


def test_the_labels_of_an_input_of_predict_stay_as_they_are(tmp_path: Path) -> None:
    _jsonl(tmp_path)
    csv_of([str(one) for one in SETS])(tmp_path)
    (part,) = read_parts(tmp_path / "x.jsonl", "text")
    assert part.others["label"] == SETS
    assert set(each_label(part)) == {None}
    (part,) = read_parts(tmp_path / "x.csv", "text")
    assert part.others["label"] == [str(one) for one in SETS]


def test_joined_labels_are_told_of_where_a_row_is_to_have_one() -> None:
    texts = [f"text {number}" for number in range(40)]
    labels = ["crude", "crude;ship", "ship", "grain"] * 10
    told = "'crude;ship' is one class; if it is several labels, dataset.multilabel=true"
    assert any(told in note for note in layerfusion.load_dataset(texts, labels).notes)
    with pytest.raises(UserError, match="the label is missing; 'crude;ship' is one class") as error:
        layerfusion.load_dataset(texts, [*labels[:-1], ""])
    assert "an empty cell is none" in str(error.value)
    apart = ["arts, crafts", "sport", "crude oil"] + ["sport"] * 37
    assert not any("is one class" in note for note in layerfusion.load_dataset(texts, apart).notes)


def test_columns_of_one_name_are_told_of() -> None:
    frame = pd.DataFrame([[0, 1, 0], [1, 0, 1]] * 20, columns=["a", "a", "b"])
    with pytest.raises(UserError, match="two columns of labels have the same name"):
        layerfusion.load_dataset([f"text {number}" for number in range(40)], frame)
