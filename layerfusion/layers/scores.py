"""Importance scores of layers for some labelled texts, all in one table.

Each score is a pure function in a file of its own; here they are called, timed and lined up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from layerfusion.config.job import ExtractConfig, LayersConfig
from layerfusion.embeddings.backbone import choose_device
from layerfusion.errors import UserError
from layerfusion.layers.backbone_scores import sample_attention, sample_gradient
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.held_out import held_out_probes
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import HeldOut, LinearProbe, fit_probes
from layerfusion.layers.transferability import effective_rank, fisher, h_score, logme

PROBE_SCORES = ("log_loss", "accuracy")
"""What `probe` stands for in a table."""
CLOSED_FORMS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "logme": logme,
    "h_score": h_score,
    "fisher": fisher,
    "effective_rank": lambda features, _labels: effective_rank(features),
}
FROM_MODEL = ("gradient", "attention_entropy", "gradient_entropy")
"""Scores for which a sample of the texts passes through the model again."""
LOW_IS_GOOD = ("log_loss", "attention_entropy")
"""Low attention entropy is focused attention; that it marks good layers is a hypothesis."""
WITHIN_MODEL = (*FROM_MODEL, "effective_rank")
"""Scores that only compare layers of one model: their size follows its width and depth."""
NO_ATTENTION = "layer 0 and the final norm have no attention of their own"


@dataclass(frozen=True)
class ScoreTable:
    """Scores by layer."""

    layers: tuple[LayerId, ...]
    values: Mapping[str, np.ndarray]
    """Score to its value of each layer, NaN where it has no meaning. Shapes: (layers,)."""
    held_out: tuple[HeldOut, ...] = ()
    """What each layer's probe says of the rows it was not fitted on; empty if not asked for."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Score to the reason why it has no value for some layers."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Score to the time it takes for all layers together, or once took."""
    heads: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    """Backbone and layer to the attention entropy of each head."""

    def comparable(self, score: str) -> list[np.ndarray]:
        """Positions of layers whose values compare with each other."""
        if score not in WITHIN_MODEL:
            return [np.arange(len(self.layers))]
        return list(groups(self.layers).values())


def groups(layers: Sequence[LayerId]) -> dict[tuple[str, str], np.ndarray]:
    """(Backbone, pooling) to the positions of its layers."""
    found: dict[tuple[str, str], list[int]] = {}
    for n, layer in enumerate(layers):
        found.setdefault((layer.backbone, layer.pooling), []).append(n)
    return {key: np.array(places) for key, places in found.items()}


