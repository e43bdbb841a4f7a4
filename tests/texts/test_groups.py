"""Groups of rows, such as those of an author: read, dealt, held out and told."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedGroupKFold

import layerfusion as lf
from layerfusion.config.job import LimitConfig
from layerfusion.errors import UserError
from layerfusion.layers.folds import possible_folds, stratified_folds
from layerfusion.texts import Split, TextDataset
from layerfusion.texts.groups import (
    ALWAYS_LEARNED,
    Group,
    deal_groups,
    hold_out_groups,
    hold_out_units,
    units_of,
)
from layerfusion.texts.parts import share_of_parts
from tests.texts.conftest import Load


def rows_of(
    seed: int, groups: int, rows: int, classes: int, *, heavy: bool = False
) -> tuple[np.ndarray, np.ndarray, tuple[Any, ...]]:
    """Draw rows whose groups differ in their classes and, if `heavy`, much in their sizes."""
    rng = np.random.default_rng(seed)
    weights = rng.pareto(1.0, groups) + 0.1 if heavy else np.ones(groups)
    group = rng.choice(groups, rows, p=weights / weights.sum())
    leaning = rng.dirichlet(np.full(classes, 0.5), groups)
    labels = np.array([rng.choice(classes, p=leaning[one]) for one in group])
    return labels, group, units_of(["x"] * rows, [f"g{one}" for one in group])


def frame(groups: int = 30, each: int = 6) -> pd.DataFrame:
    """Each group writes of both classes."""
    rows = [
        {"text": f"{word} film number {n} of {group}", "label": word, "author": f"author {group}"}
        for group in range(groups)
        for n in range(each)
        for word in (("good", "bad")[(n + group) % 2],)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def authors(data: TextDataset) -> dict[str, set[str | None]]:
    return {name: set(split.groups or ()) for name, split in data.splits.items()}


# -- dealing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_groups_are_dealt_whole_and_as_evenly_as_scikit_learn_does(seed: int, heavy: bool) -> None:
    labels, group, units = rows_of(seed, 40, 800, 4, heavy=heavy)
    parts = deal_groups(labels, units, 5, seed=seed)
    assert all(len(set(parts[group == one])) == 1 for one in set(group.tolist()))
    assert set(parts.tolist()) <= {ALWAYS_LEARNED, *range(5)}
    peer = np.zeros(len(labels), int)
    split = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, group)
    for number, (_, out) in enumerate(split):
        peer[out] = number

    def unevenness(dealt: np.ndarray) -> float:
        shares = [
            [(labels[dealt == part] == label).sum() / (labels == label).sum() for label in range(4)]
            for part in range(5)
        ]
        return float(np.std(shares, axis=0).mean())

    assert unevenness(parts) < 1.1 * unevenness(peer) + 0.01


@pytest.mark.parametrize("seed", range(20))
def test_no_part_holds_out_all_rows_of_a_class(seed: int) -> None:
    labels, _, units = rows_of(seed, 7, 60, 12, heavy=bool(seed % 2))
    parts = deal_groups(labels, units, 5, seed=seed)
    for part in range(parts.max() + 1):
        assert (parts == part).any()
        assert set(labels[parts != part].tolist()) == set(labels.tolist())


def test_single_rows_are_dealt_evenly() -> None:
    labels = np.repeat([0, 1], [60, 40])
    units = units_of([f"text {n}" for n in range(100)], ["a", *[None] * 99])
    parts = deal_groups(labels, units, 5, seed=0)
    for label, share in ((0, 12), (1, 8)):
        assert np.bincount(parts[labels == label]).tolist() == [share] * 5


def test_rows_with_several_labels_are_dealt_too() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((90, 6)) < 0.3
    units = units_of(["x"] * 90, [f"g{n // 5}" for n in range(90)])
    parts = deal_groups(labels, units, 3, seed=0)
    assert all(len(set(parts[n : n + 5].tolist())) == 1 for n in range(0, 90, 5))
    assert np.bincount(parts).min() >= 20


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.25, 0.4, 0.7])
def test_about_the_share_leaves_in_whole_groups(share: float) -> None:
    labels, group, units = rows_of(1, 200, 2000, 3)
    leaves = hold_out_groups(labels, units, share, seed=0, purpose="test")
    assert abs(leaves.mean() - share) < 0.02
    assert not set(group[leaves]) & set(group[~leaves])
    for label in range(3):
        assert abs(leaves[labels == label].mean() - share) < 0.03
    again, other = (hold_out_groups(labels, units, share, seed=s, purpose="test") for s in (0, 1))
    assert (leaves == again).all()
    assert (leaves != other).any()


@pytest.mark.parametrize("share", [0.005, 0.01, 0.03, 0.97, 0.99])
def test_a_share_below_that_of_a_fold_is_met_too(share: float) -> None:
    labels, _, units = rows_of(1, 2000, 10_000, 3)
    leaves = hold_out_groups(labels, units, share, seed=0, purpose="validation")
    assert abs(leaves.mean() - share) < 0.002


@pytest.mark.parametrize("seed", [98, 127, 238, 297])
def test_some_groups_leave_whatever_share_is_asked_for(seed: int) -> None:
    """Of two groups that have all rows of two classes together, one has to stay, and not both."""
    for labels, _, units in (rows_of(seed, 4, 16, 3), rows_of(seed, 5, 20, 4)):
        leaves = hold_out_groups(labels, units, 0.9, seed=seed, purpose="test")
        assert leaves.any()
        assert set(labels[~leaves]) == set(labels)


@pytest.mark.parametrize("parts", [2, 3, 5])
@pytest.mark.parametrize("seed", range(20))
def test_what_can_be_held_out_is(seed: int, parts: int) -> None:
    """Groups that have all rows of a class take no part from those that have not."""
    labels, group, units = rows_of(seed, 9, 30, 9)
    free = sum(set(labels[group != one]) == set(labels) for one in set(group.tolist()))
    dealt = deal_groups(labels, units, parts, seed=seed)
    assert dealt.max() + 1 == min(parts, free)


def test_no_label_is_lost_or_left_to_all_rows() -> None:
    rows = ["AB", "AC", "A", "AD", "ABCD", "ACD", "BD", "CD", "A"]
    labels = np.array([[mark in row for mark in "ABCD"] for row in rows])
    for seed in range(30):
        mixed = labels[np.random.default_rng(seed).permutation(len(rows))]
        units = units_of(["x"] * len(rows), [f"g{n}" for n in range(len(rows))])
        kept = ~hold_out_groups(mixed, units, 0.5, seed=seed, purpose="test")
        assert mixed[kept].any(axis=0).all()
        assert not mixed[kept].all(axis=0).any()


@pytest.mark.parametrize("seed", range(10))
def test_a_group_of_half_of_the_rows_stays(seed: int) -> None:
    labels = np.arange(200) % 2
    names = ["all of us"] * 100 + [f"g{n // 4}" for n in range(100)]
    units = units_of(["x"] * 200, names)
    leaves = hold_out_groups(labels, units, 0.2, seed=seed, purpose="test")
    assert not leaves[:100].any()
    assert 0.1 <= leaves.mean() <= 0.3


def test_every_class_stays_in_train() -> None:
    for seed in range(30):
        labels, _, units = rows_of(seed, 6, 40, 8)
        leaves = hold_out_groups(labels, units, 0.4, seed=seed, purpose="test")
        assert leaves.any()
        assert set(labels[~leaves].tolist()) == set(labels.tolist())


def test_without_groups_texts_are_held_out_as_before() -> None:
    labels = np.arange(60) % 3
    texts = [f"text {n % 40}" for n in range(60)]
    leaves = hold_out_units(labels, texts, 0.2, seed=0, purpose="rows to stop on")
    assert not {texts[n] for n in np.flatnonzero(leaves)} & {
        texts[n] for n in np.flatnonzero(~leaves)
    }


def test_folds_divide_no_group_and_say_what_is_never_held_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    labels = np.array([0, 1] * 20 + [2, 2])
    groups = [f"g{n // 4}" for n in range(40)] + ["rare", "rare"]
    units = units_of([f"text {n}" for n in range(42)], groups)
    folds = stratified_folds(labels, units, 5, seed=0).numpy()
    assert all(len(set(folds[n : n + 4].tolist())) == 1 for n in range(0, 40, 4))
    assert folds[40:].tolist() == [-1, -1]
    assert sorted(set(folds.tolist())) == [-1, *range(5)]
    assert possible_folds(labels, units, 5, seed=0) == 5
    assert "1 of 11 groups of train, with 2 rows, are never held out" in caplog.text


def test_there_are_no_more_folds_than_groups() -> None:
    labels, names = np.arange(30) % 2, [f"g{n % 3}" for n in range(30)]
    units = units_of(["x"] * 30, names)
    assert possible_folds(labels, units, 5, seed=0) == 3
    assert set(stratified_folds(labels, units, 5, seed=0).tolist()) == {0, 1, 2}


def test_a_class_for_each_group_cannot_be_held_out() -> None:
    labels = np.repeat([0, 1, 2], 10)
    units = units_of(["x"] * 30, [f"g{label}" for label in labels])
    for refused in (stratified_folds, possible_folds):
        with pytest.raises(
            UserError, match=r"^layers\.folds=5: fewer than two groups of train can be held out, as"
        ):
            refused(labels, units, 5, seed=0)
    with pytest.raises(
        UserError, match=r"^fewer than two groups of train can become test, as each"
    ):
        hold_out_groups(labels, units, 0.2, seed=0, purpose="test")


def test_groups_that_have_a_class_alone_make_no_fold() -> None:
    """Three of five groups have all rows of a class of their own."""
    labels = np.array([0, 0, 0, 1, 0, 2, 0, 3, 0, 0])
    units = units_of(["x"] * 10, [f"g{n // 2}" for n in range(10)])
    assert possible_folds(labels, units, 5, seed=0) == 2


def test_a_text_is_no_group() -> None:
    assert units_of(["ann"], ["ann"]) == (Group("ann"),)
    assert units_of(["ann"], ["ann"]) != units_of(["ann"], [None])


# -- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet", "arrow"])
def test_files_name_the_column(tmp_path: Path, load: Load, kind: str) -> None:
    rows, path = frame(), tmp_path / f"reviews.{kind}"
    match kind:
        case "csv" | "tsv":
            rows.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
        case "jsonl" | "json":
            rows.to_json(path, orient="records", lines=kind == "jsonl")
        case "parquet":
            rows.to_parquet(path)
        case _:
            rows.reset_index(drop=True).to_feather(path)
    data = load(path=path, group="author")
    found = authors(data)
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["validation"] & found["test"]
    assert set.union(*found.values()) == {f"author {n}" for n in range(30)}
    counted = {name: len(own) for name, own in found.items()}
    assert data.notes[-1] == (
        f"groups: {counted['train']} of train, {counted['validation']} of validation,"
        f" {counted['test']} of test; no split or fold made here divides one, and intervals and"
        " tests draw them together"
    )
    assert any("whole groups, stratified (20%" in note for note in data.notes)
    divided = load(path=path)
    assert divided.splits["train"].groups is None
    assert divided.fingerprint != data.fingerprint


def test_memory_has_the_same_data_set_as_a_file(tmp_path: Path, load: Load) -> None:
    datasets = pytest.importorskip("datasets")
    rows = frame()
    rows.to_csv(tmp_path / "data.csv", index=False)
    file = load(path=tmp_path / "data.csv", group="author")
    texts, labels = rows.text.tolist(), rows.label.tolist()
    for data in (
        lf.load_dataset(tmp_path / "data.csv", group="author"),
        lf.load_dataset(rows, group="author"),
        lf.load_dataset(datasets.Dataset.from_pandas(rows, preserve_index=False), group="author"),
        lf.load_dataset(rows.to_dict("records"), group="author"),
        lf.load_dataset(texts, labels, groups=rows.author.tolist()),
        lf.load_dataset(rows.text, rows.label, groups=rows.author),
        lf.load_dataset(texts, labels, groups=rows.author.astype("category")),
        lf.load_dataset(texts, labels, groups=rows[["author"]]),
        lf.load_dataset(texts, labels, groups=rows[["author"]].to_numpy()),
    ):
        assert data.fingerprint == file.fingerprint
        assert authors(data) == authors(file)


def test_an_empty_cell_is_no_group_and_whole_numbers_have_no_point() -> None:
    rows = frame().assign(author=[float(n // 6) for n in range(180)])
    rows.loc[rows.index[:12], "author"] = np.nan
    data = lf.load_dataset(rows, group="author")
    every = [name for split in data.splits.values() for name in split.groups or ()]
    assert every.count(None) == 12
    assert {name for name in every if name} == {str(n) for n in range(2, 30)}
    assert "(12 rows have none)" in data.notes[-1]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_group_has_one_name_in_all_files(tmp_path: Path, load: Load, kind: str) -> None:
    """Pandas writes 7.0 beside an empty cell, and an accent has two forms."""
    rows = frame().assign(author=[float(n // 6) for n in range(180)]).astype({"author": object})
    first, rest = rows[:120].copy(), rows[120:].copy()
    first["author"] = first.author.astype(float).where(np.arange(120) > 3)
    rest["author"] = rest.author.astype(int)
    if kind == "csv":
        first["author"] = first.author.astype(object).where(first.author != 5, "Jos\u00e9")
        rest["author"] = rest.author.astype(object).where(rest.author != 25, "Jose\u0301")
    files: dict[str, Any] = {}
    for name, part in (("train", first), ("test", rest)):
        files[name] = tmp_path / f"{name}.{kind}"
        match kind:
            case "csv":
                part.to_csv(files[name], index=False)
            case "jsonl":
                part.to_json(files[name], orient="records", lines=True)
            case _:
                part.to_parquet(files[name])
    found = authors(load(**files, group="author"))
    names = {str(n) for n in range(30)} | {"Jos\u00e9"}
    assert found["train"] | found["validation"] | found["test"] <= names | {None}
    if kind == "csv":
        assert "Jos\u00e9" in found["train"] | found["validation"]
        assert "Jos\u00e9" in found["test"]


def test_columns_by_number_may_have_groups_by_name(tmp_path: Path, load: Load) -> None:
    frame().to_csv(tmp_path / "headed.csv", index=False)
    data = load(path=tmp_path / "headed.csv", text="1", label="2", group="author")
    same = load(path=tmp_path / "headed.csv", text="1", label="2", group="3")
    assert data.fingerprint == same.fingerprint
    frame().to_csv(tmp_path / "plain.csv", index=False, header=False)
    load(path=tmp_path / "plain.csv", text="1", label="2", group="3")
    message = r"no column 'author' \(dataset\.group\); there are: '1', '2', '3'"
    with pytest.raises(UserError, match=message):
        load(path=tmp_path / "plain.csv", text="1", label="2", group="author")


def test_a_path_to_groups_is_guessed(tmp_path: Path, load: Load) -> None:
    rows = frame()
    nested = rows.assign(meta=[{"author": name} for name in rows.author]).drop(columns="author")
    nested.to_json(tmp_path / "x.jsonl", orient="records", lines=True)
    load(path=tmp_path / "x.jsonl", group="meta.author")
    for column in ("meta.auhtor", "author", "Author"):
        with pytest.raises(UserError, match=r"did you mean dataset\.group=meta\.author\?"):
            load(path=tmp_path / "x.jsonl", group=column)
    with pytest.raises(UserError, match=r"dataset\.group: \{.*\} is no name of a group"):
        load(path=tmp_path / "x.jsonl", group="meta")


def test_splits_that_divide_groups_are_noted_and_mended(load: Load, tmp_path: Path) -> None:
    rows = frame()
    rows[:120].to_csv(tmp_path / "train.csv", index=False)
    rows[120:].to_csv(tmp_path / "test.csv", index=False)
    files = {"train": tmp_path / "train.csv", "test": tmp_path / "test.csv", "group": "author"}
    data = load(**files)
    assert len(data.splits["test"]) == 60
    again = len([one for one in data.splits["test"].groups or () if one in set(rows[:120].author)])
    said = f"{again} of 60 test rows are of groups that train has rows of too; dataset.dedupe=true"
    assert any(note.startswith(said) for note in data.notes)
    mended = load(**files, dedupe=True)
    assert len(mended.splits["test"]) == 60
    assert not authors(mended)["train"] & authors(mended)["test"]
    assert not any("are of groups" in note for note in mended.notes)
    assert any("or whose group does" in note for note in mended.notes)


def test_samples_keep_the_groups_of_their_rows(tmp_path: Path, load: Load) -> None:
    rows = frame()
    rows.to_csv(tmp_path / "x.csv", index=False)
    data = load(path=tmp_path / "x.csv", group="author", limit=LimitConfig(train=60, test=20))
    author = dict(zip(rows.text, rows.author, strict=True))
    for split in data.splits.values():
        assert [author[text] for text in split.texts] == list(split.groups or ())
    assert not authors(data)["train"] & authors(data)["validation"]


def test_a_text_of_several_groups_does_not_join_them() -> None:
    split = Split(("thanks", "thanks", "a", "b"), np.array([0, 0, 1, 1]), ("x", "y", "x", "y"))
    assert split.unit_of.tolist() == [0, 1, 0, 1]
    alone = Split(("thanks", "thanks", "a", "b"), np.array([0, 0, 1, 1]))
    assert alone.unit_of.tolist() == [0, 0, 2, 3]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("writer", r"no column 'writer' \(group=\); there are: 'text', 'label'"),
        ("auhtor", r"did you mean group='author'\?"),
        ("nobody", "no row has a group in the column 'nobody'"),
        ("list", r"is no name of a group"),
    ],
)
def test_what_is_no_column_of_groups_is_refused(column: str, message: str) -> None:
    rows = frame().assign(nobody="", list=[["x", "y"]] * 180)
    with pytest.raises(UserError, match=message):
        lf.load_dataset(rows, group=column)


def test_groups_beside_texts_are_one_for_each() -> None:
    rows = frame()
    texts, labels = rows.text.tolist(), rows.label.tolist()
    for groups, message in (
        (["a"] * 10, "180 texts and 10 groups; each text needs one, or None"),
        ("author", "groups= is an object of type str"),
        ([None] * 180, "no row has a group"),
    ):
        with pytest.raises(UserError, match=message):
            lf.load_dataset(texts, labels, groups=groups)
    with pytest.raises(UserError, match="groups have the rows of the texts in another order"):
        lf.load_dataset(rows.text, rows.label, groups=rows.author.sort_index())
    with pytest.raises(UserError, match="group= names a column"):
        lf.load_dataset(rows, groups=rows.author)
    with pytest.raises(UserError, match="both say the groups"):
        lf.load_dataset(texts, labels, groups=rows.author.tolist(), group="author")


def test_the_guess_of_columns_leaves_out_that_of_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column of few values would look like labels."""
    from layerfusion.commands import guesses

    rows = frame(groups=4, each=40).rename(columns={"text": "review", "label": "verdict"})
    rows.to_csv(tmp_path / "x.csv", index=False)
    monkeypatch.chdir(tmp_path)
    words = guesses.with_data("train", ["x.csv", "dataset.group=author"])
    assert "dataset.label=verdict" in words
    assert "dataset.text=review" in words
    assert "author" not in capsys.readouterr().out


