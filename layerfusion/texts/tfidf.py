"""TF-IDF of words, of words and pairs, or of characters, for the baseline and lexical sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

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
PRUNE_ROWS = 1000
"""With at least this many rows, runs of characters that occur in only one text are left out."""


def tfidf(features: str, rows: int, max_features: int | None = None) -> TfidfVectorizer:
    """Make a vectoriser that is not fitted yet.

    Args:
        features: one of `FEATURES`.
        rows: number of texts that it will be fitted on.
        max_features: number of features to keep, the most frequent ones.
    """
    prune = features == "characters" and rows >= PRUNE_ROWS
    return TfidfVectorizer(
        **FEATURES[features],
        sublinear_tf=True,
        min_df=2 if prune else 1,
        max_features=max_features,
    )


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
