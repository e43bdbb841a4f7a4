"""Fit a pool on rows that its probes never saw (Wolpert, Neural Networks 5, 1992).

With many sources, such as every layer of some models, weights that are free but held near equal
ones are best (`anchored`): a source that adds little by itself may still correct the others, with a
weight below zero. In the form `anchored_gated` these weights move a little from text to text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.fusion.objective import label_shares
from layerfusion.fusion.pool import (
    ANCHORED,
    ANCHORED_GATED,
    FACTS,
    GATED,
    SINGLE,
    WEIGHTED,
    Pool,
    agreement,
    evidence,
    mix,
)
from layerfusion.layers.labels import decisions, is_multilabel, log_odds
from layerfusion.layers.log_linear import log_losses, slope_and_curvature

WEIGHT_ROWS = 2.0
"""Strength of the pull towards equal weights, in rows: the squares of b and log κ count as much as
the log-loss of so many rows. With few labelled rows it keeps the pool near the plain average, which
is then better than weights: by 2 points on 20 rows of mr. On 1,800 rows the weights are better."""
GATE_ROWS = 200.0
"""Strength of the pull of the gates towards the weights, in rows: the same for the squares of G."""
ANCHOR_ROWS = 5.0
"""Strength of the pull of anchored weights towards equal ones, in rows for each √K: the square of
their distance counts as much as the log-loss of so many rows. Of 3, 8 and 140 sources, on 40 to
1,345 rows of three sets, about this was best."""
MAX_STEPS = 200
"""Most steps of L-BFGS."""
MAX_NEWTON_STEPS = 20
"""Most steps of Newton's method."""
LEAST_STEP = 1e-3
"""Shortest part of a step of Newton's method that is tried."""
LEAST_GAIN = 1e-7
"""Newton's method stops once a step lowers the loss by less, in nats."""
MOVE_ROWS = 10_000.0
"""Strength of the pull of the gates of `anchored_gated` towards the anchored weights, in rows. From
3,000 to 30,000 it hardly mattered on 36 to 1,345 rows of seven sets; at 1,000 the gates began to
fit noise."""
UNKNOWN_ROWS = 1.0
"""Rows of unknown class that a pool allows for beside the held-out ones. Where its members are
right on all of these, nothing else bounds how sure it is: on 40 to 200 rows of sms_spam its
log-loss on test fell by 0.07 to 0.57 nats. Half a row and two were worth about as much."""


def fit_pool(log_probs: Tensor, target: Tensor, form: str, distinct: float = 1.0) -> Pool:
    """Fit a pool of one form.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: labels of these rows.
        form: one of `KEPT_FORMS`; `single` takes the source with the lowest log-loss, calibrated.
        distinct: number of different texts as a share of the rows. What is learned from rows that
            repeat a text is no surer than what one of them teaches.
    """
    (pool,) = fit_pools(log_probs, target, [form], distinct)
    return pool


def fit_pools(
    log_probs: Tensor, target: Tensor, forms: Sequence[str], distinct: float = 1.0
) -> list[Pool]:
    """Do what `fit_pool` does for several forms; anchored weights are found once for both forms."""
    if not is_multilabel(target):
        return _fit_forms(log_probs, target, forms, distinct, tilted=True)
    pools = [
        replace(pool, multilabel=True)
        for pool in _fit_forms(*decisions(log_probs, target), forms, distinct, tilted=False)
    ]
    offsets = [_offset(pool(log_probs)[0], target, distinct) for pool in pools]
    return [
        replace(pool, shift=offset.repeat(target.shape[1]))
        for pool, offset in zip(pools, offsets, strict=True)
    ]


def _fit_forms(
    log_probs: Tensor, target: Tensor, forms: Sequence[str], distinct: float = 1.0, *, tilted: bool
) -> list[Pool]:
    """Do what `fit_pools` does, for rows of one class each; `tilted` as in `_sure_weights`."""
    found: dict[str, Pool] = {}
    rows = distinct * len(target)
    if ANCHORED in forms or ANCHORED_GATED in forms:
        found[ANCHORED] = _anchored(log_probs, target, rows, tilted)
    if ANCHORED_GATED in forms:
        found[ANCHORED_GATED] = _with_gates(found[ANCHORED], log_probs, target, rows)
    if SINGLE in forms:
        found[SINGLE] = _single(log_probs, target, rows)
    for form in (WEIGHTED, GATED):
        if form in forms:
            found[form] = _softmaxed(log_probs.double(), target, form, rows)
    return [found[form] for form in forms]


