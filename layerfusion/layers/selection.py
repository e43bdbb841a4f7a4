"""Selections: the layers that become sources of a fusion, and why each of them was selected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.imports import import_object
from layerfusion.config.job import LayersConfig
from layerfusion.config.registry import SELECTIONS, import_path
from layerfusion.config.user_code import call_user_code
from layerfusion.errors import UserError, first_few
from layerfusion.layers.budget import Budget
from layerfusion.layers.labels import by_row, decisions
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import HeldOut
from layerfusion.layers.repeats import standard_error
from layerfusion.layers.score import Needs, Score
from layerfusion.layers.scores import ScoreTable, oriented

LEAST_WEIGHT = 0.05
"""Smallest starting weight of a selected layer, as a share of the largest. A fusion never comes to
use a layer that starts lower."""
FAR = 100
"""Larger distances are printed as "more than 100": the standard error is then almost zero."""


@dataclass(frozen=True)
class Choice:
    """A selected layer, and the reason for it."""

    layer: LayerId
    reason: str
    """Why it was selected, without its name."""
    weight: float | None = None
    """Share that a weighted fusion starts from; none where all layers start alike."""

    @property
    def words(self) -> str:
        """The layer and why it was selected, for people."""
        return f"{self.layer.words}: {self.reason}"


@dataclass(frozen=True)
class ProbedLayer:
    """A layer that could be selected, and what its probe says of rows it was not fitted on."""

    layer: LayerId
    accuracy: float
    low: float
    high: float
    """95 % interval of the accuracy over these rows."""
    log_loss: float
    """In nats."""


@dataclass(frozen=True)
class Selection:
    """The selected layers in the order they were chosen, and notes on what was passed over."""

    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()
    probes: tuple[ProbedLayer, ...] = ()
    """Every layer that was probed on the way; empty where the selection fitted no probes."""

    def __repr__(self) -> str:
        return f"Selection({first_few(self.layers)})"

    @property
    def layers(self) -> list[LayerId]:
        """The layers without their reasons."""
        return [choice.layer for choice in self.choices]

    @property
    def weights(self) -> list[float] | None:
        """The weights that a weighted fusion starts from; none unless every layer has one."""
        known = [choice.weight for choice in self.choices if choice.weight is not None]
        return known if len(known) == len(self.choices) else None


Choose = Callable[[ScoreTable, Tensor, Budget, LayersConfig], Selection | Mapping[LayerId, str]]
"""(scores, similarity, budget, config) to a selection, or to a reason for each chosen layer.

