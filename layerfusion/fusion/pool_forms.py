"""Choose the form of a pool that cross-validation supports.

A pool takes a simpler form where held-out rows do not support a richer one: gates that differ from
text to text, one weight for each source, or the best single source. Gates of anchored weights take
longer, so that they are tried on the pool that is kept, and not while sets of sources compete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from layerfusion.config.job import LOG_LOSS, UNWEIGHTED
from layerfusion.fusion.objective import costs, find_shift, label_shares, shifted
from layerfusion.fusion.pool import (
    ANCHORED,
    ANCHORED_GATED,
    FORMS,
    GATED,
    KEPT_FORMS,
    SINGLE,
    WEIGHTED,
    WORDS,
    Pool,
)
from layerfusion.fusion.pool_fitting import fit_pool, fit_pools
from layerfusion.layers.labels import is_multilabel, mean_loss
from layerfusion.layers.repeats import deal_texts, distinct_share, standard_error, take_texts
from layerfusion.layers.selection import SURE_ERRORS
from layerfusion.layers.threads import each_on_a_core
from layerfusion.progress import steps

Choose = Callable[[Tensor, Tensor, float], list[int]]
"""(log-probabilities of rows by source, labels, different texts as a share of the rows) to the
positions of the sources to use. Shape of the first: (K, rows, classes)."""
GATED_SOURCES = 12
"""Most sources of a gated pool, which has 3 K² numbers to learn."""
FOLDS = 5
"""Folds in which the forms of a pool are compared."""


@dataclass(frozen=True, eq=False)
class ChosenPool:
    """A pool in the form that cross-validation supports, fitted on all rows."""

    pool: Pool
    losses: dict[str, float]
    """Cross-validated log-loss of each form, in nats; empty for a single source."""
    reason: str
    """Why it has its form, and what was added to its scores, in a reader's words."""
    shift: str
    """What was added to its scores for the objective, in one clause; empty where nothing was."""


def choose_pool(
    log_probs: Tensor,
    target: Tensor,
    text_of: Tensor | None,
    *,
    seed: int = 0,
    gated: bool = False,
    objective: str = LOG_LOSS,
    class_weights: str = UNWEIGHTED,
) -> ChosenPool:
    """Fit the form of pool that cross-validation supports.

    Gates have to be better than weights by more than the standard error of the difference over the
    rows, and the gates of anchored weights by two of these errors. Weights only have to be no worse
    than the best single source within two errors, since they vary less. Anchored weights have to be
    better than those that add up to one.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: labels of these rows.
        text_of: number of the text of each row, if some repeat one. Shape: (rows,).
        seed: seed of the folds.
        gated: fit anchored weights that move from text to text, whatever the other forms are worth.
        objective: what the pool should be best at: log_loss, accuracy, macro_f1 or micro_f1.
        class_weights: none, or balanced to pool as if all classes were equally frequent.
    """
    form, predicted = judge_forms(log_probs, target, text_of, seed=seed, gated=gated)
    pool = fit_pool(log_probs, target, form, distinct_share(text_of))
    prior = label_shares(target, log_probs.shape[2])
    shift = find_shift(objective, class_weights, predicted[form], target, prior, text_of)
    if shift is not None:
        own = 0.0 if pool.shift is None else pool.shift
        pool = replace(pool, shift=own + shift.values)
    words = shift.words if shift is not None else ""
    served = f"; {words}" if words else ""
    if len(log_probs) == 1:
        return ChosenPool(pool, {}, f"a single source, calibrated{served}", words)
    means = {name: float(mean_loss(found, target)) for name, found in predicted.items()}
    others = "".join(f"; {WORDS[name]} {means[name]:.4f}" for name in means if name != form)
    reason = f"{WORDS[form]}, held-out log-loss {means[form]:.4f}{others}{served}"
    return ChosenPool(pool, means, reason, words)


def judge_forms(
    log_probs: Tensor,
    target: Tensor,
    text_of: Tensor | None,
    *,
    seed: int = 0,
    choose: Choose | None = None,
    gated: bool = False,
) -> tuple[str, dict[str, Tensor]]:
    """Find the form of pool that cross-validation supports, and what each form predicts.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: labels of these rows.
        text_of: as for `choose_pool`. All rows of a text are in one fold.
        seed: seed of the folds.
        choose: chooses sources. It chooses anew for every fold, without the fold's rows, so that
            the predictions are honest about the choice too. All sources if None.
        gated: try `ANCHORED_GATED` alone, not all of `KEPT_FORMS`.

    Returns:
        The form, and the log-probabilities of each form. Shapes: (rows, classes), float64.
    """
    forms = (ANCHORED_GATED,) if gated else KEPT_FORMS
    (judged,) = judge_pools([PoolTask(log_probs, target, text_of, choose, forms)], seed=seed)
    return judged


