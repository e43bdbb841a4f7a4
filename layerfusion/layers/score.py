"""The definition of an importance score, and the lookup of scores by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from layerfusion.calls import plain_methods
from layerfusion.config.imports import import_object
from layerfusion.config.registry import SCORES, import_path
from layerfusion.errors import UserError


class Needs(StrEnum):
    """The inputs of a score, which determine how its `compute` is called."""

    PROBES = "probes"
    """A probe's predictions on held-out rows: `compute(held_out) -> Tensor`, one value for each
    held-out row. The score is their mean, and two layers are compared row by row."""
    VECTORS = "vectors"
    """The pooled vectors and labels of one layer: `compute(features, labels) -> float`, with
    features of shape (rows, width), float32, and labels of shape (rows,), int64; or (rows, labels),
    1 where a row has a label, for rows with any number of labels."""
    TEXTS = "texts"
    """A pass of sample texts through the models: `compute(inputs) -> ScoreValues` for all layers,
    with `inputs` a `layerfusion.layers.scores.ScoreInputs`."""
    ATTENTION = "attention"
    """As `TEXTS`, but only for models that give attention weights. Others are refused."""


@dataclass(frozen=True)
class ScoreValues:
    """A score of all layers."""

    values: np.ndarray
    """NaN where the score has no meaning. Shape: (layers,)."""
    seconds: float
    """Time that computing them takes, or took when they were first computed."""
    missing: str = ""
    """The reason why some layers have no value."""
    heads: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """Backbone and layer to the attention entropy of each head, for scores that have it."""


@plain_methods
@dataclass(frozen=True)
class Score:
    """An importance score: a number that says how useful a layer is for the labels.

    Example:
        >>> norm = Score("norm", lambda features, labels: float(features.norm(dim=1).mean()))
        >>> norm.needs.value, norm.low_is_good
        ('vectors', False)
    """

    name: str
    """The name under which tables and reports show it."""
    compute: Callable[..., Any]
    """Computes it; `Needs` says from which arguments."""
    needs: Needs = Needs.VECTORS
    low_is_good: bool = False
    """True where a lower value marks a better layer."""
    within_model: bool = False
    """True where values compare only between layers of the same model and pooling, for example
    because their scale depends on the model's width or depth."""
    compares_classes: bool = False
    """True where rows need one class each, so that it has no meaning for rows with several labels.
    """

    @property
    def passes_texts(self) -> bool:
        """True where texts pass through the models again."""
        return self.needs in (Needs.TEXTS, Needs.ATTENTION)


def find_score(name: str, key: str = "layers.score") -> Score:
    """Find the score that a config names.

    Args:
        name: one of `config.registry.SCORES`, or `package.module:name` of a `Score` or of a plain
            function (features, labels) -> float, whose higher values are better.
        key: the config key, for messages.

    Raises:
        UserError: for a name that does not exist, or an object that is no score.

    Example:
        >>> find_score("probe").name, find_score("probe").low_is_good
        ('log_loss', True)
    """
    known = {**SCORES, "log_loss": SCORES["probe"]}  # its name in a table
    if name in known:
        return import_object(key, known[name])
    score = import_object(key, import_path(key, name, SCORES))
    if not isinstance(score, Score):
        if isinstance(score, type) or not callable(score):
            raise UserError(
                f"{key}={name}: it is of type {type(score).__name__}; a Score or a function"
                " (features, labels) -> float is needed"
            )
        score = Score(name.partition(":")[2], score)
    if score.name in known:
        raise UserError(f"{key}={name}: LayerFusion itself has a score {score.name}; rename yours")
    return score
