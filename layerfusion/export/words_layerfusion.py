"""The lexical sources of an exported classifier: words, and how much each of them counts.

This file lies in the folder of an exported classifier. It needs numpy alone.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np


def padded(rows: Sequence[Sequence[float]], filling: float, kind: type) -> np.ndarray:
    """Make one array of rows of different length, filled up on the right."""
    found = np.full((len(rows), max((1, *map(len, rows)))), filling, kind)
    for number, row in enumerate(rows):
        found[number, : len(row)] = row
    return found


class Words:
    """Counts words, words and pairs of words, or runs of characters, and weights them by TF-IDF."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.features = about["features"]
        self.pattern = re.compile(about["pattern"])
        self.number = {word: number for number, word in enumerate(about["vocabulary"])}
        self.idf = about["idf"]

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers of the words and their weights. Shapes: (texts, words)."""
        ids, weights = [], []
        for text in texts:
            found = Counter(n for n in map(self.number.get, self._words(text)) if n is not None)
            values = [(1 + math.log(count)) * self.idf[n] for n, count in found.items()]
            length = math.sqrt(sum(value * value for value in values)) or 1.0
            ids.append(list(found))
            weights.append([value / length for value in values])
        return padded(ids, 0, np.int64), padded(weights, 0.0, np.float32)

    def _words(self, text: str) -> Iterator[str]:
        """Take a text apart, as TfidfVectorizer of scikit-learn does."""
        text = text.lower()
        if self.features == "characters":
            for word in text.split():
                yield from _runs(f" {word} ")
            return
        words = self.pattern.findall(text)
        yield from words
        if self.features == "words and pairs":
            yield from (f"{first} {second}" for first, second in pairwise(words))


def _runs(word: str) -> Iterator[str]:
    """Give the runs of 2 to 5 characters of a word; a run that is the whole word comes once."""
    for size in range(2, 6):
        yield from (word[at : at + size] for at in range(max(1, len(word) - size + 1)))
        if size >= len(word):
            return
