"""Linear probes of many layers, folds and regularisation strengths, fitted in one optimisation.

A probe is L2-regularised logistic regression on standardised features of a layer: softmax over the
classes, or a single sigmoid for two, as in scikit-learn; of rows with several labels, a sigmoid for
each. All folds and strengths of a layer share
its features, so one step of the optimisation takes two matrix products for each layer instead of
hundreds, and layers of equal width are batched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import STRENGTHS
from layerfusion.embeddings.memory import free_memory
from layerfusion.layers.cross_fitting import choose_setting, take_by_row
from layerfusion.layers.eigenbasis import set_up
from layerfusion.layers.labels import is_multilabel, right_rows, row_losses
from layerfusion.layers.logistic import Problem, Solution
from layerfusion.layers.repeats import number_texts, standard_errors, take_texts
from layerfusion.layers.threads import each_on_a_core

TOLERANCE = 3e-4
"""A fit ends once no entry of the gradient of the mean loss, in the eigenbasis, is larger. On mr,
r8 and r52 the held-out log-loss is then on average within 0.001 of that at 1e-6, and nearly always
of the same C, in a half to a third of the time."""
CELLS = 12_000_000
"""Limit on the numbers in the features and logits of one batch of layers: about 50 MB. With 52
classes, batches four times as large take a quarter longer, since each step waits for memory."""
GPU_BYTES_A_CELL = 64
"""Free bytes of a GPU for each number in a batch of layers: the number itself in float32, and what
a step of the optimisation makes of it."""
RACE_ROWS = 100
"""No strength is eliminated before this many held-out texts."""
WEAKER = (3.0, 10.0, 30.0, 100.0)
"""Larger values of C that are tried one after the other while the largest so far is the best. With
150 classes of 15 rows it is between 3 and 10."""
SURELY = 4.0
"""A strength is dropped once its paired loss is this many standard errors worse than the best. With
2, a seventh of the steps was saved on r52, but on 300 rows of r8 the best strength was lost."""
EVERY = slice(None)
"""Takes every row."""
NEVER = -1
"""The fold number of rows that are never held out."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for rows that a classifier was not fitted on."""

    log_probs: Tensor
    """Log-probabilities of the held-out rows. Shape: (rows, classes), float32."""
    target: Tensor
    """Labels of the held-out rows: see `layers.labels`."""
    text_of: Tensor | None = field(kw_only=True)
    """Number of the text of each held-out row, equal where a text is repeated; None if all are
    taken to differ. Shape: (held-out rows,)."""

    @property
    def losses(self) -> Tensor:
        """Log-loss of each row, in nats. Shape: (rows,), float64."""
        return row_losses(self.log_probs, self.target)

    @property
    def right(self) -> Tensor:
        """True where the most probable class, or every label, is right. Shape: (rows,), bool."""
        return right_rows(self.log_probs, self.target)

    @property
    def log_loss(self) -> float:
        """Mean log-loss in nats."""
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        """Share of the rows that are right."""
        return float(self.right.double().mean())


@dataclass(frozen=True)
class HeldOut(Predictions):
    """Predictions of a layer's probe for rows that it was not fitted on."""

    strength: float
    """The C with the lowest held-out log-loss. The rows of each fold are predicted with the one
    that is best on the other folds: see `cross_fitting`."""


@dataclass(frozen=True)
class ProbeBatch:
    """Layers that were fitted together."""

    probes: dict[int, HeldOut]
    """Predictions by the position of the layer."""
    seconds: float
    """Time of the fit on its core or GPU; batches may run side by side."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe, for features as they come from the store."""

    weight: Tensor
    """Shape: (classes, width)."""
    bias: Tensor
    """Shape: (classes,)."""

    def logits(self, features: Tensor) -> Tensor:
        """Scores before the softmax. Shape: (rows, classes), from (rows, width)."""
        return (features.double() @ self.weight.double().T + self.bias.double()).float()


