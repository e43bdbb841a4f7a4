"""What a layer is called, everywhere."""

from __future__ import annotations

from dataclasses import dataclass

from layerfusion.embeddings.spec import TFIDF


@dataclass(frozen=True, order=True)
class LayerId:
    """One source of a fusion: a layer of a backbone under a pooling.

    `layer` is "0" for what enters the first block, "1" … "L" for what leaves block i, and "norm"
    for the output of the model's own final norm where it has one. A lexical source is one, too.
    """

    backbone: str
    layer: str
    pooling: str

    def __str__(self) -> str:
        return f"{self.backbone}:{self.layer}:{self.pooling}"

    @property
    def words(self) -> str:
        """For people: `layer 15 of smollm2`, and the pooling where it is not the mean."""
        if self.pooling == TFIDF:
            return f"TF-IDF of {self.backbone}"
        layer = "norm" if self.layer == "norm" else f"layer {self.layer}"
        pooling = "" if self.pooling == "mean" else f" ({self.pooling})"
        return f"{layer} of {self.backbone}{pooling}"
