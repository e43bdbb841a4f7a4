"""Runs one job, from its config to the record of its result."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from layerfusion.assets.files import refuse_foreign, temporary_beside, write_atomically
from layerfusion.assets.memo import sha256
from layerfusion.config.identity import job_id, refuse_other_job, sweep_of, user_code
from layerfusion.config.job import BUNDLE_UPLOAD, HONEST, MACRO_F1, TrainConfig
from layerfusion.config.secrets import redacted
from layerfusion.findings.jobs import TEXT, read_predictions
from layerfusion.findings.set_mistakes import answers_of_job
from layerfusion.fusion.deadline import Deadline
from layerfusion.layers import labels
from layerfusion.records.job import BUNDLE, CONFIG, METRICS, RunRecord, read_record, write_record
from layerfusion.records.json_files import DamagedRecord
from layerfusion.records.settings import is_of_job
from layerfusion.runs.baseline import compute_baseline
from layerfusion.runs.bundle_files import has_bundle, is_whole_bundle
from layerfusion.runs.bundle_saving import save_bundle
from layerfusion.runs.by_folds import judge_on_folds, wants_folds
from layerfusion.runs.familiar import FACT, Familiar
from layerfusion.runs.heads import TrainingResult
from layerfusion.runs.inputs import find
from layerfusion.runs.job_sources import open_sources
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.long_texts import as_recorded
from layerfusion.runs.protocol import CallbackFactory, protocol_of
from layerfusion.runs.recording import make_record, spec_hashes
from layerfusion.runs.resources import forget_peak_memory
from layerfusion.runs.time_limit import extract_in_time, models_in_time
from layerfusion.statistics.answers import answers
from layerfusion.texts import TextDataset
from layerfusion.texts.sampling import first_rows
from layerfusion.tracking.columns import run_config
from layerfusion.tracking.lineage import ingredients
from layerfusion.tracking.tracker import GiveAnswers, Tracker, open_tracker
from layerfusion.tracking.variables import under_agent

log = logging.getLogger(__name__)

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The C version if yaml has it, since its speed matters in a sweep of short jobs."""


