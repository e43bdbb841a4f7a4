from __future__ import annotations

import logging

import numpy as np
import pytest

from layerfusion.errors import UserError
from layerfusion.layers.folds import possible_folds, stratified_folds


def test_folds_share_rows_and_classes_out_evenly() -> None:
    labels = np.repeat([0, 1, 2], [53, 31, 16])
    folds = stratified_folds(labels, range(100), 5, seed=0).numpy()
    assert sorted(np.bincount(folds).tolist()) == [20] * 5
    for label, count in enumerate((53, 31, 16)):
        sizes = np.bincount(folds[labels == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1
        assert sizes.sum() == count


def test_a_seed_gives_the_same_folds_and_another_seed_others() -> None:
    labels = np.arange(60) % 3
    first, again, other = (stratified_folds(labels, range(60), 3, seed=s) for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_the_same_text_is_never_on_both_sides() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
    texts = ["a", "b", "a", "c", "d", "d", "e", "f", "a"]
    folds = stratified_folds(labels, texts, 2, seed=0).numpy()
    for text in set(texts):
        assert len({folds[n] for n in range(9) if texts[n] == text}) == 1


def test_a_class_with_one_text_stays_in_every_fit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    labels = np.array([0] * 10 + [1] + [2, 2])
    folds = stratified_folds(labels, range(13), 3, seed=0).numpy()
    assert folds[10] == -1
    assert set(folds[11:]) <= {0, 1, 2}
    assert len(set(folds[11:])) == 2
    few = "2 of 3 classes have fewer than layers.folds=3 texts in train"
    assert f"{few} (1 1, 2 2); they are judged in as many folds as they have texts" in caplog.text
    stratified_folds(labels, range(13), 3, seed=0, names=("wheat", "jet", "cpu"))
    assert f"{few} (jet 1, cpu 2);" in caplog.text


def test_of_many_rare_classes_the_rarest_are_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    labels = np.repeat(np.arange(9), [9, 4, 1, 2, 3, 4, 4, 1, 9])
    names = [f"c{n}" for n in range(9)]
    stratified_folds(labels, range(len(labels)), 5, seed=0, names=names)
    assert "7 of 9 classes" in caplog.text
    assert "(c2 1, c7 1, c3 2, c4 3, c1 4 and 2 more)" in caplog.text


def test_a_row_with_a_label_of_its_own_is_held_out_for_its_other_labels() -> None:
    labels = np.zeros((40, 44), dtype=bool)
    labels[np.arange(40), np.arange(40)] = True  # as tags have it: each row has one of its own
    labels[:36, 40:] = np.arange(36)[:, None] % np.array([2, 3, 4, 5]) == 0
    shared = labels[:, 40:].any(axis=1)
    folds = stratified_folds(labels, range(40), 5, seed=0).numpy()
    assert possible_folds(labels, range(40), 5, seed=0) == 5
    assert (folds[shared] >= 0).all()
    assert (folds[~shared] == -1).all()
    sizes = np.bincount(folds[shared], minlength=5)
    assert sizes.max() - sizes.min() <= 1


def test_rare_labels_are_named_with_all_texts_that_have_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    labels = np.zeros((30, 4), dtype=bool)
    labels[:, 0] = np.arange(30) % 2 == 0
    labels[:6, 1] = labels[:5, 2] = labels[:4, 3] = True  # the rarest one has all of their rows
    stratified_folds(labels, range(30), 6, seed=0, names=["grain", "corn", "wheat", "oat"])
    assert "2 of 4 labels have fewer than layers.folds=6 texts in train (oat 4, wheat 5)" in (
        caplog.text
    )


def test_too_many_folds_become_as_many_as_the_largest_class_has_texts() -> None:
    labels = np.array([0, 0, 0, 1, 1])
    folds = stratified_folds(labels, range(5), 5, seed=0)
    assert possible_folds(labels, range(5), 5, seed=0) == 3
    assert sorted(folds.tolist()) == [0, 0, 1, 1, 2]


def test_texts_that_are_all_alike_cannot_be_dealt() -> None:
    with pytest.raises(UserError, match=r"folds=5: no class has two different texts in train"):
        stratified_folds(np.array([0, 0, 1]), ["a", "a", "b"], 5, seed=0)
