"""TF-IDF of words, of words and pairs, or of characters, for the baseline and lexical sources."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfusion.errors import UserError

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfTransformer, TfidfVectorizer

# A word is a run of anything but spaces and punctuation. So combining marks stay inside the words
# of Indic and Thai script, which `\w` would cut. Each punctuation mark is a token of its own.
_PUNCTUATION = r"\s!-/:-@\[-`{-~\u2010-\u2027\u3000-\u303f\u060c\u061b\u061f\u0964"
_TOKEN = rf"[^{_PUNCTUATION}]+|\S"

FEATURES: dict[str, dict[str, Any]] = {
    "words": {"token_pattern": _TOKEN},
    "words and pairs": {"token_pattern": _TOKEN, "ngram_range": (1, 2)},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}
"""Settings of scikit-learn's TfidfVectorizer, by what it counts."""
Sparse = Any
"""A scipy.sparse matrix. Its class depends on the version of scikit-learn."""
PRUNE_ROWS = 1000
"""With at least this many rows, runs of characters that occur in only one text are left out."""
REMEMBERED = 5_000_000
"""Most characters of texts whose counts are kept for the next regression: about 100 MB of them."""


def tfidf(features: str, rows: int, max_features: int | None = None) -> TfidfVectorizer:
    """Make a vectoriser that is not fitted yet.

    Args:
        features: one of `FEATURES`.
        rows: number of texts that it will be fitted on.
        max_features: number of features to keep, the most frequent ones.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        **FEATURES[features],
        sublinear_tf=True,
        min_df=_least_texts(features, rows),
        max_features=max_features,
    )


@contextmanager
def countable(features: str) -> Iterator[None]:
    """Turn the complaint of scikit-learn about texts without anything to count into one line.

    Args:
        features: one of `FEATURES`, for the message.

    Raises:
        UserError: if the texts have nothing to count.
    """
    try:
        yield
    except ValueError as error:
        raise UserError(f"lexical: no {features} of train to count: {error}") from error


class CountedTexts:
    """Texts whose features are counted once, to be weighted by several parts of them.

    Cross-validation learns TF-IDF anew from the texts outside each fold. Cutting a text into its
    features takes far longer than that, so that the baseline, the held-out regressions and those of
    a stack share the counts too.

    Args:
        features: one of `FEATURES`.
        texts: all texts.
        max_features: number of features to keep for each part, the most frequent ones.

    Raises:
        ValueError: if the texts have nothing to count.
    """

    def __init__(
        self, features: str, texts: Sequence[str], max_features: int | None = None
    ) -> None:
        self.features = features
        self.max_features = max_features
        counted = _counted(features, texts)
        self._vocabulary = counted.vocabulary
        self._counts: Sparse = counted.counts[[counted.rows[text] for text in texts]]
        self._counts.sort_indices()  # sums in another order differ in the last digit
        if not self._counts.nnz:
            raise ValueError("they have nothing of the kind")

    def size(self) -> int:
        """Return the number of features that TF-IDF of all the texts keeps.

        Raises:
            ValueError: if the texts have nothing to count.
        """
        return len(self._kept(self._counts))

    def weighted(self, inside: np.ndarray) -> tuple[Sparse, Sparse]:
        """Learn TF-IDF from some of the texts, as `tfidf` does, and apply it to all.

        Args:
            inside: true for the texts to learn from. Shape: (texts,), bool.

        Returns:
            The vectors of those texts and of the others. Shapes: (texts, features).

        Raises:
            ValueError: if the texts to learn from have nothing to count.
        """
        weights, kept, learned = self._learn(inside)
        return learned, weights.transform(self._counts[~inside][:, kept])

    def learned(self, inside: np.ndarray) -> tuple[TfidfVectorizer, Sparse]:
        """Learn TF-IDF from some of the texts, as `tfidf` does.

        Args:
            inside: true for the texts to learn from. Shape: (texts,), bool.

        Returns:
            The vectoriser, for any texts, and the vectors of those texts, shape (texts, features).

        Raises:
            ValueError: if the texts to learn from have nothing to count.
        """
        weights, kept, learned = self._learn(inside)
        return counts_from(self.features, weights.idf_, self._vocabulary[kept].tolist()), learned

    def _learn(self, inside: np.ndarray) -> tuple[TfidfTransformer, np.ndarray, Sparse]:
        """Learn the weights; return them, which features are kept, and the vectors."""
        from sklearn.feature_extraction.text import TfidfTransformer

        learned = self._counts[inside]
        kept = self._kept(learned)
        weights = TfidfTransformer(sublinear_tf=True)
        return weights, kept, weights.fit_transform(learned[:, kept])

    def _kept(self, learned: Sparse) -> np.ndarray:
        """Find the features that TF-IDF of some texts keeps, in order. Shape: (features,)."""
        found_in = np.bincount(learned.indices, minlength=learned.shape[1])
        kept = np.flatnonzero(found_in >= _least_texts(self.features, learned.shape[0]))
        if not len(kept):
            raise ValueError("nothing is found in enough of the texts")
        if self.max_features is not None and len(kept) > self.max_features:
            total = np.asarray(learned.sum(axis=0)).ravel()
            most = (-total[kept]).argsort()[: self.max_features]
            kept = np.sort(kept[most])
        return kept


@dataclass(frozen=True)
class _Counts:
    """Counts of different texts."""

    rows: Mapping[str, int]
    """The row of each text."""
    counts: Sparse
    """Shape: (texts, features)."""
    vocabulary: np.ndarray
    """What each column counts, in order. Shape: (features,)."""

    @classmethod
    def of(cls, features: str, texts: Sequence[str]) -> _Counts:
        """Count the features of different texts."""
        from scipy.sparse import csr_matrix
        from sklearn.feature_extraction.text import CountVectorizer

        rows = {text: row for row, text in enumerate(texts)}
        counter = CountVectorizer(**FEATURES[features])
        try:
            counts = counter.fit_transform(texts)
        except ValueError:  # none of them has a feature
            return cls(rows, csr_matrix((len(texts), 0), dtype=np.int64), np.empty(0, object))
        return cls(rows, counts, counter.get_feature_names_out())

    def __add__(self, other: _Counts) -> _Counts:
        """Join the counts of other texts."""
        from scipy.sparse import csr_matrix, vstack

        if not self.rows:
            return other
        vocabulary = np.union1d(self.vocabulary, other.vocabulary)
        widened = []
        for part in (self, other):
            counts, columns = part.counts, np.searchsorted(vocabulary, part.vocabulary)
            parts = counts.data, columns[counts.indices], counts.indptr
            widened.append(csr_matrix(parts, shape=(len(part.rows), len(vocabulary))))
        rows = {text: len(self.rows) + row for text, row in other.rows.items()}
        return _Counts({**self.rows, **rows}, vstack(widened, format="csr"), vocabulary)


_remembered: dict[str, _Counts] = {}
_REMEMBERING = threading.Lock()


def _counted(features: str, texts: Sequence[str]) -> _Counts:
    """Count the features of texts that have not been counted before; return all counts."""
    nothing = _Counts({}, None, np.empty(0, object))
    with _REMEMBERING:
        before = _remembered.get(features, nothing)
        new = [text for text in dict.fromkeys(texts) if text not in before.rows]
        if sum(map(len, before.rows)) + sum(map(len, new)) > REMEMBERED:
            before, new = nothing, list(dict.fromkeys(texts))
        counted = before + _Counts.of(features, new) if new else before
        if sum(map(len, counted.rows)) <= REMEMBERED:
            _remembered[features] = counted
        else:
            _remembered.pop(features, None)
    return counted


def _least_texts(features: str, rows: int) -> int:
    """Return the number of texts that a feature has to occur in."""
    return 2 if features == "characters" and rows >= PRUNE_ROWS else 1


def counts_state(counts: TfidfVectorizer) -> tuple[np.ndarray, list[str]]:
    """Take a fitted vectoriser apart: the weight of each feature, and the features in order."""
    vocabulary = sorted(counts.vocabulary_, key=counts.vocabulary_.__getitem__)
    return np.ascontiguousarray(counts.idf_), vocabulary


def counts_from(features: str, idf: np.ndarray, vocabulary: Sequence[str]) -> TfidfVectorizer:
    """Put together the vectoriser that `counts_state` took apart."""
    counts = tfidf(features, rows=0)
    counts.set_params(vocabulary=list(vocabulary))
    counts.idf_ = idf
    return counts