The scores are those of train: no selection is given anything of test. `similarity` is the linear
CKA between the layers of the table, of shape (layers, layers); both are empty where the selection
does not look at labels.
"""


@dataclass(frozen=True)
class SelectionRule:
    """A way to select layers, and the scores that it needs."""

    name: str
    choose: Choose
    looks_at_labels: bool = True
    """False for a selection without scores; it then needs no vectors either."""
    score: str | None = None
    """The score that it needs; if none, the one that `layers.score` names."""

    def scores(self, config: LayersConfig) -> list[str]:
        """List the names of the scores that it needs."""
        return [self.score or config.score] if self.looks_at_labels else []

    def select(
        self, config: LayersConfig, table: ScoreTable, similarity: Tensor, budget: Budget
    ) -> Selection:
        """Select layers.

        Args:
            config: limits and options.
            table: the layers that may be chosen, with their scores.
            similarity: linear CKA between them. Shape: (layers, layers).
            budget: what the chosen layers may cost together.

        Raises:
            UserError: if the rule gives no layer, an unknown layer, or more than the budget
                allows.
        """
        selection = call_user_code("selection", self.choose, table, similarity, budget, config)
        if isinstance(selection, Mapping):
            wrong = [layer for layer, reason in selection.items() if not isinstance(reason, str)]
            if wrong:
                raise UserError(f"layers={self.name}: its reason for {wrong[0]} is no text")
            reasons = selection.items()
            selection = Selection(tuple(Choice(layer, reason) for layer, reason in reasons))
        if not isinstance(selection, Selection) or not selection.choices:
            raise UserError(
                f"layers={self.name}: it gave {selection!r}; a Selection, or a dict of layer to"
                " reason, with one layer or more is needed"
            )
        for layer in selection.layers:
            if layer not in table.layers:
                raise UserError(
                    f"layers={self.name}: it chose {layer}, which is none of the"
                    f" {len(table.layers)} layers that it may choose among"
                )
        if not budget.allows(selection.layers):
            raise UserError(
                f"layers.budget ({budget.limits()}): layers={self.name} takes"
                f" {budget.words(selection.layers)}; select fewer or lower ones"
            )
        return selection


def find_selection(name: str) -> SelectionRule:
    """The selection that `layers.name` names.

    Args:
        name: one of `config.registry.SELECTIONS`, or `package.module:name` of a `SelectionRule` or
            of a function (scores, similarity, budget, config) -> {layer: reason}.

    Raises:
        UserError: for a name that does not exist, or an object that is no selection.

    Example:
        >>> find_selection("greedy").scores(LayersConfig("greedy"))
        ['probe']
        >>> find_selection("last").looks_at_labels
        False
    """
    rule = import_object("layers.name", import_path("layers", name, SELECTIONS))
    if isinstance(rule, SelectionRule):
        return rule
    if isinstance(rule, type) or not callable(rule):
        raise UserError(
            f"layers.name={name}: it is of type {type(rule).__name__}; a SelectionRule or a"
            " function (scores, similarity, budget, config) -> {layer: reason} is needed"
        )
    return SelectionRule(name, cast("Choose", rule))


# -- selections that look at no data ------------------------------------------------------------


def select_plain(config: LayersConfig, layers: Sequence[LayerId], budget: Budget) -> Selection:
    """Select layers by `last`, `all`, `even` or `fixed`, which look at no data.

    All but `fixed` select among the layers that the budget allows. Each pooling of a layer is a
    source. `even` takes k layers of each model at equal distances, of which the last is the
    highest: of layers 0 to 6, k = 2 takes 3 and 6.

    Raises:
        UserError: if `fixed` names a layer that a model does not have.
    """
    notes: list[str] = []
    if config.name == "fixed":
        chosen = list(dict.fromkeys(_fixed_layers(config, layers, budget)))
        reason = "fixed by the user"
    else:
        allowed = budget.affordable(layers)
        by_model: dict[str, list[str]] = {}
        for x in allowed:  # bottom up
            by_model.setdefault(x.backbone, [])
            if x.layer not in by_model[x.backbone]:
                by_model[x.backbone].append(x.layer)
        taken = {name: _spread(own, config) for name, own in by_model.items()}
        chosen = [x for x in allowed if x.layer in taken[x.backbone]]
        reason = {
            "last": "the last layer",
            "all": "all layers",
            "even": f"one of {config.k} at equal distances",
        }[config.name]
        if len(allowed) < len(layers):
            reason += " within the budget"
            left = ", ".join(f"{own[-1]} of {name}" for name, own in by_model.items())
            notes.append(
                f"layers.budget ({budget.limits()}) allows {len(allowed)} of {len(layers)} layers,"
                f" at most layer {left}"
            )
    return Selection(tuple(Choice(layer, reason) for layer in chosen), tuple(notes))


def _spread(layers: Sequence[str], config: LayersConfig) -> Sequence[str]:
    """Take the last, all or k evenly spaced ones of a model's layers."""
    if config.name == "all" or (config.name == "even" and config.k >= len(layers)):
        return layers
    if config.name == "last":
        return layers[-1:]
    step = (len(layers) - 1) / config.k
    return [layers[round(step * (n + 1))] for n in range(config.k)]


def _choose_plain(
    table: ScoreTable, _similarity: Tensor, budget: Budget, config: LayersConfig
) -> Selection:
    return select_plain(config, table.layers, budget)


def _fixed_layers(config: LayersConfig, layers: Sequence[LayerId], budget: Budget) -> list[LayerId]:
    fixed: list[LayerId] = []
    for name in dict.fromkeys(layer.backbone for layer in layers):
        shape = budget.models[name].shape
        # A lexical source has a single layer, so naming the source is enough.
        for asked in config.fixed.get(name, () if shape.num_blocks else shape.layers):
            layer = shape.resolve(name, asked)
            fixed += [x for x in layers if x.backbone == name and x.layer == layer]
    return fixed


# -- selections by score ------------------------------------------------------------------------


