"""Trained heads evaluated on a fold of train that neither they nor their sources learned from."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from layerfusion.config.job import LOG_LOSS, UNWEIGHTED, TrainerConfig
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.embeddings.matrices import take_rows
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.race import FusionCandidate
from layerfusion.fusion.together import HeadTask, fit_together, folds_at_once
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.labels import log_probabilities
from layerfusion.layers.layer_id import LayerId
from layerfusion.texts.groups import units_of
from layerfusion.texts.sampling import first_rows


@dataclass(frozen=True)
class HeldOutHeads:
    """Trains heads without a fold, and evaluates them on it. Validation chooses the epoch.

    A text, or group, that is both in the fold and in validation evaluates the head, and does not
    choose its epoch.
    """

    candidates: Candidates
    """The layers that the heads fuse, on train, and the folds."""
    validation: dict[LayerId, Tensor]
    """The same layers on validation. Shapes: (rows, width)."""
    validation_texts: Sequence[str]
    validation_labels: Tensor
    trainer: TrainerConfig
    seed: int
    objective: str = LOG_LOSS
    class_weights: str = UNWEIGHTED
    validation_groups: Sequence[str | None] | None = None
    """Group of each row of validation, as `Split.groups`."""

    def __call__(self, candidate: FusionCandidate, folds: Sequence[int]) -> list[Tensor]:
        """Return log-probabilities of the rows of each fold. Shapes: (rows, classes), float64."""
        found: list[Tensor] = []
        data: list[FusionDataModule] = []
        for fold in folds:
            data.append(self._data(candidate, fold))
            most = folds_at_once(len(self.candidates.labels), sum(data[0].widths))
            if len(data) == most or fold == folds[-1]:
                found += self._train(candidate, data)
                data = []
        return found

    def _train(
        self, candidate: FusionCandidate, data: Sequence[FusionDataModule]
    ) -> Iterator[Tensor]:
        """Train a head on each, and let it predict what is held out."""
        importance = candidate.layer_set.selection.weights
        fitted = fit_together(
            [HeadTask(one, candidate.fusion, self.seed, importance=importance) for one in data],
            self.trainer,
            num_classes=self.candidates.num_classes,
            objective=self.objective,
            class_weights=self.class_weights,
        )
        for own, one in zip(fitted, data, strict=True):
            logits, _ = own.classifier.predict_logits(one.features["held out"])
            yield log_probabilities(logits.double(), multilabel=own.classifier.multilabel)

    def _data(self, candidate: FusionCandidate, fold: int) -> FusionDataModule:
        """Give the head of a fold train without the fold, validation, and the fold itself."""
        candidates = self.candidates
        out = candidates.fold_of == fold
        split = [self._split(layer, fold) for layer in candidate.layers]
        labels, unseen = candidates.labels, self._unseen(fold)
        features = {
            "train": [take_rows(train, ~out) for train, _ in split],
            "validation": [take_rows(validation, unseen) for _, validation in split],
            "held out": [take_rows(train, out) for train, _ in split],
        }
        targets = {
            "train": labels[~out],
            "validation": self.validation_labels[unseen],
            "held out": labels[out],
        }
        units = [self._units[n] for n in map(int, unseen)]
        size = self.trainer.batch_size
        return FusionDataModule(features, targets, size, text_of=first_rows(units))

    @cached_property
    def _units(self) -> Sequence[Hashable]:
        return units_of(self.validation_texts, self.validation_groups)

    def _unseen(self, fold: int) -> Tensor:
        """Return the rows of validation whose texts, or groups, are not in the fold.

        The others would reveal its labels. If none is left, all rows are returned, since a head
        cannot be trained without validation.
        """
        candidates = self.candidates
        out = torch.where(candidates.fold_of == fold)[0].tolist()
        seen = {candidates.units[n] for n in out}
        rows = [n for n, unit in enumerate(self._units) if unit not in seen]
        return torch.tensor(rows or range(len(self.validation_texts)))

    def _split(self, layer: LayerId, fold: int) -> tuple[Tensor, Tensor]:
        """Return a source on train and on validation; a lexical one is learned without the fold."""
        candidates = self.candidates
        source = candidates.sources[layer.backbone]
        if not isinstance(source, LexicalSource):
            return candidates.features[candidates.position(layer)], self.validation[layer]
        inside = torch.where(candidates.fold_of != fold)[0].tolist()
        everything = [*candidates.texts, *self.validation_texts]
        vectors = source.relearned(everything, [candidates.texts[row] for row in inside])
        return vectors[: len(candidates.texts)], vectors[len(candidates.texts) :]