def cross_validate(
    features: Sequence[Tensor],
    labels: Tensor,
    fold_of: Tensor,
    *,
    num_classes: int,
    text_of: Tensor | None,
    strengths: Sequence[float] = STRENGTHS,
    tolerance: float = TOLERANCE,
    device: torch.device | None = None,
) -> list[HeldOut]:
    """Fit every layer on all folds but one, for each fold and strength.

    Usually all of it is one optimisation. With many classes, or fewer rows than features, the folds
    are fitted one after the other, each along the path of strengths, and a strength that is surely
    worse is not fitted on the remaining folds. Each layer keeps the strength with the lowest
    held-out log-loss, and each row is predicted with that of the other folds. Features are
    standardised by the rows that a probe is fitted on, never by those that it predicts.

    Args:
        features: the vectors of each layer. Shapes: (rows, d_l).
        labels: class indices, shape (rows,), or labels, shape (rows, labels).
        fold_of: the fold in which a row is held out, 0, 1, …; -1 if it never is. Shape: (rows,).
        num_classes: number of classes; one may be missing among the rows.
        text_of: number of the text of each row, if some repeat one. Shape: (rows,).
        strengths: candidates for C, the inverse strength of the regularisation.
        tolerance: largest entry of the gradient of the mean loss at the end.
        device: device to compute on; the CPU if none.

    Example:
        >>> labels = torch.arange(40) % 2
        >>> features = labels[:, None] + 0.1 * torch.randn(40, 3)
        >>> (held_out,) = cross_validate(
        ...     [features], labels, torch.arange(40) // 8, num_classes=2, text_of=None
        ... )
        >>> held_out.log_probs.shape, held_out.accuracy
        (torch.Size([40, 2]), 1.0)
    """
    results: list[HeldOut | None] = [None] * len(features)
    for batch in cross_validate_in_batches(
        features,
        labels,
        fold_of,
        num_classes=num_classes,
        text_of=text_of,
        strengths=strengths,
        tolerance=tolerance,
        device=device,
    ):
        for place, held_out in batch.probes.items():
            results[place] = held_out
    return [result for result in results if result is not None]


def cross_validate_in_batches(
    features: Sequence[Tensor],
    labels: Tensor,
    fold_of: Tensor,
    *,
    num_classes: int,
    text_of: Tensor | None,
    strengths: Sequence[float] = STRENGTHS,
    tolerance: float = TOLERANCE,
    device: torch.device | None = None,
    grow: bool = False,
) -> Iterator[ProbeBatch]:
    """Run `cross_validate`, yielding the results of each batch of layers.

    With `grow`, a layer for which the largest strength is the best is fitted with the values of
    `WEAKER` too, one after the other, until one is no better.
    """
    strengths = sorted(set(strengths))
    folds = int(fold_of.max()) + 1
    fitted_on = torch.stack([fold_of != fold for fold in range(folds)])
    held_out = torch.where(fold_of != NEVER)[0]
    fewest = int(fitted_on.sum(dim=1).min())
    columns = _columns(labels, num_classes)

    def fit(places: Sequence[int]) -> ProbeBatch:
        begun = time.perf_counter()
        layers = [features[place] for place in places]
        width = layers[0].shape[1]
        task = _Task(
            layers,
            labels,
            fitted_on,
            held_out,
            fold_of[held_out],
            take_texts(text_of, held_out),
            num_classes,
            device,
        )
        # Folds can be fitted one by one: each then has its own eigenbasis and needs no spread. This
        # is faster if the rows span fewer dimensions than the width, or if there are more logits
        # than features.
        alone: list[Tensor | None] = [None] * folds
        if width > fewest or columns * folds * len(strengths) > width:
            predicted = _by_path(task, strengths, tolerance, alone)
        else:
            predicted = _at_once(task, strengths, tolerance)
        edge = task.best(predicted) == max(strengths)
        if grow and bool(edge.any()):
            known = [None if one is None else one[edge] for one in alone]
            weaker = _by_path(task.of(edge), [max(strengths)], tolerance, known, grow=True)
            for strength in sorted(weaker.keys() - predicted.keys()):
                predicted[strength] = task.nothing()
                predicted[strength][edge] = weaker[strength]
        probes = {place: task.chosen(predicted, n) for n, place in enumerate(places)}
        return ProbeBatch(probes, time.perf_counter() - begun)

    groups = list(_groups(features, columns, folds * len(strengths), device))
    yield from each_on_a_core(fit, groups, device)