def select_by_score(
    config: LayersConfig, table: ScoreTable, similarity: Tensor, budget: Budget
) -> Selection:
    """Select the best layers by a score, without near-duplicates, by `top_k` or `adaptive`.

    Both take layers in the order of the score. A score that compares only within a model orders
    them by their distance from the best layer of their model. `top_k` takes k layers. `adaptive`
    measures the distance z of each layer from the best in standard errors (see `behind`), and gives
    it the weight exp(-z² / 2). It stops once the layers taken, with their near-duplicates, have the
    share `config.mass` of all weight. So a flat profile gives many layers, and a steep one few. A
    layer that the budget does not allow beside those taken is left out of both sums.

    Args:
        config: the score and the limits.
        table: scores of the candidates.
        similarity: linear CKA between them. Shape: (candidates, candidates).
        budget: what they may cost together.

    Raises:
        UserError: if no candidate has the score, or there are fewer than k.
    """
    score = table.score(config.score)
    usable = usable_layers(config.score, table, budget)
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
    weight_taken = 0.0
    for n in order:
        if config.name == "top_k" and len(chosen) == config.k:
            break
        if config.name == "adaptive" and (
            len(chosen) == config.max_layers or (chosen and weight_taken >= config.mass * total)
        ):
            break
        like = _duplicate(n, chosen, similarity, config.max_similarity)
        if like is not None:
            weight_taken += weights[n]
            notes.append(f"dropped {_dropped(table, n, like, similarity)}")
            continue
        if not budget.allows([table.layers[m] for m in [*chosen, n]]):
            notes.append(f"dropped {_words(table, n, config.score)}: over the budget with the rest")
            # Its weight can no longer be taken; waiting for it would add ever worse layers.
            total -= weights[n]
            continue
        weight_taken += weights[n]
        chosen.append(n)
        best = "the best of its model" if score.within_model else "the best"
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
    """Distance of each usable layer from the best of them, in standard errors; infinite for others.

    Scores of held-out rows are compared row by row: z = mean(d) / (sd(d) / √rows), with d the
    differences to the best layer; rows that repeat a text count once. Other scores have no rows; as
    their standard error we take half their standard deviation over the layers. Where a score
    compares only within a model, a layer is compared with the best one of its own model and
    pooling.

    Shape: (candidates,).
    """
    values = oriented(table, score)
    distance = np.full(len(values), np.inf)
    if table.score(score).needs == Needs.PROBES:
        rows = np.stack([_per_row(table.held_out[n], table.score(score)) for n in usable])
        difference = rows[np.argmax(values[usable])] - rows
        texts = table.held_out[0].text_of
        error = np.array([standard_error(torch.from_numpy(one), texts) for one in difference])
        distance[usable] = np.maximum(difference.mean(axis=1), 0) / np.maximum(error, 1e-12)
        return distance
    for group in table.comparable(score):
        members = np.intersect1d(group, usable)
        if len(members):
            error = values[members].std() / 2
            distance[members] = (values[members].max() - values[members]) / max(error, 1e-12)
    return distance


def _best_first(
    table: ScoreTable, score: str, usable: Sequence[int], distance: np.ndarray
) -> list[int]:
    """Positions of the usable layers in the order of the score.

    Ordering by distance would be wrong: a layer that is behind by a little, but surely, is further
    away in standard errors than a worse one whose rows vary more.
    """
    loss = distance if table.score(score).within_model else -oriented(table, score)
    return sorted(usable, key=lambda n: (loss[n], n))


def _per_row(held_out: HeldOut, score: Score) -> np.ndarray:
    """The score of each held-out row, turned so that more is better. Shape: (rows,)."""
    rows = score.compute(held_out).double().numpy()
    return -rows if score.low_is_good else rows


def usable_layers(score: str, table: ScoreTable, budget: Budget) -> list[int]:
    """List the positions of layers that have the score and that the budget allows."""
    values = oriented(table, score)
    scored = [n for n in range(len(values)) if np.isfinite(values[n])]
    if not scored:
        reason = table.missing.get(table.score(score).name, "it has no value for any layer")
        raise UserError(f"layers.score={score}: {reason}")
    allowed = set(budget.affordable([table.layers[n] for n in scored]))
    return [n for n in scored if table.layers[n] in allowed]


def _duplicate(n: int, chosen: Sequence[int], similarity: Tensor, limit: float) -> int | None:
    """Find the chosen layer that a layer is a near-duplicate of, if there is one."""
    if limit >= 1 or not chosen:
        return None
    closest = max(chosen, key=lambda other: float(similarity[n, other]))
    return closest if float(similarity[n, closest]) >= limit else None


def _dropped(table: ScoreTable, n: int, like: int, similarity: Tensor) -> str:
    cka = f"{float(similarity[n, like]):.3f}".lstrip("0")
    return f"{table.layers[n].words}: CKA {cka} with {table.layers[like].words}"


def _words(table: ScoreTable, n: int, score: str) -> str:
    name = table.score(score).name
    label = {"log_loss": "held-out log-loss", "accuracy": "held-out accuracy"}.get(name, name)
    return f"{label} {table.values[name][n]:.4g}"


def _rank(distance: float, best: str) -> str:
    if distance == 0:
        return best
    errors = f"{distance:.1f}" if distance < FAR else f"more than {FAR}"
    return f"{errors} standard errors behind {best}"


