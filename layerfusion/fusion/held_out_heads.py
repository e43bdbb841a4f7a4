"""Trained heads judged on a fold of train that neither they nor their inputs have learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import TrainerConfig
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.race import FusionCandidate
from layerfusion.fusion.training import fit
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.layer_id import LayerId


@dataclass(frozen=True)
class HeldOutHeads:
    """Log-losses of heads on folds held out; validation chooses their epoch, as it does later.

    A text that is in the fold and in validation too judges the head and does not choose its epoch.
    """

    candidates: Candidates
    """The layers that the heads fuse, on train, with its folds."""
    validation: dict[LayerId, Tensor]
    """The same layers on validation. Shapes: (rows, width)."""
    validation_texts: Sequence[str]
    validation_labels: Tensor
    trainer: TrainerConfig
    seed: int

    def __call__(self, candidate: FusionCandidate, fold: int) -> Tensor:
        """Log-loss of each row of a fold. Shape: (rows,), float64, in nats."""
        candidates, layers = self.candidates, candidate.selection.layers
        out = candidates.fold_of == fold
        split = [self._split(layer, fold) for layer in layers]
        labels, unseen = candidates.labels, self._unseen(fold)
        features = {
            "train": [train[~out] for train, _ in split],
            "validation": [validation[unseen] for _, validation in split],
            "held out": [train[out] for train, _ in split],
        }
        targets = {
            "train": labels[~out],
            "validation": self.validation_labels[unseen],
            "held out": labels[out],
        }
        data = FusionDataModule(features, targets, batch_size=self.trainer.batch_size)
        fitted = fit(
            data,
            candidate.fusion,
            self.trainer,
            num_classes=candidates.num_classes,
            seed=self.seed,
            importance=candidate.selection.weights,
        )
        logits, _ = fitted.classifier.predict_logits(data.features["held out"])
        return F.cross_entropy(logits.double(), labels[out], reduction="none")

    def _unseen(self, fold: int) -> Tensor:
        """Rows of validation whose texts are not in the fold: others would show its labels.

        All of them where none is left, since a head cannot be trained without.
        """
        candidates = self.candidates
        out = torch.where(candidates.fold_of == fold)[0].tolist()
        judged = {candidates.texts[n] for n in out}
        rows = [n for n, text in enumerate(self.validation_texts) if text not in judged]
        return torch.tensor(rows or range(len(self.validation_texts)))

    def _split(self, layer: LayerId, fold: int) -> tuple[Tensor, Tensor]:
        """A layer on train and on validation; a lexical one learned without the fold."""
        candidates = self.candidates
        source = candidates.sources[layer.backbone]
        if not isinstance(source, LexicalSource):
            return candidates.features[candidates.position(layer)], self.validation[layer]
        inside = torch.where(candidates.fold_of != fold)[0].tolist()
        everything = [*candidates.texts, *self.validation_texts]
        vectors = source.relearned(everything, [candidates.texts[row] for row in inside])
        return vectors[: len(candidates.texts)], vectors[len(candidates.texts) :]
