"""Draws of test rows: texts are drawn within a class, each with all of the rows that have it.

Rows that repeat a text are no independent rows: what one of them shows, the others mostly show too.
They are a cluster, and clusters are what is drawn (Davison and Hinkley, *Bootstrap Methods and
their Application*, 1997, section 3.8; Field and Welsh, JRSS B 69, 2007). A figure is computed anew
on the rows drawn, whose number differs where some texts have more rows than others. Where no text
is repeated, rows are what is drawn. Where the data have groups, such as authors, these take the
place of texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtr, ndtri, stdtrit

from layerfusion.errors import UserError

_CHUNK_CELLS = 4_000_000
"""Most numbers that are drawn at a time: 32 MB."""


def repeated(text_of: np.ndarray | None) -> np.ndarray | None:
    """Number the texts of rows from 0 on without a gap; None where no text is repeated.

    Args:
        text_of: any number of each row's text; None if all differ. Shape: (rows,).

    Returns:
        Shape: (rows,), int64, in the order of the numbers given.
    """
    if text_of is None:
        return None
    texts, of_row = np.unique(np.asarray(text_of), return_inverse=True)
    return of_row.reshape(-1) if len(texts) < len(of_row) else None


def take_texts(text_of: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Take the numbers of the texts of some rows, by a mask or by positions, if there are any."""
    return None if text_of is None else text_of[rows]


def independent_rows(
    rows: int, text_of: np.ndarray | None, values: np.ndarray | None = None
) -> float:
    """Say how many rows with different texts a mean over some rows is as sure as.

    It is n / (1 + (m - 1) ρ) (Kish, *Survey Sampling*, 1965), of n rows, with m = Σ r² / Σ r of
    texts with r rows each, and ρ the correlation of the values of two rows of a text (of a one-way
    analysis of variance). Copies have the same value: ρ is 1, and the number that of the texts
    where all have as many rows, and lower where one outweighs the others. Rows of a group need not
    be alike.

    Args:
        rows: number of rows.
        text_of: number of the text of each; None if all differ. Shape: (rows,).
        values: what the mean is of. Shape: (rows,). ρ is taken to be 1 where they are not known, or
            all the same.

    Example:
        >>> independent_rows(4, np.array([0, 0, 1, 1])), independent_rows(4, None)
        (2.0, 4.0)
        >>> independent_rows(4, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
        4.0
    """
    of_row = repeated(text_of)
    if of_row is None:
        return float(rows)
    copies = rows**2 / np.square(np.bincount(of_row)).sum()
    alike = 1.0 if values is None else _correlation(np.asarray(values, np.float64), of_row)
    return float(copies if alike == 1 else rows / (1 + (rows / copies - 1) * alike))


def expanded(level: float, worth: float, text_of: np.ndarray | None) -> float:
    """Return the level at which percentiles of few texts make an interval of a level.

    A bootstrap of n rows has the variance of a population and not of a sample, and the percentiles
    of a normal distribution and not of Student's t: its interval is too narrow by z against
    t_(n-1) · √(n / (n - 1)). With T texts, T takes the place of n. What the rows are worth would
    add as much by itself and is left out, so that the level stays as it is where all texts differ,
    and where rows are copies of as many.

    Args:
        level: level of the interval.
        worth: how many independent rows there are, by `independent_rows`.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).

    Source:
        The expanded percentile interval of Hesterberg, "What teachers should know about the
        bootstrap", The American Statistician 69, 2015.

    Example:
        >>> expanded(0.95, 100, None), round(expanded(0.95, 100, np.arange(100) // 10), 3)
        (0.95, 0.98)
    """
    of_row = repeated(text_of)
    if of_row is None:
        return level
    tail = (1 + level) / 2
    texts = max(2, int(of_row.max()) + 1)
    needed, usual = (
        stdtrit(sample - 1, tail) * (sample / (sample - 1)) ** 0.5
        for sample in (texts, max(texts, worth))
    )
    return float(2 * ndtr(ndtri(tail) * needed / usual) - 1)


