"""Pools: the log-probabilities of several probes in one, by few numbers learned on held-out rows.

The weights are fitted on rows that the probes never saw (Wolpert, Neural Networks 5, 1992). A pool
takes a simpler form where cross-validation does not support a richer one: gates that differ from
text to text, one weight for each source, or the best single source.

With many sources, such as every layer of some models, weights that are free but held near equal
ones are best (`anchored`): a source that adds little by itself may still correct the others, with a
weight below zero. In the form `anchored_gated` these weights move a little from text to text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import LOG_LOSS, UNWEIGHTED
from layerfusion.fusion.objective import costs, find_shift, label_shares, shifted
from layerfusion.layers.labels import (
    decisions,
    folded,
    is_multilabel,
    log_odds,
    mean_loss,
    unfolded,
)
from layerfusion.layers.log_linear import log_losses, slope_and_curvature
from layerfusion.layers.selection import SURE_ERRORS, standard_error
from layerfusion.layers.threads import each_on_a_core
from layerfusion.progress import steps

Choose = Callable[[Tensor, Tensor], list[int]]
"""(log-probabilities of rows by source, labels) to the positions of the sources to use. Shape:
(K, rows, classes)."""
SINGLE, WEIGHTED, ANCHORED, GATED = FORMS = ("single", "weighted", "anchored", "gated")
"""The forms of a pool that cross-validation chooses among, the simplest first."""
ANCHORED_GATED = "anchored_gated"
"""The form of `fusion=gated_stack`."""
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
GATED_SOURCES = 12
"""Most sources of a gated pool, which has 3 K² numbers to learn."""
FOLDS = 5
"""Folds in which the forms of a pool are compared."""
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
FACTS = 3
"""Numbers that a gate sees of each source: entropy, largest log-probability, distance from the mean
of all sources."""


@dataclass(frozen=True)
class Pool:
    """Combines the log-probabilities of the probes in a logarithmic opinion pool.

    log p(c|x) = log softmax_c(κ Σ_k g_k(x) log p_k(c|x)), with g(x) = softmax(b + G e(x)). κ > 0 is
    an inverse temperature: above 1, agreeing sources make the pool more confident. κ g_k tempers
    each source, so that an overconfident one weighs less. e(x) is the standardised evidence: see
    `evidence`. In the form `anchored`, g are the same for all texts and may be negative, and their
    absolute values add up to 1. In the form `anchored_gated`, g(x) = b + G e(x), with b as in
    `anchored` and the standardised `agreement` of the sources as e(x).
    """

    form: str
    """One of `FORMS`, or `ANCHORED_GATED`."""
    bias: Tensor
    """b, or g itself in the form `anchored`. Shape: (K,)."""
    scale: Tensor
    """κ. Shape: ()."""
    gate: Tensor
    """G. Shape: (K, E): E numbers describe a text."""
    mean: Tensor
    """Mean of these numbers over the rows. Shape: (E,)."""
    std: Tensor
    """Standard deviation of these numbers over the rows. Shape: (E,)."""
    shift: Tensor | None = None
    """Added to the pooled scores, or to the log-odds of labels: what is made of the frequencies of
    the classes (`_sure_weights`), an offset of the labels, and what `objective.find_shift` finds.
    None adds nothing. Shape: (classes,)."""
    multilabel: bool = False
    """Whether texts have any number of the classes. Each label of a text is then pooled as a text
    of its own with the classes no and yes, and its gates are the means over the labels."""

    def __call__(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the sources.

        Args:
            log_probs: log-probabilities of each source's probe. Shape: (K, rows, classes).

        Returns:
            Log-probabilities, shape (rows, classes), and gates, shape (rows, K).
        """
        log_probs = log_probs.double()
        if self.multilabel:
            labels = log_probs.shape[2]
            pooled, gates = self._pool(unfolded(log_probs))
            pooled, gates = folded(pooled, labels), gates.unflatten(0, (-1, labels)).mean(dim=1)
        else:
            pooled, gates = self._pool(log_probs)
        if self.shift is not None:
            pooled = shifted(pooled, self.shift, multilabel=self.multilabel)
        return pooled, gates

    def _pool(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        if self.form == ANCHORED:
            gates = self.bias.expand(log_probs.shape[1], -1)
        elif self.form in (SINGLE, WEIGHTED):
            gates = torch.softmax(self.bias, dim=0).expand(log_probs.shape[1], -1)
        elif self.form == ANCHORED_GATED:
            facts = (agreement(log_probs, self.scale * self.bias) - self.mean) / self.std
            gates = self.bias + facts @ self.gate.T
        else:
            facts = (evidence(log_probs) - self.mean) / self.std
            gates = torch.softmax(self.bias + facts @ self.gate.T, dim=1)
        return _mix(log_probs, gates, self.scale), gates


def choose_pool(
    log_probs: Tensor,
    target: Tensor,
    *,
    seed: int = 0,
    gated: bool = False,
    objective: str = LOG_LOSS,
    class_weights: str = UNWEIGHTED,
) -> tuple[Pool, dict[str, float], str]:
    """Fit the form of pool that cross-validation supports.

    Gates have to be better than weights by more than the standard error of the difference over the
    rows. Weights only have to be no worse than the best single source within two of these errors,
    since they vary less. Anchored weights have to be better than those that add up to one. Of many
    sources, only the best single one and anchored weights are compared.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: labels of these rows.
        seed: seed of the folds.
        gated: fit anchored weights that move from text to text, whatever the other forms are worth.
        objective: what the pool should be best at: log_loss, accuracy, macro_f1 or micro_f1.
        class_weights: none, or balanced to pool as if all classes were equally frequent.

    Returns:
        The pool fitted on all rows, the cross-validated log-loss of each form, and the reason.
    """
    form, predicted = judge_forms(log_probs, target, seed=seed, gated=gated)
    pool = fit_pool(log_probs, target, form)
    prior = label_shares(target, log_probs.shape[2])
    shift = find_shift(objective, class_weights, predicted[form], target, prior)
    if shift is not None:
        own = 0.0 if pool.shift is None else pool.shift
        pool = replace(pool, shift=own + shift.values)
    words = shift.words if shift is not None else ""
    if len(log_probs) == 1:
        return pool, {}, f"a single source, calibrated{words}"
    means = {name: float(mean_loss(found, target)) for name, found in predicted.items()}
    listed = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    return pool, means, f"{form}: held-out log-loss {listed}{words}"


def judge_forms(
    log_probs: Tensor,
    target: Tensor,
    *,
    seed: int = 0,
    choose: Choose | None = None,
    gated: bool = False,
) -> tuple[str, dict[str, Tensor]]:
    """Find the form of pool that cross-validation supports, and what each form predicts.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: labels of these rows.
        seed: seed of the folds.
        choose: chooses sources. It chooses anew for every fold, without the fold's rows, so that
            the predictions are honest about the choice too. All sources if None.
        gated: try `ANCHORED_GATED` alone.

    Returns:
        The form, and the log-probabilities of each form. Shapes: (rows, classes), float64.
    """
    (judged,) = judge_pools([PoolTask(log_probs, target, choose, gated)], seed=seed)
    return judged


@dataclass(frozen=True, eq=False)
class PoolTask:
    """Sources to pool, as `judge_forms` has them."""

    log_probs: Tensor
    """Log-probabilities of held-out rows by source. Shape: (K, rows, classes)."""
    target: Tensor
    """Labels of these rows."""
    choose: Choose | None = None
    gated: bool = False

    def chosen(self, rows: Tensor) -> list[int]:
        """Choose sources by some rows alone. Shape of `rows`: (rows,), bool."""
        if self.choose is None:
            return list(range(len(self.log_probs)))
        return self.choose(self.log_probs[:, rows], self.target[rows])

    def predict(self, rows: Tensor, positions: Sequence[int], forms: Sequence[str]) -> list[Tensor]:
        """Fit a pool of each form on some rows; return what each says of the others."""
        sources = self.log_probs[positions]
        known, others = sources[:, rows], sources[:, ~rows]
        return [fit_pool(known, self.target[rows], form)(others)[0] for form in forms]


def judge_pools(tasks: Sequence[PoolTask], *, seed: int = 0) -> list[tuple[str, dict[str, Tensor]]]:
    """Do what `judge_forms` does for several pools, all their folds side by side."""
    folds = [(task, rows) for task in tasks for rows in _rows_without_each_fold(task.target, seed)]
    told = each_on_a_core(lambda fold: fold[0].chosen(fold[1]), folds)
    chosen = [*steps(told, "members of stacks", len(folds))]
    most: dict[PoolTask, int] = {}
    for (task, _), positions in zip(folds, chosen, strict=True):
        most[task] = max(most.get(task, 0), len(positions))
    forms = {task: _forms_for(sources, task.gated) for task, sources in most.items()}
    predicted = {
        task: {form: task.log_probs.new_zeros(task.log_probs.shape[1:]).double() for form in some}
        for task, some in forms.items()
    }

    def predict(n: int) -> list[Tensor]:
        task, rows = folds[n]
        return task.predict(rows, chosen[n], forms[task])

    found = steps(each_on_a_core(predict, range(len(folds))), "folds of stacks", len(folds))
    for (task, rows), said in zip(folds, found, strict=True):
        for form, others in zip(forms[task], said, strict=True):
            predicted[task][form][~rows] = others
    return [
        (_supported({form: costs(LOG_LOSS, said, task.target) for form, said in one.items()}), one)
        for task, one in predicted.items()
    ]


def _rows_without_each_fold(target: Tensor, seed: int) -> list[Tensor]:
    """Deal rows to folds; give the rows outside of each. Shapes: (rows,), bool."""
    generator = torch.Generator().manual_seed(seed)
    fold_of = torch.randperm(len(target), generator=generator) % min(FOLDS, len(target))
    return [fold_of != fold for fold in range(int(fold_of.max()) + 1)]


def _forms_for(sources: int, gated: bool) -> tuple[str, ...]:
    """List the forms that are tried for a number of sources."""
    if sources == 1:
        return (SINGLE,)
    if gated:
        return (ANCHORED_GATED,)
    return FORMS if sources <= GATED_SOURCES else (SINGLE, ANCHORED)


def _supported(losses: Mapping[str, Tensor]) -> str:
    """Return the form that the log-losses of held-out rows support."""
    if len(losses) == 1:
        return next(iter(losses))
    form = SINGLE
    for richer in (WEIGHTED, ANCHORED):
        if richer in losses:
            worse = losses[richer] - losses[form]
            allowed = SURE_ERRORS * standard_error(worse) if form == SINGLE else 0.0
            if float(worse.mean()) <= allowed:
                form = richer
    if GATED in losses:
        gain = losses[form] - losses[GATED]
        if float(gain.mean()) > standard_error(gain):
            form = GATED
    return form


def fit_pool(log_probs: Tensor, target: Tensor, form: str) -> Pool:
    """Fit a pool of one form.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: labels of these rows.
        form: one of `FORMS`, or `ANCHORED_GATED`; `single` takes the source with the lowest
            log-loss, calibrated.
    """
    if is_multilabel(target):
        pool = replace(
            _fit_form(*decisions(log_probs, target), form, tilted=False), multilabel=True
        )
        return replace(pool, shift=_offset(pool(log_probs)[0], target).repeat(target.shape[1]))
    return _fit_form(log_probs, target, form, tilted=True)


def _fit_form(log_probs: Tensor, target: Tensor, form: str, *, tilted: bool) -> Pool:
    """Do what `fit_pool` does, for rows of one class each; `tilted` as in `_sure_weights`."""
    if form == ANCHORED:
        return _anchored(log_probs, target, tilted)
    if form == ANCHORED_GATED:
        return _anchored_gated(log_probs, target, tilted)
    if form == SINGLE:
        return _single(log_probs, target)
    return _softmaxed(log_probs.double(), target, form)


def _offset(pooled: Tensor, target: Tensor) -> Tensor:
    """Return what the log-odds of all labels lack, one number, held near 0 as weights are.

    Weights move the log-odds of labels towards or away from 0, where yes and no are alike. Probes
    of rare labels are shrunk towards their frequency instead, so that a pool without an offset
    names too few labels. The loss is convex.

    Args:
        pooled: log-probabilities of held-out rows. Shape: (rows, labels), float64.
        target: labels of these rows. Shape: (rows, labels).

    Returns:
        Shape: (), float64.
    """
    odds, yes = log_odds(pooled), target.double()
    offset = torch.zeros((), dtype=torch.float64)

    def loss() -> Tensor:
        pull = WEIGHT_ROWS * offset.square() / target.numel()
        return F.binary_cross_entropy_with_logits(odds + offset, yes) + pull

    minimise(loss, [offset])
    return offset


def _sureness(pooled: Tensor, target: Tensor) -> Tensor:
    """Return the factor, at most 1, that makes a pool as sure as its held-out rows allow.

    It has the lowest log-loss on these rows and on `UNKNOWN_ROWS` that are of each class with its
    frequency: they are shared out over the held-out ones as smoothed labels (after Platt,
    *Probabilistic outputs for support vector machines*, 1999). The loss is convex in the factor,
    which leaves the most probable class as it is.

    Args:
        pooled: log-probabilities of held-out rows; a number that is added to all of a row changes
            nothing. Shape: (rows, classes), float64.
        target: class indices of these rows. Shape: (rows,).

    Returns:
        Shape: (), float64.
    """
    rows, classes = pooled.shape
    known = rows / (rows + UNKNOWN_ROWS)
    smoothed = known * F.one_hot(target, classes) + (1 - known) * label_shares(target, classes)
    log_factor = torch.zeros((), dtype=torch.float64)

    def loss() -> Tensor:
        return F.cross_entropy(log_factor.exp() * pooled, smoothed)

    minimise(loss, [log_factor])
    return log_factor.exp().clamp_max(1.0)


def _single(log_probs: Tensor, target: Tensor) -> Pool:
    """Calibrate the source with the lowest log-loss by the scale κ alone."""
    sources = len(log_probs)
    best = torch.stack([F.nll_loss(source, target) for source in log_probs]).argmin()
    bias = torch.zeros(sources, dtype=torch.float64)
    bias[torch.arange(sources) != best] = -torch.inf
    alone, log_scale = log_probs[best].double(), torch.zeros((), dtype=torch.float64)

    def loss() -> Tensor:
        pull = WEIGHT_ROWS * log_scale.square() / len(target)
        return F.cross_entropy(log_scale.exp() * alone, target) + pull

    minimise(loss, [log_scale])
    scale = log_scale.exp()
    return Pool(SINGLE, bias, scale * _sureness(scale * alone, target), *_still(sources))


def _softmaxed(log_probs: Tensor, target: Tensor, form: str) -> Pool:
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
        pooled = F.nll_loss(_mix(log_probs, gates, log_scale.exp()), target)
        pull = log_scale.square() + bias.square().sum()
        return pooled + (WEIGHT_ROWS * pull + GATE_ROWS * gate.square().sum()) / len(target)

    minimise(loss, [log_scale, bias, gate] if form == GATED else [log_scale, bias])
    pool = Pool(form, bias, log_scale.exp(), gate, mean, std)
    return replace(pool, scale=pool.scale * _sureness(pool(log_probs)[0], target))


def _still(sources: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gate, mean and std of a pool that is the same for all texts."""
    gate = torch.zeros(sources, sources * FACTS, dtype=torch.float64)
    return gate, gate[0], gate[0] + 1


def anchored_weights(log_probs: Tensor, target: Tensor, anchor: Tensor | None = None) -> Tensor:
    """Fit log p = log softmax(Σ w_k log p_k), with w held near given weights.

    The loss is convex, so a few steps of Newton's method find its minimum.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: labels of these rows.
        anchor: what the weights are held near; equal ones if None. Shape: (K,), float64.

    Returns:
        The weights. Shape: (K,), float64.
    """
    sources, rows, _ = log_probs.shape
    if anchor is None:
        anchor = torch.full((sources,), 1 / sources, dtype=torch.float64)
    ridge = anchor_strength(sources, rows)

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


def anchor_strength(sources: int, rows: int) -> float:
    """Return the factor of the squared distance from equal weights, beside the mean log-loss."""
    return ANCHOR_ROWS * sources**0.5 / rows


def _sure_weights(log_probs: Tensor, target: Tensor, tilted: bool) -> tuple[Tensor, Tensor | None]:
    """Return the anchored weights of a pool as sure as its rows allow, and what it adds to classes.

    That is b log f_c, with f_c the share of the class among the rows and one more row of each
    class. Every member counts the frequency of a class in full, and its features for less than they
    say, so that a pool of many would count the frequency too often. b is found with the weights,
    and held near 0 as they are near equal ones. Without `tilted` nothing is added.

    Returns:
        Shapes: (K,) and (classes,), float64.
    """
    sources, rows, classes = log_probs.shape
    share = (target.bincount(minlength=classes) + 1).double() / (rows + classes)
    members, anchor = log_probs, torch.full((sources,), 1 / sources, dtype=torch.float64)
    if tilted:
        frequency = share.log().to(log_probs).expand(1, rows, classes)
        members, anchor = torch.cat([log_probs, frequency]), F.pad(anchor, (0, 1))
    weights = anchored_weights(members, target, anchor)
    pooled = torch.einsum("k,knc->nc", weights.to(members), members)
    weights = weights * _sureness(pooled.double(), target)
    return weights[:sources], weights[sources] * share.log() if tilted else None


def _anchored(log_probs: Tensor, target: Tensor, tilted: bool) -> Pool:
    weights, shift = _sure_weights(log_probs, target, tilted)
    scale = weights.abs().sum()
    return Pool(ANCHORED, weights / scale, scale, *_still(len(weights)), shift)


def _anchored_gated(log_probs: Tensor, target: Tensor, tilted: bool) -> Pool:
    """Fit Σ_k (w_k + G_k e(x)) log p_k, and what is added to it, with w anchored and G near 0."""
    weights, shift = _sure_weights(log_probs, target, tilted)
    facts = agreement(log_probs, weights)
    mean, std = facts.mean(dim=0), facts.std(dim=0, correction=0)
    std = torch.where(std > 1e-9, std, 1.0)
    facts = ((facts - mean) / std).to(log_probs)
    still, added = weights.to(log_probs), 0.0 if shift is None else shift.to(log_probs)
    gate = log_probs.new_zeros(len(weights), facts.shape[1])

    def loss() -> Tensor:
        pooled = torch.einsum("nk,knc->nc", still + facts @ gate.T, log_probs) + added
        pull = MOVE_ROWS * gate.square().sum() / len(target)
        return F.cross_entropy(pooled, target) + pull

    minimise(loss, [gate])
    scale = weights.abs().sum()
    gate = gate.double() / scale
    return Pool(ANCHORED_GATED, weights / scale, scale, gate, mean, std, shift)


def agreement(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Describe how sure a pool is of each row, and how far its sources agree with it.

    Gives the entropy of the pool, its largest log-probability, the mean L1 distance of the sources'
    probabilities from its own, and the spread of their largest probabilities. Shape: (rows, 4),
    float64, from (K, rows, classes) and the pool's weights, (K,).
    """
    pooled = torch.einsum("k,knc->nc", weights.to(log_probs), log_probs).log_softmax(dim=1)
    sure, probs = pooled.exp(), log_probs.exp()
    entropy = -(sure * pooled).sum(dim=1)
    distance = (probs - sure).abs().sum(dim=2).mean(dim=0)
    spread = probs.amax(dim=2).std(dim=0, correction=0)
    return torch.stack([entropy, pooled.amax(dim=1), distance, spread], dim=1).double()


def evidence(log_probs: Tensor) -> Tensor:
    """Describe how sure the sources are of each row, and how far they agree.

    Gives each source's entropy, its largest log-probability, and the L1 distance of its
    probabilities from the mean of all sources. Shape: (rows, K · FACTS), from (K, rows, classes).
    """
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(dim=2)
    distance = (probs - probs.mean(dim=0)).abs().sum(dim=2)
    return torch.cat([entropy, log_probs.amax(dim=2), distance]).T


def _mix(log_probs: Tensor, gates: Tensor, scale: Tensor) -> Tensor:
    return (scale * torch.einsum("nk,knc->nc", gates, log_probs)).log_softmax(dim=1)


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
