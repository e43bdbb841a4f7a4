from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from layerfusion.runs import baseline as module
from layerfusion.runs.baseline import C_VALUES, FEATURES, compute_baseline
from layerfusion.texts import Split, TextDataset, fingerprint
from layerfusion.texts.tfidf import CountedTexts, tfidf


def _dataset(
    splits: Mapping[str, tuple[Sequence[str], Sequence[int]]], classes: int
) -> TextDataset:
    read = {
        name: Split(tuple(texts), np.asarray(labels, dtype=np.int64))
        for name, (texts, labels) in splits.items()
    }
    label_names = tuple(f"class {k}" for k in range(classes))
    return TextDataset(
        name="made up",
        splits=read,
        label_names=label_names,
        fingerprint=fingerprint(read, label_names),
        origin="this test",
        available={name: len(split.texts) for name, split in read.items()},
        sampled=False,
        overlap=0,
        notes=(),
    )


_SIGNS = ("good fine", "bad awful", "neutral plain")


def _texts(rows: int, classes: int, seed: int) -> tuple[list[str], list[int]]:
    """A word of the class among words that say nothing."""
    rng = np.random.default_rng(seed)
    labels = [row % classes for row in range(rows)]
    noise = [" ".join(rng.choice(list("abcdefghij"), size=5)) for _ in labels]
    signs = [str(rng.choice(_SIGNS[label].split())) for label in labels]
    return [f"{a} {sign} {a}" for a, sign in zip(noise, signs, strict=True)], labels


@pytest.fixture
def dataset() -> TextDataset:
    rows = {"train": 45, "validation": 15, "test": 24}
    splits = {name: _texts(n, 3, seed) for seed, (name, n) in enumerate(rows.items())}
    return _dataset(splits, 3)


def test_learns_what_words_tell(dataset: TextDataset, tmp_path: Path) -> None:
    record, preds = compute_baseline(dataset, tmp_path)
    target = dataset.splits["test"].labels
    assert record.test["accuracy"] == pytest.approx(accuracy_score(target, preds))
    assert record.test["macro_f1"] == pytest.approx(f1_score(target, preds, average="macro"))
    assert record.test["accuracy"] > 0.9
    assert record.low <= record.test["accuracy"] <= record.high
    assert record.features in FEATURES
    assert record.c in C_VALUES
    assert len(record.cross_validation) == len(FEATURES) * len(C_VALUES)
    best = record.cross_validation[f"{record.features}, C={record.c:g}"]
    assert best == max(record.cross_validation.values())