# -- forward selection --------------------------------------------------------------------------


def select_greedy(
    config: LayersConfig, table: ScoreTable, similarity: Tensor, budget: Budget
) -> Selection:
    """Select layers by `greedy`: forward selection by the held-out log-loss of their average.

    Each step adds the layer that lowers the log-loss of the averaged log-probabilities most
    (ensemble selection: Caruana et al., ICML 2004). It stops once the gain is at most `least_gain`
    standard errors of the gain over the rows. So it finds layers that complement each other, which
    no score of single layers can. Complexity: O(steps · candidates · rows · classes).

    Args:
        config: the limits.
        table: scores with held-out probabilities.
        similarity: linear CKA between the candidates.
        budget: what they may cost together.
    """
    usable = usable_layers("probe", table, budget)
    labels = table.held_out[0].target
    said = {n: decisions(table.held_out[n].log_probs, labels)[0] for n in usable}
    target = decisions(table.held_out[0].log_probs, labels)[1]
    pool = torch.zeros(())
    losses_so_far: Tensor | None = None
    chosen: list[int] = []
    reasons: list[str] = []
    notes: list[str] = []
    while len(chosen) < config.max_layers:
        losses_with = {}
        for n in usable:
            if n in chosen or _duplicate(n, chosen, similarity, config.max_similarity) is not None:
                continue
            if budget.allows([table.layers[m] for m in [*chosen, n]]):
                mixed = ((pool + said[n]) / (len(chosen) + 1)).log_softmax(1)
                losses = -mixed.gather(1, target[:, None])[:, 0].double()
                losses_with[n] = by_row(losses, labels)
        if not losses_with:
            break
        best = min(losses_with, key=lambda n: float(losses_with[n].mean()))
        loss = losses_with[best].mean()
        words = f"held-out log-loss {loss:.4f}"
        if losses_so_far is not None:
            gain = losses_so_far - losses_with[best]
            error = standard_error(gain, table.held_out[0].text_of)
            if not float(gain.mean()) > config.least_gain * error:
                notes.append(
                    f"stopped at {len(chosen)}: {table.layers[best].words} would help most, a gain"
                    f" of {gain.mean():.4f} ± {error:.4f}"
                )
                break
            words += f" with those before, a gain of {gain.mean():.4f} ± {error:.4f}"
        chosen.append(best)
        reasons.append(words)
        pool, losses_so_far = pool + said[best], losses_with[best]
    for n in usable:
        like = _duplicate(n, chosen, similarity, config.max_similarity)
        if n not in chosen and like is not None:
            notes.append(f"dropped {_dropped(table, n, like, similarity)}")
    return Selection(
        tuple(Choice(table.layers[n], why) for n, why in zip(chosen, reasons, strict=True)),
        tuple(notes),
    )


SURE_ERRORS = 2.0
"""Standard errors by which a simpler or smaller thing has to be better than the average of many,
to be taken in its place. With ten rows of each class, what has the lowest held-out log-loss
mostly has it by luck: see *Few labelled rows* in `docs/fusion.md`."""


def pooled_losses(table: ScoreTable, layers: Sequence[LayerId]) -> Tensor:
    """Held-out log-loss of each row under the averaged log-probabilities of some layers.

    Shape: (rows,), float64.
    """
    probes = [table.held_out[table.layers.index(layer)] for layer in layers]
    labels = probes[0].target
    said, target = decisions(torch.stack([held_out.log_probs for held_out in probes]), labels)
    mixed = said.mean(dim=0).log_softmax(dim=1)
    return by_row(-mixed.gather(1, target[:, None])[:, 0].double(), labels)


# -- the selections of LayerFusion itself -------------------------------------------------------


def _choose_by_score(
    table: ScoreTable, similarity: Tensor, budget: Budget, config: LayersConfig
) -> Selection:
    return select_by_score(config, table, similarity, budget)


def _choose_greedily(
    table: ScoreTable, similarity: Tensor, budget: Budget, config: LayersConfig
) -> Selection:
    return select_greedy(config, table, similarity, budget)


LAST = SelectionRule("last", _choose_plain, looks_at_labels=False)
ALL = SelectionRule("all", _choose_plain, looks_at_labels=False)
EVEN = SelectionRule("even", _choose_plain, looks_at_labels=False)
FIXED = SelectionRule("fixed", _choose_plain, looks_at_labels=False)
TOP_K = SelectionRule("top_k", _choose_by_score)
ADAPTIVE = SelectionRule("adaptive", _choose_by_score)
GREEDY = SelectionRule("greedy", _choose_greedily, score="probe")