@dataclass(frozen=True)
class _Task:
    """Layers of equal width, and the rows that each fold fits and predicts."""

    layers: Sequence[Tensor]
    labels: Tensor
    fitted_on: Tensor
    """Shape: (folds, rows), bool."""
    held_out: Tensor
    """The rows that some fold holds out. Shape: (held-out rows,)."""
    folds_of: Tensor
    """The fold that holds out each of these rows. Shape: (held-out rows,)."""
    text_of: Tensor | None
    """Number of the text of each of these rows, if some repeat one. Shape: (held-out rows,)."""
    num_classes: int
    device: torch.device | None
    known: dict[int, Problem] = field(default_factory=dict)
    """The problems of folds that were asked for before, where there is a single layer."""

    @property
    def target(self) -> Tensor:
        """Labels of the held-out rows."""
        return self.labels[self.held_out]

    def of(self, some: Tensor) -> _Task:
        """Keep some of the layers. Shape of `some`: (layers,), bool."""
        if bool(some.all()):
            return self
        layers = [self.layers[n] for n in torch.where(some)[0].tolist()]
        return replace(self, layers=layers, known={})

    def problem(self, rows: Tensor, strengths: Sequence[float]) -> Problem:
        """Set up the probes of some folds, which fit these rows. Shape: (folds, rows), bool."""
        return set_up(self.layers, self.labels, rows, self.num_classes, strengths, self.device)

    def problem_of(self, fold: int) -> Problem:
        """Set up the probes of a fold, whose path has strengths of its own."""
        if fold in self.known:
            return self.known[fold]
        problem = self.problem(self.fitted_on[fold : fold + 1], [1.0])
        if len(self.layers) == 1:  # the problems of several take too much memory
            self.known[fold] = problem
        return problem

    def nothing(self) -> Tensor:
        """Predictions of a strength that is not fitted yet: its loss stays infinite."""
        size = (len(self.layers), len(self.held_out), self.num_classes)
        return torch.full(size, -torch.inf)

    @property
    def multilabel(self) -> bool:
        """Whether rows have any number of labels."""
        return is_multilabel(self.labels)

    def log_probs(self, logits: Tensor, fold: int) -> Tensor:
        """Log-probabilities of rows that a fold holds out. Shape: that of (L, rows, columns).

        A label that all fitted rows have, or none, gets half a row of the other kind: its free bias
        would grow without end, and so would the loss of a row that is otherwise.
        """
        if not self.multilabel:
            if logits.shape[-1] == 1:
                both = [F.logsigmoid(-logits), F.logsigmoid(logits)]
                return torch.cat(both, dim=-1).cpu()
            return logits.log_softmax(dim=-1).cpu()
        fitted = self.labels[self.fitted_on[fold]]
        never, always = (~fitted.any(dim=0)).to(logits), fitted.all(dim=0).to(logits)
        certain = math.log(2 * len(fitted)) * (always - never)
        return F.logsigmoid(torch.where(certain == 0, logits, certain)).cpu()

    def losses(self, predicted: Tensor, rows: Tensor | slice = EVERY) -> Tensor:
        """Log-loss of each row. Shape: (L, rows), float64, from (L, held-out rows, classes)."""
        if self.multilabel:
            losses = torch.stack([row_losses(one, self.target[rows]) for one in predicted[:, rows]])
            unknown = predicted[:, rows].isinf().any(dim=2)
            return losses.masked_fill(unknown, torch.inf)
        place = self.target[rows][None, :, None].expand(len(predicted), -1, 1)
        return -predicted[:, rows].gather(2, place)[..., 0].double()

    def best(self, predicted: Mapping[float, Tensor], rows: Tensor | slice = EVERY) -> Tensor:
        """The strength of each layer with the lowest log-loss on some rows. Shape: (L,)."""
        strengths = torch.tensor(list(predicted), dtype=torch.float64)
        losses = [self.losses(one, rows).mean(dim=1) for one in predicted.values()]
        return strengths[torch.stack(losses).argmin(dim=0)]

    def chosen(self, predicted: Mapping[float, Tensor], layer: int) -> HeldOut:
        """Choose the strength of a layer on the rows of all folds, and for each on the others."""
        said = {strength: one[layer] for strength, one in predicted.items()}
        return cross_fitted(said, self.target, self.folds_of, self.text_of)


def cross_fitted(
    predicted: Mapping[float, Tensor], target: Tensor, folds: Tensor, text_of: Tensor | None
) -> HeldOut:
    """Choose a strength by held-out rows, and predict those of each fold with that of the others.

    Args:
        predicted: log-probabilities by strength, minus infinity where one was left out. Shapes:
            (rows, classes).
        target: labels of the rows.
        folds: the fold that holds out each row. Shape: (rows,).
        text_of: number of the text of each row, if some repeat one. Shape: (rows,).
    """
    said = torch.stack(list(predicted.values()))
    losses = torch.stack([row_losses(one, target) for one in said])
    left_out = said.isneginf().any(dim=2)
    best, by_row = choose_setting(losses.masked_fill(left_out, torch.inf), folds)
    chosen = take_by_row(said, by_row)
    return HeldOut(chosen, target, list(predicted)[best], text_of=text_of)