def oriented(table: ScoreTable, score: str) -> np.ndarray:
    """The values of a score, turned so that more is better. Shape: (layers,)."""
    name = "log_loss" if score == "probe" else score
    values = table.values[name]
    return -values if name in LOW_IS_GOOD else values


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
        names: scores; `probe` gives `log_loss` and `accuracy`.
        config: strengths of the probes, size of the sample, weight of the gradient.
        options: device and batch sizes of what passes through the models.
        lenient: leave out, with the reason, what a model does not give; else that is an error.

    Raises:
        UserError: for a score that needs attention on a model that gives none.
    """
    values: dict[str, np.ndarray] = {}
    missing: dict[str, str] = {}
    seconds: dict[str, float] = {}
    heads: dict[str, Mapping[str, np.ndarray]] = {}
    wanted = set(names)
    held: tuple[HeldOut, ...] = ()
    if wanted & {"probe", *PROBE_SCORES, "gradient", "gradient_entropy"}:
        held, spent = held_out_probes(candidates, config, choose_device(options.device))
        values["log_loss"] = np.array([one.log_loss for one in held])
        values["accuracy"] = np.array([one.accuracy for one in held])
        seconds["log_loss"] = seconds["accuracy"] = spent
    for name, function in CLOSED_FORMS.items():
        if name in wanted:
            begun = time.perf_counter()
            values[name] = np.array([function(x, candidates.labels) for x in candidates.features])
            seconds[name] = time.perf_counter() - begun
    sample = _sample(candidates, config.sample)
    if wanted & {"gradient", "gradient_entropy"}:
        values["gradient"], seconds["gradient"] = _gradient(candidates, held, sample, options)
    if wanted & {"attention_entropy", "gradient_entropy"}:
        values["attention_entropy"], heads, reasons, spent = _attention(
            candidates, sample, options, lenient=lenient
        )
        missing["attention_entropy"] = "; ".join([NO_ATTENTION, *reasons])
        seconds["attention_entropy"] = spent
    if "gradient_entropy" in wanted:
        values["gradient_entropy"] = gradient_entropy(
            values["gradient"],
            values["attention_entropy"],
            list(groups(candidates.layers).values()),
            config.gradient_weight,
        )
        missing["gradient_entropy"] = missing["attention_entropy"]
        seconds["gradient_entropy"] = seconds["gradient"] + seconds["attention_entropy"]
    return ScoreTable(candidates.layers, values, held, missing, seconds, heads)


def gradient_entropy(
    gradient: np.ndarray, entropy: np.ndarray, models: Sequence[np.ndarray], weight: float
) -> np.ndarray:
    """Weighted sum of a layer's gradient and of how focused its attention is.

    weight · ĝ + (1 - weight) · (1 - Ĥ), where ĝ and Ĥ are gradient × activation and attention
    entropy, each brought to [0, 1] over the layers of its model that have both. The score that the
    public summary of arXiv 2504.05764 describes in words; its formula is not public, this is ours.

    Args:
        gradient: Shape: (layers,).
        entropy: NaN where a layer has no attention. Shape: (layers,).
        models: positions of the layers of each model.
        weight: of the gradient, in [0, 1].

    Returns:
        Shape: (layers,); NaN where one of the two is.
    """
    result = np.full(len(gradient), np.nan)
    for places in models:
        both = places[np.isfinite(gradient[places]) & np.isfinite(entropy[places])]
        if len(both):
            focus = 1 - _to_unit(entropy[both])
            result[both] = weight * _to_unit(gradient[both]) + (1 - weight) * focus
    return result


def _to_unit(values: np.ndarray) -> np.ndarray:
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread > 0 else np.full(len(values), 0.5)


# -- scores that pass through the models --------------------------------------------------------


def _sample(candidates: Candidates, size: int) -> list[int]:
    """Rows of an even sample: each fold and, within it, each class in turn."""
    rows = np.lexsort([candidates.labels.numpy(), candidates.fold_of.numpy()])
    if len(rows) <= size:
        return sorted(rows.tolist())
    return sorted(rows[np.linspace(0, len(rows) - 1, size).round().astype(int)].tolist())


def _gradient(
    candidates: Candidates, held: Sequence[HeldOut], sample: list[int], options: ExtractConfig
) -> tuple[np.ndarray, float]:
    values = np.full(len(candidates.layers), np.nan)
    seconds = 0.0
    texts = [candidates.texts[row] for row in sample]
    labels = [int(candidates.labels[row]) for row in sample]
    for name, source in candidates.models.items():
        last = source.shape.layers[-1]
        tops = [LayerId(name, last, pooling) for pooling in source.stores]
        places = [candidates.position(layer) for layer in tops]
        probes = fit_probes(
            [candidates.features[n] for n in places],
            candidates.labels,
            [held[n].strength for n in places],
            num_classes=candidates.num_classes,
        )
        heads: dict[str, LinearProbe] = dict(zip(source.stores, probes, strict=True))
        found, spent = sample_gradient(source, texts, labels, heads, options)
        seconds += spent
        for (pooling, layer), value in found.items():
            values[candidates.position(LayerId(name, layer, pooling))] = value
    return values, seconds


def _attention(
    candidates: Candidates, sample: list[int], options: ExtractConfig, *, lenient: bool
) -> tuple[np.ndarray, dict[str, Mapping[str, np.ndarray]], list[str], float]:
    values = np.full(len(candidates.layers), np.nan)
    seconds = 0.0
    texts = [candidates.texts[row] for row in sample]
    heads: dict[str, Mapping[str, np.ndarray]] = {}
    reasons = []
    for name, source in candidates.models.items():
        try:
            heads[name], spent = sample_attention(source, texts, options)
        except UserError as error:
            if not lenient:
                raise
            reasons.append(str(error))
            continue
        seconds += spent
        for n, layer in enumerate(candidates.layers):
            if layer.backbone == name and layer.layer in heads[name]:
                values[n] = heads[name][layer.layer].mean()
    return values, heads, reasons, seconds
