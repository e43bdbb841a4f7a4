"""The protocol of published scripts, as a client of the jobs in `runs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layerfusion.config.job import PoolingConfig, TrainConfig
from layerfusion.embeddings.source import Source
from layerfusion.fusion.deadline import Deadline
from layerfusion.published.heads import PublishedResult, padded_cost, train_as_published
from layerfusion.published.inputs import (
    extract_published,
    published_addresses,
    require_two_test_rows,
    select_published,
)
from layerfusion.published.padded import PADDED_POOLING
from layerfusion.records.format import percent
from layerfusion.records.job import BackboneRecord, Estimate, RunRecord
from layerfusion.runs.heads import TrainingResult
from layerfusion.runs.inputs import Inputs, check_inputs
from layerfusion.runs.job_sources import open_models
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.protocol import CallbackFactory, Protocol
from layerfusion.texts import TextDataset
from layerfusion.tracking.tracker import Tracker

CLAIMED_PREDICTIONS = "claimed_predictions.parquet"
"""Name of its own, as they are those of the epoch that test itself chose."""


class PublishedProtocol(Protocol):
    """The best epoch on test, padded means of the last layer, and a mark on every number."""

    predictions = CLAIMED_PREDICTIONS
    keeps_classifier = False  # nobody should use a head whose epoch test has chosen

    def poolings(self, config: TrainConfig) -> Mapping[str, PoolingConfig]:
        """Return the mean over all positions, padding included."""
        return PADDED_POOLING

    def extract(self, config: TrainConfig, dataset: TextDataset) -> dict[str, Source]:
        """Fill the stores of padded vectors, and return the models."""
        models = open_models(config)
        extract_published(models, dataset, config.extract)
        return dict(models)

    def prepare(self, config: TrainConfig, deadline: Deadline | None = None) -> Inputs:
        """Load the texts, extract padded vectors and take the last layer of each model."""
        check_inputs(config)
        dataset = dataset_of(config)
        require_two_test_rows(dataset)
        models = self.extract(config, dataset)
        selection = select_published(models)
        return Inputs(dataset, published_addresses(dataset), models, selection, config.fusion)

    def train(
        self,
        config: TrainConfig,
        inputs: Inputs,
        tracker: Tracker,
        callbacks: CallbackFactory | None,
    ) -> PublishedResult:
        """Train one head a seed on train and validation, its epoch chosen on test."""
        return train_as_published(config, inputs, tracker)

    def test_estimates(
        self, means: dict[str, Estimate], result: TrainingResult, seed: int
    ) -> dict[str, Estimate]:
        """Add the intervals that the training has found."""
        assert isinstance(result, PublishedResult)
        return {
            name: replace(mean, low=result.intervals[name][0], high=result.intervals[name][1])
            for name, mean in means.items()
        }

    def backbone_record(
        self, record: BackboneRecord, source: Source, dataset: TextDataset
    ) -> BackboneRecord:
        """Count the FLOPs of padding too."""
        return padded_cost(record, source, dataset)

    def result_line(self, record: RunRecord, made_of: str) -> str:
        """Say what would be claimed, and what is wrong with it."""
        test = record.test
        return (
            f"as published, the best epoch on test: {percent(test['claimed_accuracy'])} would be"
            f" claimed {made_of}; the last epoch: {percent(test['last_epoch_accuracy'])}; the epoch"
            " chosen on one half of test and judged on the other:"
            f" {percent(test['split_half_accuracy'])};"
            f" selection bias {100 * test['selection_bias'].mean:+.1f} points"
        )


AS_PUBLISHED = PublishedProtocol()