def phrases(sentences: int) -> list[str]:
    """Sentences, and two parts of each."""
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(500)]
    whole = [" ".join(rng.choice(words, 12)) for _ in range(sentences)]
    return [
        part for text in whole for part in (text, text[: text.rfind(" ")], text.split(" ", 4)[4])
    ]


def test_texts_that_are_parts_of_others_are_noted() -> None:
    texts = phrases(60)
    labels = ["ab"[n // 3 % 2] for n in range(180)]
    data = lf.load_dataset(texts, labels)
    told = [note for note in data.notes if "are parts of longer ones" in note]
    assert told[0].startswith("train: about ")
    assert "longer ones there, as phrases are of a sentence" in told[0]
    assert any(note.startswith("test: about ") and "longer ones of train" in note for note in told)
    whole = [n // 3 for n in range(180)]
    assert not any("are parts" in one for one in lf.load_dataset(texts, labels, groups=whole).notes)
    others = lf.load_dataset(texts[::3] * 2, labels[::3] * 2)
    assert not any("are parts" in note for note in others.notes)


def test_a_part_is_of_whole_words_and_of_a_longer_text() -> None:
    assert share_of_parts(["a b c"], ["a b cd", "xa b c", "A  B c", "a b c"]) == 0
    assert share_of_parts(["A b  c"], ["x a b c"]) == 1
    assert (
        share_of_parts(["a b c", "d e f", "two words"], ["a b c d", "d e f", "no two words"]) == 0.5
    )
    assert share_of_parts(["two words"], ["two words more"]) == 0
    assert share_of_parts(["a b c"] * 3, []) == 0


def test_looking_for_parts_is_quick() -> None:
    texts = [f"{n} " + "many words of a long post " * 40 + f"{n}" for n in range(20_000)]  # 20 MB
    begun = time.perf_counter()
    assert share_of_parts(texts, texts) == 0
    assert time.perf_counter() - begun < 8


def test_dealing_is_quick() -> None:
    group = np.random.default_rng(0).integers(0, 50_000, 150_000)
    units = units_of(["x"] * 150_000, [str(one) for one in group])
    with warnings.catch_warnings(action="error"):
        parts = deal_groups(group % 7, units, 10, seed=0)
    assert np.bincount(parts).max() - np.bincount(parts).min() < 150