def test_is_computed_once_and_read_back(
    dataset: TextDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, preds = compute_baseline(dataset, tmp_path)
    monkeypatch.setattr(module, "_compute", lambda *_: pytest.fail("it was kept"))
    kept, kept_preds = compute_baseline(dataset, tmp_path)
    assert kept == record
    np.testing.assert_array_equal(kept_preds, preds)
    assert kept_preds.dtype == np.int64


def test_a_seed_repeats(dataset: TextDataset, tmp_path: Path) -> None:
    first, second = (compute_baseline(dataset, tmp_path / name, seed=3)[0] for name in "ab")
    assert first.test == second.test
    assert first.cross_validation == second.cross_validation


def test_another_seed_or_data_set_has_a_baseline_of_its_own(
    dataset: TextDataset, tmp_path: Path
) -> None:
    compute_baseline(dataset, tmp_path, seed=0)
    compute_baseline(dataset, tmp_path, seed=1)
    other = _dataset({name: _texts(12, 2, 9) for name in ("train", "validation", "test")}, 2)
    compute_baseline(other, tmp_path, seed=0)
    assert len(list((tmp_path / "floors").glob("*.json"))) == 3


@pytest.mark.parametrize("damage", ["cut", "empty", "preds", "record", "accuracy", "null"])
def test_a_damaged_file_is_computed_again(
    dataset: TextDataset,
    tmp_path: Path,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record, preds = compute_baseline(dataset, tmp_path)
    (path,) = (tmp_path / "floors").glob("*.json")
    content = json.loads(path.read_text())["facts"]  # as an older version wrote it
    if damage == "preds":
        content["preds"] = content["preds"][:-1]
    elif damage == "record":
        del content["record"]["c"]
    elif damage == "accuracy":
        content["preds"] = [(pred + 1) % 3 for pred in content["preds"]]
    text = json.dumps(content)
    whole = {"cut": text[: len(text) // 2], "empty": "", "null": "null"}.get(damage, text)
    path.write_text(whole)

    again, again_preds = compute_baseline(dataset, tmp_path)
    assert again.test == record.test
    np.testing.assert_array_equal(again_preds, preds)
    assert "computing it again" in caplog.text
    assert json.loads(path.read_text())["facts"]["preds"] == preds.tolist()


def test_rare_and_absent_classes_are_taken(tmp_path: Path) -> None:
    """One class with one row, one that only test has: no warning (they are errors here)."""
    texts, labels = _texts(20, 2, 0)
    data = _dataset(
        {
            "train": ([*texts, "a lonely row"], [*labels, 2]),
            "validation": _texts(4, 2, 1),
            "test": (["good", "awful", "never seen"], [0, 1, 3]),
        },
        4,
    )
    record, preds = compute_baseline(data, tmp_path)
    assert preds[:2].tolist() == [0, 1]
    assert np.isfinite(record.test["log_loss"])
    assert record.test["log_loss"] > 4  # the class never seen costs -log of almost nothing


def test_the_smallest_data_set_is_taken(tmp_path: Path) -> None:
    data = _dataset(
        {"train": (["x"], [0]), "validation": (["y"], [1]), "test": (["x", "y"], [0, 1])}, 2
    )
    _, preds = compute_baseline(data, tmp_path)
    assert len(preds) == 2


def test_words_keep_combining_marks_and_other_scripts() -> None:
    analyse = tfidf("words", rows=2).build_analyzer()
    assert analyse("हिन्दी भाषा।") == ["हिन्दी", "भाषा", "।"]
    assert analyse("Don't stop, “naïve” 日本語。") == [
        *["don", "'", "t", "stop", ",", "“", "naïve", "”", "日本語", "。"]
    ]
    assert analyse("!? _") == ["!", "?", "_"]  # a text of punctuation has tokens too


def test_the_choice_is_made_without_test(dataset: TextDataset, tmp_path: Path) -> None:
    changed = dict(dataset.splits)
    changed["test"] = Split(("nothing of this",), np.array([0]))
    other = _dataset({k: (list(s.texts), s.labels.tolist()) for k, s in changed.items()}, 3)
    a, b = compute_baseline(dataset, tmp_path)[0], compute_baseline(other, tmp_path)[0]
    assert (a.features, a.c, a.cross_validation) == (b.features, b.c, b.cross_validation)


def test_rows_are_dealt_class_by_class() -> None:
    target = np.repeat([0, 1, 2, 3], [31, 9, 2, 1])
    texts = [f"text {row}" for row in range(len(target))]
    part = module._deal(target, texts, 3, seed=0)
    for label in range(4):
        counts = np.bincount(part[target == label], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(part).tolist() == [15, 14, 14]
    # As rows were dealt before there was any notion of repeated texts.
    assert part[:12].tolist() == [2, 1, 0, 2, 1, 0, 0, 2, 0, 2, 2, 0]
    repeated = module._deal(target.repeat(3), [text for text in texts for _ in "abc"], 3, seed=0)
    assert repeated.tolist() == part.repeat(3).tolist()


def test_a_repeated_text_is_dealt_with_the_first_of_its_rows() -> None:
    target, texts = np.array([0, 0, 1, 1, 1, 0]), ["a", "b", "a", "c", "d", "a"]
    for seed in range(20):
        part = module._deal(target, texts, 2, seed=seed)
        assert len({part[0], part[2], part[5]}) == 1
        assert part[0] != part[1]  # the two texts of class 0
        assert part[3] != part[4]


def test_nothing_is_known_by_heart_of_the_rows_that_choose(tmp_path: Path) -> None:
    """Labels that no text tells, of texts that occur four times with the same one."""
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(1000, 9999, size=6))) for _ in range(60)]
    labels = (rng.permutation(60) % 2).tolist()
    learned = (texts * 4, labels * 4)
    data = _dataset({"train": learned, "validation": (texts, labels), "test": (texts, labels)}, 2)
    record, _ = compute_baseline(data, tmp_path)
    assert len(data.splits["train"].texts) == 240
    assert max(record.cross_validation.values()) < 0.7
    assert record.test["accuracy"] > 0.9  # what it knows by heart of rows that it has seen


def test_the_interval_is_over_the_texts_of_test(dataset: TextDataset, tmp_path: Path) -> None:
    test = dataset.splits["test"]
    few, many = (
        _dataset(
            {
                **{
                    name: (dataset.splits[name].texts, dataset.splits[name].labels.tolist())
                    for name in ("train", "validation")
                },
                "test": (test.texts * times, test.labels.tolist() * times),
            },
            3,
        )
        for times in (1, 10)
    )
    once, copied = (compute_baseline(one, tmp_path)[0] for one in (few, many))
    assert copied.test["accuracy"] == pytest.approx(once.test["accuracy"])
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_only_baselines_of_data_with_repeats_are_computed_again(
    dataset: TextDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others lie in the same files as before the rows of a text were dealt together."""
    assert module._key(dataset, 0) == "6d20a910aed3e2c1a0d21300d501ea98"
    repeated = []
    for name in ("train", "test"):
        split = dataset.splits[name]
        twice = Split(split.texts[:1] + split.texts, split.labels[[0, *range(len(split.labels))]])
        repeated.append(replace(dataset, splits={**dataset.splits, name: twice}))
    own = [module._key(one, 0) for one in repeated]
    monkeypatch.setattr(module, "_repeats", lambda texts: False)
    assert not {*own} & {module._key(one, 0) for one in repeated}


def test_a_large_train_split_is_sampled_for_the_choice_only(
    dataset: TextDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    predict = module.predict_folds

    def counting(
        kinds: Sequence[tuple[CountedTexts, str]],
        target: np.ndarray,
        fold_of: np.ndarray,
        *,
        num_classes: int,
        seed: int,
    ) -> Iterator[dict[float, np.ndarray]]:
        sizes.append(len(fold_of))
        return predict(kinds, target, fold_of, num_classes=num_classes, seed=seed)

    monkeypatch.setattr(module, "predict_folds", counting)
    characters = sum(
        len(text) for name in ("train", "validation") for text in dataset.splits[name].texts
    )
    monkeypatch.setattr(module, "CHOICE_WORK", characters * 3 / 2)
    compute_baseline(dataset, tmp_path)
    assert sizes == [30]  # half of the rows
