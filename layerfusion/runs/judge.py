"""Judges the layers and selections of a profile on test, after all choices have been made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.layers.candidates import Candidates, read_layers
from layerfusion.layers.labels import is_multilabel, log_probabilities, right_rows
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.lexical_regression import LexicalRegression
from layerfusion.layers.probe import cross_validate, fit_probes
from layerfusion.layers.scores import ScoreTable
from layerfusion.records.profile import (
    Accuracy,
    MultiLayerProfile,
    Regret,
    SelectionProfile,
)
from layerfusion.runs.multi_layer import FittedTogether
from layerfusion.statistics.intervals import bootstrap_interval, p_of_any_ahead, paired_interval
from layerfusion.texts import TextDataset

HALVES = 50
"""Number of random halvings of the texts of test over which the cross-fitted regret is averaged."""


class Judge:
    """Evaluates linear probes on test, after all selections have been made.

    A selection of several layers is judged by a probe on their concatenated, standardised vectors.
    The strength of its regularisation is chosen on the same folds.
    """

    def __init__(
        self,
        config: TrainConfig,
        dataset: TextDataset,
        candidates: Candidates,
        table: ScoreTable,
        last: LayerId,
    ) -> None:
        test = dataset.splits["test"]
        self.config = config
        self.candidates = candidates
        self.table = table
        self.target = test.labels
        self.text_of = test.unit_of
        hashes = [text_hash(text) for text in test.texts]
        self.test = read_layers(candidates.sources, candidates.layers, hashes)
        strengths = [one.strength for one in table.held_out]
        self.layers = self._right(candidates.features, self.test, strengths)
        for n, layer in enumerate(candidates.layers):
            source = candidates.sources[layer.backbone]
            if isinstance(source, LexicalSource):
                regression = LexicalRegression.fit(
                    source.config.features,
                    candidates.texts,
                    candidates.labels.numpy(),
                    strengths[n],
                    num_classes=candidates.num_classes,
                    max_features=source.config.max_features,
                    learner=source.config.learner,
                )
                self.layers[n] = self._rows_right(regression.vectors(test.texts))
        self.hindsight = max(range(len(self.layers)), key=lambda n: self.layers[n].mean())
        self.last = self.layers[table.layers.index(last)]

    def _right(
        self, features: Sequence[Tensor], test: Sequence[Tensor], strengths: Sequence[float]
    ) -> list[np.ndarray]:
        """Return 1 for each test row that a probe gets right, else 0. Shapes: (rows,)."""
        classes = self.candidates.num_classes
        probes = fit_probes(features, self.candidates.labels, strengths, num_classes=classes)
        return [
            self._rows_right(probe.logits(rows)) for probe, rows in zip(probes, test, strict=True)
        ]

    def _rows_right(self, logits: Tensor) -> np.ndarray:
        target = torch.from_numpy(self.target)
        said = log_probabilities(logits, multilabel=is_multilabel(target))
        return right_rows(said, target).double().numpy()

    def selection(self, record: SelectionProfile) -> SelectionProfile:
        """Return the record of a selection with its accuracy and regret."""
        places = record.layers
        right = self.layers[places[0]] if len(places) == 1 else self._together(places)
        test, regret, over_last = self._worth(right)
        return replace(record, test=test, regret=regret, over_last=over_last)

    def multi_layer(self, fitted: FittedTogether) -> MultiLayerProfile:
        """Return the record of a probe of several layers with its accuracy and regret."""
        rows = torch.cat([self.test[n] for n in fitted.places], dim=1)
        right = self._rows_right(fitted.probe.probe.logits(rows))
        test, regret, over_last = self._worth(right)
        return replace(fitted.record, test=test, regret=regret, over_last=over_last)

    def _worth(self, right: np.ndarray) -> tuple[Accuracy, Regret, tuple[float, float, float]]:
        """Compare with the best single layer in hindsight and the last. Shape: (test rows,)."""
        target, text_of = self.target, self.text_of
        behind = paired_interval(self.layers[self.hindsight], right, target, text_of=text_of)
        regret = Regret(
            behind.mean,
            behind.low,
            behind.high,
            self._cross_fitted(right),
            p_of_any_ahead(self.layers, right, target, text_of=text_of),
        )
        over = paired_interval(right, self.last, target, text_of=text_of)
        return self.accuracy(right), regret, (over.mean, over.low, over.high)

    def accuracy(self, right: np.ndarray) -> Accuracy:
        """Compute the accuracy and its interval from the rows that are right."""
        low, high = bootstrap_interval(right, self.target, self.config.seed, text_of=self.text_of)
        return Accuracy(float(right.mean()), low, high)

    def _together(self, places: Sequence[int]) -> np.ndarray:
        train = [self.candidates.features[n] for n in places]
        scale = Standardiser.fit(train)
        side_by_side = torch.cat(scale(train), dim=1)
        test = torch.cat(scale([self.test[n] for n in places]), dim=1)
        held = cross_validate(
            [side_by_side],
            self.candidates.labels,
            self.candidates.fold_of,
            num_classes=self.candidates.num_classes,
            text_of=self.candidates.text_of,
            strengths=self.config.layers.strengths,
        )
        strengths = [held[0].strength]
        return self._right([side_by_side], [test], strengths)[0]

    def _cross_fitted(self, right: np.ndarray) -> float:
        """Take the best layer of one half of the texts, and judge it on the rows of the other."""
        rng = np.random.default_rng(self.config.seed)
        layers, texts = np.stack(self.layers), np.unique(self.text_of)
        regrets = []
        for _ in range(HALVES):
            order = rng.permutation(len(texts))
            for some in (order[: len(order) // 2], order[len(order) // 2 :]):
                inside = np.isin(self.text_of, texts[some])
                half, rest = np.flatnonzero(inside), np.flatnonzero(~inside)
                best = int(layers[:, half].mean(axis=1).argmax())
                regrets.append(float(layers[best, rest].mean() - right[rest].mean()))
        return float(np.mean(regrets))
