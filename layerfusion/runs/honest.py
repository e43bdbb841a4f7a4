"""The honest protocol: everything is chosen on train and validation, and test is looked at once."""

from __future__ import annotations

from dataclasses import replace

from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.source import Source
from layerfusion.findings.choice import judge_of
from layerfusion.fusion.deadline import Deadline
from layerfusion.records.format import percent
from layerfusion.records.job import PREDICTIONS, Estimate, RunRecord
from layerfusion.runs.heads import TrainingResult, train_heads
from layerfusion.runs.inputs import Inputs, prepare
from layerfusion.runs.job_sources import extract_all
from layerfusion.runs.protocol import CallbackFactory, Protocol
from layerfusion.runs.references import fit_references, with_probes
from layerfusion.statistics.answers import answers, consensus, right_rows
from layerfusion.statistics.intervals import bootstrap_interval, metric_intervals
from layerfusion.texts import TextDataset
from layerfusion.tracking.tracker import Tracker


class HonestProtocol(Protocol):
    """Epochs are chosen on validation; figures of test have intervals over its rows."""

    predictions = PREDICTIONS
    keeps_classifier = True

    def extract(self, config: TrainConfig, dataset: TextDataset) -> dict[str, Source]:
        """Fill the stores with every text of a data set, and return the sources."""
        return extract_all(config, dataset)

    def prepare(self, config: TrainConfig, deadline: Deadline | None = None) -> Inputs:
        """Load the texts, extract what the cache lacks and select layers."""
        return with_probes(config, prepare(config, deadline))

    def train(
        self,
        config: TrainConfig,
        inputs: Inputs,
        tracker: Tracker,
        callbacks: CallbackFactory | None,
    ) -> TrainingResult:
        """Train one head a seed, and predict test, by the best and the last layer alone too."""
        result = train_heads(config, inputs, tracker, callbacks)
        return replace(result, references=fit_references(config, inputs))

    def test_estimates(
        self, means: dict[str, Estimate], result: TrainingResult, seed: int
    ) -> dict[str, Estimate]:
        """Add bootstrap intervals over test rows, and the consensus of the seeds."""
        target, several = result.target, result.target.ndim == 2
        given = answers(result.probabilities, multilabel=several)
        intervals = metric_intervals(target, given, seed, text_of=result.text_of)
        estimates = dict(means)
        for name, (low, high) in intervals.items():
            estimates[name] = replace(estimates[name], low=low, high=high)
        right = right_rows(consensus(result.probabilities, multilabel=several), target)
        if len(given) == 1:  # the same answers, whose interval is drawn only once
            low, high = intervals["accuracy"]
        else:
            low, high = bootstrap_interval(right, target, seed, text_of=result.text_of)
        estimates["consensus"] = Estimate(float(right.mean()), None, low, high)
        return estimates

    def objective(self, record: RunRecord) -> float | None:
        """Return what jobs are chosen by: accuracy or the objective's F1, on the rows that choose.

        These are validation, or folds of train.
        """
        return judge_of([record]).figure(record).mean

    def result_line(self, record: RunRecord, made_of: str) -> str:
        """Say accuracy and macro-F1 on test; of several labels a text, micro-F1 too."""
        micro = record.test.get("micro_f1")
        more = "" if micro is None else f"micro-F1 {percent(micro)}, "
        return (
            f"test {record.dataset.measure} {percent(record.test['accuracy'])}, {more}macro-F1"
            f" {percent(record.test['macro_f1'])} {made_of}"
        )


HONEST = HonestProtocol()