def _at_once(task: _Task, strengths: Sequence[float], tolerance: float) -> dict[float, Tensor]:
    """Fit all folds and strengths in one optimisation.

    Returns:
        The log-probabilities of the held-out rows by strength. Shapes: (L, held-out rows, classes).
    """
    folds = len(task.fitted_on)
    predicted = {strength: task.nothing() for strength in strengths}
    problem = task.problem(task.fitted_on, strengths)
    # The optimisation has the logits of all rows; of each row we keep those of the probes that were
    # fitted without it.
    exact = _tolerance_for(max(strengths), tolerance)
    logits = problem.minimise(exact).logits.unflatten(1, (folds, len(strengths)))
    for fold in range(folds):
        rows = task.held_out[task.folds_of == fold].to(logits.device)
        for number, strength in enumerate(strengths):
            found = task.log_probs(logits[:, fold, number][..., rows].mT, fold)
            predicted[strength][:, task.folds_of == fold] = found
    return predicted


def _by_path(
    task: _Task,
    strengths: Sequence[float],
    tolerance: float,
    alone: list[Tensor | None],
    *,
    grow: bool = False,
) -> dict[float, Tensor]:
    """Fit the folds one after the other, each along the path of strengths.

    A path (see `logistic.Path`) goes from the strongest regularisation to the weakest. That of the
    first fold ends where every layer is surely past its best, and the other folds leave out the
    strengths that are surely worse. No fold starts from the weights of another, which have seen the
    rows that it holds out: with 150 classes that alone raised the held-out accuracy by 1.6 points.

    Args:
        task: the layers and folds.
        strengths: values of C, rising.
        tolerance: largest entry of the gradient of the mean loss at the end.
        alone: the weights of the largest strength in each fold where no other was fitted before it;
            none elsewhere. What is known of them is not fitted again, and what is not is put there.
        grow: go on to the values of `WEAKER` while the largest so far is best for some layer.

    Returns:
        The log-probabilities of the held-out rows by strength, minus infinity where a strength was
        left out. Shapes: (L, held-out rows, classes).
    """
    running = list(strengths)
    predicted: dict[float, Tensor] = {}
    for fold in range(len(task.fitted_on)):
        here = task.folds_of == fold
        whole = task.problem_of(fold)
        fitted = whole.on(task.fitted_on[fold].to(whole.device))
        path = fitted.path(partial(_tolerance_for, tolerance=tolerance))
        apart = whole.on(task.held_out[here].to(whole.device))
        waiting = list(running)
        while waiting:
            strength = waiting.pop(0)
            first = not path.fitted and strength == strengths[-1]
            w = path.fit(strength, alone[fold] if first else None)
            alone[fold] = w if first else alone[fold]
            found = task.log_probs(apart.scores(w)[:, 0].mT, fold)
            predicted.setdefault(strength, task.nothing())[:, here] = found
            if fold == 0:
                if strength not in _not_surely_worse(task, predicted, here):
                    break
                last = task.best(predicted, here)
                if grow and not waiting and bool((last == strength).any()):
                    waiting += [weaker for weaker in WEAKER if weaker > strength][:1]
        running = _not_surely_worse(task, predicted, task.folds_of <= fold)
    return predicted


def _tolerance_for(strength: float, tolerance: float) -> float:
    """Give the tolerance of fits with a strength: the weaker the pull, the smaller.

    Where classes can be told apart, the gradient is small far from the optimum too, and a C above 1
    hardly pulls back. With the same tolerance for all, fits with C = 10 ended where they began: one
    from the weights for C = 3 seemed the best of all on held-out rows, and the one from zeros that
    was then kept was right on 93.1 % of test rows of 77 intents, where its optimum has 95.6.
    """
    return tolerance / max(1.0, strength)


def _not_surely_worse(task: _Task, predicted: Mapping[float, Tensor], seen: Tensor) -> list[float]:
    """List the strengths that may still turn out best after the remaining folds, in their order.

    This is a race (Maron and Moore, NIPS 1994): with 52 classes it drops most strengths after the
    first fold.

    Args:
        task: the layers and folds.
        predicted: log-probabilities by strength. Shapes: (L, held-out rows, classes).
        seen: the held-out rows that were predicted so far. Shape: (held-out rows,), bool.
    """
    running = [
        strength for strength, one in predicted.items() if bool(one[:, seen].isfinite().all())
    ]
    text_of = torch.where(seen)[0] if task.text_of is None else task.text_of[seen]
    if number_texts(text_of)[1] < RACE_ROWS:
        return running
    losses = torch.stack([task.losses(predicted[strength], seen) for strength in running])
    best = losses.mean(dim=2).argmin(dim=0)  # L
    behind = losses - losses[best, torch.arange(losses.shape[1])]
    sure = behind.mean(dim=2) > SURELY * standard_errors(behind, text_of)
    return [
        strength for strength, out in zip(running, sure.all(dim=1).tolist(), strict=True) if not out
    ]


