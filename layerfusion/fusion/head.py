"""A head as a plain module: a fusion operator and a classification layer, which predict.

What trains it is `fusion.classifier`, which needs Lightning. A prediction needs this alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.config.operators import settle
from layerfusion.config.rules import check_rules
from layerfusion.config.user_code import user_code_errors
from layerfusion.embeddings.matrices import Rows
from layerfusion.errors import UserError
from layerfusion.fusion.operators import build_operator
from layerfusion.fusion.operators.capacity import classification_layer, head_flops, matched_width
from layerfusion.fusion.operators.own import fuse

PREDICT_ROWS = 1024
"""Rows of a batch where no gradients are kept."""


@dataclass(frozen=True)
class HeadSettings:
    """Arguments of `FusionClassifier`, which describes them, in plain containers."""

    widths: list[int]
    num_classes: int
    operator: str = "gated"
    width: int = 256
    dropout: float = 0.3
    arguments: dict[str, Any] = field(default_factory=dict)
    residual: bool = False
    match_capacity: bool = False
    entropy_penalty: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    names: list[str] | None = None
    importance: list[float] | None = None
    multilabel: bool = False

    def fusion(self) -> FusionConfig:
        """Return the operator and its arguments as a job's config has them.

        Raises:
            UserError: for an unknown operator or argument, or a value out of range.
        """
        keys = ("width", "dropout", "arguments", "residual", "match_capacity", "entropy_penalty")
        given = {key: getattr(self, key) for key in keys}
        target = self.operator if is_path(self.operator) else ""
        fusion = settle(FusionConfig(self.operator, target, **given))
        check_rules(fusion, "fusion")
        trainer = TrainerConfig(learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        check_rules(trainer, "trainer")
        return fusion


class FusionHead(nn.Module):
    """Fuses standardised sources with an operator, and classifies the fused vector.

    Args:
        settings: its settings. Those of the training are kept with it.

    Raises:
        UserError: for an unknown operator or argument, or a value out of range.
    """

    def __init__(self, settings: HeadSettings) -> None:
        super().__init__()
        self.settings = asdict(settings)
        widths, num_classes = settings.widths, settings.num_classes
        if any(width < 1 for width in widths):
            raise UserError(f"widths: every source needs one number at least, found {widths}")
        if num_classes < (1 if settings.multilabel else 2):
            raise UserError(f"num_classes={num_classes}: at least two classes are needed")
        fusion = settings.fusion()
        if fusion.match_capacity:
            fusion = replace(fusion, width=matched_width(fusion, widths, num_classes))
        self.fusion_config = fusion
        self.operator = build_operator(fusion, widths, num_classes, settings.importance)
        self.dropout = nn.Dropout(0.0 if self.operator.classifies else fusion.dropout)
        self.operator.multilabel = settings.multilabel
        self.classify = classification_layer(self.operator, num_classes)

    @property
    def multilabel(self) -> bool:
        """Whether a text has any number of the classes, and its logits are log-odds."""
        return self.settings["multilabel"]

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters of operator and classification layer."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def num_flops(self) -> int:
        """Number of floating-point operations for one text: see `head_flops`."""
        return head_flops(self.fusion_config, self.settings["widths"], self.settings["num_classes"])

    def forward(self, sources: list[Tensor]) -> Tensor:
        """Return the logits of a batch of standardised sources. Shape: (batch, num_classes)."""
        return self.logits_and_gates(sources)[0]

    @property
    def output_layers(self) -> list[nn.Linear]:
        """The linear layers that give the logits; none if an operator of the user's gives them."""
        layers = [self.classify]
        if self.operator.classifies:
            with user_code_errors("operator", type(self.operator)):
                layers = list(self.operator.output_layers())
        return [layer for layer in layers if isinstance(layer, nn.Linear)]

    @torch.no_grad()
    def rescale(self, scale: float, shift: Tensor | None = None) -> None:
        """Multiply all logits by a number, and add one to those of each class.

        Both go into the weights of the last layers, so that the head stays what it was.

        Args:
            scale: 1 / temperature.
            shift: what is added to each class or label afterwards. Shape: (classes,).
        """
        for layer in self.output_layers:
            layer.weight.mul_(scale)
            layer.bias.mul_(scale)
            if shift is not None:
                layer.bias.add_(shift.to(layer.bias))

    @torch.inference_mode()
    def predict_logits(self, features: Sequence[Rows]) -> tuple[Tensor, Tensor | None]:
        """Classify any number of rows, without dropout.

        Args:
            features: one standardised tensor for each source, or rows that are read as needed.
                Shapes: (rows, d_k).

        Returns:
            Logits, shape (rows, num_classes), and gates, shape (rows, K), both on the CPU. The
            gates are None where the operator has none.
        """
        training = self.training
        weights = next(self.parameters(), features[0][:1])
        self.eval()
        logits, gates = [], []
        for start in range(0, len(features[0]), PREDICT_ROWS):
            rows = [source[start : start + PREDICT_ROWS].to(weights.device) for source in features]
            batch_logits, batch_gates = self.logits_and_gates(rows)
            logits.append(batch_logits.cpu())
            if batch_gates is not None:
                gates.append(batch_gates.cpu())
        self.train(training)
        return torch.cat(logits), torch.cat(gates) if gates else None

    def logits_and_gates(self, sources: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the logits of a batch, shape (batch, num_classes), and gates, (batch, K).

        Raises:
            UserError: for other sources than those of the head's widths.
        """
        widths = [source.shape[-1] for source in sources]
        if widths != self.settings["widths"]:
            raise UserError(
                f"FusionClassifier: sources of widths {widths} need a head with these widths; this"
                f" one has {self.settings['widths']}"
            )
        fused, gates = fuse(self.operator, sources)
        return self.classify(self.dropout(fused)), gates


def classifier_settings(fusion: FusionConfig, trainer: TrainerConfig) -> dict[str, Any]:
    """Return the settings of a job's head as arguments of `FusionClassifier`."""
    fusion = settle(fusion)
    ours = not fusion.target or fusion.target.startswith("layerfusion.")
    return {
        "operator": fusion.name if ours else fusion.target,
        "width": fusion.width,
        "dropout": fusion.dropout,
        "arguments": dict(fusion.arguments),
        "residual": fusion.residual,
        "match_capacity": fusion.match_capacity,
        "entropy_penalty": fusion.entropy_penalty,
        "learning_rate": trainer.learning_rate,
        "weight_decay": trainer.weight_decay,
    }


def is_path(operator: str) -> bool:
    """Tell an operator's import path from its name."""
    return "." in operator or ":" in operator
