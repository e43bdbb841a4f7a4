"""The head: a fusion operator and a classification layer, trained on pooled layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
)

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.fusion.data import Batch, TensorBatches
from layerfusion.fusion.operators import build_operator
from layerfusion.fusion.operators.capacity import classification_layer, head_flops, matched_width

PREDICT_ROWS = 1024
"""Rows of a batch where no gradients are kept."""


class FusionClassifier(LightningModule):
    """Fuses the sources, drops out and classifies; all inputs are standardised already.

    Logs once an epoch: `train/loss`; `val/log_loss`, `val/accuracy`, `val/macro_f1`,
    `val/calibration_error`; and, where the operator has gates, `gates/NAME`, their means over
    validation.

    Args:
        widths: width of each source.
        num_classes: number of classes.
        fusion: the fields of `FusionConfig`.
        trainer: the fields of `TrainerConfig`.
        names: what each source is called in the log; their numbers if none.
        importance: K positive numbers, which operators with gates start from.
    """

    def __init__(
        self,
        widths: Sequence[int],
        num_classes: int,
        fusion: dict[str, Any],
        trainer: dict[str, Any],
        names: Sequence[str] | None = None,
        importance: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        # Not to the logger: the tracker shows the job's whole config once, not once a seed.
        self.save_hyperparameters(logger=False)
        fusion_config = FusionConfig(**fusion)
        self.trainer_config = TrainerConfig(**trainer)
        self.names = [str(k) for k in range(len(widths))] if names is None else list(names)
        if fusion_config.match_capacity:
            width = matched_width(fusion_config, widths, num_classes)
            fusion_config = replace(fusion_config, width=width)
        self.fusion_config = fusion_config
        self.operator = build_operator(fusion_config, widths, num_classes, importance)
        self.dropout = nn.Dropout(0.0 if self.operator.classifies else fusion_config.dropout)
        self.classify = classification_layer(self.operator, num_classes)
        # Arguments are sound by construction; torchmetrics' checks read every batch again.
        checks = {"num_classes": num_classes, "validate_args": False}
        self.val_metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(average="micro", **checks),
                "macro_f1": MulticlassF1Score(average="macro", **checks),
                "calibration_error": MulticlassCalibrationError(n_bins=15, norm="l1", **checks),
            },
            prefix="val/",
        )
        self._gate_sum = torch.zeros(len(widths))
        self._gate_rows = 0
        self.gate_epochs: list[list[float]] = []
        """Of each epoch validated, the mean gate of each source."""

    @property
    def num_parameters(self) -> int:
        """Trained parameters of operator and classification layer."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def num_flops(self) -> int:
        """Floating-point operations for one text: see `head_flops`."""
        return head_flops(self.fusion_config, self.hparams["widths"], self.hparams["num_classes"])

    def forward(self, sources: list[Tensor]) -> Tensor:
        """Logits of a batch of standardised sources. Shape: (batch, num_classes)."""
        return self._logits_and_gates(sources)[0]

    def training_step(self, epoch: TensorBatches, batch_idx: int) -> None:
        """One epoch: a step of the optimiser for each of its batches.

        To Lightning an epoch is one batch: what it does around a batch takes twice as long as the
        step of a small head.
        """
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        total = torch.zeros((), device=self.device)
        for sources, target in epoch:
            batch = [source.to(self.device) for source in sources], target.to(self.device)
            loss = self.loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            total += loss.detach() * len(target)
        mean = total / len(epoch.target)
        self.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=1)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy of a train batch, with what the operator's gates and own heads add."""
        sources, target = batch
        logits, gates = self._logits_and_gates(sources)
        loss = F.cross_entropy(logits, target)
        own = self.operator.source_losses(sources, target)
        if own is not None:
            loss = loss + own
        if gates is not None and self.fusion_config.entropy_penalty > 0:
            # At a gate of 0, of a source left out, the slope of g log g is infinite: clamped.
            surprise = -gates.clamp_min(torch.finfo(gates.dtype).tiny).log()
            entropy = (gates * surprise).sum(dim=1).mean()
            loss = loss + self.fusion_config.entropy_penalty * entropy
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Gather what the epoch's validation metrics are made from."""
        sources, target = batch
        logits, gates = self._logits_and_gates(sources)
        loss = F.cross_entropy(logits, target)
        self.log("val/log_loss", loss, on_step=False, on_epoch=True, batch_size=len(target))
        # Probabilities, since torchmetrics takes logits that all lie in [0, 1] for probabilities.
        self.val_metrics.update(logits.softmax(dim=1), target)
        if gates is not None:
            self._gate_sum = self._gate_sum.to(gates.device) + gates.sum(dim=0)
            self._gate_rows += len(gates)

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation metrics and mean gates."""
        self.log_dict(self.val_metrics.compute())
        self.val_metrics.reset()
        if self._gate_rows:
            means = (self._gate_sum / self._gate_rows).tolist()
            self.gate_epochs.append(means)
            self.log_dict({f"gates/{name}": m for name, m in zip(self.names, means, strict=True)})
            self._gate_sum, self._gate_rows = torch.zeros(len(self.names)), 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW, fused: a third of the time of the default on a CPU with 39 sources."""
        return torch.optim.AdamW(
            self.parameters(),
            lr=self.trainer_config.learning_rate,
            weight_decay=self.trainer_config.weight_decay,
            fused=True,
        )

    @torch.inference_mode()
    def predict_logits(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Classify any number of rows, without dropout.

        Args:
            features: one standardised tensor a source. Shapes: (rows, d_k).

        Returns:
            Logits, shape (rows, num_classes), and gates, shape (rows, K), on the CPU; none
            where the operator has no gates.
        """
        training = self.training
        self.eval()
        logits, gates = [], []
        for start in range(0, len(features[0]), PREDICT_ROWS):
            rows = [source[start : start + PREDICT_ROWS].to(self.device) for source in features]
            batch_logits, batch_gates = self._logits_and_gates(rows)
            logits.append(batch_logits.cpu())
            if batch_gates is not None:
                gates.append(batch_gates.cpu())
        self.train(training)
        return torch.cat(logits), torch.cat(gates) if gates else None

    def _logits_and_gates(self, sources: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        fused, gates = self.operator.fuse(sources)
        return self.classify(self.dropout(fused)), gates
