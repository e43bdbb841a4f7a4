"""Heads as tensors and JSON facts, so that files of them need no pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from layerfusion.config.imports import require_named
from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.config.operators import former_fusion, gather_arguments
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.fusion.head import FusionHead, HeadSettings, classifier_settings, is_path
from layerfusion.fusion.head_member import HeadMember
from layerfusion.fusion.operator_head import OperatorHead
from layerfusion.fusion.pool import Pool
from layerfusion.fusion.stacking import Stack
from layerfusion.layers.lexical_regression import LexicalRegression
from layerfusion.layers.probe import LinearProbe

OPERATOR = "operator"
STACK = "stack"
OURS = "layerfusion.fusion.operators"
"""The package of our own operators; nothing else of ours is one."""
POOL = ("bias", "scale", "gate", "mean", "std")
MEMBER = "member."
"""Begins the names of the tensors of a stack's trained head."""


@dataclass(frozen=True)
class StackHead:
    """A fitted stack with the interface of `OperatorHead`."""

    stack: Stack
    regressions: Mapping[str, LexicalRegression] = field(default_factory=dict)
    """The regressions whose log-probabilities are features of the stack, by lexical source. A
    classifier's folder keeps them beside the heads."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.stack.probes[0].bias.shape[-1]

    @property
    def multilabel(self) -> bool:
        """Whether texts have any number of the classes."""
        return self.stack.pool.multilabel

    @property
    def widths(self) -> list[int]:
        """Width of the vectors of each source."""
        return [probe.weight.shape[1] for probe in self.stack.probes]

    def log_probs(self, features: Sequence[Tensor]) -> Tensor:
        """Return log-probabilities, shape (rows, classes), float32, from K tensors (rows, d_k)."""
        return self.predict(features)[0]

    def predict(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Classify rows, and give the weight of each source. Shape: (rows, K)."""
        return self.stack.predict(features)

    def each_source(self, features: Sequence[Tensor]) -> Tensor:
        """Return what the probe of each source says, as for `OperatorHead`."""
        return self.stack.each_source(features)


Head = OperatorHead | StackHead


def head_state(head: Head) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Take a head apart into named tensors, and facts that JSON can hold."""
    if isinstance(head, OperatorHead):
        tensors = {f"classifier.{k}": v for k, v in head.classifier.state_dict().items()}
        for name in ("mean", "std"):
            for k, values in enumerate(getattr(head.standardiser, name)):
                tensors[f"{name}.{k}"] = values
        facts = {"kind": OPERATOR, "settings": dict(head.classifier.settings)}
        return {k: v.detach().cpu().clone() for k, v in tensors.items()}, facts
    stack = head.stack
    tensors = {f"pool.{name}": getattr(stack.pool, name) for name in POOL}
    if stack.pool.shift is not None:
        tensors["pool.shift"] = stack.pool.shift
    for k, probe in enumerate(stack.probes):
        tensors |= {f"weight.{k}": probe.weight, f"bias.{k}": probe.bias}
    facts = {
        "kind": STACK,
        "sources": len(stack.probes),
        "form": stack.pool.form,
        "held_out": stack.held_out,
        "reason": stack.reason,
        "shift": stack.shift,
        "multilabel": stack.pool.multilabel,
    }
    if stack.member is not None:
        own, about = head_state(stack.member.head)
        tensors |= {f"{MEMBER}{name}": values for name, values in own.items()}
        facts["member"] = {"sources": list(stack.member.sources), "head": about}
    return {k: v.detach().cpu().clone() for k, v in tensors.items()}, facts


def head_from(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], modules: Sequence[str] = ()
) -> Head:
    """Put together the head that `head_state` took apart.

    Args:
        tensors: its tensors.
        facts: its facts.
        modules: modules outside LayerFusion that its operator may be imported from.

    Raises:
        UserError: if this version does not know the kind of head, or the operator lies in a module
            that is not among `modules`.
    """
    if facts["kind"] == OPERATOR:
        settings = _settings(facts["settings"])
        if is_path(settings["operator"]):
            require_named("operator", settings["operator"], (OURS, *modules))
        classifier = FusionHead(HeadSettings(**settings))
        prefix = "classifier."
        classifier.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        sources = range(len(settings["widths"]))
        mean, std = (tuple(tensors[f"{name}.{k}"] for k in sources) for name in ("mean", "std"))
        return OperatorHead(classifier.eval(), Standardiser(mean, std))
    if facts["kind"] == STACK:
        pool = Pool(
            facts["form"],
            *(tensors[f"pool.{name}"] for name in POOL),
            shift=tensors.get("pool.shift"),
            multilabel=facts.get("multilabel", False),
        )
        probes = tuple(
            LinearProbe(tensors[f"weight.{k}"], tensors[f"bias.{k}"])
            for k in range(facts["sources"])
        )
        member = None
        if "member" in facts:
            own = {k.removeprefix(MEMBER): v for k, v in tensors.items() if k.startswith(MEMBER)}
            member = _member(own, facts["member"], modules)
        stack = Stack(probes, pool, dict(facts["held_out"]), facts["reason"], member)
        return StackHead(replace(stack, shift=facts.get("shift", "")))
    raise UserError(f"head: there is no kind {facts['kind']!r}; there are: {OPERATOR}, {STACK}")


def operators_of(head: Head) -> list[str]:
    """Return the import paths of a head's operators that are not LayerFusion's."""
    if isinstance(head, StackHead):
        return operators_of(head.stack.member.head) if head.stack.member else []
    operator = str(head.classifier.settings["operator"])
    ours = not is_path(operator) or operator.startswith(f"{OURS}.")
    return [] if ours else [operator]


def _member(
    tensors: Mapping[str, Tensor], facts: Mapping[str, Any], modules: Sequence[str]
) -> HeadMember:
    """Put together the trained head of a stack."""
    head = head_from(tensors, facts["head"], modules)
    if not isinstance(head, OperatorHead):
        raise UserError("head: a stack has a trained head as a member, and no other stack")
    return HeadMember(head, tuple(facts["sources"]))


def _settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `HeadSettings`; schema 1 kept config groups instead."""
    if "fusion" not in settings:
        return dict(settings)
    given = {key: settings[key] for key in ("widths", "num_classes", "names", "importance")}
    fusion = FusionConfig(**gather_arguments(former_fusion(settings["fusion"])))
    return given | classifier_settings(fusion, TrainerConfig(**settings["trainer"]))


def mean_probabilities(heads: Sequence[Head], features: Sequence[Tensor]) -> Tensor:
    """Average the probabilities of heads that differ in their seed.

    Args:
        heads: one head for each seed.
        features: one tensor for each source. Shapes: (rows, d_k).

    Returns:
        Shape: (rows, classes), float32; of classes, rows add up to 1.
    """
    probabilities = [head.log_probs(features).double().exp() for head in heads]
    return torch.stack(probabilities).mean(dim=0).float()