def fit_probes(
    features: Sequence[Tensor],
    labels: Tensor,
    strengths: Sequence[float],
    *,
    num_classes: int,
    starts: Sequence[LinearProbe] = (),
    tolerance: float = TOLERANCE,
    device: torch.device | None = None,
) -> list[LinearProbe]:
    """Fit one probe for each layer on all rows, each with its own strength.

    Args:
        features: the vectors of each layer. Shapes: (rows, d_l).
        labels: class indices, shape (rows,), or labels, shape (rows, labels).
        strengths: the C of each layer's probe.
        num_classes: number of classes.
        starts: a probe to start from for each layer, such as that of most of the rows; zeros if
            there are none.
        tolerance: largest entry of the gradient of the mean loss at the end.
        device: device to compute on; the CPU if none.
    """
    everything = torch.ones(1, len(labels), dtype=torch.bool)
    groups: list[tuple[float, list[int]]] = []
    for strength in sorted(set(strengths)):
        alike = [place for place, other in enumerate(strengths) if other == strength]
        chosen = [features[place] for place in alike]
        for places in _groups(chosen, _columns(labels, num_classes), 1, device):
            groups.append((strength, [alike[place] for place in places]))

    def fit(group: tuple[float, list[int]]) -> list[LinearProbe]:
        strength, places = group
        layers = [features[place] for place in places]
        problem = set_up(layers, labels, everything, num_classes, [strength], device)
        start = _inner_weights(problem, [starts[place] for place in places]) if starts else None
        return _linear_probes(problem.minimise(_tolerance_for(strength, tolerance), start))

    results: dict[int, LinearProbe] = {}
    for (_, places), probes in zip(groups, each_on_a_core(fit, groups, device), strict=True):
        results |= zip(places, probes, strict=True)
    return [results[place] for place in range(len(features))]


def _linear_probes(solution: Solution) -> list[LinearProbe]:
    """Turn the solution of each layer's first problem into a probe for raw features."""
    problem = solution.problem
    mean, std = problem.mean.double(), problem.std.double()
    inner = solution.w[:, 0, :, :-1].double() @ problem.basis.double().mT / std[:, None]
    bias = solution.w[:, 0, :, -1].double() - (inner @ mean[:, :, None])[..., 0]
    if inner.shape[1] == 1:  # one regression tells two classes apart
        inner = torch.cat([torch.zeros_like(inner), inner], dim=1)
        bias = torch.cat([torch.zeros_like(bias), bias], dim=1)
    return [LinearProbe(w.cpu(), b.cpu()) for w, b in zip(inner, bias, strict=True)]


def _inner_weights(problem: Problem, probes: Sequence[LinearProbe]) -> Tensor:
    """Turn a probe of each layer into weights of the problem: `_linear_probes` the other way round.

    Shape: (L, 1, K, D).
    """
    plain = torch.stack([probe.weight for probe in probes]).to(problem.x)
    bias = torch.stack([probe.bias for probe in probes]).to(problem.x)
    if problem.y.shape[1] == 1:
        plain, bias = plain[:, 1:] - plain[:, :1], bias[:, 1:] - bias[:, :1]
    inner = (plain * problem.std[:, None]) @ problem.basis
    bias = bias + (plain @ problem.mean[:, :, None])[..., 0]
    return torch.cat([inner, bias[..., None]], dim=2)[:, None]


def _groups(
    features: Sequence[Tensor], columns: int, problems: int, device: torch.device | None
) -> Iterator[list[int]]:
    """Batch layers of equal width, as many as the device has room for; yield their positions."""
    cells = CELLS
    if device is not None and device.type == "cuda":
        cells = max(CELLS, free_memory(device) // GPU_BYTES_A_CELL)
    by_width: dict[int, list[int]] = {}
    for place, layer in enumerate(features):
        by_width.setdefault(layer.shape[1], []).append(place)
    for width, places in by_width.items():
        rows = len(features[places[0]])
        size = max(1, cells // max(1, rows * (width + 6 * columns * problems)))
        for start in range(0, len(places), size):
            yield places[start : start + size]


def _columns(labels: Tensor, num_classes: int) -> int:
    """Number of regressions of a probe: one tells two classes apart."""
    return 1 if num_classes == 2 and not is_multilabel(labels) else num_classes
