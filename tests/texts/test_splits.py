from __future__ import annotations

import json
from pathlib import Path

import pytest

from layerfusion.config.job import LimitConfig
from layerfusion.errors import UserError
from layerfusion.texts import Split, TextDataset
from tests.texts.conftest import Load


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


def rows(prefix: str, **counts: int) -> list[tuple[str, str]]:
    return [
        (f"{prefix} {label} {n}", label) for label, count in counts.items() for n in range(count)
    ]


def pairs(data: TextDataset, *splits: str) -> list[tuple[str, str]]:
    return [
        (text, data.label_names[label])
        for split in splits
        for text, label in zip(data.splits[split].texts, data.splits[split].labels, strict=True)
    ]


def counts(split: Split) -> list[int]:
    return [int((split.labels == label).sum()) for label in sorted(set(split.labels.tolist()))]


def test_one_file_becomes_three_splits(tmp_path: Path, load: Load) -> None:
    given = rows("x", a=60, b=40)
    data = load(path=write(tmp_path / "reviews.csv", given))
    assert sorted(pairs(data, "train", "validation", "test")) == sorted(given)
    assert {split: counts(part) for split, part in data.splits.items()} == {
        "train": [43, 29],
        "validation": [5, 3],
        "test": [12, 8],
    }
    assert data.available == {"train": 72, "validation": 8, "test": 20}
    assert [note.split(":")[0] for note in data.notes] == ["test", "validation"]
    assert not data.sampled
    assert list(data.splits) == ["train", "validation", "test"]


def test_a_text_is_in_one_of_the_splits_that_are_made_here(tmp_path: Path, load: Load) -> None:
    """Else test asks for what train has learned by heart."""
    given = [(f"text {n % 60}", "ab"[n % 2]) for n in range(180)]
    data = load(path=write(tmp_path / "x.csv", given))
    parts = [set(split.texts) for split in data.splits.values()]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 60
    assert sum(map(len, data.splits.values())) == 180
    assert all(len(split) >= 20 or name == "validation" for name, split in data.splits.items())
    assert not data.overlap
    assert not any("also occur" in note for note in data.notes)


def test_rows_of_a_split_keep_their_order(tmp_path: Path, load: Load) -> None:
    given = rows("x", a=30, b=30)
    data = load(path=write(tmp_path / "x.csv", given))
    for split in data.splits:
        positions = [given.index(pair) for pair in pairs(data, split)]
        assert positions == sorted(positions)


def test_class_with_one_row_stays_in_train(tmp_path: Path, load: Load) -> None:
    data = load(path=write(tmp_path / "x.csv", rows("x", a=50, b=50, rare=1)))
    assert ("x rare 0", "rare") in pairs(data, "train")


def test_official_splits_stay_as_they_are(tmp_path: Path, load: Load) -> None:
    given = {
        "TRAIN": rows("t", a=20, b=20),
        "Dev": rows("v", a=3, b=3),
        "test": rows("s", a=5, b=2),
    }
    for name, part in given.items():
        write(tmp_path / f"{name}.csv", part)
    (tmp_path / "README.md").write_text("no data")
    data = load(path=tmp_path)
    for split, name in zip(("train", "validation", "test"), given, strict=True):
        assert pairs(data, split) == given[name]
    assert data.notes == ()


def test_files_by_split_and_their_shards(tmp_path: Path, load: Load) -> None:
    one = load(
        train=write(tmp_path / "a.csv", rows("t", a=20, b=20)),
        test=write(tmp_path / "b.csv", rows("s", a=2, b=2)),
    )
    folder = tmp_path / "sharded"
    folder.mkdir()
    write(folder / "train-00000-of-00002.csv", rows("t", a=20))
    write(folder / "train-00001-of-00002.csv", rows("t", b=20))
    write(folder / "test.csv", rows("s", a=2, b=2))
    other = load(path=folder)
    assert one.fingerprint == other.fingerprint
    assert one.origin == f"path {tmp_path / 'a.csv'}, {tmp_path / 'b.csv'}"


def test_split_seed_changes_the_splits_and_seed_does_not(tmp_path: Path, load: Load) -> None:
    file = write(tmp_path / "x.csv", rows("x", a=50, b=50))
    assert load(path=file).fingerprint == load(path=file, seed=5).fingerprint
    assert load(path=file).fingerprint != load(path=file, split_seed=5).fingerprint
    with pytest.raises(UserError, match=r"dataset.split_seed=-1"):
        load(path=file, split_seed=-1)


# -- samples ------------------------------------------------------------------------------------


