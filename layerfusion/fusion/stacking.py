"""Stacked fusion: a linear probe for each source, and a pool of what the probes say of a text.

The probe of a layer is a discriminant, or for the best layers the blend of a logistic regression
and a discriminant: see `layers.discriminant`. A trained head may be one more member of the pool:
see `head_member`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from layerfusion.config.job import LOG_LOSS, UNWEIGHTED
from layerfusion.embeddings.gpus import gpu_turn
from layerfusion.fusion.head_member import HeadMember
from layerfusion.fusion.pool import WEIGHTED, Pool
from layerfusion.fusion.pool_forms import choose_pool
from layerfusion.layers.discriminant import Blend, blend_probes, fit_discriminant
from layerfusion.layers.labels import log_probabilities
from layerfusion.layers.probe import LinearProbe, fit_probes
from layerfusion.layers.threads import each_on_a_core


@dataclass(frozen=True)
class Stack:
    """A fitted stack, which classifies new rows."""

    probes: tuple[LinearProbe, ...]
    pool: Pool
    held_out: dict[str, float]
    """Cross-validated log-loss of each form of pool, in nats."""
    reason: str
    """Why the pool has its form, in one line."""
    member: HeadMember | None = None
    """A trained head that is the last member of the pool; None where it has probes alone."""
    regressions: Mapping[int, LinearProbe] = field(default_factory=dict)
    """The logistic regressions within the probes, by source, for `refit` to start from. A stack
    that was read from a file has none."""
    shift: str = ""
    """What was added to the scores for the objective, in one clause; empty where nothing was, and
    in files of older versions, which have it in the reason alone."""

    def predict(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Classify rows.

        Args:
            features: one tensor for each source, not standardised. Shapes: (rows, d_k).

        Returns:
            Log-probabilities, shape (rows, classes), and gates, shape (rows, K); float32. The
            weight of a trained head is shared out among the sources that it reads.
        """
        log_probs, gates = self.pool_of(self.each_member(features))
        return log_probs.float(), gates.float()

    def each_member(self, features: Sequence[Tensor]) -> Tensor:
        """Classify rows by each probe, and by the head if there is one.

        Shape: (members, rows, classes).
        """
        each = self.each_source(features)
        if self.member is None:
            return each
        return torch.cat([each, self.member.log_probs(features)[None]])

    def pool_of(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Pool what the probes, and the head if there is one, say of some rows.

        Args:
            log_probs: log-probabilities of each member. Shape: (members, rows, classes).

        Returns:
            Log-probabilities, shape (rows, classes), and gates, shape (rows, K); float64.
        """
        pooled, gates = self.pool(log_probs)
        return pooled, gates if self.member is None else self.member.share_out(gates)

    def each_source(self, features: Sequence[Tensor]) -> Tensor:
        """Classify rows by the probe of each source alone. Shape: (K, rows, classes)."""
        pairs = zip(self.probes, features, strict=True)
        each = [probe.logits(x) for probe, x in pairs]
        return log_probabilities(torch.stack(each), multilabel=self.pool.multilabel)

    def at_equal_weights(self) -> Stack:
        """The stack as it was before its pool learned anything from held-out rows."""
        bias, scale = torch.zeros_like(self.pool.bias), torch.ones_like(self.pool.scale)
        pool = replace(self.pool, form=WEIGHTED, bias=bias, scale=scale, shift=None)
        return replace(self, pool=pool)

    @property
    def num_parameters(self) -> int:
        """Number of learned parameters, of the members and of the pool in its form."""
        probes = sum(probe.weight.numel() + probe.bias.numel() for probe in self.probes)
        sources = len(self.probes)
        probes += self.pool.shift is not None  # one number, for all classes or labels
        if self.member is not None:
            sources += 1
            probes += self.member.num_parameters
        if sources == 1:
            return probes + 1
        pool = {
            "single": 1,
            "weighted": sources + 1,
            "anchored": sources,
            "gated": sources + 1 + self.pool.gate.numel(),
            "anchored_gated": sources + self.pool.gate.numel(),
        }
        return probes + pool[self.pool.form]

    @property
    def num_flops(self) -> int:
        """Number of floating-point operations for one text: two for each entry of a product."""
        probes = sum(2 * probe.weight.numel() for probe in self.probes)
        members = len(self.probes)
        if self.member is not None:
            members += 1
            probes += self.member.num_flops
        mixed = 2 * members * self.probes[0].bias.numel()
        return probes + mixed + (2 * self.pool.gate.numel() if "gated" in self.pool.form else 0)


def fit_stack(
    features: Sequence[Tensor | None],
    labels: Tensor,
    held_out: Sequence[Blend],
    *,
    num_classes: int,
    seed: int = 0,
    gated: bool = False,
    objective: str = LOG_LOSS,
    class_weights: str = UNWEIGHTED,
    beside: tuple[HeadMember, Tensor] | None = None,
    device: torch.device | None = None,
) -> Stack:
    """Fit the probes on all rows, and the pool on their log-probabilities of held-out rows.

    Args:
        features: one tensor for each source, shapes (rows, d_k); None for a source whose features
            are log-probabilities already (of labels: log-odds), which needs no probe.
        labels: class indices, shape (rows,), or labels, shape (rows, classes).
        held_out: log-probabilities of held-out rows, and settings, of each source's probe.
        num_classes: number of classes.
        seed: seed of the folds in which the forms of the pool are compared.
        gated: pool with weights that move from text to text.
        objective: what the stack should be best at: log_loss, accuracy, macro_f1 or micro_f1.
        class_weights: none, or balanced to classify as if all classes were equally frequent.
        beside: a trained head that is one more member, fitted on all rows, and its
            log-probabilities of held-out rows, shape (rows, classes).
        device: where the probes are fitted; the CPU if None.
    """
    probes, regressions = fit_sources(features, labels, held_out, num_classes, {}, device)
    each, member = [source.log_probs for source in held_out], None
    if beside is not None:
        member, said = beside
        each.append(said)
    log_probs = torch.stack(each)
    chosen = choose_pool(
        log_probs,
        held_out[0].target,
        seed=seed,
        gated=gated,
        objective=objective,
        class_weights=class_weights,
        text_of=held_out[0].text_of,
    )
    pool, losses, reason = chosen.pool, chosen.losses, chosen.reason
    return Stack(tuple(probes), pool, losses, reason, member, regressions, chosen.shift)


def refit(
    stack: Stack,
    features: Sequence[Tensor | None],
    labels: Tensor,
    held_out: Sequence[Blend],
    *,
    member: HeadMember | None = None,
    device: torch.device | None = None,
) -> Stack:
    """Fit the probes of a stack again on other rows: train and validation together.

    A trained head needs validation to stop on. A stack does not: once it has been evaluated on
    validation, it may learn from those rows too, as the TF-IDF baseline does.

    Args:
        stack: the stack, whose pool is kept.
        features: one tensor for each source, or None, as for `fit_stack`.
        labels: class indices, shape (rows,), or labels, shape (rows, classes).
        held_out: as the stack was fitted with; each probe keeps its settings.
        member: the trained head of a stack that has one, fitted on these rows.
        device: where the probes are fitted; the CPU if None.
    """
    num_classes = len(stack.probes[0].bias)
    starts = stack.regressions
    probes, regressions = fit_sources(features, labels, held_out, num_classes, starts, device)
    return replace(stack, probes=tuple(probes), member=member, regressions=regressions)


def fit_sources(
    features: Sequence[Tensor | None],
    labels: Tensor,
    held_out: Sequence[Blend],
    num_classes: int,
    starts: Mapping[int, LinearProbe],
    device: torch.device | None,
) -> tuple[list[LinearProbe], dict[int, LinearProbe]]:
    """Fit the probe of each source on all rows, with the settings that held-out rows chose.

    Args:
        features: one tensor for each source, shapes (rows, d_k); None for a source whose features
            are log-probabilities already, which pass unchanged through an identity.
        labels: class indices, shape (rows,), or labels, shape (rows, classes).
        held_out: predictions and settings of each source's probe.
        num_classes: number of classes.
        starts: regressions to start those of the same sources from; zeros where there are none.
        device: where the probes are fitted; the CPU if None.

    Returns:
        The probes, and the logistic regressions within them by source.
    """
    vectors = {k: source for k, source in enumerate(features) if source is not None}
    strengths = {k: held_out[k].strength for k in vectors}
    regressed = {k: strength for k, strength in strengths.items() if strength is not None}
    with gpu_turn(device if vectors else None):
        regressions = fit_probes(
            [vectors[k] for k in regressed],
            labels,
            list(regressed.values()),
            num_classes=num_classes,
            starts=[starts[k] for k in regressed] if starts else (),
            device=device,
        )
        logistic = dict(zip(regressed, regressions, strict=True))

        def probe_of(k: int) -> LinearProbe:
            chosen = held_out[k].discriminant
            if chosen is None:
                return logistic[k]
            other = fit_discriminant(
                vectors[k], labels, chosen, num_classes=num_classes, device=device
            )
            return blend_probes(logistic[k], other) if k in logistic else other

        found = dict(zip(vectors, each_on_a_core(probe_of, list(vectors), device), strict=True))
    identity = LinearProbe(torch.eye(num_classes), torch.zeros(num_classes))
    return [found.get(k, identity) for k in range(len(features))], logistic
