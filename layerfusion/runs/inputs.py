"""Prepares the inputs of a job: its texts, their embeddings and the selected layers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from layerfusion.config.job import AUTO, FusionConfig, TrainConfig
from layerfusion.embeddings.backbone import choose_device
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.source import Source
from layerfusion.errors import UserError
from layerfusion.fusion.deadline import Deadline
from layerfusion.fusion.operators.capacity import check_operators
from layerfusion.layers.candidates import read_layers
from layerfusion.layers.selection import Selection, find_selection
from layerfusion.progress import STANDING
from layerfusion.records.job import PilotRecord
from layerfusion.runs.auto import Decision, decide
from layerfusion.runs.job_sources import extract, open_backbones, open_sources
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.long_texts import reading_lines, settled
from layerfusion.runs.pilot import run_pilot
from layerfusion.runs.preflight import require_possible
from layerfusion.runs.select_layers import select
from layerfusion.texts import TextDataset
from layerfusion.texts.table import SPLITS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Everything that a job has before it trains a head."""

    dataset: TextDataset
    hashes: Mapping[str, list[bytes]]
    """Hashes of the texts, by split."""
    sources: Mapping[str, Source]
    selection: Selection
    fusion: FusionConfig
    """The fusion to train. For `fusion=auto`, it is the one that was chosen."""
    pilot: PilotRecord | None = None
    decision: Decision | None = None
    """The decision of `fusion=auto`; None for other fusions."""
    deadline: Deadline = field(default_factory=Deadline)
    """The end of the time that the job may take."""
    reading: list[str] = field(default_factory=list)
    """How the models read texts of train that are too long for them, a sentence each."""


def find(config: TrainConfig) -> None:
    """Read the texts and look up the models' files, since most mistakes in a command show there.

    Where the time is limited, only the models for which there is time are looked up, later.

    Raises:
        UserError: if a text or a model cannot be found or read.
    """
    check_inputs(config)
    dataset = dataset_of(config)
    if config.time_limit is None:
        open_backbones(settled(config, dataset))


def prepare(config: TrainConfig, deadline: Deadline | None = None) -> Inputs:
    """Load the texts, fetch the models, extract what the cache lacks and select layers."""
    check_inputs(config)
    return prepare_texts(config, dataset_of(config), deadline)


def prepare_texts(
    config: TrainConfig, dataset: TextDataset, deadline: Deadline | None = None
) -> Inputs:
    """Do the same for texts that are in memory, whatever data set the config names."""
    deadline = deadline or Deadline()
    hashes = {split: [text_hash(text) for text in dataset.splits[split].texts] for split in SPLITS}
    selection, pilot = None, None
    sources = open_sources(config, dataset)
    notes = require_possible(config, dataset, sources)
    if config.layers.pilot is not None:
        selection, pilot = run_pilot(config, dataset, sources, deadline)
    else:
        extract(config, dataset, sources)
    reading = reading_lines(config, dataset, sources)
    for line in reading:
        log.info(line, extra=STANDING)
    decision, fusion = None, config.fusion
    if fusion.name == AUTO:
        if not find_selection(config.layers.name).looks_at_labels:
            selection = select(config, dataset, sources)
        decision = decide(config, dataset, sources, selection, deadline)
        selection, fusion = decision.selection, decision.fusion
    elif selection is None:
        selection = select(config, dataset, sources)
    chosen = _noted(selection, notes)
    return Inputs(
        dataset, hashes, sources, chosen, fusion, pilot, decision, deadline, reading=reading
    )


def _noted(selection: Selection, notes: Sequence[str]) -> Selection:
    return replace(selection, notes=(*notes, *selection.notes))


def check_inputs(config: TrainConfig) -> None:
    """Check before hours of extraction what a head would refuse after them.

    Raises:
        UserError: for a device that this machine lacks, a part of the texts, or a width that the
            operator cannot split.
    """
    check_operators(config.fusion)
    choose_device(config.extract.device)
    if config.extract.num_shards != 1:
        raise UserError(
            f"extract.num_shards={config.extract.num_shards}: parts of the texts are for"
            " `layerfusion extract`; training needs all of them"
        )


def read_features(inputs: Inputs) -> dict[str, list[Tensor]]:
    """Read the selected layers, and nothing else, from the stores.

    Returns:
        Features by split: one tensor for each selected layer, in the order of the selection, shape
        (rows, width), float32.
    """
    return {
        split: read_layers(inputs.sources, inputs.selection.layers, hashes)
        for split, hashes in inputs.hashes.items()
    }


def read_targets(inputs: Inputs) -> dict[str, Tensor]:
    """Return the labels of each split: class indices, int64, or labels, bool."""
    return {split: torch.from_numpy(inputs.dataset.splits[split].labels) for split in inputs.hashes}
