"""Systems ranked over several data sets, and how far the ranks can be told apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import friedmanchisquare, rankdata

from layerfusion.errors import UserError
from layerfusion.statistics.significance import ALPHA, holm, sign_flips

LEAST_DATA_SETS = 3
"""Over fewer data sets, mean ranks say nothing that the data sets do not say by themselves."""
RESAMPLES = 4000


@dataclass(frozen=True)
class Ranking:
    """Systems ranked over data sets (Demšar, JMLR 7, 2006; Benavoli and others, JMLR 17, 2016)."""

    mean_ranks: tuple[float, ...]
    """Mean rank of each system, 1 being the best; systems that tie share their mean rank."""
    order: list[int]
    """The systems, best first."""
    friedman: float | None
    """p-value of Friedman's test that all systems are equally good; None for two systems."""
    adjusted: dict[tuple[int, int], float]
    """p-value of each pair (first, second) in the exact signed-rank test of Wilcoxon, after Holm's
    adjustment over all pairs."""
    cliques: tuple[tuple[int, ...], ...]
    """Longest runs of systems, in the order of their ranks, of which no two can be told apart."""


def rank_systems(accuracy: np.ndarray) -> Ranking:
    """Rank systems over data sets by their accuracy, and test every pair.

    The critical difference of Nemenyi depends on which other systems take part. The pairs are
    therefore tested by Wilcoxon's signed-rank test with Holm's adjustment, as Benavoli and others
    recommend.

    Args:
        accuracy: of each system on each data set. Shape: (data sets, systems).

    Raises:
        UserError: for fewer than two systems or `LEAST_DATA_SETS` data sets.
    """
    data_sets, systems = accuracy.shape
    if systems < 2 or data_sets < LEAST_DATA_SETS:
        raise UserError(
            f"ranks: {systems} systems on {data_sets} data sets; it takes two on"
            f" {LEAST_DATA_SETS} data sets or more"
        )
    # The order in which seeds were summed breaks no tie, neither of accuracies nor of differences.
    accuracy = accuracy.round(9)
    means = tuple(rankdata(-accuracy, axis=1).mean(axis=0).tolist())
    pairs = list(itertools.combinations(range(systems), 2))
    p_values = holm([signed_rank((accuracy[:, a] - accuracy[:, b]).round(9)) for a, b in pairs])
    adjusted = dict(zip(pairs, p_values, strict=True))
    friedman = None
    if systems > 2:
        # Where all systems tie on all data sets, there is no variance to divide by.
        varies = bool((np.ptp(accuracy, axis=1) > 0).any())
        friedman = float(friedmanchisquare(*accuracy.T).pvalue) if varies else 1.0
    order = sorted(range(systems), key=lambda one: (means[one], one))
    return Ranking(means, order, friedman, adjusted, _cliques(order, adjusted))


def signed_rank(differences: np.ndarray) -> float:
    """Return the exact two-sided p-value of Wilcoxon's signed-rank test (Biometrics 1, 1945).

    Differences of zero are left out, and equal ones share the mean of their ranks.

    Args:
        differences: one for each data set. Shape: (data sets,).
    """
    kept = differences[differences != 0]
    if not len(kept):
        return 1.0
    ranks = rankdata(np.abs(kept))
    # A shared rank is a multiple of a half.
    return sign_flips(ranks * (kept > 0), ranks * (kept < 0), text_of=None, seeds=2).p


def smallest_p(data_sets: int, pairs: int) -> float:
    """Return the smallest adjusted p-value that so many data sets can give, all ranks agreeing."""
    return min(1.0, pairs * 2.0 ** (1 - data_sets))


def first_shares(accuracies: Sequence[Sequence[Sequence[float]]], *, seed: int = 0) -> np.ndarray:
    """Say how often each system would have been first with other training seeds.

    The seeds of each system are resampled with replacement on each data set, and the systems are
    ranked by their mean accuracy; over several data sets, by their mean rank. Systems that tie for
    the first place share it.

    Args:
        accuracies: of each data set, of each system, of each of its seeds.
        seed: of the resampling.

    Returns:
        The share of the resamples in which each system is first. Shape: (systems,).
    """
    random = np.random.default_rng(seed)
    ranks = []
    for systems in accuracies:
        means = [
            np.asarray(seeds)[random.integers(len(seeds), size=(RESAMPLES, len(seeds)))].mean(1)
            for seeds in systems
        ]
        ranks.append(rankdata(-np.stack(means, axis=1).round(9), axis=1))
    mean_ranks = np.mean(ranks, axis=0)
    first = mean_ranks <= mean_ranks.min(axis=1, keepdims=True) + 1e-9
    return (first / first.sum(axis=1, keepdims=True)).mean(axis=0)


def _cliques(
    order: Sequence[int], adjusted: dict[tuple[int, int], float]
) -> tuple[tuple[int, ...], ...]:
    def together(run: Sequence[int]) -> bool:
        return all(
            adjusted[min(pair), max(pair)] >= ALPHA for pair in itertools.combinations(run, 2)
        )

    found: list[tuple[int, ...]] = []
    ended = 0
    for start in range(len(order)):
        end = start + 1
        while end < len(order) and together(order[start : end + 1]):
            end += 1
        if end - start > 1 and end > ended:
            found.append(tuple(order[start:end]))
        ended = max(ended, end)
    return tuple(found)