def _offset(pooled: Tensor, target: Tensor, distinct: float) -> Tensor:
    """Return what the log-odds of all labels lack, one number, held near 0 as weights are.

    Weights move the log-odds of labels towards or away from 0, where yes and no are alike. Probes
    of rare labels are shrunk towards their frequency instead, so that a pool without an offset
    names too few labels. The loss is convex.

    Args:
        pooled: log-probabilities of held-out rows. Shape: (rows, labels), float64.
        target: labels of these rows. Shape: (rows, labels).
        distinct: as in `fit_pool`.

    Returns:
        Shape: (), float64.
    """
    odds, yes = log_odds(pooled), target.double()
    offset = torch.zeros((), dtype=torch.float64)

    def loss() -> Tensor:
        pull = WEIGHT_ROWS * offset.square() / (distinct * target.numel())
        return F.binary_cross_entropy_with_logits(odds + offset, yes) + pull

    minimise(loss, [offset])
    return offset


def _sureness(pooled: Tensor, target: Tensor, rows: float) -> Tensor:
    """Return the factor, at most 1, that makes a pool as sure as its held-out rows allow.

    It has the lowest log-loss on these rows and on `UNKNOWN_ROWS` that are of each class with its
    frequency: they are shared out over the held-out ones as smoothed labels (after Platt,
    *Probabilistic outputs for support vector machines*, 1999). The loss is convex in the factor,
    which leaves the most probable class as it is.

    Args:
        pooled: log-probabilities of held-out rows; a number that is added to all of a row changes
            nothing. Shape: (rows, classes), float64.
        target: class indices of these rows. Shape: (rows,).
        rows: number of different texts among them.

    Returns:
        Shape: (), float64.
    """
    classes = pooled.shape[1]
    known = rows / (rows + UNKNOWN_ROWS)
    smoothed = known * F.one_hot(target, classes) + (1 - known) * label_shares(target, classes)
    log_factor = torch.zeros((), dtype=torch.float64)

    def loss() -> Tensor:
        return F.cross_entropy(log_factor.exp() * pooled, smoothed)

    minimise(loss, [log_factor])
    return log_factor.exp().clamp_max(1.0)


def _single(log_probs: Tensor, target: Tensor, rows: float) -> Pool:
    """Calibrate the source with the lowest log-loss by the scale κ alone."""
    sources = len(log_probs)
    best = torch.stack([F.nll_loss(source, target) for source in log_probs]).argmin()
    bias = torch.zeros(sources, dtype=torch.float64)
    bias[torch.arange(sources) != best] = -torch.inf
    alone, log_scale = log_probs[best].double(), torch.zeros((), dtype=torch.float64)

    def loss() -> Tensor:
        pull = WEIGHT_ROWS * log_scale.square() / rows
        return F.cross_entropy(log_scale.exp() * alone, target) + pull

    minimise(loss, [log_scale])
    scale = log_scale.exp()
    return Pool(SINGLE, bias, scale * _sureness(scale * alone, target, rows), *_still(sources))


def _softmaxed(log_probs: Tensor, target: Tensor, form: str, rows: float) -> Pool:
    """Fit weights, or gates, that are positive and add up to 1, and the scale κ."""
    sources = len(log_probs)
    bias = torch.zeros(sources, dtype=torch.float64)
    log_scale = torch.zeros((), dtype=torch.float64)
    gate, mean, std = _still(sources)
    facts = torch.zeros(len(target), len(mean), dtype=torch.float64)
    if form == GATED:
        facts = evidence(log_probs)
        mean, std = facts.mean(dim=0), facts.std(dim=0, correction=0)
        std = torch.where(std > 1e-9, std, 1.0)
        facts = (facts - mean) / std

    def loss() -> Tensor:
        gates = torch.softmax(bias + facts @ gate.T, dim=1)
        pooled = F.nll_loss(mix(log_probs, gates, log_scale.exp()), target)
        pull = log_scale.square() + bias.square().sum()
        return pooled + (WEIGHT_ROWS * pull + GATE_ROWS * gate.square().sum()) / rows

    minimise(loss, [log_scale, bias, gate] if form == GATED else [log_scale, bias])
    pool = Pool(form, bias, log_scale.exp(), gate, mean, std)
    return replace(pool, scale=pool.scale * _sureness(pool(log_probs)[0], target, rows))


