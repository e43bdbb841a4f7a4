"""Ways to combine the predictions of many members, for `benchmarks.combinations`.

A member has predicted held-out rows by probes that never saw them. A method learns from these
log-probabilities, of shape (members, rows, classes), and from the labels of the rows. It returns a
function that combines the members' log-probabilities of other rows: to log-probabilities of shape
(rows, classes).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from benchmarks.rival_classifiers import FOLDS, LEAST_PROBABILITY, MAX_STEPS
from layerfusion.fusion.pool import (
    ANCHORED,
    ANCHORED_GATED,
    GATED,
    SINGLE,
    WEIGHTED,
)
from layerfusion.fusion.pool_fitting import fit_pool, minimise
from layerfusion.fusion.pursuit import pursue

Combine = Callable[[Tensor], Tensor]
Method = Callable[[Tensor, Tensor], Combine]
Pool = Callable[[Tensor], Combine]
"""Weights of the members to their combination."""
HOUSE = "anchored"
"""Name of the method that `fusion=auto` uses, with which the others are compared."""
STEPS = 40
"""Steps of ensemble selection."""
BAGS = 20
"""Bags of ensemble selection, each of half of the members."""
RIDGE = 0.1
"""Strength of the pull towards the weights of bagged selection where they are corrected."""
FEW = 8
"""Members that the house's pursuit selects."""
STRENGTHS = np.logspace(-4, 0, 5)
"""Inverse strengths C that shrunken stacking tries."""
SLOW_STEPS = 200
"""Most steps of the solver of the elastic net."""


def log_linear(weights: Tensor) -> Combine:
    """log p = log softmax(Σ w_k log p_k)."""
    return lambda said: torch.einsum("k,knc->nc", weights.to(said), said).log_softmax(dim=1)


def linear(weights: Tensor) -> Combine:
    """p = Σ w_k p_k."""
    return lambda said: torch.einsum("k,knc->nc", weights.to(said), said.exp()).log()


def losses(said: Tensor, target: Tensor) -> Tensor:
    """Mean log-loss of each member. Shape: (members,)."""
    return -said[:, torch.arange(len(target)), target].mean(dim=1)


# -- averages -----------------------------------------------------------------------------------


def best(said: Tensor, target: Tensor, *, members: int) -> Combine:
    """Average the members with the lowest held-out log-loss."""
    weights = torch.zeros(len(said))
    weights[losses(said, target).argsort(stable=True)[:members]] = 1
    return log_linear(weights / weights.sum())


def equal(said: Tensor, _: Tensor, *, pool: Pool) -> Combine:
    return pool(torch.full((len(said),), 1 / len(said)))


# -- ensemble selection (Caruana and others, ICML 2004) -----------------------------------------


def linear_losses(said: Tensor, target: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Log-loss of the mean of the probabilities of the members so far and of each other one."""
    of_target = said[:, torch.arange(len(target)), target].exp()
    return lambda counts, size: -((counts @ of_target + of_target) / size).log().mean(dim=1)


def log_linear_losses(said: Tensor, target: Tensor) -> Callable[[Tensor, int], Tensor]:
    """Log-loss of the mean of the log-probabilities of the members so far and of each other one."""
    of_target = said[:, torch.arange(len(target)), target]

    def found(counts: Tensor, size: int) -> Tensor:
        sums = said + torch.einsum("k,knc->nc", counts, said)
        right = of_target + counts @ of_target
        return ((sums / size).logsumexp(dim=2) - right / size).mean(dim=1)

    return found


def select(losses_with: Callable[[Tensor, int], Tensor], members: int) -> Tensor:
    """Add the member that helps most, with replacement. The shares are weights: (members,)."""
    counts = torch.zeros(members)
    for step in range(STEPS):
        counts[losses_with(counts, step + 1).argmin()] += 1
    return counts / STEPS


LOSSES: Mapping[Pool, Callable[[Tensor, Tensor], Callable[[Tensor, int], Tensor]]] = {
    linear: linear_losses,
    log_linear: log_linear_losses,
}


def selected(said: Tensor, target: Tensor, *, pool: Pool) -> Combine:
    return pool(select(LOSSES[pool](said, target), len(said)))


def bagged_weights(said: Tensor, target: Tensor, pool: Pool) -> Tensor:
    """Average the weights of selections from random halves of the members. Shape: (members,)."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.zeros(len(said))
    half = max(1, len(said) // 2)
    for _ in range(BAGS):
        bag = torch.randperm(len(said), generator=generator)[:half]
        weights[bag] += select(LOSSES[pool](said[bag], target), half) / BAGS
    return weights


def bagged(said: Tensor, target: Tensor, *, pool: Pool) -> Combine:
    return pool(bagged_weights(said, target, pool))


def corrected(said: Tensor, target: Tensor) -> Combine:
    """Correct the bagged weights w by v, with the loss and ridge · ‖v‖² lowest together."""
    weights, said = bagged_weights(said, target, log_linear).double(), said.double()
    change = torch.zeros_like(weights)

    def loss() -> Tensor:
        pooled = F.nll_loss(log_linear(weights + change)(said), target)
        return pooled + RIDGE * change.square().sum()

    minimise(loss, [change])
    return log_linear(weights + change)


# -- weights and regressions --------------------------------------------------------------------


def simplex(said: Tensor, target: Tensor) -> Combine:
    """Weights above zero that add up to one, with the lowest held-out log-loss."""
    logits = torch.zeros(len(said))
    minimise(lambda: F.nll_loss(log_linear(logits.softmax(dim=0))(said), target), [logits])
    return log_linear(logits.softmax(dim=0))


def regression(said: Tensor, target: Tensor, *, l1_ratio: float) -> Combine:
    """Shrunken stacking: logistic regression on what the members say, C by cross-validation.

    Args:
        l1_ratio: 0 for the squares of the weights (ridge), above for an elastic net too.
    """
    learn, labels, classes = columns(said), target.numpy(), said.shape[2]
    settings = {"l1_ratio": l1_ratio, "max_iter": MAX_STEPS}
    if l1_ratio:
        settings |= {"solver": "saga", "max_iter": SLOW_STEPS, "tol": 1e-3, "random_state": 0}
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, **settings)) for c in STRENGTHS
    ]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        # Folds may lack rare classes, and under weak regularisation some fits stop early.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        warnings.filterwarnings("ignore", "Number of classes in training fold", RuntimeWarning)
        costs = []
        for model in models:
            found = cross_val_predict(model, learn, labels, cv=folds, method="predict_proba")
            costs.append(log_loss(labels, shares(np.asarray(found)), labels=np.unique(labels)))
        chosen = models[int(np.argmin(costs))].fit(learn, labels)

    def combine(other: Tensor) -> Tensor:
        whole = np.zeros((other.shape[1], classes))
        whole[:, chosen.classes_] = chosen.predict_proba(columns(other))
        return torch.from_numpy(shares(whole)).log()

    return combine