def test_limits_take_stratified_samples(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "train.csv", rows("t", a=600, b=300, c=2))
    write(tmp_path / "test.csv", rows("s", a=60, b=30, c=1))
    data = load(path=tmp_path, limit=LimitConfig(train=100, test=10))
    assert len(data.splits["train"]) + len(data.splits["validation"]) == 100
    assert len(data.splits["validation"]) == 10
    assert counts(data.splits["test"]) == [6, 3, 1]
    assert set(data.splits["train"].labels.tolist()) == {0, 1, 2}
    assert data.sampled
    assert data.available == {"train": 812, "validation": 90, "test": 91}
    assert "limit.train: a stratified sample of 100 of 902 rows" in data.notes
    assert "limit.test: a stratified sample of 10 of 91 rows" in data.notes


def test_official_validation_shrinks_in_proportion(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "train.csv", rows("t", a=400, b=400))
    write(tmp_path / "valid.csv", rows("v", a=100, b=100))
    write(tmp_path / "test.csv", rows("s", a=5, b=5))
    data = load(path=tmp_path, limit=LimitConfig(train=50))
    assert counts(data.splits["train"]) == [20, 20]
    assert counts(data.splits["validation"]) == [5, 5]


def test_sample_of_test_does_not_depend_on_train(tmp_path: Path, load: Load) -> None:
    test = write(tmp_path / "test.csv", rows("s", a=50, b=50))
    chosen = [
        load(
            train=write(tmp_path / f"train{n}.csv", rows("t", a=n, b=2 * n)),
            test=test,
            limit=LimitConfig(train=limit, test=20),
        )
        .splits["test"]
        .texts
        for n, limit in [(30, None), (80, 40)]
    ]
    assert chosen[0] == chosen[1]


def test_limit_above_the_rows_is_no_sample(tmp_path: Path, load: Load) -> None:
    file = write(tmp_path / "x.csv", rows("x", a=30, b=30))
    data = load(path=file, limit=LimitConfig(train=48, test=12))
    assert not data.sampled
    assert data.fingerprint == load(path=file).fingerprint


def test_limit_that_cannot_hold_every_label(tmp_path: Path, load: Load) -> None:
    file = write(tmp_path / "x.csv", rows("x", a=30, b=30, c=30))
    with pytest.raises(UserError, match=r"limit.train=2 leaves 2 rows .* fewer than the 3 labels"):
        load(path=file, limit=LimitConfig(train=2))


# -- duplicates ---------------------------------------------------------------------------------


def test_texts_with_several_labels_are_counted(tmp_path: Path, load: Load) -> None:
    train = rows("t", a=20, b=20)
    test = write(tmp_path / "test.csv", rows("s", a=3, b=3)).parent
    write(tmp_path / "train.csv", [*train, ("both", "a"), ("both", "a"), ("other", "b")])
    assert not any("different labels" in note for note in load(path=test).notes)
    write(tmp_path / "train.csv", [*train, ("both", "a"), ("both", "b"), ("both", "a")])
    assert any("1 text has different labels" in note for note in load(path=test).notes)


def test_overlap_is_counted_and_dedupe_drops_it_from_train(tmp_path: Path, load: Load) -> None:
    shared = [("both", "a"), ("also", "b")]
    write(tmp_path / "train.csv", rows("t", a=20, b=20) + shared)
    write(tmp_path / "test.csv", [*rows("s", a=3, b=3), *shared, ("both", "a")])
    data = load(path=tmp_path)
    assert data.overlap == 3
    assert any("3 of 9 test rows also occur in train" in note for note in data.notes)
    clean = load(path=tmp_path, dedupe=True)
    assert clean.overlap == 0
    assert pairs(clean, "test") == pairs(data, "test")
    assert not {"both", "also"} & {text for text, _ in pairs(clean, "train", "validation")}
    assert clean.available["train"] + clean.available["validation"] == 40
    assert any("dedupe: 2 rows of train dropped" in note for note in clean.notes)


def test_dedupe_never_loses_a_class(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "train.csv", [*rows("t", a=20, b=20), ("only", "rare")])
    write(tmp_path / "test.csv", [*rows("s", a=3), ("only", "rare")])
    with pytest.raises(UserError, match=r"dedupe: all train rows of rare also occur in test"):
        load(path=tmp_path, dedupe=True)