def _still(sources: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gate, mean and std of a pool that is the same for all texts."""
    gate = torch.zeros(sources, sources * FACTS, dtype=torch.float64)
    return gate, gate[0], gate[0] + 1


def anchored_weights(
    log_probs: Tensor, target: Tensor, anchor: Tensor | None = None, rows: float | None = None
) -> Tensor:
    """Fit log p = log softmax(Σ w_k log p_k), with w held near given weights.

    The loss is convex, so a few steps of Newton's method find its minimum.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: labels of these rows.
        anchor: what the weights are held near; equal ones if None. Shape: (K,), float64.
        rows: number of different texts among the rows; None if all differ.

    Returns:
        The weights. Shape: (K,), float64.
    """
    sources = len(log_probs)
    if anchor is None:
        anchor = torch.full((sources,), 1 / sources, dtype=torch.float64)
    ridge = anchor_strength(sources, rows or len(target))

    def loss(weights: Tensor) -> float:
        pull = ridge * (weights - anchor).square().sum()
        return float(log_losses(log_probs, target, weights).mean() + pull)

    weights = anchor.clone()
    before = loss(weights)
    for _ in range(MAX_NEWTON_STEPS):
        gradient, hessian = slope_and_curvature(log_probs, target, weights)
        gradient += 2 * ridge * (weights - anchor)
        hessian.diagonal().add_(2 * ridge)
        step = torch.linalg.solve(hessian, gradient)
        length = 1.0
        while (after := loss(weights - length * step)) > before and length > LEAST_STEP:
            length /= 2
        gain = before - after
        if gain > 0:
            weights, before = weights - length * step, after
        if gain < LEAST_GAIN:
            break
    return weights


def anchor_strength(sources: int, rows: float) -> float:
    """Return the factor of the squared distance from equal weights, beside the mean log-loss."""
    return ANCHOR_ROWS * sources**0.5 / rows


def _sure_weights(
    log_probs: Tensor, target: Tensor, rows: float, tilted: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the anchored weights of a pool as sure as its rows allow, and what it adds to classes.

    That is b log f_c, with f_c the share of the class among the rows and one more row of each
    class. Every member counts the frequency of a class in full, and its features for less than they
    say, so that a pool of many would count the frequency too often. b is found with the weights,
    and held near 0 as they are near equal ones. Without `tilted` nothing is added.

    Returns:
        Shapes: (K,) and (classes,), float64.
    """
    sources, every, classes = log_probs.shape
    counts = target.bincount(minlength=classes).double() * (rows / every)
    share = (counts + 1) / (rows + classes)
    members, anchor = log_probs, torch.full((sources,), 1 / sources, dtype=torch.float64)
    if tilted:
        frequency = share.log().to(log_probs).expand(1, every, classes)
        members, anchor = torch.cat([log_probs, frequency]), F.pad(anchor, (0, 1))
    weights = anchored_weights(members, target, anchor, rows)
    pooled = torch.einsum("k,knc->nc", weights.to(members), members)
    weights = weights * _sureness(pooled.double(), target, rows)
    return weights[:sources], weights[sources] * share.log() if tilted else None


def _anchored(log_probs: Tensor, target: Tensor, rows: float, tilted: bool) -> Pool:
    weights, shift = _sure_weights(log_probs, target, rows, tilted)
    scale = weights.abs().sum()
    return Pool(ANCHORED, weights / scale, scale, *_still(len(weights)), shift)


def _with_gates(anchored: Pool, log_probs: Tensor, target: Tensor, rows: float) -> Pool:
    """Let anchored weights w move: fit Σ_k (w_k + G_k e(x)) log p_k with G held near 0."""
    weights, shift = anchored.scale * anchored.bias, anchored.shift
    facts = agreement(log_probs, weights)
    mean, std = facts.mean(dim=0), facts.std(dim=0, correction=0)
    std = torch.where(std > 1e-9, std, 1.0)
    facts = ((facts - mean) / std).to(log_probs)
    still, added = weights.to(log_probs), 0.0 if shift is None else shift.to(log_probs)
    gate = log_probs.new_zeros(len(weights), facts.shape[1])

    def loss() -> Tensor:
        pooled = torch.einsum("nk,knc->nc", still + facts @ gate.T, log_probs) + added
        pull = MOVE_ROWS * gate.square().sum() / rows
        return F.cross_entropy(pooled, target) + pull

    minimise(loss, [gate])
    gate = gate.double() / anchored.scale
    return replace(anchored, form=ANCHORED_GATED, gate=gate, mean=mean, std=std)


def minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
    """Minimise in place by L-BFGS. With few numbers and a smooth loss it ends at the optimum."""
    for parameter in parameters:
        parameter.requires_grad_()
    optimiser = torch.optim.LBFGS(
        list(parameters), max_iter=MAX_STEPS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
    for parameter in parameters:
        parameter.requires_grad_(False)
