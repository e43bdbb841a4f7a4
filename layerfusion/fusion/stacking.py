"""Stacked fusion: a linear probe for each source, weighted on rows that the probes never saw.

A probe's log-probabilities of held-out rows show how far it can be trusted (Wolpert, Neural
Networks 5, 1992); those of its training rows would flatter it. The pool that weights the probes has
few numbers to learn, and takes a simpler form where cross-validation does not support a richer one:
gates that differ from text to text, one weight for each source, or the best single source.

With many sources, such as every layer of some models, weights that are free but held near those of
an ensemble selection are best (`anchored`): a source that adds little by itself may still correct
the others, with a weight below zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.fusion.ensemble import ensemble_weights
from layerfusion.layers.probe import HeldOut, LinearProbe, fit_probes
from layerfusion.layers.selection import standard_error

FORMS = ("single", "weighted", "anchored", "gated")
"""The forms of a pool, the simplest first."""
WEIGHT_ROWS = 2.0
"""Strength of the pull towards equal weights, in rows: the squares of b and log κ count as much as
the log-loss of so many rows. With few labelled rows it keeps the pool near the plain average, which
is then better than weights: by 2 points on 20 rows of mr. On 1,800 rows the weights are better."""
GATE_ROWS = 200.0
"""Strength of the pull of the gates towards the weights, in rows: the same for the squares of G."""
ANCHOR = 0.1
"""Strength of the pull of anchored weights towards those of the ensemble selection: so many nats of
mean log-loss for each unit of their squared distance."""
GATED_SOURCES = 12
"""Most sources of a gated pool, which has 3 K² numbers to learn."""
FOLDS = 5
"""Folds in which the forms of a pool are compared."""
MAX_STEPS = 200
"""Most steps of L-BFGS."""
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
    absolute values add up to 1.
    """

    form: str
    """One of `FORMS`."""
    bias: Tensor
    """b, or g itself in the form `anchored`. Shape: (K,)."""
    scale: Tensor
    """κ. Shape: ()."""
    gate: Tensor
    """G. Shape: (K, K · FACTS)."""
    mean: Tensor
    """Mean of the evidence over the rows. Shape: (K · FACTS,)."""
    std: Tensor
    """Standard deviation of the evidence. Shape: (K · FACTS,)."""

    def __call__(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the sources.

        Args:
            log_probs: log-probabilities of each source's probe. Shape: (K, rows, classes).

        Returns:
            Log-probabilities, shape (rows, classes), and gates, shape (rows, K).
        """
        log_probs = log_probs.double()
        if self.form == "anchored":
            gates = self.bias.expand(log_probs.shape[1], -1)
        else:
            facts = (evidence(log_probs) - self.mean) / self.std
            gates = torch.softmax(self.bias + facts @ self.gate.T, dim=1)
        return _mix(log_probs, gates, self.scale), gates


@dataclass(frozen=True)
class Stack:
    """A fitted stack, which classifies new rows."""

    probes: tuple[LinearProbe, ...]
    pool: Pool
    held_out: dict[str, float]
    """Cross-validated log-loss of each form of pool, in nats."""
    reason: str
    """Why the pool has its form, in one line."""

    def predict(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Classify rows.

        Args:
            features: one tensor for each source, not standardised. Shapes: (rows, d_k).

        Returns:
            Log-probabilities, shape (rows, classes), and gates, shape (rows, K); float32.
        """
        each = [
            probe.logits(x).log_softmax(dim=1)
            for probe, x in zip(self.probes, features, strict=True)
        ]
        log_probs, gates = self.pool(torch.stack(each))
        return log_probs.float(), gates.float()

    @property
    def num_parameters(self) -> int:
        """Number of learned parameters, of the probes and of the pool in its form."""
        probes = sum(probe.weight.numel() + probe.bias.numel() for probe in self.probes)
        sources = len(self.probes)
        if sources == 1:
            return probes + 1
        pool = {
            "single": 1,
            "weighted": sources + 1,
            "anchored": sources,
            "gated": sources + 1 + self.pool.gate.numel(),
        }
        return probes + pool[self.pool.form]

    @property
    def num_flops(self) -> int:
        """Number of floating-point operations for one text: two for each entry of a product."""
        probes = sum(2 * probe.weight.numel() for probe in self.probes)
        mixed = 2 * len(self.probes) * self.probes[0].bias.numel()
        return probes + mixed + (2 * self.pool.gate.numel() if self.pool.form == "gated" else 0)


def fit_stack(
    features: Sequence[Tensor | None],
    labels: Tensor,
    held_out: Sequence[HeldOut],
    *,
    num_classes: int,
    seed: int = 0,
    device: torch.device | None = None,
) -> Stack:
    """Fit the probes on all rows, and the pool on their log-probabilities of held-out rows.

    Args:
        features: one tensor for each source, shapes (rows, d_k); None for a source whose features
            are log-probabilities already, which needs no probe.
        labels: class indices. Shape: (rows,).
        held_out: log-probabilities of held-out rows, and regularisation, of each source's probe.
        num_classes: number of classes.
        seed: seed of the folds in which the forms of the pool are compared.
        device: where the probes are fitted; the CPU if None.
    """
    probes = _fit_all(features, labels, held_out, num_classes, device)
    log_probs = torch.stack([source.log_probs for source in held_out]).double()
    pool, losses, reason = choose_pool(log_probs, held_out[0].target, seed=seed)
    return Stack(tuple(probes), pool, losses, reason)


def refit(
    stack: Stack,
    features: Sequence[Tensor | None],
    labels: Tensor,
    held_out: Sequence[HeldOut],
    *,
    device: torch.device | None = None,
) -> Stack:
    """Fit the probes of a stack again on other rows: train and validation together.

    A trained head needs validation to stop on. A stack does not: once it has been evaluated on
    validation, it may learn from those rows too, as the TF-IDF baseline does.

    Args:
        stack: the stack, whose pool is kept.
        features: one tensor for each source, or None, as for `fit_stack`.
        labels: class indices. Shape: (rows,).
        held_out: as the stack was fitted with; each probe keeps its regularisation.
        device: where the probes are fitted; the CPU if None.
    """
    num_classes = len(stack.probes[0].bias)
    probes = _fit_all(features, labels, held_out, num_classes, device)
    return replace(stack, probes=tuple(probes))


def _fit_all(
    features: Sequence[Tensor | None],
    labels: Tensor,
    held_out: Sequence[HeldOut],
    num_classes: int,
    device: torch.device | None,
) -> list[LinearProbe]:
    """Fit a probe for each source; log-probabilities pass unchanged through an identity."""
    vectors = {k: source for k, source in enumerate(features) if source is not None}
    probes = fit_probes(
        list(vectors.values()),
        labels,
        [held_out[k].strength for k in vectors],
        num_classes=num_classes,
        device=device,
    )
    identity = LinearProbe(torch.eye(num_classes), torch.zeros(num_classes))
    found = dict(zip(vectors, probes, strict=True))
    return [found.get(k, identity) for k in range(len(features))]


def choose_pool(
    log_probs: Tensor, target: Tensor, *, seed: int = 0
) -> tuple[Pool, dict[str, float], str]:
    """Fit the form of pool that cross-validation supports.

    Gates have to be better than weights by more than the standard error of the difference over the
    rows. Weights only have to be no worse than the best single source within that error, since they
    vary less. Weights are anchored where that makes the log-loss lower.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: class indices. Shape: (rows,).
        seed: seed of the folds.

    Returns:
        The pool fitted on all rows, the cross-validated log-loss of each form, and the reason.
    """
    if len(log_probs) == 1:
        return fit_pool(log_probs, target, "single"), {}, "a single source, calibrated"
    form, losses = judge_forms(log_probs, target, seed=seed)
    pool = fit_pool(log_probs, target, form, seed=seed)
    means = {name: float(loss.mean()) for name, loss in losses.items()}
    listed = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    return pool, means, f"{form}: held-out log-loss {listed}"


def judge_forms(
    log_probs: Tensor, target: Tensor, *, seed: int = 0
) -> tuple[str, dict[str, Tensor]]:
    """Find the form of pool that cross-validation supports, and the log-loss of each form.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: class indices. Shape: (rows,).
        seed: seed of the folds.

    Returns:
        One of `FORMS`, and the log-losses of each form. Shapes: (rows,), float64, in nats.
    """
    forms = FORMS[:1] if len(log_probs) == 1 else FORMS
    if len(log_probs) > GATED_SOURCES:
        forms = FORMS[:-1]
    losses = {form: _cross_validated(log_probs, target, form, seed) for form in forms}
    form = "single"
    if len(forms) == 1:
        return form, losses
    worse = losses["weighted"] - losses["single"]
    if float(worse.mean()) <= standard_error(worse):
        form = "weighted"
    if float(losses["anchored"].mean()) < float(losses[form].mean()):
        form = "anchored"
    if "gated" in losses:
        gain = losses[form] - losses["gated"]
        if float(gain.mean()) > standard_error(gain):
            form = "gated"
    return form, losses


def _cross_validated(log_probs: Tensor, target: Tensor, form: str, seed: int) -> Tensor:
    """Return the log-loss of each row under a pool fitted without it. Shape: (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    fold_of = torch.randperm(len(target), generator=generator) % min(FOLDS, len(target))
    losses = torch.zeros(len(target), dtype=torch.float64)
    for fold in range(int(fold_of.max()) + 1):
        out = fold_of == fold
        pool = fit_pool(log_probs[:, ~out], target[~out], form, seed=seed)
        losses[out] = F.nll_loss(pool(log_probs[:, out])[0], target[out], reduction="none")
    return losses


def fit_pool(log_probs: Tensor, target: Tensor, form: str, *, seed: int = 0) -> Pool:
    """Fit a pool of one form.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: class indices. Shape: (rows,).
        form: one of `FORMS`; `single` takes the source with the lowest log-loss, calibrated.
        seed: draws the halves of the ensemble selection that weights are anchored to.
    """
    log_probs = log_probs.double()
    sources = len(log_probs)
    if form == "anchored":
        return _anchored(log_probs, target, seed)
    facts = evidence(log_probs)
    mean, std = facts.mean(dim=0), facts.std(dim=0, correction=0)
    std = torch.where(std > 1e-9, std, 1.0)
    facts = (facts - mean) / std
    bias = torch.zeros(sources, dtype=torch.float64)
    log_scale = torch.zeros((), dtype=torch.float64)
    gate = torch.zeros(sources, sources * FACTS, dtype=torch.float64)
    learned = {"single": [log_scale], "weighted": [log_scale, bias]}
    if form == "single":
        losses = torch.stack([F.nll_loss(source, target) for source in log_probs])
        bias[torch.arange(sources) != losses.argmin()] = -torch.inf

    def loss() -> Tensor:
        gates = torch.softmax(bias + facts @ gate.T, dim=1)
        pooled = F.nll_loss(_mix(log_probs, gates, log_scale.exp()), target)
        pull = log_scale.square() + (bias.square().sum() if form != "single" else 0.0)
        return pooled + (WEIGHT_ROWS * pull + GATE_ROWS * gate.square().sum()) / len(target)

    _minimise(loss, learned.get(form, [log_scale, bias, gate]))
    return Pool(form, bias, log_scale.exp(), gate, mean, std)


def _anchored(log_probs: Tensor, target: Tensor, seed: int) -> Pool:
    """Fit log p = log softmax(Σ w_k log p_k), with w held near the weights of the selection."""
    anchor = ensemble_weights(log_probs, target, seed=seed)
    shift = torch.zeros_like(anchor)

    def loss() -> Tensor:
        pooled = torch.einsum("k,knc->nc", anchor + shift, log_probs)
        return F.cross_entropy(pooled, target) + ANCHOR * shift.square().sum()

    _minimise(loss, [shift])
    weights = anchor + shift
    scale = weights.abs().sum()
    sources = len(anchor)
    unused = torch.zeros(sources * FACTS, dtype=torch.float64)
    return Pool(
        "anchored", weights / scale, scale, unused.expand(sources, -1).clone(), unused, unused + 1
    )


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


def _minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
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
