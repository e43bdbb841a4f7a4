"""The figures of finished jobs on MTEB's tasks, in the JSON of its library."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from layerfusion.assets.files import write_atomically
from layerfusion.config.job import HONEST
from layerfusion.errors import UserError
from layerfusion.findings.jobs import read_predictions
from layerfusion.records.job import CONFIG, RunRecord, find_records
from layerfusion.statistics.answers import label_ranking_precision

TASKS = {
    "amazon_counterfactual": "AmazonCounterfactualClassification",
    "amazon_massive_intent": "MassiveIntentClassification",
    "amazon_massive_scenario": "MassiveScenarioClassification",
    "amazon_polarity": "AmazonPolarityClassification",
    "banking77": "Banking77Classification",
    "emotion": "EmotionClassification",
    "imdb": "ImdbClassification",
    "toxic_conversations_50k": "ToxicConversationsClassification",
    "tweet_sentiment_extraction": "TweetSentimentExtractionClassification",
}
"""Name of a data set on the hub to that of its task; a set that is not listed keeps its name."""
FIGURES = (("accuracy", "accuracy"), ("macro_f1", "f1"))
"""Our name of a figure, and MTEB's."""
PROTOCOL = "the classifier learned from {rows:,} rows of train, those of MTEB from eight a class"
_TASK = re.compile(r"(?:hub|path) mteb/([\w.-]+?)(?:@([0-9a-f]+))?(?:/|$)")


def write_mteb(folder: Path, out: Path) -> list[Path]:
    """Write `results/MODEL/REVISION/TASK.json` for each finished job on one of MTEB's tasks.

    The model is called `layerfusion/BACKBONES`, and the job's id is its revision. Every seed is an
    experiment. Each entry says in `protocol` that the classifier was not trained as MTEB does it,
    so that nobody takes the figures for those of its leaderboard. Of a task with several labels a
    text these are accuracy (exact match), macro-F1 and `lrap`, the label ranking average precision
    of the probabilities.

    Args:
        folder: holds finished jobs.
        out: folder of the library's results, in which `results/` is made.

    Returns:
        The files, in the order of the jobs.

    Raises:
        UserError: if no job under the folder is on a task of MTEB and its whole test.
    """
    written = []
    for place, record in find_records(folder):
        found = _TASK.match(record.dataset.origin)
        whole = record.dataset.rows["test"] == record.dataset.available["test"]
        if found is None or record.protocol != HONEST or not whole:
            continue
        task = TASKS.get(found[1], found[1])
        model = f"layerfusion__{'+'.join(record.backbone_names)}"
        path = out / "results" / model / record.job / f"{task}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        precisions = _precisions(place, record)
        content = _result(task, found[2] or "", _subset(place), record, precisions)
        write_atomically(path, json.dumps(content, indent=1, allow_nan=False).encode())
        written.append(path)
    if not written:
        raise UserError(
            f"{folder}: no finished job is on a task of MTEB (dataset=mteb/NAME) and its whole test"
        )
    return written


def _precisions(place: Path, record: RunRecord) -> list[float]:
    """Compute the label ranking average precision of each seed; nothing where a row has a class."""
    if not record.dataset.multilabel:
        return []
    predictions = read_predictions(place, record)
    return [label_ranking_precision(predictions.target, seed) for seed in predictions.probabilities]


def _result(
    task: str, revision: str, subset: str, record: RunRecord, precisions: Sequence[float]
) -> dict[str, Any]:
    figures = {theirs: record.test[ours].mean for ours, theirs in FIGURES if ours in record.test}
    each = [
        {theirs: seed.test[ours] for ours, theirs in FIGURES if ours in seed.test}
        for seed in record.seeds
    ]
    if precisions:
        figures["lrap"] = sum(precisions) / len(precisions)
        each = [{**one, "lrap": lrap} for one, lrap in zip(each, precisions, strict=True)]
    entry = {
        **figures,
        "scores_per_experiment": each,
        "main_score": figures["accuracy"],
        "hf_subset": subset,
        "languages": ["und-Zyyy"],  # not known here; the library leaves out an empty list
        "protocol": PROTOCOL.format(rows=record.dataset.rows["train"]),
    }
    return {
        "dataset_revision": revision,
        "task_name": task,
        "mteb_version": None,  # no version of that library has made them
        "scores": {"test": [entry]},
        "evaluation_time": sum(seed.seconds for seed in record.seeds),
        "kg_co2_emissions": None,
    }


def _subset(folder: Path) -> str:
    """The subset that a job's settings name; MTEB calls the only one `default`."""
    file = folder / CONFIG
    try:
        dataset = yaml.safe_load(file.read_text(encoding="utf-8"))["dataset"]
        return dataset.get("subset") or "default"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: it is gone or damaged; run the job again") from error
