"""Which layers of which models become sources of the fusion, and why each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import LayersConfig
from layerfusion.errors import UserError
from layerfusion.layers.budget import Budget
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import HeldOut
from layerfusion.layers.scores import WITHIN_MODEL, ScoreTable, oriented

PAIRED = ("probe", "log_loss", "accuracy")
"""Scores that are means over rows, so that two layers are compared row by row."""
LEAST_WEIGHT = 0.05
"""Of a selected layer, relative to the heaviest: a fusion that starts from less never uses it."""

FAR = 100
"""Standard errors from which on their number says nothing more: where it is all but zero."""


@dataclass(frozen=True)
class Choice:
    """A selected layer and why it was selected."""

    layer: LayerId
    reason: str
    weight: float | None = None
    """Relative to the other choices, what a weighted fusion starts from; none: all alike."""


@dataclass(frozen=True)
class Selection:
    """The selected layers, in the order they were chosen, and what was passed over."""

    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> list[LayerId]:
        """The layers alone."""
        return [choice.layer for choice in self.choices]

    @property
    def weights(self) -> list[float] | None:
        """What a weighted fusion starts from; none where not every layer has a weight."""
        known = [choice.weight for choice in self.choices if choice.weight is not None]
        return known if len(known) == len(self.choices) else None


def select_plain(config: LayersConfig, layers: Sequence[LayerId], budget: Budget) -> Selection:
    """`last`, `all` or `fixed`: selections that look at no data.

    `last` and `all` choose among what the budget allows; every pooling of a layer is a source.

    Raises:
        UserError: for a layer that a model does not have, or that the budget does not allow.
    """
    notes: list[str] = []
    if config.name == "fixed":
        chosen = list(dict.fromkeys(_asked(config, layers, budget)))
        reason = "fixed by the user"
    else:
        allowed = budget.affordable(layers)
        tops = {x.backbone: x.layer for x in allowed}  # bottom up: the last one stays
        chosen = [x for x in allowed if config.name == "all" or x.layer == tops[x.backbone]]
        reason = {"last": "the last layer", "all": "all layers"}[config.name]
        if len(allowed) < len(layers):
            reason += " within the budget"
            left = ", ".join(f"{top} of {name}" for name, top in tops.items())
            notes.append(
                f"layers.budget ({budget.limits()}) allows {len(allowed)} of {len(layers)} layers,"
                f" at most layer {left}"
            )
    if not budget.allows(chosen):
        raise UserError(
            f"layers.budget ({budget.limits()}): layers={config.name} takes {budget.words(chosen)};"
            " select fewer or lower ones"
        )
    return Selection(tuple(Choice(layer, reason) for layer in chosen), tuple(notes))


def _asked(config: LayersConfig, layers: Sequence[LayerId], budget: Budget) -> list[LayerId]:
    found = []
    for name in dict.fromkeys(layer.backbone for layer in layers):
        shape = budget.models[name].shape
        # A lexical source has a single layer, so naming the source is enough.
        for asked in config.fixed.get(name, () if shape.num_blocks else shape.layers):
            layer = shape.resolve(name, asked)
            found += [x for x in layers if x.backbone == name and x.layer == layer]
    return found


# -- selections by score ------------------------------------------------------------------------


def select_by_score(
    config: LayersConfig, table: ScoreTable, similarity: Tensor, budget: Budget
) -> Selection:
    """`top_k` or `adaptive`: the best layers by a score, near-duplicates passed over.

    Both take layers in the order of the score; where it does not compare across models, in that of
    how far each is behind the best of its own model. `top_k` takes k. `adaptive` measures how far a
    layer is behind the best in standard errors, z (see `behind`), weighs it by exp(-z² / 2), how
    well it could still be the best, and stops when those taken, and the near-duplicates passed
    over for them, hold `config.mass` of all weight: a flat profile gives many layers and a steep
    one few. What the budget does not allow beside those taken counts in neither.

    Args:
        config: the score and the limits.
        table: scores of the candidates.
        similarity: linear CKA between them. Shape: (candidates, candidates).
        budget: what they may cost together.

    Raises:
        UserError: where no candidate has the score, or there are fewer than k.
    """
    usable = _usable(config.score, table, budget)
    distance = behind(table, config.score, usable)
    weights = np.exp(-0.5 * np.square(distance))
    order = _best_first(table, config.score, usable, distance)
    total = float(weights[usable].sum())
    if config.name == "top_k" and config.k > len(order):
        within = f" within layers.budget ({budget.limits()})" if budget.limits() else ""
        raise UserError(
            f"layers.k={config.k}: there are {len(order)} layers with layers.score={config.score}"
            f"{within} to choose among"
        )
    chosen: list[int] = []
    reasons, notes = [], []
    held = 0.0
    for n in order:
        if config.name == "top_k" and len(chosen) == config.k:
            break
        if config.name == "adaptive" and (
            len(chosen) == config.max_layers or (chosen and held >= config.mass * total)
        ):
            break
        like = _duplicate(n, chosen, similarity, config.max_similarity)
        if like is not None:
            held += weights[n]
            notes.append(f"dropped {_dropped(table, n, like, similarity)}")
            continue
        if not budget.allows([table.layers[m] for m in [*chosen, n]]):
            notes.append(f"dropped {_words(table, n, config.score)}: over the budget with the rest")
            # Nothing can hold its weight any more; waiting for it would take ever worse layers.
            total -= weights[n]
            continue
        held += weights[n]
        chosen.append(n)
        best = "the best" if config.score not in WITHIN_MODEL else "the best of its model"
        reasons.append(f"{_words(table, n, config.score)}, {_rank(distance[n], best)}")
    shares = np.maximum(weights[chosen] / weights[chosen].max(), LEAST_WEIGHT)
    shares /= shares.sum()
    if config.name == "top_k" and len(chosen) < config.k:
        notes.append(f"only {len(chosen)} of k={config.k}: all others were dropped")
    return Selection(
        tuple(
            Choice(table.layers[n], reason, float(share))
            for n, reason, share in zip(chosen, reasons, shares, strict=True)
        ),
        tuple(notes),
    )


def behind(table: ScoreTable, score: str, usable: Sequence[int]) -> np.ndarray:
    """How many standard errors each usable layer is behind the best of them; infinite for others.

    The probe's figures are paired by row: z = mean(d) / (sd(d) / √rows) of the differences d to the
    best layer's. The other scores have no rows; there a standard error is taken to be half the
    standard deviation of the score over the layers. Scores that do not compare across models
    are held against the best layer of their own model and pooling.

    Shape: (candidates,).
    """
    values = oriented(table, score)
    distance = np.full(len(values), np.inf)
    if score in PAIRED:
        rows = np.stack([_per_row(table.held_out[n], score) for n in usable])
        difference = rows[np.argmax(values[usable])] - rows
        error = np.array([standard_error(torch.from_numpy(one)) for one in difference])
        distance[usable] = np.maximum(difference.mean(axis=1), 0) / np.maximum(error, 1e-12)
        return distance
    for group in table.comparable(score):
        own = np.intersect1d(group, usable)
        if len(own):
            error = values[own].std() / 2
            distance[own] = (values[own].max() - values[own]) / max(error, 1e-12)
    return distance


def _best_first(
    table: ScoreTable, score: str, usable: Sequence[int], distance: np.ndarray
) -> list[int]:
    """Positions of the usable layers in the order of the score.

    Not of the distance: a layer may be behind by little and surely, and a worse one by much and
    perhaps.
    """
    loss = distance if score in WITHIN_MODEL else -oriented(table, score)
    return sorted(usable, key=lambda n: (loss[n], n))


def _per_row(held: HeldOut, score: str) -> np.ndarray:
    return held.right.double().numpy() if score == "accuracy" else -held.losses.numpy()


def _usable(score: str, table: ScoreTable, budget: Budget) -> list[int]:
    """Positions of the layers that have the score and that the budget allows."""
    values = oriented(table, score)
    scored = [n for n in range(len(values)) if np.isfinite(values[n])]
    if not scored:
        reason = table.missing.get(score, "it has no value for any layer")
        raise UserError(f"layers.score={score}: {reason}")
    allowed = set(budget.affordable([table.layers[n] for n in scored]))
    return [n for n in scored if table.layers[n] in allowed]


def _duplicate(n: int, chosen: Sequence[int], similarity: Tensor, limit: float) -> int | None:
    """The chosen layer that a layer repeats."""
    if limit >= 1 or not chosen:
        return None
    closest = max(chosen, key=lambda other: float(similarity[n, other]))
    return closest if float(similarity[n, closest]) >= limit else None


def _dropped(table: ScoreTable, n: int, like: int, similarity: Tensor) -> str:
    cka = f"{float(similarity[n, like]):.3f}".lstrip("0")
    return f"{table.layers[n].words}: CKA {cka} with {table.layers[like].words}"


def _words(table: ScoreTable, n: int, score: str) -> str:
    name = "log_loss" if score == "probe" else score
    label = {"log_loss": "held-out log-loss", "accuracy": "held-out accuracy"}.get(name, name)
    return f"{table.layers[n].words}: {label} {table.values[name][n]:.4g}"


def _rank(distance: float, best: str) -> str:
    if distance == 0:
        return best
    errors = f"{distance:.1f}" if distance < FAR else f"more than {FAR}"
    return f"{errors} standard errors behind {best}"


# -- forward selection --------------------------------------------------------------------------


def select_greedy(
    config: LayersConfig, table: ScoreTable, similarity: Tensor, budget: Budget
) -> Selection:
    """`greedy`: forward selection by the held-out log-loss of the averaged log-probabilities.

    Each step adds the layer that lowers the loss of the logarithmic opinion pool most (ensemble
    selection: Caruana et al., ICML 2004), until what it gains is no more than `least_gain` standard
    errors of the gain over the rows. It finds layers that complement each other, which no score of
    single layers can. Complexity: O(steps · candidates · rows · classes).

    Args:
        config: the limits.
        table: scores with held-out probabilities.
        similarity: linear CKA between the candidates.
        budget: what they may cost together.
    """
    usable = _usable("probe", table, budget)
    target = table.held_out[0].target
    pool = torch.zeros_like(table.held_out[0].log_probs)
    losses: Tensor | None = None
    chosen: list[int] = []
    reasons: list[str] = []
    notes: list[str] = []
    while len(chosen) < config.max_layers:
        trials = {}
        for n in usable:
            if n in chosen or _duplicate(n, chosen, similarity, config.max_similarity) is not None:
                continue
            if budget.allows([table.layers[m] for m in [*chosen, n]]):
                mixed = ((pool + table.held_out[n].log_probs) / (len(chosen) + 1)).log_softmax(1)
                trials[n] = -mixed.gather(1, target[:, None])[:, 0].double()
        if not trials:
            break
        best = min(trials, key=lambda n: float(trials[n].mean()))
        loss = trials[best].mean()
        words = f"{table.layers[best].words}: held-out log-loss {loss:.4f}"
        if losses is not None:
            gain = losses - trials[best]
            error = standard_error(gain)
            if not float(gain.mean()) > config.least_gain * error:
                notes.append(
                    f"stopped at {len(chosen)}: {table.layers[best].words} would help most, a gain"
                    f" of {gain.mean():.4f} ± {error:.4f}"
                )
                break
            words += f" with those before, a gain of {gain.mean():.4f} ± {error:.4f}"
        chosen.append(best)
        reasons.append(words)
        pool, losses = pool + table.held_out[best].log_probs, trials[best]
    for n in usable:
        like = _duplicate(n, chosen, similarity, config.max_similarity)
        if n not in chosen and like is not None:
            notes.append(f"dropped {_dropped(table, n, like, similarity)}")
    return Selection(
        tuple(Choice(table.layers[n], why) for n, why in zip(chosen, reasons, strict=True)),
        tuple(notes),
    )


def standard_error(values: Tensor) -> float:
    """Of the mean of some rows; infinite for a single one, which says nothing of its error."""
    return float(values.std()) / len(values) ** 0.5 if len(values) > 1 else float("inf")


def pooled_losses(table: ScoreTable, layers: Sequence[LayerId]) -> Tensor:
    """Held-out log-loss of each row under the averaged log-probabilities of some layers.

    Shape: (rows,), float64.
    """
    held = [table.held_out[table.layers.index(layer)] for layer in layers]
    mixed = torch.stack([one.log_probs for one in held]).mean(dim=0).log_softmax(dim=1)
    return -mixed.gather(1, held[0].target[:, None])[:, 0].double()
