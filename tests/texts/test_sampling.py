from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.errors import UserError
from layerfusion.texts.sampling import allocate, hold_out, hold_out_together, sample

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


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=8),
    shares,
    seeds,
    st.booleans(),
)
def test_rows_of_a_text_stay_together(
    rows: list[tuple[int, int]], share: float, seed: int, several: bool
) -> None:
    labels = np.unique([label for label, _ in rows], return_inverse=True)[1]
    if len(labels) == len(set(labels.tolist())):
        return
    if several:
        labels = np.eye(labels.max() + 1, dtype=bool)[labels]
    texts = [str(text) for _, text in rows]
    drawn = hold_out(labels, share, seed=seed, purpose="test")
    leaves = hold_out_together(labels, texts, share, seed=seed, purpose="test")
    seen = labels if labels.ndim == 2 else np.eye(labels.max() + 1, dtype=bool)[labels]
    assert seen[~leaves].any(axis=0).all()
    assert leaves.any()
    both = {texts[row] for row in np.flatnonzero(leaves)} & {
        texts[row] for row in np.flatnonzero(~leaves)
    }
    assert not both or np.array_equal(leaves, drawn)


@pytest.mark.parametrize(("texts", "rows"), [(6, 20), (10, 100), (10, 3), (20, 5)])
def test_few_texts_of_many_rows_are_divided_too(texts: int, rows: int) -> None:
    """Also where no first row of a text was drawn."""
    names, labels = [str(n % texts) for n in range(texts * rows)], np.arange(texts * rows) % 2
    for seed in range(100):
        leaves = hold_out_together(labels, names, 0.2, seed=seed, purpose="test")
        left = {names[row] for row in np.flatnonzero(leaves)}
        assert left
        assert not left & {names[row] for row in np.flatnonzero(~leaves)}
        assert len(set(labels[~leaves].tolist())) == 2


def test_a_text_of_more_rows_than_leave_stays() -> None:
    names = ["again"] * 600 + [str(n) for n in range(400)]
    labels = np.arange(1000) % 2
    for seed in range(20):
        leaves = hold_out_together(labels, names, 0.2, seed=seed, purpose="test")
        assert 50 <= leaves.sum() <= 110
        assert not leaves[:600].any()


def test_rows_without_repeats_leave_as_they_were_drawn() -> None:
    labels, names = np.arange(300) % 3, [str(n) for n in range(297)] + ["7", "8", "9"]
    drawn = hold_out(labels, 0.3, seed=1, purpose="test")
    leaves = hold_out_together(labels, names, 0.3, seed=1, purpose="test")
    assert np.array_equal(drawn[10:297], leaves[10:297])


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
