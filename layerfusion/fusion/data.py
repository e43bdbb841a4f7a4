"""The pooled layers of a data set as standardised batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError

Features = Mapping[str, Sequence[Tensor]]
"""Split to one tensor a source, in the order of the selection. Shapes: (rows, d_k)."""
Batch = tuple[list[Tensor], Tensor]
"""One tensor a source, shapes (batch, d_k), and the class indices, shape (batch,)."""
VALIDATION_ROWS = 1024
"""Rows of a validation batch at least; its size does not change what is measured."""


class TensorBatches:
    """Batches sliced from tensors; a DataLoader over a TensorDataset takes 1.65 times as long.

    Args:
        features: one tensor a source. Shapes: (rows, d_k).
        target: class indices. Shape: (rows,).
        batch_size: rows of a batch; the last one may be smaller.
        shuffle: take the rows in a new order in every epoch.
        seed: of the shuffling, which uses a generator of its own.
    """

    def __init__(
        self,
        features: Sequence[Tensor],
        target: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        self.features = list(features)
        self.target = target
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed) if shuffle else None

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(len(self.target) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """One epoch: every row once."""
        if self.generator is None:
            for start in range(0, len(self.target), self.batch_size):
                rows = slice(start, start + self.batch_size)
                yield [source[rows] for source in self.features], self.target[rows]
            return
        order = torch.randperm(len(self.target), generator=self.generator)
        for index in order.split(self.batch_size):
            yield [source[index] for source in self.features], self.target[index]


class WholeEpochs:
    """Hands Lightning an epoch as one item: see `FusionClassifier.training_step`."""

    def __init__(self, batches: TensorBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        """One item."""
        return 1

    def __iter__(self) -> Iterator[TensorBatches]:
        """The batches of one epoch, not yet drawn."""
        yield self.batches


class FusionData(LightningDataModule):
    """Train and validation batches of standardised features; test is only ever read by name.

    Everything is standardised once, with the statistics of train alone.

    Args:
        features: split to one tensor a source. Shapes: (rows, d_k).
        targets: split to class indices. Shapes: (rows,).
        batch_size: rows of a train batch.
        seed: of the order of the train rows; `fit` sets it for each training run.

    Raises:
        UserError: where train or validation is missing or empty, or the splits do not match.
    """

    def __init__(
        self, features: Features, targets: Mapping[str, Tensor], batch_size: int, seed: int = 0
    ) -> None:
        super().__init__()
        _check(features, targets)
        self.standardiser = Standardiser.fit(features["train"])
        self.features = {split: self.standardiser(sources) for split, sources in features.items()}
        self.targets = dict(targets)
        self.batch_size = batch_size
        self.seed = seed

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each source."""
        return tuple(source.shape[1] for source in self.features["train"])

    def train_dataloader(self) -> WholeEpochs:
        """The batches of train, in a new order in every epoch."""
        batches = TensorBatches(
            self.features["train"],
            self.targets["train"],
            self.batch_size,
            shuffle=True,
            seed=self.seed,
        )
        return WholeEpochs(batches)

    def val_dataloader(self) -> TensorBatches:
        """Batches of validation, in the order of its rows."""
        rows = max(self.batch_size, VALIDATION_ROWS)
        return TensorBatches(self.features["validation"], self.targets["validation"], rows)


def _check(features: Features, targets: Mapping[str, Tensor]) -> None:
    for split in ("train", "validation"):
        if split not in features or not len(targets.get(split, ())):
            raise UserError(f"fusion: {split} has no rows; train and validation are both needed")
    if not features["train"]:
        raise UserError("fusion: no source to fuse; select at least one layer")
    widths = [source.shape[1] for source in features["train"]]
    for split, sources in features.items():
        found = [tuple(source.shape) for source in sources]
        wanted = [(len(targets.get(split, ())), width) for width in widths]
        if found != wanted:
            raise UserError(f"fusion: the sources of {split} have shapes {found}, not {wanted}")
