from __future__ import annotations

import numpy as np
import pytest

from layerfusion.errors import UserError
from layerfusion.published.selection_bias import _halves, selection_bias


def test_without_any_difference_between_epochs_all_of_the_gain_is_bias() -> None:
    """Epochs of coins: the best of 100 looks good, and on rows it was not chosen on it is 0.5."""
    generator = np.random.default_rng(0)
    found = [
        selection_bias(
            generator.random((100, 200)) < 0.5, np.arange(200) % 2, halvings=20, text_of=None
        )
        for _ in range(30)
    ]
    claimed = np.mean([bias.claimed for bias in found])
    # The largest of 100 means of 200 coins: 2.51 standard deviations of 3.54 points above one half.
    assert claimed == pytest.approx(0.5 + 2.51 * np.sqrt(0.25 / 200), abs=0.01)
    assert np.mean([bias.split_half for bias in found]) == pytest.approx(0.5, abs=0.01)
    assert np.mean([bias.bias for bias in found]) == pytest.approx(claimed - 0.5, abs=0.01)


def test_a_single_epoch_that_is_better_everywhere_has_no_bias() -> None:
    correct = np.zeros((5, 40), bool)
    correct[3, ::2] = True
    bias = selection_bias(correct, np.arange(40) // 2 % 2, text_of=None)
    assert bias.claimed == 0.5
    assert bias.bias == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(bias.rows, correct[3])


def test_it_is_the_mean_over_halves_in_both_directions() -> None:
    generator = np.random.default_rng(2)
    correct, target = generator.random((7, 21)) < 0.6, generator.integers(0, 3, 21)
    measured = []
    for half in _halves(target, 9, seed=4):
        chosen, judged = np.flatnonzero(half), np.flatnonzero(~half)
        for chooses, judges in ((chosen, judged), (judged, chosen)):
            scores = [sum(int(row[i]) for i in chooses) for row in correct]
            best = scores.index(max(scores))
            measured.append(sum(int(correct[best, i]) for i in judges) / len(judges))
    found = selection_bias(correct, target, seed=4, halvings=9, text_of=None)
    assert found.split_half == pytest.approx(sum(measured) / 18)
    assert found.rows.mean() == pytest.approx(found.split_half)
    assert found.claimed == max(row.sum() for row in correct) / 21


def test_halves_are_exact_stratified_and_seeded() -> None:
    target = np.random.default_rng(0).choice(4, 61, p=[0.7, 0.2, 0.08, 0.02])
    halves = list(_halves(target, 12, seed=1))
    for half in halves:
        assert abs(int(half.sum()) - int((~half).sum())) == 1
        for label in range(4):
            own = half[target == label]
            assert abs(int(own.sum()) - int((~own).sum())) <= 1
    assert len({half.tobytes() for half in halves}) == 12
    assert all(map(np.array_equal, halves, _halves(target, 12, seed=1)))


def test_one_row_cannot_be_halved() -> None:
    with pytest.raises(UserError, match="1 test row cannot be halved"):
        selection_bias(np.ones((3, 1)), np.zeros(1, int), text_of=None)


def test_all_rows_of_a_text_are_in_one_half() -> None:
    """So that an epoch which knows a text by heart is not judged on the text that chose it."""
    generator = np.random.default_rng(3)
    correct = generator.random((60, 80)) < 0.5
    target, text_of = np.arange(80) % 2, np.arange(80).repeat(5)
    plain = selection_bias(correct, target, text_of=None, halvings=20)
    for numbers in (np.arange(80), np.arange(80) * 3 + 1):
        same = selection_bias(correct, target, text_of=numbers, halvings=20)
        assert (same.split_half, same.rows.tolist()) == (plain.split_half, plain.rows.tolist())
    repeated = correct.repeat(5, axis=1), target.repeat(5)
    together = selection_bias(*repeated, text_of=text_of, halvings=20)
    assert together.split_half == pytest.approx(plain.split_half)
    assert together.rows == pytest.approx(plain.rows.repeat(5))
    apart = selection_bias(*repeated, text_of=None, halvings=20)
    assert apart.bias < together.bias / 2
    with pytest.raises(UserError, match="4 test rows with the same text cannot be halved"):
        selection_bias(np.ones((3, 4)), np.zeros(4, int), text_of=np.zeros(4, int))