def test_as_many_rows_of_each_class(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "train.csv", rows("t", a=60, b=30, c=3))
    write(tmp_path / "test.csv", rows("s", a=1, b=1, c=1))
    data = load(path=tmp_path, limit=LimitConfig(per_class=10))
    found = pairs(data, "train", "validation")
    assert [sum(label == name for _, label in found) for name in "abc"] == [10, 10, 3]
    assert data.sampled
    assert "limit.per_class: 10 rows of each class, 23 of 93 in all (draw 0)" in data.notes
    again = load(path=tmp_path, limit=LimitConfig(per_class=10))
    other = load(path=tmp_path, limit=LimitConfig(per_class=10, draw=1))
    assert again.fingerprint == data.fingerprint != other.fingerprint
    assert other.splits["test"].texts == data.splits["test"].texts
    larger = load(path=tmp_path, limit=LimitConfig(per_class=20))
    seen = {*larger.splits["train"].texts, *larger.splits["validation"].texts}
    assert {*data.splits["train"].texts, *data.splits["validation"].texts} <= seen


def test_a_validation_that_is_given_shrinks_with_train(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "train.csv", rows("t", a=40, b=40))
    write(tmp_path / "validation.csv", rows("v", a=10, b=10))
    write(tmp_path / "test.csv", rows("s", a=1, b=1))
    data = load(path=tmp_path, limit=LimitConfig(per_class=10))
    sizes = {split: counts(part) for split, part in data.splits.items()}
    assert sizes == {"train": [8, 8], "validation": [2, 2], "test": [1, 1]}


# -- files and parts that no split takes ---------------------------------------------------------


def test_a_file_in_whose_name_a_split_is_a_word_is_that_split(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "train.csv", rows("x", a=20, b=20))
    write(tmp_path / "reviews_test.csv", rows("y", a=5, b=5))
    data = load(path=tmp_path)
    assert counts(data.splits["test"]) == [5, 5]
    assert [note.split(":")[0] for note in data.notes] == ["validation"]


@pytest.mark.parametrize(
    "names", [["eval"], ["validation_matched", "validation_mismatched"], ["test_old", "test_new"]]
)
def test_what_no_split_takes_is_named_with_the_key_that_uses_it(
    tmp_path: Path, load: Load, names: list[str]
) -> None:
    write(tmp_path / "train.csv", rows("x", a=30, b=30))
    for number, name in enumerate(names):
        write(tmp_path / f"{name}.csv", rows(f"y{number}", a=5, b=5))
    data = load(path=tmp_path)
    assert all(f"{name}.csv" in data.notes[0] for name in names)
    first = min(names)
    split = "validation" if "validation" in first else "test"
    assert (
        "not used, as no split has such a name; dataset.files.train=train.csv"
        f" dataset.files.{split}={first}.csv would use {first}.csv as {split}" in data.notes[0]
    )
    taken = load(path=tmp_path, files={"train": "train.csv", split: f"{first}.csv"})
    assert counts(taken.splits[split]) == [5, 5]


def test_a_missing_shard_is_an_error(tmp_path: Path, load: Load) -> None:
    for shard in (0, 2):
        write(tmp_path / f"train-0000{shard}-of-00003.csv", rows(f"x{shard}", a=20, b=20))
    with pytest.raises(UserError, match=r"shard 1 of train is missing; its shards are numbered"):
        load(path=tmp_path)
    write(tmp_path / "train-00001-of-00003.csv", rows("x1", a=20, b=20))
    assert sum(load(path=tmp_path).available.values()) == 120


