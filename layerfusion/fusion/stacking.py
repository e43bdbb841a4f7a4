"""Stacked fusion: the sources' own probes, weighed on rows that they never saw.

Every source keeps a linear probe of its own. What the probes say of rows that they were not fitted
on (Wolpert, Neural Networks 5, 1992) shows how far each can be trusted, so that the weights are
learned without the flattery of the rows behind the probes. The pool has few numbers to learn and
falls back to fewer where cross-validation does not support more: a gate of its own for each text,
one weight a source, or the best single source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.layers.probe import HeldOut, LinearProbe, fit_probes
from layerfusion.layers.selection import standard_error

FORMS = ("single", "weighted", "gated")
"""What a pool may be, the plainest first."""
WEIGHT_ROWS = 2.0
"""Rows that the pull of the weights towards equal ones counts for: squares of b and of log κ, on
the sum of the log-losses. With few labelled rows it keeps the pool near the plain average, which is
then better than weights: on 20 rows of mr by 2 points, on 1,800 rows it is the other way."""
GATE_ROWS = 200.0
"""The same for the pull of the gates towards the weights: squares of G."""
FOLDS = 5
MAX_STEPS = 200
FACTS = 3
"""What a gate sees of each source: entropy, largest probability, distance from the others' mean."""


@dataclass(frozen=True)
class Pool:
    """How the probes' log-probabilities become one.

    log p(c|x) = log softmax_c(κ Σ_k g_k(x) log p_k(c|x)), with g(x) = softmax(b + G e(x)): a
    logarithmic opinion pool. κ > 0 calibrates it: it says how far sources that agree make each
    other surer. κ g_k tempers each source, so that one that is surer than it is right weighs less.
    e(x) are the standardised facts of what the sources say of x.
    """

    form: str
    """One of `FORMS`."""
    bias: Tensor
    """b. Shape: (K,)."""
    scale: Tensor
    """κ. Shape: ()."""
    gate: Tensor
    """G. Shape: (K, K · FACTS)."""
    mean: Tensor
    """Of the facts. Shape: (K · FACTS,)."""
    std: Tensor
    """Of the facts. Shape: (K · FACTS,)."""

    def __call__(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Pool what the sources say.

        Args:
            log_probs: of each source, as its probe gives them. Shape: (K, rows, classes).

        Returns:
            Log-probabilities, shape (rows, classes), and gates, shape (rows, K).
        """
        said = log_probs.double()
        facts = (evidence(said) - self.mean) / self.std
        gates = torch.softmax(self.bias + facts @ self.gate.T, dim=1)
        return _mix(said, gates, self.scale), gates


@dataclass(frozen=True)
class Stack:
    """A fitted stack: what classifies new rows."""

    probes: tuple[LinearProbe, ...]
    pool: Pool
    held_out: dict[str, float]
    """Form to the cross-validated log-loss of its pool, in nats."""
    reason: str

    def predict(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Classify rows.

        Args:
            features: one tensor a source, as they come from the stores. Shapes: (rows, d_k).

        Returns:
            Log-probabilities, shape (rows, classes), and gates, shape (rows, K); float32.
        """
        said = [
            probe.logits(x).log_softmax(dim=1)
            for probe, x in zip(self.probes, features, strict=True)
        ]
        log_probs, gates = self.pool(torch.stack(said))
        return log_probs.float(), gates.float()

    @property
    def num_parameters(self) -> int:
        """Numbers learned: of the probes and of the pool's form."""
        probes = sum(probe.weight.numel() + probe.bias.numel() for probe in self.probes)
        sources = len(self.probes)
        if sources == 1:
            return probes + 1
        pool = {"single": 1, "weighted": sources + 1, "gated": sources + 1 + self.pool.gate.numel()}
        return probes + pool[self.pool.form]

    @property
    def num_flops(self) -> int:
        """Floating-point operations for one text: two for each entry of a product."""
        probes = sum(2 * probe.weight.numel() for probe in self.probes)
        mixed = 2 * len(self.probes) * self.probes[0].bias.numel()
        return probes + mixed + (2 * self.pool.gate.numel() if self.pool.form == "gated" else 0)


def fit_stack(
    features: Sequence[Tensor],
    labels: Tensor,
    held: Sequence[HeldOut],
    *,
    num_classes: int,
    seed: int = 0,
    device: torch.device | None = None,
) -> Stack:
    """Fit the probes on all rows, and the pool on what probes said of rows held out.

    Args:
        features: one tensor a source. Shapes: (rows, d_k).
        labels: class indices. Shape: (rows,).
        held: what each source's probe said of the rows held out, and its strength.
        num_classes: number of classes.
        seed: of the folds in which the forms of the pool are compared.
        device: where the probes are fitted; the CPU if none.
    """
    strengths = [one.strength for one in held]
    probes = fit_probes(features, labels, strengths, num_classes=num_classes, device=device)
    said = torch.stack([one.log_probs for one in held]).double()
    pool, losses, reason = choose_pool(said, held[0].target, seed=seed)
    return Stack(tuple(probes), pool, losses, reason)


def refit(
    stack: Stack,
    features: Sequence[Tensor],
    labels: Tensor,
    held: Sequence[HeldOut],
    *,
    device: torch.device | None = None,
) -> Stack:
    """The same stack with its probes fitted on other rows: train and validation together.

    A trained head needs validation to stop on. A stack does not, so that once validation has said
    what it is worth those rows are to learn from, as they are for the TF-IDF baseline.

    Args:
        stack: whose pool it keeps.
        features: one tensor a source. Shapes: (rows, d_k).
        labels: class indices. Shape: (rows,).
        held: what the stack was fitted with; each probe keeps its strength.
        device: where the probes are fitted; the CPU if none.
    """
    strengths = [one.strength for one in held]
    num_classes = len(stack.probes[0].bias)
    probes = fit_probes(features, labels, strengths, num_classes=num_classes, device=device)
    return replace(stack, probes=tuple(probes))


def choose_pool(
    log_probs: Tensor, target: Tensor, *, seed: int = 0
) -> tuple[Pool, dict[str, float], str]:
    """Fit the form of pool that cross-validation supports.

    Weights have to be better than the best single source, and gates better than weights, by more
    than the standard error of the difference over the rows; where weights are no worse than the
    single source within that error, they are taken too, since they vary less.

    Args:
        log_probs: what each source said of rows it had not seen. Shape: (K, rows, classes).
        target: class indices. Shape: (rows,).
        seed: of the folds.

    Returns:
        The pool fitted on all rows, the cross-validated log-loss of each form, and the reason.
    """
    if len(log_probs) == 1:
        return fit_pool(log_probs, target, "single"), {}, "a single source, calibrated"
    form, losses = judge_forms(log_probs, target, seed=seed)
    pool = fit_pool(log_probs, target, form)
    means = {name: float(loss.mean()) for name, loss in losses.items()}
    words = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
    return pool, means, f"{form}: held-out log-loss {words}"


def judge_forms(
    log_probs: Tensor, target: Tensor, *, seed: int = 0
) -> tuple[str, dict[str, Tensor]]:
    """The form that cross-validation supports, and what each form loses on rows held out.

    Args:
        log_probs: what each source said of rows it had not seen. Shape: (K, rows, classes).
        target: class indices. Shape: (rows,).
        seed: of the folds.

    Returns:
        One of `FORMS`, and form to its log-loss of each row. Shapes: (rows,), float64, in nats.
    """
    forms = FORMS if len(log_probs) > 1 else FORMS[:1]
    losses = {form: _cross_validated(log_probs, target, form, seed) for form in forms}
    form = "single"
    if len(forms) == 1:
        return form, losses
    worse = losses["weighted"] - losses["single"]
    if float(worse.mean()) <= standard_error(worse):
        form = "weighted"
    gain = losses[form] - losses["gated"]
    if float(gain.mean()) > standard_error(gain):
        form = "gated"
    return form, losses


def _cross_validated(log_probs: Tensor, target: Tensor, form: str, seed: int) -> Tensor:
    """Log-loss of each row under a pool fitted without it. Shape: (rows,)."""
    generator = torch.Generator().manual_seed(seed)
    fold_of = torch.randperm(len(target), generator=generator) % min(FOLDS, len(target))
    losses = torch.zeros(len(target), dtype=torch.float64)
    for fold in range(int(fold_of.max()) + 1):
        out = fold_of == fold
        pool = fit_pool(log_probs[:, ~out], target[~out], form)
        losses[out] = F.nll_loss(pool(log_probs[:, out])[0], target[out], reduction="none")
    return losses


def fit_pool(log_probs: Tensor, target: Tensor, form: str) -> Pool:
    """Fit a pool of a given form.

    Args:
        log_probs: what each source said of rows it had not seen. Shape: (K, rows, classes).
        target: class indices. Shape: (rows,).
        form: one of `FORMS`; `single` is the source with the lowest log-loss, calibrated.
    """
    said = log_probs.double()
    sources = len(said)
    facts = evidence(said)
    mean, std = facts.mean(dim=0), facts.std(dim=0, correction=0)
    std = torch.where(std > 1e-9, std, 1.0)
    facts = (facts - mean) / std
    bias = torch.zeros(sources, dtype=torch.float64)
    log_scale = torch.zeros((), dtype=torch.float64)
    gate = torch.zeros(sources, sources * FACTS, dtype=torch.float64)
    learned = {"single": [log_scale], "weighted": [log_scale, bias]}
    if form == "single":
        losses = torch.stack([F.nll_loss(one, target) for one in said])
        bias[torch.arange(sources) != losses.argmin()] = -torch.inf

    def loss() -> Tensor:
        gates = torch.softmax(bias + facts @ gate.T, dim=1)
        pooled = F.nll_loss(_mix(said, gates, log_scale.exp()), target)
        pull = log_scale.square() + (bias.square().sum() if form != "single" else 0.0)
        return pooled + (WEIGHT_ROWS * pull + GATE_ROWS * gate.square().sum()) / len(target)

    _minimise(loss, learned.get(form, [log_scale, bias, gate]))
    return Pool(form, bias, log_scale.exp(), gate, mean, std)


def evidence(log_probs: Tensor) -> Tensor:
    """What can be told of a row from what the sources say of it.

    For each source its entropy, its largest log-probability, and its L1 distance from the mean of
    all sources. Shape: (rows, K · FACTS), from (K, rows, classes).
    """
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(dim=2)
    distance = (probs - probs.mean(dim=0)).abs().sum(dim=2)
    return torch.cat([entropy, log_probs.amax(dim=2), distance]).T


def _mix(log_probs: Tensor, gates: Tensor, scale: Tensor) -> Tensor:
    return (scale * torch.einsum("nk,knc->nc", gates, log_probs)).log_softmax(dim=1)


def _minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
    """L-BFGS in place: a few numbers and a smooth loss, so it ends at the optimum."""
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
