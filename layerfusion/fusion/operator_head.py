"""A trained operator as it classifies vectors that nothing has standardised yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerfusion.embeddings.standardise import Standardiser
from layerfusion.fusion.head import FusionHead
from layerfusion.layers.labels import log_probabilities


@dataclass(frozen=True)
class OperatorHead:
    """A trained operator, with the mean and deviation of train that standardise its sources."""

    classifier: FusionHead
    standardiser: Standardiser

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return int(self.classifier.settings["num_classes"])

    @property
    def multilabel(self) -> bool:
        """Whether texts have any number of the classes."""
        return self.classifier.multilabel

    @property
    def widths(self) -> list[int]:
        """Width of the vectors of each source."""
        return [len(mean) for mean in self.standardiser.mean]

    def log_probs(self, features: Sequence[Tensor]) -> Tensor:
        """Classify rows.

        Args:
            features: one tensor for each source, not standardised. Shapes: (rows, d_k).

        Returns:
            Log-probabilities of classes, or of labels one by one. Shape: (rows, classes), float32.
        """
        return self.predict(features)[0]

    def predict(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Classify rows, and give the gates where the operator has any. Shape: (rows, K)."""
        logits, gates = self.classifier.predict_logits(self.standardiser(features))
        return self._log_probs(logits), gates

    def each_source(self, features: Sequence[Tensor]) -> Tensor:
        """Classify rows by each source where all others are at their mean over train.

        Returns:
            Log-probabilities. Shape: (K, rows, classes).
        """
        standard = self.standardiser(features)
        found = []
        for k in range(len(standard)):
            alone = [x if k == n else torch.zeros_like(x) for n, x in enumerate(standard)]
            found.append(self._log_probs(self.classifier.predict_logits(alone)[0]))
        return torch.stack(found)

    def _log_probs(self, logits: Tensor) -> Tensor:
        return log_probabilities(logits.float(), multilabel=self.multilabel)
