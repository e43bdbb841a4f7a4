"""The name of a layer."""

from __future__ import annotations

from dataclasses import dataclass

from layerfusion.embeddings.cache_key import TFIDF


@dataclass(frozen=True, order=True)
class LayerId:
    """One source of a fusion: a layer of a backbone under a pooling.

    `layer` is "0" for the input of the first block, "1" … "L" for the output of each block, and
    "norm" for the output of the model's final norm, if it has one. A lexical source has a single
    layer.

    Example:
        >>> layer = LayerId("smollm2", "15", "last")
        >>> str(layer), layer.words
        ('smollm2:15:last', 'layer 15 of smollm2 (last)')
    """

    backbone: str
    layer: str
    pooling: str

    def __str__(self) -> str:
        return f"{self.backbone}:{self.layer}:{self.pooling}"

    @property
    def words(self) -> str:
        """The name in words: `layer 15 of smollm2`, with the pooling unless it is the mean."""
        if self.pooling == TFIDF:
            return f"TF-IDF of {self.backbone}"
        layer = "norm" if self.layer == "norm" else f"layer {self.layer}"
        pooling = "" if self.pooling == "mean" else f" ({self.pooling})"
        return f"{layer} of {self.backbone}{pooling}"