def _correlation(values: np.ndarray, of_row: np.ndarray) -> float:
    """Correlate the values of two rows of a text, from 0 to 1; 1 where all are the same."""
    sizes = np.bincount(of_row)
    texts, rows = len(sizes), len(values)
    means = np.bincount(of_row, values) / sizes
    within = np.round(np.square(values - means[of_row]).sum(), 9) / (rows - texts)
    if texts < 2 or within == 0:
        return 1.0
    between = (sizes * np.square(means - values.mean())).sum() / (texts - 1)
    size = (rows - np.square(sizes).sum() / rows) / (texts - 1)
    return float(np.clip((between - within) / (between + (size - 1) * within), 0, 1))


def strata_of(target: np.ndarray, rows: int, text_of: np.ndarray | None) -> np.ndarray:
    """Return the stratum of each row: its class, or one for all where a row has several labels.

    Args:
        target: labels. Shape: (rows,), or (rows, labels).
        rows: number of rows that there should be.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).

    Raises:
        UserError: if there are no rows, or not the labels, or the texts, of as many.
    """
    target = np.asarray(target)
    if not rows:
        raise UserError("statistics: an interval needs at least one test row")
    if target.ndim not in (1, 2) or len(target) != rows:
        raise UserError(
            f"statistics: {rows} test rows and labels of shape {target.shape}; each row needs one"
        )
    check_texts(text_of, rows)
    return target if target.ndim == 1 else np.zeros(rows, dtype=np.int64)


def check_texts(text_of: np.ndarray | None, rows: int) -> None:
    """Refuse numbers of texts that are not those of as many rows.

    Raises:
        UserError: if they are not.
    """
    if text_of is not None and np.shape(text_of) != (rows,):
        raise UserError(
            f"statistics: {rows} test rows and texts of shape {np.shape(text_of)}; each row needs"
            " the number of its text"
        )


