"""The sources of a data set as standardised batches, and their LightningDataModule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from layerfusion.calls import plain_calls
from layerfusion.embeddings.matrices import LazyRows, Rows, chunks
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError, unknown
from layerfusion.fusion.operators.build import check_sources

Features = Mapping[str, Sequence[Rows]]
"""Each split's sources, in the order of the selection. Shapes: (rows, d_k)."""
Batch = tuple[list[Tensor], Tensor]
"""The sources of a batch, shapes (batch, d_k), and its class indices, shape (batch,), or labels,
shape (batch, labels)."""
EVALUATED_ROWS = 1024
"""Smallest size of a batch that is only evaluated. The size does not change the figures."""


class TensorBatches:
    """Slices batches from tensors. A DataLoader over a TensorDataset takes 1.65 times as long.

    Args:
        features: one tensor for each source, or rows that are read as needed. Shapes: (rows, d_k).
        target: class indices, shape (rows,), or labels, shape (rows, labels).
        batch_size: rows of a batch; the last batch may be smaller.
        shuffle: take the rows in a new order in every epoch.
        seed: seed of the shuffling, which has a generator of its own.
        device: device of the batches; None leaves them where the features are.
    """

    def __init__(
        self,
        features: Sequence[Rows],
        target: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.features = list(features)
        self.target = target
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed) if shuffle else None
        self.device = device

    def __len__(self) -> int:
        """Return the number of batches."""
        return math.ceil(len(self.target) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Give every row once, which is an epoch."""
        if self.generator is None:
            for start in range(0, len(self.target), self.batch_size):
                yield self._batch(slice(start, start + self.batch_size))
            return
        order = torch.randperm(len(self.target), generator=self.generator)
        for index in order.split(self.batch_size):
            yield self._batch(index)

    def _batch(self, rows: slice | Tensor) -> Batch:
        sources = [_take(source, rows) for source in self.features]
        target = _take(self.target, rows)
        if self.device is None:
            return sources, target
        return [source.to(self.device) for source in sources], target.to(self.device)


def _take(source: Rows, rows: slice | Tensor) -> Tensor:
    """Return rows of a source, which are named where it lies."""
    return source[rows if isinstance(rows, slice) else rows.to(source.device)]


class FusionDataModule(LightningDataModule):
    """Gives batches `(sources, target)` of standardised sources, from plain tensors or arrays.

    All splits are standardised once, with the mean and deviation of train alone; where that would
    fill the memory, each batch is. Splits: `train` and `validation`, and `test` where
    `Trainer.test` or `Trainer.predict` is to be called.

    >>> import torch
    >>> rows = {"train": 20, "validation": 6, "test": 4}
    >>> features = {split: [torch.randn(n, 3), torch.randn(n, 5)] for split, n in rows.items()}
    >>> targets = {split: torch.arange(n) % 2 for split, n in rows.items()}
    >>> data = FusionDataModule(features, targets, batch_size=8)
    >>> sources, target = next(iter(data.train_dataloader()))
    >>> [tuple(source.shape) for source in sources], len(target)
    ([(8, 3), (8, 5)], 8)

    Args:
        features: split to one tensor or array for each source. Shapes: (rows, d_k).
        targets: split to class indices, shapes (rows,), or labels, shapes (rows, labels).
        batch_size: rows of a training batch.
        seed: seed of the order of the train rows; `fit` sets it for each training run.
        text_of: number of the text of each row of validation, where rows may repeat one: such rows
            count once where a head is calibrated. None if all differ. Shape: (rows,).

    Raises:
        UserError: if train or validation is missing or empty, the shapes do not match, a source
            holds NaN or infinity, or targets are neither class indices nor matrices of 0 and 1.
    """

    @plain_calls()
    def __init__(
        self,
        features: Mapping[str, Sequence[Any]],
        targets: Mapping[str, Any],
        batch_size: int = 64,
        seed: int = 0,
        text_of: Any = None,
    ) -> None:
        super().__init__()
        for split, sources in features.items():
            if not isinstance(sources, Sequence) or isinstance(sources, str):
                raise UserError(
                    f"fusion: the features of {split} have to be a list with a tensor or array for"
                    f" each source, found an object of type {type(sources).__name__}"
                )
        if batch_size < 1:
            raise UserError(f"batch_size: a whole number from 1 is needed, found {batch_size!r}")
        tensors = {
            split: [_as_source(split, n, source) for n, source in enumerate(sources)]
            for split, sources in features.items()
        }
        self.targets = {split: _as_target(split, target) for split, target in targets.items()}
        _check(tensors, self.targets)
        self.text_of = None if text_of is None else _as_texts(text_of, self.targets["validation"])
        self.standardiser = Standardiser.fit(tensors["train"])
        self.features = {
            split: self.standardiser.rows(sources) for split, sources in tensors.items()
        }
        self.batch_size = batch_size
        self.seed = seed

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each source."""
        return tuple(source.shape[1] for source in self.features["train"])

    def train_dataloader(self) -> TensorBatches:
        """Return the batches of train, in a new order in every epoch."""
        return TensorBatches(
            self.features["train"],
            self.targets["train"],
            self.batch_size,
            shuffle=True,
            seed=self.seed,
        )

    def val_dataloader(self) -> TensorBatches:
        """Return batches of validation, in the order of its rows."""
        return self._in_order("validation")

    def test_dataloader(self) -> TensorBatches:
        """Return batches of test, in the order of its rows."""
        return self._in_order("test")

    def predict_dataloader(self) -> TensorBatches:
        """Return batches of test, in the order of its rows."""
        return self._in_order("test")

    def _in_order(self, split: str) -> TensorBatches:
        if split not in self.features:
            raise unknown("split", split, self.features)
        rows = max(self.batch_size, EVALUATED_ROWS)
        return TensorBatches(self.features[split], self.targets[split], rows)


def _as_source(split: str, number: int, source: Any) -> Rows:
    """Make the vectors of a source a tensor, and refuse what is no matrix of finite numbers."""
    where = f"fusion: source {number} of {split}"
    if not isinstance(source, Tensor | LazyRows):
        array = source.toarray() if hasattr(source, "toarray") else np.asarray(source)
        if array.dtype.kind not in "biuf":
            raise UserError(f"{where} holds no numbers, but {array.dtype}")
        source = torch.as_tensor(array if array.flags.writeable else array.copy())
    if len(source.shape) != 2 or not source.shape[1]:
        raise UserError(
            f"{where} has the shape {tuple(source.shape)}; a vector for each row is needed, (rows,"
            " width)"
        )
    if isinstance(source, Tensor) and not source.is_floating_point():
        source = source.float()
    before = 0
    for part in chunks(source) if len(source) else ():
        # The ends are NaN where anything is, and take no copy.
        if not torch.stack(part.aminmax()).isfinite().all():
            row = before + int((~part.isfinite()).any(dim=1).nonzero()[0])
            raise UserError(f"{where} holds NaN or infinity, first in row {row} (from 0)")
        before += len(part)
    return source


def _as_target(split: str, target: Any) -> Tensor:
    """Make class indices or a matrix of labels a tensor, and refuse what is neither."""
    if not isinstance(target, Tensor):
        target = target.toarray() if hasattr(target, "toarray") else np.asarray(target)
        if target.dtype.kind not in "biuf":
            raise UserError(f"fusion: the targets of {split} are no numbers, but {target.dtype}")
        target = torch.tensor(target)
    if target.ndim not in (1, 2):
        raise UserError(
            f"fusion: the targets of {split} have the shape {tuple(target.shape)}; class indices"
            " of shape (rows,), or 0 and 1 of shape (rows, labels), are needed"
        )
    whole = target.long()
    strange = (whole != target) | (whole < 0)
    if target.ndim == 2:
        strange |= whole > 1
    if bool(strange.any()):
        needed = "whole numbers from 0" if target.ndim == 1 else "0 and 1 alone"
        raise UserError(
            f"fusion: the targets of {split} hold {target[strange][0].item():g}; {needed} are"
            " needed"
        )
    return whole


def _as_texts(text_of: Any, target: Tensor) -> Tensor:
    """Make the numbers of texts a tensor with one for each row of validation."""
    numbers = torch.as_tensor(text_of)
    if numbers.shape != target.shape[:1] or numbers.is_floating_point():
        raise UserError(
            f"text_of: a whole number is needed for each of {len(target)} rows of validation, found"
            f" {numbers.dtype} of shape {tuple(numbers.shape)}"
        )
    return numbers


def _check(features: Features, targets: Mapping[str, Tensor]) -> None:
    for split in ("train", "validation"):
        if split not in features or not len(targets.get(split, ())):
            raise UserError(f"fusion: {split} has no rows; train and validation are both needed")
    check_sources(features["train"])
    widths = [source.shape[1] for source in features["train"]]
    for split, sources in features.items():
        shapes = [tuple(source.shape) for source in sources]
        expected = [(len(targets.get(split, ())), width) for width in widths]
        if shapes != expected:
            raise UserError(f"fusion: the sources of {split} have shapes {shapes}, not {expected}")
    labels = {split: tuple(target.shape[1:]) for split, target in targets.items()}
    if len(set(labels.values())) > 1:
        found = ", ".join(f"{split} {tuple(target.shape)}" for split, target in targets.items())
        raise UserError(
            f"fusion: targets are of one kind, with one number of labels; found {found}"
        )