def test_a_test_file_beside_a_train_file_that_is_read_alone_is_named(
    tmp_path: Path, load: Load
) -> None:
    write(tmp_path / "test.csv", rows("y", a=5, b=5))
    data = load(path=write(tmp_path / "train.csv", rows("x", a=30, b=30)))
    way_out = f"dataset.test={tmp_path}/test.csv beside dataset.train={tmp_path}/train.csv would"
    assert data.notes[0] == f"test.csv beside train.csv is not used; {way_out}"
    named = load(train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    assert not any("not used" in note for note in named.notes)
    write(tmp_path / "r90_test.csv", rows("z", a=5, b=5))
    write(tmp_path / "dev.csv", rows("d", a=5, b=5))
    named = load(train=str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv"))
    (note,) = (note for note in named.notes if "not used" in note)
    assert (
        note == f"dev.csv beside train.csv is not used; dataset.validation={tmp_path}/dev.csv would"
    )


def test_parts_of_a_saved_data_set_that_no_split_takes_are_named(
    tmp_path: Path, load: Load
) -> None:
    import datasets

    def part(prefix: str) -> datasets.Dataset:
        texts, labels = zip(*rows(prefix, a=20, b=20), strict=True)
        return datasets.Dataset.from_dict({"text": texts, "label": labels})

    names = ("train", "validation_matched", "validation_mismatched", "unsupervised")
    saved = datasets.DatasetDict({name: part(name) for name in names})
    saved.save_to_disk(str(tmp_path / "saved"))
    data = load(path=tmp_path / "saved")
    assert all(name in data.notes[0] for name in names[1:])
    data = load(path=tmp_path / "saved", files={"train": "train", "test": "validation_matched"})
    assert counts(data.splits["test"]) == [20, 20]


# -- classes of parts that number or write them differently --------------------------------------


def named_parquet(path: Path, given: list[tuple[str, str]], names: list[str]) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    texts, labels = zip(*given, strict=True)
    columns = {"text": texts, "label": [names.index(label) for label in labels]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(path))


@pytest.mark.parametrize("other", ["test", "validation", "train-00001-of-00002"])
def test_classes_of_parts_in_another_order_are_matched_by_name(
    tmp_path: Path, load: Load, other: str
) -> None:
    first = "train-00000-of-00002" if other.startswith("train") else "train"
    train, rest = rows("x", bad=20, good=20), rows("y", bad=10, good=10)
    named_parquet(tmp_path / f"{first}.parquet", train, ["bad", "good"])
    named_parquet(tmp_path / f"{other}.parquet", rest, ["good", "bad"])
    data = load(path=tmp_path)
    assert sorted(pairs(data, "train", "validation", "test")) == sorted([*train, *rest])
    assert all(label in text.split() for text, label in pairs(data, *data.splits))


def test_a_part_whose_numbers_have_no_names_is_refused_where_the_others_disagree(
    tmp_path: Path, load: Load
) -> None:
    named_parquet(tmp_path / "train.parquet", rows("x", bad=20, good=20), ["bad", "good"])
    named_parquet(tmp_path / "test.parquet", rows("y", bad=5, good=5), ["good", "bad"])
    write(tmp_path / "validation.csv", [("a", "0"), ("b", "1")])
    with pytest.raises(UserError, match="the label '0' has no name; there are: bad, good"):
        load(path=tmp_path)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["0", "1"], [0, 1]),
        (["0.0", "1.0"], [0, 1]),
        (["0", "1"], ["0", "1"]),
        (["1.5", "2.0"], [1.5, 2]),
        (["true", "false"], [True, False]),
    ],
)
def test_a_label_is_one_class_whatever_format_it_is_written_in(
    tmp_path: Path, load: Load, train: list[str], test: list[object]
) -> None:
    import json

    write(tmp_path / "train.csv", [(f"x {n}", train[n % 2]) for n in range(40)])
    lines = [json.dumps({"text": f"y {n}", "label": test[n % 2]}) for n in range(10)]
    (tmp_path / "test.jsonl").write_text("\n".join(lines))
    data = load(path=tmp_path)
    assert len(data.label_names) == 2
    for split in data.splits.values():
        numbers = [int(text.split()[1]) for text in split.texts]
        first = split.labels[numbers.index(min(numbers))]
        assert [label == first for label in split.labels] == [
            (number - min(numbers)) % 2 == 0 for number in numbers
        ]


def test_classes_that_may_be_one_or_none_are_noted(tmp_path: Path, load: Load) -> None:
    given = [*rows("x", Bad=20, bad=20, nan=20)]
    notes = load(path=write(tmp_path / "x.csv", given)).notes
    assert notes[0].startswith("labels: 'Bad' and 'bad' are different classes")
    assert notes[1].startswith("labels: 'nan' is a class of its own")


@pytest.mark.parametrize(
    ("labels", "alike"),
    [
        (("01", "1", "x"), True),
        (("0.0", "+0", "x"), True),
        (("1e0", "1", "x"), True),
        ((".5", "0.5", "x"), True),
        ((".5", "5", "x"), False),
        (("\u2764", "\u2764\ufe0f", "x"), True),  # a heart, and one that is to have its colour
        (("R&amp;D", "R&D", "x"), True),
        (("1,000", "1", "x"), False),
        (("1,5", "1.5", "x"), False),
        (("v12345678901234567", "v12345678901234568", "x"), False),
        (("12345678901234567", "12345678901234568", "x"), False),
        (("inf", "infinity", "x"), False),
        (("1e999999999", "1e999999998", "x"), False),
    ],
)
def test_a_number_that_is_written_in_two_ways_is_noted_and_no_other(
    labels: tuple[str, ...], alike: bool, tmp_path: Path, load: Load
) -> None:
    given = [(f"text {n}", labels[n % 3]) for n in range(60)]
    notes = load(path=write(tmp_path / "x.csv", [(t, f'"{label}"') for t, label in given])).notes
    assert any("are different classes" in note for note in notes) is alike


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("['good']", True),
        ("{'good'}", True),
        ("('good',)", True),
        ("b'good'", True),
        ("'good'", True),
        ("np.str_('good')", True),
        ("tensor(1)", True),
        ("[good]", False),
        ("don't", False),
        ("good (new)", False),
    ],
)
def test_a_name_as_a_program_prints_it_is_noted(
    name: str, printed: bool, tmp_path: Path, load: Load
) -> None:
    given = [{"text": f"text {n}", "label": (name, "x")[n % 2]} for n in range(40)]
    (tmp_path / "x.json").write_text(json.dumps(given))
    notes = load(path=tmp_path / "x.json").notes
    assert any("what Python or another program prints" in note for note in notes) is printed