def columns(said: Tensor) -> np.ndarray:
    """All that the members say of a row side by side; of two classes, the log-odds alone."""
    if said.shape[2] == 2:
        return (said[..., 1] - said[..., 0]).T.numpy()
    return said.transpose(0, 1).flatten(1).numpy()


def shares(probabilities: np.ndarray) -> np.ndarray:
    """No class has the probability zero, and all add up to one. Shape: (rows, classes)."""
    kept = probabilities.clip(LEAST_PROBABILITY)
    return kept / kept.sum(axis=1, keepdims=True)


# -- the house's own ----------------------------------------------------------------------------


def house(said: Tensor, target: Tensor, *, form: str) -> Combine:
    """Pool all members in one of the forms of `layerfusion.fusion.pool`."""
    pool = fit_pool(said.double(), target, form)
    return lambda other: pool(other)[0]


def pursued(said: Tensor, target: Tensor, *, form: str) -> Combine:
    """Pool the few members that complement each other."""
    chosen = [step.position for step in pursue(said.double(), target, FEW)]
    pool = fit_pool(said[chosen].double(), target, form)
    return lambda other: pool(other[chosen])[0]


ELASTIC_NET = "stacking, elastic net"
RIDGE_STACKING = "stacking, ridge"

METHODS: Mapping[str, Method] = {
    HOUSE: partial(house, form=ANCHORED),
    "anchored, gated a little": partial(house, form=ANCHORED_GATED),
    "weighted": partial(house, form=WEIGHTED),
    "8 members by pursuit, anchored": partial(pursued, form=ANCHORED),
    "8 members by pursuit, gated": partial(pursued, form=GATED),
    "single best member": partial(best, members=1),
    "single best member, calibrated": partial(house, form=SINGLE),
    "average of the best 3": partial(best, members=3),
    "average of the best 8": partial(best, members=8),
    "equal weights, linear": partial(equal, pool=linear),
    "equal weights, log-linear": partial(equal, pool=log_linear),
    "ensemble selection, linear": partial(selected, pool=linear),
    "ensemble selection, log-linear": partial(selected, pool=log_linear),
    "bagged ensemble selection, linear": partial(bagged, pool=linear),
    "bagged ensemble selection, log-linear": partial(bagged, pool=log_linear),
    "bagged ensemble selection, corrected": corrected,
    "simplex weights, log-linear": simplex,
    RIDGE_STACKING: partial(regression, l1_ratio=0.0),
    ELASTIC_NET: partial(regression, l1_ratio=0.5),
}
"""The methods by name, that of `fusion=auto` first."""
MOST_WORK = 2e6
"""Rows times squared classes above which stacking by ridge is left out: with 52 classes it
takes nine seconds for each set of members on 200 rows, and minutes on 1,000."""


def methods_for(rows: int, classes: int) -> dict[str, Method]:
    """Return the methods that are quick enough on some rows: the elastic net for two classes."""
    slow = {ELASTIC_NET} if classes > 2 else set()
    if rows * classes**2 > MOST_WORK:
        slow.add(RIDGE_STACKING)
    return {name: method for name, method in METHODS.items() if name not in slow}
