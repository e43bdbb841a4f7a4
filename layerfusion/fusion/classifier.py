"""The head as a LightningModule, which trains on any `Trainer`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MultilabelExactMatch,
    MultilabelF1Score,
)

from layerfusion.calls import plain_calls
from layerfusion.config.user_code import user_code_errors
from layerfusion.errors import UserError
from layerfusion.fusion.calibration import temperature_of
from layerfusion.fusion.data import Batch, FusionDataModule
from layerfusion.fusion.head import FusionHead, HeadSettings
from layerfusion.fusion.operators import FusionOperator
from layerfusion.layers.labels import classification_loss


class FusionClassifier(FusionHead, LightningModule):
    """Fuses standardised sources with an operator, and classifies the fused vector.

    An ordinary LightningModule: it trains, tests and predicts on any `Trainer`, with batches
    `(sources, target)` as `FusionDataModule` gives them. In each epoch it logs `train/loss`;
    `val/log_loss`, `val/accuracy`, `val/macro_f1` and `val/calibration_error`, and the same under
    `test/`; and, where the operator has gates, `gates/NAME`, their means over validation.

    >>> import torch
    >>> head = FusionClassifier([3, 5], num_classes=2, operator="gated", width=4)
    >>> head([torch.zeros(6, 3), torch.zeros(6, 5)]).shape
    torch.Size([6, 2])

    Args:
        widths: width of each source.
        num_classes: number of classes.
        operator: name of an operator (`fusion=NAME`), its import path `package.module:Class`, or a
            subclass of `FusionOperator` that can be imported.
        width: width of the fused vector, or of the projected sources where the two differ.
        dropout: share of the fused vector that is dropped in training.
        arguments: the operator's own arguments, such as `{"temperature": 2.0}`.
        residual: put the projected sources beside the fused vector.
        match_capacity: replace `width` by the one that gives the head as many parameters as
            `concat` has at `width`.
        entropy_penalty: factor of the gates' mean entropy in the training loss.
        learning_rate: learning rate of AdamW.
        weight_decay: weight decay of AdamW.
        names: names of the sources in the log; their numbers if None.
        importance: K positive numbers, for operators whose weights start from them.
        multilabel: texts have any number of the classes: a sigmoid for each, in place of a softmax,
            and targets of shape (batch, num_classes). `micro_f1` is logged too, and accuracy is the
            share of the texts whose labels are all right.

    Raises:
        UserError: for an unknown operator or argument, or a value out of range.
    """

    @plain_calls()
    def __init__(
        self,
        widths: Sequence[int],
        num_classes: int,
        operator: str | type[FusionOperator] = HeadSettings.operator,
        width: int = HeadSettings.width,
        dropout: float = HeadSettings.dropout,
        arguments: dict[str, Any] | None = None,
        residual: bool = HeadSettings.residual,
        match_capacity: bool = HeadSettings.match_capacity,
        entropy_penalty: float = HeadSettings.entropy_penalty,
        learning_rate: float = HeadSettings.learning_rate,
        weight_decay: float = HeadSettings.weight_decay,
        names: Sequence[str] | None = None,
        importance: Sequence[float] | None = None,
        multilabel: bool = False,
    ) -> None:
        settings = HeadSettings(
            widths=list(widths),
            num_classes=num_classes,
            operator=operator if isinstance(operator, str) else _import_path(operator),
            width=width,
            dropout=dropout,
            arguments=dict(arguments or {}),
            residual=residual,
            match_capacity=match_capacity,
            entropy_penalty=entropy_penalty,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            names=None if names is None else list(names),
            importance=None if importance is None else list(importance),
            multilabel=multilabel,
        )
        super().__init__(settings)
        # Plain containers, so that a checkpoint loads with weights_only. They do not go to the
        # logger: the tracker shows the job's whole config once, not once for each seed.
        self.save_hyperparameters(self.settings, logger=False)
        self.names = [str(k) for k in range(len(widths))] if names is None else list(names)
        metrics = _label_metrics if multilabel else _class_metrics
        self.val_metrics = MetricCollection(metrics(num_classes), prefix="val/")
        self.test_metrics = self.val_metrics.clone(prefix="test/")
        self._gate_sum = torch.zeros(len(widths))
        self._gate_rows = 0
        self.gate_epochs: list[list[float]] = []
        """Mean gate of each source over validation, after each epoch."""

    def training_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        """Return the loss of a training batch, and log its mean over the epoch."""
        loss = self.loss(batch)
        rows = len(batch[1])
        self._log_mean("train/loss", loss.detach(), rows)
        return loss

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of a training batch, with the operator's additions to it."""
        sources, target = batch
        self._require_fit(target)
        logits, gates = self.logits_and_gates(sources)
        weights = self.operator.class_weights
        if weights is not None:
            weights = weights.to(logits)
        loss = self._cross_entropy(logits, target, weights)
        with user_code_errors("operator", type(self.operator)):
            source_losses = self.operator.source_losses(sources, target)
        if source_losses is not None:
            loss = loss + source_losses
        if gates is not None and self.fusion_config.entropy_penalty > 0:
            # A source that is left out has a gate of 0, where the slope of g log g is infinite.
            surprise = -gates.clamp_min(torch.finfo(gates.dtype).tiny).log()
            entropy = (gates * surprise).sum(dim=1).mean()
            loss = loss + self.fusion_config.entropy_penalty * entropy
        return loss

    def validation_step(self, batch: Batch, batch_idx: int = 0) -> None:
        """Gather a batch of validation for the epoch's metrics and mean gates."""
        self._add_gates(self._evaluate(batch, "val", self.val_metrics))

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation metrics and mean gates."""
        self.log_dict(self.val_metrics.compute(), sync_dist=True)
        self.val_metrics.reset()
        gates = self._gates_of_epoch(kept=not self.trainer.sanity_checking)
        self.log_dict(gates, sync_dist=True)

    def test_step(self, batch: Batch, batch_idx: int = 0) -> None:
        """Gather a batch of test for its metrics."""
        self._evaluate(batch, "test", self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self.log_dict(self.test_metrics.compute(), sync_dist=True)
        self.test_metrics.reset()

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Tensor:
        """Return the probability of each class or label. Shape: (batch, num_classes)."""
        return self._probabilities(self(batch[0]))

    @plain_calls()
    def calibrate(self, data: FusionDataModule) -> float:
        """Divide the logits by the temperature that makes the probabilities of validation fit.

        For a head that a `Trainer` has trained; `fit` does it by itself. The temperature goes into
        the weights of the last layers, so that checkpoints and exports need to know nothing of it.

        Args:
            data: data whose validation the head did not learn from.

        Returns:
            The temperature. It is 1, and nothing changes, where no other one lowers the log-loss by
            more than a standard error (`calibration.temperature_of`), or where the operator gives
            the logits in layers that are not known.

        Example:
            >>> import torch
            >>> rows, labels = [torch.eye(2).repeat(20, 1)], torch.arange(40) % 2
            >>> features = {"train": rows, "validation": rows}
            >>> data = FusionDataModule(features, {"train": labels, "validation": labels})
            >>> head = FusionClassifier([2], num_classes=2, width=4)
            >>> head.calibrate(data) > 0
            True
        """
        if not self.output_layers:
            return 1.0
        logits, _ = self.predict_logits(data.features["validation"])
        temperature = temperature_of(logits, data.targets["validation"], data.text_of)
        self.rescale(1 / temperature)
        return temperature

    @torch.inference_mode()
    def judge(self, batches: Iterable[Batch], *, full: bool = True) -> dict[str, float]:
        """Return what an epoch logs of validation, for a training without a `Trainer`.

        Args:
            batches: validation, on the head's device.
            full: all metrics, or the log-loss alone. The mean gates are always there, and kept.
        """
        self.eval()
        losses, rows = [], []
        for batch in batches:
            loss, gates = self._judged(batch, self.val_metrics if full else None)
            losses.append(loss)
            rows.append(len(batch[1]))
            self._add_gates(gates)
        counts = losses[0].new_tensor(rows)
        figures = {"val/log_loss": (torch.stack(losses) * counts).sum() / counts.sum()}
        if full:
            figures |= self.val_metrics.compute()
            self.val_metrics.reset()
        return {name: float(value) for name, value in figures.items()} | self._gates_of_epoch()

    def _evaluate(self, batch: Batch, split: str, metrics: MetricCollection) -> Tensor | None:
        """Log the log-loss of a batch, update the metrics of its split, and return its gates."""
        loss, gates = self._judged(batch, metrics)
        self._log_mean(f"{split}/log_loss", loss, len(batch[1]))
        return gates

    def _judged(
        self, batch: Batch, metrics: MetricCollection | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the log-loss and the gates of a batch, and update metrics, if there are any."""
        sources, target = batch
        self._require_fit(target)
        logits, gates = self.logits_and_gates(sources)
        if metrics is not None:
            # Not the logits: torchmetrics takes logits that all lie in [0, 1] for probabilities.
            metrics.update(self._probabilities(logits), target)
        return self._cross_entropy(logits, target), gates

    def _add_gates(self, gates: Tensor | None) -> None:
        """Add the gates of a batch of validation to those of the epoch."""
        if gates is not None:
            self._gate_sum = self._gate_sum.to(gates.device) + gates.sum(dim=0)
            self._gate_rows += len(gates)

    def _gates_of_epoch(self, *, kept: bool = True) -> dict[str, float]:
        """Return the mean gates of an epoch by name, begin anew, and keep them."""
        if not self._gate_rows:
            return {}
        means = (self._gate_sum / self._gate_rows).tolist()
        if kept:
            self.gate_epochs.append(means)
        self._gate_sum, self._gate_rows = torch.zeros(len(self.names)), 0
        return {f"gates/{name}": mean for name, mean in zip(self.names, means, strict=True)}

    def _log_mean(self, name: str, loss: Tensor, rows: int) -> None:
        """Log the mean of a loss over the rows of an epoch, and of all processes that share it."""
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=rows, sync_dist=True)

    def _cross_entropy(
        self, logits: Tensor, target: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        try:
            return classification_loss(logits, target, weights)
        except IndexError as error:  # what torch raises for a class that the head does not have
            classes, highest = self.settings["num_classes"], int(target.max())
            raise UserError(
                f"FusionClassifier: targets up to class {highest} need num_classes={highest + 1};"
                f" this head has {classes} classes, 0 to {classes - 1}"
                if highest >= classes
                else f"FusionClassifier: class {int(target.min())} is below 0"
            ) from error

    def _require_fit(self, target: Tensor) -> None:
        """Refuse targets of another kind, or of another number of labels, than the head's."""
        classes = self.settings["num_classes"]
        takes = (len(target), classes) if self.multilabel else (len(target),)
        if tuple(target.shape) == takes:
            return
        if not self.multilabel and target.ndim == 2:
            way_out = f"num_classes={target.shape[1]}, multilabel=True"
        elif target.ndim == 2:
            way_out = f"num_classes={target.shape[1]}"
        else:
            way_out = "multilabel=False"
        raise UserError(
            f"FusionClassifier: targets of shape {tuple(target.shape)} need {way_out}; this head"
            f" takes {takes}"
        )

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits into probabilities, in single precision at least: 16 bits say 0.996 or 1."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits.sigmoid() if self.multilabel else logits.softmax(dim=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW, fused: with 39 sources on a CPU it takes a third of the default's time.

        It is not fused where a `Trainer` clips gradients: in mixed precision Lightning refuses to
        clip those of a fused optimizer, which may unscale them itself.
        """
        return torch.optim.AdamW(
            self.parameters(),
            lr=self.hparams["learning_rate"],
            weight_decay=self.hparams["weight_decay"],
            fused=not (self._trainer and self._trainer.gradient_clip_val),
        )


def _class_metrics(num_classes: int) -> dict[str, Metric | MetricCollection]:
    # The arguments are sound by construction, and torchmetrics' checks read every batch again.
    checks = {"num_classes": num_classes, "validate_args": False}
    return {
        "accuracy": MulticlassAccuracy(average="micro", **checks),
        "macro_f1": MulticlassF1Score(average="macro", **checks),
        "calibration_error": MulticlassCalibrationError(n_bins=15, norm="l1", **checks),
    }


def _label_metrics(num_classes: int) -> dict[str, Metric | MetricCollection]:
    checks = {"num_labels": num_classes, "validate_args": False}
    return {
        "accuracy": MultilabelExactMatch(**checks),
        "macro_f1": MultilabelF1Score(average="macro", **checks),
        "micro_f1": MultilabelF1Score(average="micro", **checks),
        "calibration_error": BinaryCalibrationError(n_bins=15, norm="l1", validate_args=False),
    }


def _import_path(operator: type[FusionOperator]) -> str:
    return f"{operator.__module__}:{operator.__qualname__}"