@dataclass(frozen=True, eq=False)
class PoolTask:
    """Sources to pool, as `judge_forms` has them."""

    log_probs: Tensor
    """Log-probabilities of held-out rows by source. Shape: (K, rows, classes)."""
    target: Tensor
    """Labels of these rows."""
    text_of: Tensor | None
    """Number of the text of each row, if some repeat one. Shape: (rows,)."""
    choose: Choose | None = None
    forms: Sequence[str] = FORMS
    """The forms to compare. Those that are for few sources are left out of many."""

    def chosen(self, rows: Tensor) -> list[int]:
        """Choose sources by some rows alone. Shape of `rows`: (rows,), bool."""
        if self.choose is None:
            return list(range(len(self.log_probs)))
        return self.choose(self.log_probs[:, rows], self.target[rows], self._distinct(rows))

    def _distinct(self, rows: Tensor) -> float:
        return distinct_share(take_texts(self.text_of, rows))

    def predict(self, rows: Tensor, positions: Sequence[int], forms: Sequence[str]) -> list[Tensor]:
        """Fit a pool of each form on some rows; return what each says of the others."""
        sources = self.log_probs[positions]
        known, others = sources[:, rows], sources[:, ~rows]
        pools = fit_pools(known, self.target[rows], forms, self._distinct(rows))
        return [pool(others)[0] for pool in pools]


def judge_pools(tasks: Sequence[PoolTask], *, seed: int = 0) -> list[tuple[str, dict[str, Tensor]]]:
    """Do what `judge_forms` does for several pools, all their folds side by side."""
    folds = [
        (task, rows)
        for task in tasks
        for rows in _rows_without_each_fold(task.target, task.text_of, seed)
    ]
    told = each_on_a_core(lambda fold: fold[0].chosen(fold[1]), folds)
    chosen = [*steps(told, "members of stacks", len(folds))]
    most: dict[PoolTask, int] = {}
    for (task, _), positions in zip(folds, chosen, strict=True):
        most[task] = max(most.get(task, 0), len(positions))
    forms = {task: _forms_for(sources, task.forms) for task, sources in most.items()}
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
    found_forms = []
    for task, one in predicted.items():
        losses = {form: costs(LOG_LOSS, said, task.target) for form, said in one.items()}
        found_forms.append((_supported(losses, task.text_of), one))
    return found_forms


def serve(
    objective: str,
    class_weights: str,
    log_probs: Tensor,
    target: Tensor,
    text_of: Tensor | None,
    *,
    seed: int = 0,
) -> Tensor:
    """Shift predictions for an objective, as `choose_pool` does: each fold by what the others say.

    So they are those of the classifier that is kept, and can be judged by the objective beside
    trained heads, which are shifted too.

    Args:
        objective: log_loss, accuracy, macro_f1 or micro_f1.
        class_weights: none or balanced.
        log_probs: what `judge_forms` predicts for held-out rows. Shape: (rows, classes).
        target: labels of these rows.
        text_of: as for `choose_pool`.
        seed: seed of the folds.

    Returns:
        Shape: (rows, classes), float64.
    """
    served = log_probs.clone()
    for rows in _rows_without_each_fold(target, text_of, seed):
        known, prior = target[rows], label_shares(target[rows], log_probs.shape[1])
        texts = take_texts(text_of, rows)
        shift = find_shift(objective, class_weights, log_probs[rows], known, prior, texts)
        if shift is not None:
            multilabel = is_multilabel(target)
            served[~rows] = shifted(log_probs[~rows], shift.values, multilabel=multilabel)
    return served


def _rows_without_each_fold(target: Tensor, text_of: Tensor | None, seed: int) -> list[Tensor]:
    """Deal texts to folds; give the rows outside of each. Shapes: (rows,), bool."""
    fold_of = deal_texts(text_of, len(target), FOLDS, seed)
    return [fold_of != fold for fold in range(int(fold_of.max()) + 1)]


def _forms_for(sources: int, forms: Sequence[str]) -> list[str]:
    """List those of some forms that are tried for a number of sources."""
    if sources == 1:
        return [SINGLE]
    few = sources <= GATED_SOURCES
    return [form for form in forms if few or form not in (WEIGHTED, GATED)]


def _supported(losses: Mapping[str, Tensor], text_of: Tensor | None) -> str:
    """Return the form that the log-losses of held-out rows support."""
    if len(losses) == 1:
        return next(iter(losses))
    form = SINGLE
    for richer in (WEIGHTED, ANCHORED):
        if richer in losses:
            worse = losses[richer] - losses[form]
            allowed = SURE_ERRORS * standard_error(worse, text_of) if form == SINGLE else 0.0
            if float(worse.mean()) <= allowed:
                form = richer
    if GATED in losses:
        gain = losses[form] - losses[GATED]
        if float(gain.mean()) > standard_error(gain, text_of):
            form = GATED
    if form == ANCHORED and ANCHORED_GATED in losses:
        gain = losses[ANCHORED] - losses[ANCHORED_GATED]
        if float(gain.mean()) > SURE_ERRORS * standard_error(gain, text_of):
            form = ANCHORED_GATED
    return form
