"""Protocols: the steps of a job that depend on how heads are trained and judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from layerfusion.config.imports import import_object
from layerfusion.config.job import PoolingConfig, TrainConfig
from layerfusion.config.registry import PROTOCOLS

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from layerfusion.embeddings.source import Source
    from layerfusion.fusion.deadline import Deadline
    from layerfusion.records.job import BackboneRecord, Estimate, RunRecord
    from layerfusion.runs.heads import TrainingResult
    from layerfusion.runs.inputs import Inputs
    from layerfusion.texts import TextDataset
    from layerfusion.tracking.tracker import Tracker

CallbackFactory = Callable[[int], "Sequence[Callback]"]
"""From the number of a training run, counted from 0, to the callbacks of its Trainer."""


class Protocol(ABC):
    """The steps of a job that differ between protocols; `run_job` does all the others."""

    predictions: str
    """Name of the file that the predictions of test are kept in."""
    keeps_classifier: bool
    """True if a job may keep its heads for `layerfusion predict`."""

    def poolings(self, config: TrainConfig) -> Mapping[str, PoolingConfig]:
        """Return the poolings that the models are extracted with."""
        return config.pooling

    @abstractmethod
    def extract(self, config: TrainConfig, dataset: TextDataset) -> dict[str, Source]:
        """Fill the stores with every text of a data set, and return the sources."""

    @abstractmethod
    def prepare(self, config: TrainConfig, deadline: Deadline | None = None) -> Inputs:
        """Load the texts, extract what the cache lacks and select layers.

        Args:
            config: of the job, without the models for which there is no time.
            deadline: end of the time that the job may take.
        """

    @abstractmethod
    def train(
        self,
        config: TrainConfig,
        inputs: Inputs,
        tracker: Tracker,
        callbacks: CallbackFactory | None,
    ) -> TrainingResult:
        """Train one head a seed, and predict test."""

    @abstractmethod
    def test_estimates(
        self, means: dict[str, Estimate], result: TrainingResult, seed: int
    ) -> dict[str, Estimate]:
        """Give the figures of test their intervals.

        Args:
            means: figure to its mean over the seeds and its standard deviation.
            result: of the training.
            seed: of the resampling.
        """

    def backbone_record(
        self, record: BackboneRecord, source: Source, dataset: TextDataset
    ) -> BackboneRecord:
        """Return the record of a model with the cost that it has under this protocol."""
        return record

    def objective(self, record: RunRecord) -> float | None:
        """Return what a Hydra sweeper may maximise; None where no figure may be chosen by."""
        return None

    @abstractmethod
    def result_line(self, record: RunRecord, made_of: str) -> str:
        """Say the result of a job in one line.

        Args:
            record: of the job.
            made_of: what the head is made of, in brackets.
        """


def protocol_of(config: TrainConfig) -> Protocol:
    """Return the `Protocol` that a config names."""
    return import_object("protocol", PROTOCOLS[config.protocol])