def run_job(
    config: TrainConfig,
    folder: Path,
    callbacks: CallbackFactory | None = None,
    *,
    begun: float | None = None,
) -> RunRecord:
    """Run a job, or read its record if it has finished before.

    Args:
        config: the job.
        folder: folder for `config.yaml`, `predictions.parquet` and finally `metrics.json`.
        callbacks: makes the callbacks of each training run.
        begun: what `time.monotonic` gave when the command began, from which `time_limit` counts;
            this moment if None.

    Raises:
        UserError: for any mistake that the user can correct.
    """
    deadline = Deadline(config.time_limit, begun)
    group = sweep_of(config, folder)
    protocol = protocol_of(config)
    uploads = config.logger.upload == BUNDLE_UPLOAD
    asked = group is None or uploads if config.bundle is None else config.bundle
    keeps = protocol.keeps_classifier and asked
    if (folder / METRICS).exists():
        record = _finished(folder, config, keeps)
        if record is not None:
            log.info("finished before: %s", folder)
            folds = record.on_folds
            if config.by_folds and (folds is None or MACRO_F1 not in folds.figures):
                folds = judge_on_folds(config, dataset_of(config)) or folds
                record = replace(record, on_folds=folds)
                write_record(record, folder)
            if under_agent():  # which takes a process that has no run for one that failed
                dataset = dataset_of(config)
                with _tracker(config, folder, group) as tracker:
                    sources = open_sources(as_recorded(config, record), dataset)
                    tracker.uses(ingredients(dataset, sources))
                    tracker.finish_with(record, _answers_of(config, folder, record, dataset))
            return record
    _refuse_files_of_others(folder, protocol.predictions)
    plans = None
    if group is None:
        # A missing file, and a model for which there is no time, are reported without starting a
        # W&B run. In a sweep, the job's run shows them.
        find(config)
        if config.time_limit is not None:
            plans = models_in_time(config, dataset_of(config), deadline)
    folder.mkdir(parents=True, exist_ok=True)
    settings = redacted(asdict(config))
    write_atomically(folder / CONFIG, yaml.dump(settings, Dumper=DUMPER, sort_keys=False).encode())
    forget_peak_memory()
    with _tracker(config, folder, group) as tracker:
        kept = config
        if config.time_limit is not None:
            plans = plans or models_in_time(config, dataset_of(config), deadline)
            kept = extract_in_time(config, dataset_of(config), plans, deadline)
        inputs = protocol.prepare(kept, deadline)
        tracker.uses(ingredients(inputs.dataset, inputs.sources))
        baseline, baseline_preds = compute_baseline(
            inputs.dataset, Path(config.paths.cache), seed=config.seed
        )
        result = protocol.train(config, inputs, tracker, callbacks)
        record = make_record(config, inputs, baseline, result)
        if wants_folds(config, inputs.dataset, in_sweep=group is not None):
            record = replace(record, on_folds=judge_on_folds(config, inputs.dataset))
        facts: dict[str, Any] = {}
        if keeps:
            familiar = Familiar.of_job(
                inputs,
                result.probabilities,
                text_of=first_rows(inputs.dataset.splits["test"].texts),
            )
            facts = {**bundle_facts(record), FACT: familiar.facts()}
        # Where a job runs again, its earlier files stay until all of the new ones are known.
        predictions = folder / protocol.predictions
        _write_predictions(predictions, result, baseline_preds)
        record = replace(record, files={predictions.name: sha256(predictions.read_bytes())})
        if keeps:
            save_bundle(folder / BUNDLE, config, inputs, result.heads, facts)
        write_record(record, folder)
        tracker.finish_with(record, _answers_of(config, folder, record, inputs.dataset))
    return record


def _tracker(
    config: TrainConfig, folder: Path, group: str | None
) -> AbstractContextManager[Tracker]:
    """Open the tracker of a job."""
    return open_tracker(
        config.logger,
        folder=folder,
        name=describe(config),
        group=group,
        job_type="train",
        tags=[config.protocol, config.dataset.title, config.fusion.name, *config.backbone],
        config=run_config(config),
    )


def _answers_of(
    config: TrainConfig, folder: Path, record: RunRecord, dataset: TextDataset
) -> GiveAnswers | None:
    """Return what reads the answers of a finished job to the rows of test, for a tracker to call.

    Returns:
        None under a protocol whose answers are for nobody to use.
    """
    if not protocol_of(config).keeps_classifier:
        return None
    texts = dataset.splits["test"].texts if config.logger.texts else ()
    names = record.dataset.label_names
    return lambda: answers_of_job(names, read_predictions(folder, record), texts)


def _refuse_files_of_others(folder: Path, predictions: str) -> None:
    """Refuse a folder with files that no job wrote and that this one would write over.

    A job begins with its settings, so that a folder without them is none of a job.
    """
    if is_of_job(folder):
        return
    files = [folder / name for name in (CONFIG, METRICS, predictions, BUNDLE)]
    refuse_foreign(files, "choose another folder (hydra.run.dir=…, or folder=… in Python)")