def mean_variance(values: np.ndarray, target: np.ndarray, text_of: np.ndarray | None) -> float:
    """Return the variance of the mean of rows drawn within their classes: Σ_c n_c s²_c / n².

    With repeated texts, s²_c is the variance of the n_c sums over the rows of a text, of values
    less their mean over all rows. Of rows in one stratum that is the square of
    `layers.repeats.standard_errors`. A class with one row, or text, adds no variance.

    Args:
        values: a number for each row. Shape: (rows,).
        target: stratum of each row. Shape: (rows,).
        text_of: number of the text of each row; None if all differ. Shape: (rows,). A text is in
            the lowest stratum of its rows.
    """
    rows, of_row = target.size, repeated(text_of)
    if of_row is not None:
        lowest = np.full(int(of_row.max()) + 1, np.iinfo(np.int64).max)
        np.minimum.at(lowest, of_row, target)
        # Rounded, so that sums which cancel are exactly 0.
        values, target = np.round(np.bincount(of_row, values - values.mean()), 12), lowest
    classes = [values[target == label] for label in np.unique(target)]
    return sum(c.size * float(c.var(ddof=1)) for c in classes if c.size > 1) / rows**2


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts by the kinds of the rows that have them; texts with the same rows are alike."""

    counts: np.ndarray
    """Number of texts that are alike. Shape: (alike,), int64."""
    first: np.ndarray
    """The lowest kind of their rows. Shape: (alike,), int64, ascending."""
    rows: csr_array | None
    """How many rows of each kind such a text has, shape (alike, kinds); None where each has one row
    and they stand in the order of the kinds."""

    @classmethod
    def of(cls, kind_of: np.ndarray, text_of: np.ndarray | None) -> Texts:
        """Gather texts.

        Args:
            kind_of: kind of each row, from 0 on without a gap. Shape: (rows,).
            text_of: number of the text of each row; None if all differ. Shape: (rows,).
        """
        of_row = repeated(text_of)
        if of_row is None:
            counts = np.bincount(kind_of)
            return cls(counts, np.arange(len(counts)), None)
        order = np.lexsort((kind_of, of_row))
        ends = np.flatnonzero(np.diff(of_row[order])) + 1
        tally = Counter(tuple(kinds.tolist()) for kinds in np.split(kind_of[order], ends))
        alike = sorted(tally)
        sizes = [len(kinds) for kinds in alike]
        columns = np.concatenate([np.array(kinds) for kinds in alike])
        places = np.repeat(np.arange(len(alike)), sizes), columns
        shape = len(alike), int(kind_of.max()) + 1
        rows = csr_array((np.ones(len(columns), np.int64), places), shape=shape)
        counts = np.array([tally[kinds] for kinds in alike])
        return cls(counts, np.array([kinds[0] for kinds in alike]), rows)

    def rows_of(self, drawn: np.ndarray) -> np.ndarray:
        """Count the rows of each kind, (…, kinds), from how often texts are drawn, (…, alike)."""
        return drawn if self.rows is None else (self.rows.T @ drawn.T).T


@dataclass(frozen=True, eq=False)
class Strata:
    """Rows by class and, within it, by pattern; rows that are alike in both are of one kind."""

    labels: list[int]
    """The classes that occur, ascending."""
    distinct: list[np.ndarray]
    """The patterns of each class. Shapes: (patterns, …)."""
    texts: Texts

    @classmethod
    def of(cls, patterns: np.ndarray, target: np.ndarray, text_of: np.ndarray | None) -> Strata:
        """Sort rows.

        Args:
            patterns: values that are drawn together with a row. Shape: (rows, anything).
            target: stratum of each row. Shape: (rows,).
            text_of: number of the text of each row; None if all differ. Shape: (rows,).
        """
        labels, found = np.unique(target).tolist(), []
        kind_of, kinds = np.zeros(len(target), dtype=np.int64), 0
        for label in labels:
            inside = target == label
            distinct, own = np.unique(patterns[inside], axis=0, return_inverse=True)
            kind_of[inside] = kinds + own.reshape(-1)
            kinds += len(distinct)
            found.append(distinct)
        return cls(labels, found, Texts.of(kind_of, text_of))

    def draws(self, resamples: int, seed: int, width: int = 0) -> Iterator[list[np.ndarray]]:
        """Draw how often each pattern of each class occurs, in chunks that fit in memory.

        Texts with the same rows are interchangeable, so the number of draws of each such kind of
        text is multinomial. That is the same distribution as drawing texts, and much cheaper. A
        text whose rows have several classes is drawn among those of the first of these.

        Args:
            resamples: number of resamples.
            seed: seed of the resampling.
            width: numbers that the caller keeps for each resample, besides the counts.

        Yields:
            For each class, counts of shape (resamples of the chunk, patterns). Where no text is
            repeated, those of a class always sum to its rows.
        """
        ends = np.cumsum([len(one) for one in self.distinct])
        owner = np.searchsorted(ends, self.texts.first, "right")
        counts = [self.texts.counts[owner == one] for one in np.unique(owner)]
        # Each class has a generator of its own, so that draws do not depend on the chunk size.
        generators = np.random.default_rng(seed).spawn(len(counts))
        cells = len(self.texts.counts) + width + (0 if self.texts.rows is None else int(ends[-1]))
        chunk = max(1, _CHUNK_CELLS // cells)
        for start in range(0, resamples, chunk):
            size = min(chunk, resamples - start)
            drawn = [
                rng.multinomial(int(own.sum()), own / own.sum(), size=size)
                for rng, own in zip(generators, counts, strict=True)
            ]
            if self.texts.rows is None:
                yield drawn
            else:
                rows = self.texts.rows_of(np.concatenate(drawn, axis=1))
                yield np.split(rows, ends[:-1], axis=1)


def total_rows(draws: Sequence[np.ndarray]) -> np.ndarray:
    """Count the rows of each resample that `Strata.draws` has yielded. Shape: (resamples,)."""
    return np.sum([drawn.sum(axis=1) for drawn in draws], axis=0)
