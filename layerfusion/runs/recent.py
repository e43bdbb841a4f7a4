"""Vectors that a process computed last, so that one classifier after the other can use them.

A cross-validation fits many classifiers that predict the same texts. The cache on disk is not read
for that: it may hold vectors in half precision, and a prediction must not depend on what is cached.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from layerfusion.embeddings.cache_key import text_hash

MOST_BYTES = 256 * 2**20
"""Bytes of vectors that are kept; those that were used longest ago are dropped first."""

Wanted = tuple[str, str]
"""Pooling and layer."""
Vectors = dict[Wanted, np.ndarray]
"""Vectors by pooling and layer. Shapes: (texts, width), or (width,) of a single text."""


class RecentVectors:
    """Keeps the vectors of single texts, by model and text.

    Args:
        most_bytes: bytes of vectors that are kept.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, bytes], Vectors] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def through(
        self,
        model: str,
        texts: Sequence[str],
        wanted: Sequence[Wanted],
        compute: Callable[[Sequence[str]], Vectors],
    ) -> Vectors:
        """Return vectors of texts, computing those that are not kept.

        Args:
            model: everything that the vectors depend on besides the text.
            texts: the texts, with any repeats.
            wanted: poolings and layers.
            compute: gives the vectors of some texts, of these layers and maybe others, which are
                kept too. Shapes: (texts, width).

        Returns:
            Shapes: (texts, width), float32.
        """
        keys = [(model, text_hash(text)) for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        found = {key: one for key, one in found.items() if all(name in one for name in wanted)}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            fresh = compute(list(missing.values()))
            for row, key in enumerate(missing):
                found[key] = {name: values[row].copy() for name, values in fresh.items()}
            with self._lock:
                for key in missing:
                    self._keep(key, found[key])
        return {name: np.stack([found[key][name] for key in keys]) for name in wanted}

    def _keep(self, key: tuple[str, bytes], vectors: Vectors) -> None:
        before = self._kept.pop(key, {})
        self._kept[key] = whole = {**before, **vectors}
        self._bytes += _size(whole) - _size(before)
        while self._bytes > self._most_bytes and self._kept:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(vectors: Vectors) -> int:
    return sum(vector.nbytes for vector in vectors.values())