def _finished(folder: Path, config: TrainConfig, keeps: bool) -> RunRecord | None:
    """Read the record of a finished job; None, with a line that says why, where it has to run.

    Args:
        folder: folder of the job, which has a record.
        config: the job.
        keeps: whether the job has to leave a classifier.

    Raises:
        UserError: if the record is that of another job.
    """
    try:
        record = read_record(folder)
    except DamagedRecord as error:
        log.warning("%s: so it runs again", error)
        return None
    refuse_other_job(folder, record.job, job_id(config))
    changed = [
        name
        for name, checksum in record.files.items()
        if not (folder / name).is_file() or sha256((folder / name).read_bytes()) != checksum
    ]
    code = user_code(config)
    other = [path for path, source in code.items() if record.code.get(path, source) != source]
    if not still_holds(record, config):
        log.info("%s: its texts or models have changed since, so it runs again", folder)
    elif other:
        log.info("%s: the code of %s has changed since, so it runs again", folder, other[0])
    elif changed:
        log.warning("%s: %s is damaged or gone, so it runs again", folder, changed[0])
    elif keeps and not has_bundle(folder):
        log.info("%s: it saved no classifier, so it runs again", folder)
    elif keeps and not is_whole_bundle(folder):
        log.warning("%s: its classifier is damaged, so it runs again", folder)
    else:
        return record
    return None


def still_holds(record: RunRecord, config: TrainConfig) -> bool:
    """Return True if the texts and the models of a config are still those of its record.

    Models that were left out to keep to a `time_limit` are not looked at.
    """
    dataset = dataset_of(config)
    if dataset.fingerprint != record.dataset.fingerprint:
        return False
    if config.time_limit is not None:
        models = {name: one for name, one in config.backbone.items() if name in record.considered}
        config = replace(config, backbone=models)
    sources = open_sources(as_recorded(config, record), dataset)
    return record.considered == {name: spec_hashes(source) for name, source in sources.items()}


def describe(config: TrainConfig) -> str:
    """Return a job's name for display: data set, layers, backbones and operator."""
    layers = config.layers.name
    if config.protocol != HONEST:
        layers = f"{config.protocol}, {layers}"
    if layers == "fixed":
        parts = [f"{name}[{','.join(map(str, v))}]" for name, v in config.layers.fixed.items()]
        return f"{config.dataset.title} {'+'.join(parts)} {config.fusion.name}"
    return f"{config.dataset.title} {layers} of {'+'.join(config.backbone)} {config.fusion.name}"


def bundle_facts(record: RunRecord) -> dict[str, Any]:
    """Return facts that tell a reader of a classifier how it was trained."""
    return {
        "job": record.job,
        "dataset": record.dataset.name,
        "fingerprint": record.dataset.fingerprint,
        "fusion": record.fusion,
        "test_accuracy": asdict(record.test["consensus"]),
        "test_rows": record.dataset.rows["test"],
        "time_notes": record.time_notes,
        "reading": record.reading,
        "versions": record.versions,
        "created": record.created,
    }


# -- files ---------------------------------------------------------------------------------------


def _write_predictions(path: Path, result: TrainingResult, baseline_preds: np.ndarray) -> None:
    """Write one row for each seed and test row.

    The columns are seed, row, text (the first row that has the same text), target, pred, prob (the
    probability of each class), baseline, and one for each reference. The baseline and the
    references have no seeds, so their prediction for a test row is repeated for each seed. Labels
    and answers are class indices or, where a text has several labels, lists that say of each label
    whether the text has it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    seeds, rows, classes = result.probabilities.shape
    several = result.target.ndim == 2

    def column(given: np.ndarray) -> Any:
        flat = given.reshape(-1)
        return pa.FixedSizeListArray.from_arrays(flat, classes) if several else flat

    def repeated(given: np.ndarray) -> Any:
        return column(np.concatenate([given] * seeds))

    table = pa.table(
        {
            "seed": np.repeat([record.seed for record in result.seeds], rows),
            "row": np.tile(np.arange(rows), seeds),
            TEXT: np.concatenate([result.text_of] * seeds),
            "target": repeated(result.target),
            "pred": column(answers(result.probabilities, multilabel=several)),
            "prob": pa.FixedSizeListArray.from_arrays(result.probabilities.reshape(-1), classes),
            "baseline": repeated(baseline_preds),
            **{
                reference.column: repeated(
                    labels.answers(reference.logits, multilabel=several).numpy()
                )
                for reference in result.references
            },
        }
    )
    with temporary_beside(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
