"""Heads as tensors and plain facts, so that they can be kept without a pickle and made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.stacking import Pool, Stack
from layerfusion.layers.probe import LinearProbe

OPERATOR = "operator"
STACK = "stack"
POOL = ("bias", "scale", "gate", "mean", "std")


@dataclass(frozen=True)
class OperatorHead:
    """A trained operator with the statistics of train that its sources are standardised by."""

    classifier: FusionClassifier
    standardiser: Standardiser

    def log_probs(self, features: Sequence[Tensor]) -> Tensor:
        """Classify rows.

        Args:
            features: one tensor a source, as they come from the stores. Shapes: (rows, d_k).

        Returns:
            Log-probabilities. Shape: (rows, classes), float32.
        """
        logits, _ = self.classifier.predict_logits(self.standardiser(features))
        return logits.float().log_softmax(dim=1)


@dataclass(frozen=True)
class StackHead:
    """A fitted stack under the same interface."""

    stack: Stack

    def log_probs(self, features: Sequence[Tensor]) -> Tensor:
        """Classify rows. Shape: (rows, classes), float32, from K tensors (rows, d_k)."""
        return self.stack.predict(features)[0]


Head = OperatorHead | StackHead


def head_state(head: Head) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a head is made of: named tensors, and facts that JSON can hold."""
    if isinstance(head, OperatorHead):
        tensors = {f"classifier.{k}": v for k, v in head.classifier.state_dict().items()}
        for name in ("mean", "std"):
            for k, values in enumerate(getattr(head.standardiser, name)):
                tensors[f"{name}.{k}"] = values
        facts = {"kind": OPERATOR, "settings": dict(head.classifier.hparams)}
        return {k: v.detach().cpu().clone() for k, v in tensors.items()}, facts
    stack = head.stack
    tensors = {f"pool.{name}": getattr(stack.pool, name) for name in POOL}
    for k, probe in enumerate(stack.probes):
        tensors |= {f"weight.{k}": probe.weight, f"bias.{k}": probe.bias}
    facts = {
        "kind": STACK,
        "sources": len(stack.probes),
        "form": stack.pool.form,
        "held_out": stack.held_out,
        "reason": stack.reason,
    }
    return {k: v.detach().cpu().clone() for k, v in tensors.items()}, facts


def head_from(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Head:
    """The head that `head_state` took apart.

    Raises:
        UserError: for a kind of head that this version does not know.
    """
    if facts["kind"] == OPERATOR:
        classifier = FusionClassifier(**facts["settings"])
        prefix = "classifier."
        classifier.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        sources = range(len(facts["settings"]["widths"]))
        mean, std = (tuple(tensors[f"{name}.{k}"] for k in sources) for name in ("mean", "std"))
        return OperatorHead(classifier.eval(), Standardiser(mean, std))
    if facts["kind"] == STACK:
        pool = Pool(facts["form"], *(tensors[f"pool.{name}"] for name in POOL))
        probes = tuple(
            LinearProbe(tensors[f"weight.{k}"], tensors[f"bias.{k}"])
            for k in range(facts["sources"])
        )
        return StackHead(Stack(probes, pool, dict(facts["held_out"]), facts["reason"]))
    raise UserError(f"head: there is no kind {facts['kind']!r}; there are: {OPERATOR}, {STACK}")


def mean_probabilities(heads: Sequence[Head], features: Sequence[Tensor]) -> Tensor:
    """The consensus of heads that differ in their seed: their mean probabilities.

    Args:
        heads: one a seed.
        features: one tensor a source. Shapes: (rows, d_k).

    Returns:
        Shape: (rows, classes), float32; rows add up to 1.
    """
    said = [head.log_probs(features).double().exp() for head in heads]
    return torch.stack(said).mean(dim=0).float()
