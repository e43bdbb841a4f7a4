"""Importance scores of layers for some labelled texts, all in one table.

Each score is a pure function in a module of its own room (`config.registry.SCORES` lists them);
this file computes and times the scores that are asked for and puts their values side by side.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from layerfusion.config.job import ExtractConfig, LayersConfig
from layerfusion.config.user_code import call_user_code
from layerfusion.embeddings.backbone import probe_device
from layerfusion.errors import UserError, short
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.held_out import ACCURACY, LOG_LOSS, held_out_probes
from layerfusion.layers.labels import COMPARES_CLASSES, is_multilabel, require_classes
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import HeldOut
from layerfusion.layers.score import Needs, Score, ScoreValues, find_score
from layerfusion.progress import steps
from layerfusion.texts.sampling import strata


@dataclass(frozen=True)
class ScoreTable:
    """Scores by layer."""

    layers: tuple[LayerId, ...]
    values: Mapping[str, np.ndarray]
    """Name of a score to its value of each layer, NaN where it has no meaning. Shapes: (layers,).
    """
    held_out: tuple[HeldOut, ...] = ()
    """Predictions of each layer's probe on held-out rows; empty if no score needed them."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Name of a score to the reason why some layers have no value."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Name of a score to the time that all layers take, or took when they were first computed."""
    heads: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """Backbone and layer to the attention entropy of each head."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """Name of a score to its definition."""
    candidates: Candidates | None = None
    """The layers' vectors and labels on train; none where the selection looks at no data."""

    def score(self, name: str) -> Score:
        """Find a score by its name in the table, or as `layers.score` names it."""
        return self.scores[name] if name in self.scores else find_score(name)

    def comparable(self, score: str) -> list[np.ndarray]:
        """Group the positions of layers whose values compare with each other."""
        if not self.score(score).within_model:
            return [np.arange(len(self.layers))]
        return list(groups(self.layers).values())


def groups(layers: Sequence[LayerId]) -> dict[tuple[str, str], np.ndarray]:
    """Group the positions of layers by backbone and pooling."""
    positions: dict[tuple[str, str], list[int]] = {}
    for n, layer in enumerate(layers):
        positions.setdefault((layer.backbone, layer.pooling), []).append(n)
    return {key: np.array(places) for key, places in positions.items()}


def oriented(table: ScoreTable, score: str) -> np.ndarray:
    """Get the values of a score, with the sign turned so that more is better.

    Args:
        table: scores of some layers.
        score: its name in the table, or as `layers.score` names it.

    Returns:
        Shape: (layers,); NaN where a layer has no value.
    """
    chosen = table.score(score)
    values = table.values[chosen.name]
    return -values if chosen.low_is_good else values.copy()


class ScoreInputs:
    """Everything that a score may be computed from; costly parts are computed on first use.

    Args:
        candidates: layers with their vectors, labels, texts and models.
        config: strengths of the probes, size of the sample, weight of the gradient.
        options: device and batch sizes of what passes through the models.
        lenient: True to leave out models that lack what a score needs; else they are refused.
    """

    def __init__(
        self,
        candidates: Candidates,
        config: LayersConfig,
        options: ExtractConfig,
        *,
        lenient: bool = False,
    ) -> None:
        self.candidates = candidates
        self.config = config
        self.options = options
        self.lenient = lenient
        self.scores: dict[str, Score] = {}
        """Scores that were computed so far, by name."""
        self.values: dict[str, ScoreValues] = {}

    @property
    def held_out(self) -> tuple[HeldOut, ...]:
        """Predictions of each layer's probe on held-out rows."""
        return self._probes[0]

    @property
    def has_probes(self) -> bool:
        """True once some score has asked for `held_out`."""
        return "_probes" in vars(self)

    @cached_property
    def sample(self) -> list[int]:
        """An even sample of at most `layers.sample` rows: each fold and, within it, each class."""
        labels, fold_of = strata(self.candidates.labels.numpy()), self.candidates.fold_of.numpy()
        rows = np.lexsort([labels, fold_of])
        size = self.config.sample
        if len(rows) > size:
            rows = rows[np.linspace(0, len(rows) - 1, size).round().astype(int)]
        return sorted(rows.tolist())

    def compute(self, score: Score) -> ScoreValues:
        """Compute a score of all layers, once however often it is asked for.

        Raises:
            UserError: if the score does not give a number for each layer.
        """
        if score.name not in self.values:
            self.values[score.name] = self._compute(score)
            self.scores[score.name] = score
        return self.values[score.name]

    def _compute(self, score: Score) -> ScoreValues:
        if score.passes_texts:
            return call_user_code("score", score.compute, self)
        if score.needs == Needs.PROBES:
            values = [_mean_over_rows(score, held_out) for held_out in self.held_out]
            return ScoreValues(np.array(values), self._probes[1])
        begun = time.perf_counter()
        labels = self.candidates.labels
        values = [
            _number(score, call_user_code("score", score.compute, vectors, labels))
            for vectors in self.candidates.features
        ]
        return ScoreValues(np.array(values), time.perf_counter() - begun)

    @cached_property
    def _probes(self) -> tuple[tuple[HeldOut, ...], float]:
        device = probe_device(self.options.device)
        return held_out_probes(self.candidates, self.config, device)


def _mean_over_rows(score: Score, held_out: HeldOut) -> float:
    rows = call_user_code("score", score.compute, held_out)
    if not isinstance(rows, Tensor) or rows.shape != held_out.target.shape[:1]:
        shape = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
        raise UserError(
            f"score {score.name}: it gave {shape}; a tensor with a value for each of the"
            f" {len(held_out.target)} held-out rows is needed"
        )
    return float(rows.double().mean())


def _number(score: Score, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"score {score.name}: it gave {short(value)}; a number is needed"
        ) from error


def compute_scores(
    candidates: Candidates,
    names: Sequence[str],
    config: LayersConfig,
    options: ExtractConfig,
    *,
    lenient: bool = False,
) -> ScoreTable:
    """Compute some scores of all candidates.

    Args:
        candidates: layers with their vectors and labels.
        names: scores as `layers.score` names them. Whatever needs probes gives `log_loss` and
            `accuracy` as well.
        config: strengths of the probes, size of the sample, weight of the gradient.
        options: device and batch sizes of what passes through the models.
        lenient: true to leave out a score that a model does not give, or that has no meaning for
            rows with several labels, with the reason; otherwise it is an error.

    Raises:
        UserError: if a score does not exist, needs attention weights of a model that gives none, or
            compares classes where rows have several labels.
    """
    inputs = ScoreInputs(candidates, config, options, lenient=lenient)
    left_out: dict[str, str] = {}
    for score in steps([*map(find_score, names)], "scores of layers"):
        if score.compares_classes and is_multilabel(candidates.labels):
            if not lenient:
                require_classes(f"score {score.name}", candidates.labels)
            left_out[score.name] = COMPARES_CLASSES
            continue
        inputs.compute(score)
    if inputs.has_probes:  # these two then come at no cost
        inputs.compute(LOG_LOSS)
        inputs.compute(ACCURACY)
    order = sorted(inputs.values, key=lambda name: list(Needs).index(inputs.scores[name].needs))
    values = {name: inputs.values[name] for name in order}
    return ScoreTable(
        candidates.layers,
        {name: score.values for name, score in values.items()},
        inputs.held_out if inputs.has_probes else (),
        {name: score.missing for name, score in values.items() if score.missing} | left_out,
        {name: score.seconds for name, score in values.items()},
        {backbone: heads for score in values.values() for backbone, heads in score.heads.items()},
        inputs.scores,
        candidates,
    )
