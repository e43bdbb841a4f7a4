from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.errors import UserError
from layerfusion.texts.sampling import allocate, hold_out, keep_together, sample

counts_lists = st.lists(st.integers(1, 60), min_size=2, max_size=12)
shares = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**32)


def shuffled(counts: list[int]) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(labels)


@given(counts_lists, shares, seeds)
def test_hold_out_keeps_every_class_in_train(counts: list[int], share: float, seed: int) -> None:
    labels = shuffled(counts)
    if max(counts) == 1:
        with pytest.raises(UserError, match="one row only"):
            hold_out(labels, share, seed=seed, purpose="validation")
        return
    leaves = hold_out(labels, share, seed=seed, purpose="validation")
    stay = np.bincount(labels[~leaves], minlength=len(counts))
    assert stay.min() >= 1
    wanted = max(1, round(len(labels) * share))
    assert leaves.sum() == min(wanted, sum(count - 1 for count in counts))
    assert np.array_equal(leaves, hold_out(labels, share, seed=seed, purpose="validation"))


@given(counts_lists, seeds, st.data())
def test_sample_has_its_size_and_keeps_classes(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    labels = shuffled(counts)
    size = data.draw(st.integers(1, len(labels)))
    chosen = sample(labels, size, seed=seed, purpose="limit.train")
    assert chosen.sum() == size
    if size >= len(counts):
        assert set(labels[chosen]) == set(range(len(counts)))


@given(st.lists(st.integers(10, 60), min_size=2, max_size=8), shares)
def test_classes_stay_in_proportion(counts: list[int], share: float) -> None:
    sizes = np.array(counts)
    total = round(float(sizes.sum()) * share)
    taken = allocate(sizes, total, np.zeros_like(sizes), sizes)
    assert taken.sum() == total
    # Largest remainder: nobody is a whole row away from the exact share.
    assert np.abs(taken - sizes * total / sizes.sum()).max() < 1


def test_exact_proportions_are_kept() -> None:
    labels = shuffled([100, 50, 10])
    leaves = hold_out(labels, 0.1, seed=0, purpose="validation")
    assert np.bincount(labels[leaves]).tolist() == [10, 5, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=8), seeds, st.booleans())
def test_rows_of_a_text_stay_together(
    rows: list[tuple[int, int]], seed: int, several: bool
) -> None:
    labels = np.unique([label for label, _ in rows], return_inverse=True)[1]
    if len(labels) == len(set(labels.tolist())):
        return
    if several:
        labels = np.eye(labels.max() + 1, dtype=bool)[labels]
    texts = [str(text) for _, text in rows]
    leaves = hold_out(labels, 0.4, seed=seed, purpose="test")
    together = keep_together(leaves, labels, texts)
    seen = labels if labels.ndim == 2 else np.eye(labels.max() + 1, dtype=bool)[labels]
    assert seen[~together].any(axis=0).all()
    assert together.any()
    shared = {texts[row] for row in np.flatnonzero(together)} & {
        texts[row] for row in np.flatnonzero(~together)
    }
    assert not shared or np.array_equal(together, leaves)
    alone = np.array([texts.count(text) == 1 for text in texts])
    assert not (together & ~leaves & alone).any()


def test_seed_and_purpose_change_the_draw() -> None:
    labels = shuffled([100, 100])
    draws = [
        hold_out(labels, 0.2, seed=seed, purpose=purpose)
        for seed, purpose in [(0, "test"), (1, "test"), (0, "validation")]
    ]
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_larger_sample_of_even_classes_holds_the_smaller() -> None:
    labels = shuffled([50, 50])
    small, large = (sample(labels, size, seed=3, purpose="p") for size in (20, 60))
    assert not (small & ~large).any()