def test_a_test_without_labels_is_left_out_and_said(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "train.csv", [(f"x {n}", str(n % 2)) for n in range(40)])
    write(tmp_path / "test.csv", [(f"y {n}", "-1") for n in range(10)])
    notes = load(path=tmp_path).notes
    assert notes[0] == "test: left out, as none of its 10 rows has a label (-1 stands for none)"
    assert notes[1].startswith("test: 8 rows of train")


def test_half_characters_are_replaced_and_counted(tmp_path: Path, load: Load) -> None:
    lines = [f'{{"text": "a\\ud83d {n}", "label": "{"xy"[n % 2]}\\ud83d"}}' for n in range(40)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    data = load(path=tmp_path / "x.jsonl")
    assert data.label_names == ("x\ufffd", "y\ufffd")
    assert "80 half characters (lone surrogates) became U+FFFD" in data.notes[0]


def test_rows_of_validation_that_occur_elsewhere_are_counted(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "train.csv", rows("x", a=30, b=30))
    write(tmp_path / "validation.csv", rows("x", a=5, b=5))
    write(tmp_path / "test.csv", rows("y", a=5, b=5))
    notes = load(path=tmp_path).notes
    assert "10 of 10 validation rows also occur in train" in notes
    write(tmp_path / "validation.csv", rows("v", a=5, b=5))
    assert not any("also occur" in note for note in load(path=tmp_path).notes)


def test_rows_that_are_nearly_those_of_train_are_counted(tmp_path: Path, load: Load) -> None:
    train = [
        *rows("x", a=30, b=30),
        ("Don't stop - naïve friend!", "a"),
        ("...", "a"),
        ("हिन्दी", "b"),
    ]
    write(tmp_path / "train.csv", train)
    write(tmp_path / "validation.csv", [*rows("v", a=5, b=5), ("STRASSE 1", "a"), ("X a 3 ?", "b")])
    near = ["dont stop naïve FRIEND", "DON'T  STOP – NAÏVE FRIEND", "Straße 1.", "X-a-1!"]
    far = [
        "...",
        "!!",
        "dont stop naive friend",
        "x a 1 x",
        "हनद",
        "x a 1 $",
        rows("x", a=1, b=0)[0][0],
    ]
    write(tmp_path / "test.csv", [*((text, "a") for text in [*near, near[0], *far]), ("y", "b")])
    data = load(path=tmp_path)
    but = "occur in train but for case, punctuation and white space"
    assert [note for note in data.notes if but in note] == [
        f"5 of 13 test rows {but}",  # and not those that are the same to the letter
        f"1 of 12 validation rows {but}",
    ]
    assert data.overlap == 2
    clean = load(path=tmp_path, dedupe=True)
    assert clean.overlap == 0
    assert f"5 of 13 test rows {but}" in clean.notes  # which dedupe leaves where they are
    write(tmp_path / "test.csv", rows("y", a=5, b=5))
    write(tmp_path / "validation.csv", rows("v", a=5, b=5))
    assert not any(but in note for note in load(path=tmp_path).notes)


def test_words_without_white_space_that_differ_in_case_are_counted(
    tmp_path: Path, load: Load
) -> None:
    write(tmp_path / "train.csv", [("good", "a"), ("fine", "a"), ("bad", "b"), ("😡", "b")])
    write(tmp_path / "validation.csv", [("nice", "a"), ("poor", "b")])
    write(tmp_path / "test.csv", [("GOOD", "a"), ("😀", "a"), ("awful", "b")])
    but = "occur in train but for case, punctuation and white space"
    assert f"1 of 3 test rows {but}" in load(path=tmp_path).notes


def test_a_test_of_one_class_is_noted(tmp_path: Path, load: Load) -> None:
    write(tmp_path / "train.csv", rows("x", a=30, b=30))
    write(tmp_path / "test.csv", rows("y", a=9))
    (note,) = (note for note in load(path=tmp_path).notes if note.startswith("test: all"))
    assert note == "test: all of its 9 rows are of a; its figures say nothing of other classes"
