"""Probabilities of the rows of train, from probes that had not seen them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.backbone import probe_device
from layerfusion.errors import UserError
from layerfusion.layers.held_out import held_out_probes
from layerfusion.layers.labels import is_multilabel, log_odds
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import NEVER
from layerfusion.records.job import RunRecord
from layerfusion.runs.job_sources import open_sources
from layerfusion.runs.long_texts import as_recorded
from layerfusion.runs.select_layers import candidates_of
from layerfusion.texts import TextDataset


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """Held-out rows of train, or of validation under `layers.held_out=validation`."""

    texts: list[str]
    labels: np.ndarray
    """Class indices, shape (rows,), int64, or labels, shape (rows, labels), bool."""
    probabilities: np.ndarray
    """Shape: (rows, classes)."""


def held_out_rows(config: TrainConfig, record: RunRecord, dataset: TextDataset) -> HeldOutRows:
    """Predict held-out rows by the probes of a job's layers, whose log-probabilities are averaged.

    Nothing is extracted. Probes that a selection or a stack fitted are in the cache; those of other
    jobs are fitted on its vectors.

    Raises:
        UserError: if the cache lacks the vectors, or a model's files cannot be found.
    """
    layers = [LayerId(one.backbone, one.layer, one.pooling) for one in record.layers]
    sources = open_sources(as_recorded(config, record), dataset)
    try:
        candidates = candidates_of(config, dataset, sources, layers)
        device = probe_device(config.extract.device)
        probes, _ = held_out_probes(candidates, config.layers, device)
    except KeyError as error:
        raise UserError(
            f"{config.paths.cache}: it lacks vectors of this job's texts; the command of the job"
            " with `extract` in the place of `train` computes them"
        ) from error
    log_probs = torch.stack([probe.log_probs for probe in probes])
    kept = (candidates.fold_of != NEVER).numpy()
    texts = [text for text, is_kept in zip(candidates.texts, kept, strict=True) if is_kept]
    labels = candidates.labels.numpy()[kept]
    if is_multilabel(candidates.labels):
        probabilities = log_odds(log_probs.double()).mean(dim=0).sigmoid()
    else:
        probabilities = log_probs.mean(dim=0).double().softmax(dim=1)
    return HeldOutRows(texts, labels, probabilities.numpy())
