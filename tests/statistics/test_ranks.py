"""Ranks over data sets: against scipy, against every assignment of signs, and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, rankdata, wilcoxon

from layerfusion.errors import UserError
from layerfusion.statistics.ranks import first_shares, rank_systems, signed_rank, smallest_p


@pytest.mark.parametrize("seed", range(5))
def test_signed_rank_is_the_exact_test_of_scipy(seed: int) -> None:
    differences = np.random.default_rng(seed).normal(0.5, 1, 9)
    _, expected = wilcoxon(differences, method="exact")
    assert signed_rank(differences) == pytest.approx(expected, abs=1e-9)


def test_signed_rank_with_ties_counts_every_assignment_of_signs() -> None:
    differences = np.array([1.0, 1.0, -1.0, 2.0, 0.0, 3.0])
    kept = differences[differences != 0]
    ranks = rankdata(np.abs(kept))
    seen = abs((ranks * np.sign(kept)).sum())
    sums = [abs((ranks * signs).sum()) for signs in itertools.product((1, -1), repeat=len(kept))]
    assert signed_rank(differences) == pytest.approx(np.mean([x >= seen for x in sums]))
    assert signed_rank(np.zeros(4)) == 1.0


def test_differences_that_are_equal_but_for_rounding_tie() -> None:
    accuracy = np.array([[0.8, 0.7], [0.9, 0.8], [0.6, 0.7], [0.5, 0.4], [0.3, 0.2], [0.7, 0.5]])
    assert len(set(np.abs(accuracy[:, 0] - accuracy[:, 1]))) > 2  # in floating point
    (p,) = rank_systems(accuracy).adjusted.values()
    assert p == pytest.approx(signed_rank(np.array([1.0, 1, -1, 1, 1, 2])))


@pytest.mark.parametrize(("data_sets", "pairs"), [(3, 1), (6, 1), (6, 10)])
def test_so_few_data_sets_can_show_no_more(data_sets: int, pairs: int) -> None:
    best = signed_rank(np.arange(1.0, data_sets + 1))
    assert smallest_p(data_sets, pairs) == pytest.approx(min(1, pairs * best))


def test_systems_that_can_be_told_apart_share_no_clique() -> None:
    steps = np.arange(1, 11)[:, None] / 1000
    noise = np.where(np.arange(10) % 2, 1, -1)[:, None] * steps
    base = np.linspace(0.5, 0.9, 10)[:, None]
    accuracy = base + np.hstack([0.05 + steps, 0.05 + steps + noise, 0 * steps])
    ranking = rank_systems(accuracy)
    assert ranking.mean_ranks == (1.5, 1.5, 3.0)
    assert ranking.order == [0, 1, 2]
    assert ranking.cliques == ((0, 1),)
    assert ranking.adjusted[0, 1] > 0.5
    assert ranking.adjusted[0, 2] < 0.05
    assert ranking.friedman == pytest.approx(friedmanchisquare(*accuracy.T).pvalue)
    apart = rank_systems(base + np.hstack([2 * steps, steps, 0 * steps]))
    assert apart.cliques == ()
    same = rank_systems(np.repeat(base, 3, axis=1))
    assert (same.cliques, same.friedman, same.mean_ranks) == (((0, 1, 2),), 1.0, (2.0, 2.0, 2.0))


def test_two_data_sets_have_no_ranking() -> None:
    with pytest.raises(UserError, match="2 systems on 2 data sets"):
        rank_systems(np.ones((2, 2)))


def test_seeds_that_could_have_come_otherwise_change_who_is_first() -> None:
    # The mean of two draws from 0 and 1 is 0, 0.5, 0.5 or 1.
    shares = first_shares([[[0.0, 1.0], [0.25]]])
    assert shares == pytest.approx([0.75, 0.25], abs=0.03)
    assert first_shares([[[0.8], [0.7]]]) == pytest.approx([1, 0])
    assert first_shares([[[0.8], [0.8]]]) == pytest.approx([0.5, 0.5])
    over_three = first_shares([[[0.8], [0.7]], [[0.8], [0.7]], [[0.7], [0.8]]])
    assert over_three == pytest.approx([1, 0])  # by mean rank
