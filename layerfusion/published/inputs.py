"""Inputs of a job under `protocol=as_published`: padded vectors of last hidden states."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layerfusion.config.job import ExtractConfig
from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.errors import UserError
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.selection import Choice, Selection
from layerfusion.published.padded import PADDED_MEAN, extract_padded, padded_addresses
from layerfusion.published.selection_bias import alike_words
from layerfusion.texts import TextDataset


def require_two_test_rows(dataset: TextDataset) -> None:
    """Refuse a test split that cannot be halved, before any work.

    Raises:
        UserError: where it has a single row, or all of its rows have the same text.
    """
    texts = dataset.splits["test"].texts
    if len(set(texts)) < 2:
        raise UserError(
            f"dataset {dataset.name}: {alike_words(len(texts))} cannot be halved, which the"
            " selection bias of protocol=as_published needs; at least 2 with different texts are"
            " needed"
        )


def published_splits(dataset: TextDataset) -> dict[str, list[str]]:
    """Train and test as published scripts see them: nothing held out, in the data's own order."""
    rows = [*dataset.splits["train"].texts, *dataset.splits["validation"].texts]
    train = [rows[row] for row in np.argsort(train_order(dataset))]
    return {"train": train, "test": list(dataset.splits["test"].texts)}


def published_addresses(dataset: TextDataset) -> dict[str, list[bytes]]:
    """Split to where the padded vectors of its texts lie, for the three splits of the job."""
    splits = published_splits(dataset)
    train = padded_addresses(splits["train"])
    ours = [train[place] for place in train_order(dataset)]
    cut = len(dataset.splits["train"].texts)
    test = padded_addresses(splits["test"])
    return {"train": ours[:cut], "validation": ours[cut:], "test": test}


def extract_published(
    sources: Mapping[str, EmbeddingSource], dataset: TextDataset, options: ExtractConfig
) -> None:
    """Fill the stores of padded vectors; no batch crosses from train to test."""
    for source in sources.values():
        extract_padded(source, list(published_splits(dataset).values()), options)


def select_published(sources: Mapping[str, Source]) -> Selection:
    """The last hidden state of every backbone: after the final norm where the model has one."""
    return Selection(
        tuple(
            Choice(LayerId(name, source.shape.layers[-1], PADDED_MEAN), "the last hidden state")
            for name, source in sources.items()
        )
    )


def train_order(dataset: TextDataset) -> np.ndarray:
    """Place in the data of each row of train, then of validation. Shape: (rows,)."""
    if dataset.train_order is not None:
        return dataset.train_order
    return np.arange(len(dataset.splits["train"]) + len(dataset.splits["validation"]))
