"""Scores for which a sample of texts passes through the models again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from layerfusion.assets.files import DiskError
from layerfusion.errors import UserError
from layerfusion.layers.backbone_scores import sample_attention, sample_gradient
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import fit_probes
from layerfusion.layers.score import Needs, Score, ScoreValues
from layerfusion.layers.scores import ScoreInputs, groups

NO_ATTENTION = "layer 0 and the final norm have no attention of their own"


def _gradient(inputs: ScoreInputs) -> ScoreValues:
    """Gradient × activation of every layer, from the head that the last layer's probe has."""
    candidates = inputs.candidates
    values = np.full(len(candidates.layers), np.nan)
    seconds = 0.0
    texts = [candidates.texts[row] for row in inputs.sample]
    labels = [int(candidates.labels[row]) for row in inputs.sample]
    for name, source in candidates.models.items():
        last = source.shape.layers[-1]
        places = [candidates.position(LayerId(name, last, pooling)) for pooling in source.stores]
        probes = fit_probes(
            [candidates.features[n] for n in places],
            candidates.labels,
            [inputs.held_out[n].strength for n in places],
            num_classes=candidates.num_classes,
        )
        heads = dict(zip(source.stores, probes, strict=True))
        gradients, spent = sample_gradient(source, texts, labels, heads, inputs.options)
        seconds += spent
        for (pooling, layer), value in gradients.items():
            values[candidates.position(LayerId(name, layer, pooling))] = value
    return ScoreValues(values, seconds)


def _attention_entropy(inputs: ScoreInputs) -> ScoreValues:
    """Mean over the heads of each layer's attention entropy."""
    candidates = inputs.candidates
    values = np.full(len(candidates.layers), np.nan)
    seconds = 0.0
    texts = [candidates.texts[row] for row in inputs.sample]
    heads: dict[str, Mapping[str, np.ndarray]] = {}
    reasons = [NO_ATTENTION]
    for name, source in candidates.models.items():
        try:
            heads[name], spent = sample_attention(source, texts, inputs.options)
        except UserError as error:
            if not inputs.lenient or isinstance(error, DiskError):
                raise
            reasons.append(str(error))
            continue
        seconds += spent
        for n, layer in enumerate(candidates.layers):
            if layer.backbone == name and layer.layer in heads[name]:
                values[n] = heads[name][layer.layer].mean()
    return ScoreValues(values, seconds, "; ".join(reasons), heads)


def _gradient_entropy(inputs: ScoreInputs) -> ScoreValues:
    """Combine gradient and attention entropy within each model."""
    gradient, entropy = inputs.compute(GRADIENT), inputs.compute(ATTENTION_ENTROPY)
    values = gradient_entropy(
        gradient.values,
        entropy.values,
        list(groups(inputs.candidates.layers).values()),
        inputs.config.gradient_weight,
    )
    return ScoreValues(values, gradient.seconds + entropy.seconds, entropy.missing)


def gradient_entropy(
    gradient: np.ndarray, entropy: np.ndarray, models: Sequence[np.ndarray], weight: float
) -> np.ndarray:
    """Weighted sum of a layer's gradient and the focus of its attention.

    The value is weight · ĝ + (1 - weight) · (1 - Ĥ), where ĝ and Ĥ are gradient × activation and
    attention entropy, each scaled to [0, 1] over the layers of its model that have both. The public
    summary of arXiv 2504.05764 describes such a score in words; its formula is not public, so this
    one is ours.

    Args:
        gradient: gradient × activation. Shape: (layers,).
        entropy: attention entropy; NaN if a layer has no attention. Shape: (layers,).
        models: positions of the layers of each model.
        weight: weight of the gradient, in [0, 1].

    Returns:
        Shape: (layers,); NaN if either is.
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


GRADIENT = Score("gradient", _gradient, Needs.TEXTS, within_model=True, compares_classes=True)
# Low entropy is focused attention; that focused attention marks good layers is a hypothesis.
ATTENTION_ENTROPY = Score(
    "attention_entropy", _attention_entropy, Needs.ATTENTION, low_is_good=True, within_model=True
)
GRADIENT_ENTROPY = Score(
    "gradient_entropy",
    _gradient_entropy,
    Needs.ATTENTION,
    within_model=True,
    compares_classes=True,
)
