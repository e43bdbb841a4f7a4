"""Figures, tables and charts of jobs and layer profiles in W&B."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from layerfusion.findings.mistakes import Answers
from layerfusion.findings.set_mistakes import SetAnswers
from layerfusion.records.format import layers_of_models, layers_words
from layerfusion.records.job import LayerRecord, ProbeRecord, RunRecord
from layerfusion.records.label_words import label_words
from layerfusion.records.profile import Profile
from layerfusion.tracking.curves import BEST, EPOCH

if TYPE_CHECKING:
    from wandb import Run

Figures = dict[str, float | int | str]
Table = tuple[list[Any], list[Any]]
"""Names of the columns, and the rows."""

MAX_CONFUSION_CLASSES = 100
"""Limit for the confusion matrix, since W&B keeps at most 10,000 cells of a table."""
MAX_CHART_POINTS = 10_000
MAX_PREDICTIONS = 2_000
"""Most rows of the table of predictions, so that a sweep of many jobs stays small. The surest
mistakes come first."""


def define_result_metrics(run: Run) -> None:
    """Tell W&B whether higher or lower is better for each metric of the result."""
    for split in ("validation", "folds", "test"):
        for metric, best in BEST.items():
            run.define_metric(f"{split}/{metric}", summary=best)


# -- a job --------------------------------------------------------------------------------------


def summary(record: RunRecord) -> Figures:
    """Return the figures of a job for the table of runs, without those that are unknown."""
    figures: dict[str, float | int | str | None] = {"job": record.job, "protocol": record.protocol}
    judged = {"validation": record.validation, "test": record.test}
    if record.on_folds is not None:
        judged["folds"] = record.on_folds.figures
    for split, estimates in judged.items():
        for metric, estimate in estimates.items():
            figures[f"{split}/{metric}"] = estimate.mean
            for part in ("sd", "low", "high"):
                figures[f"{split}/{metric}_{part}"] = getattr(estimate, part)
    # A layer under two poolings is one layer, and two sources; TF-IDF is a source and no layer.
    figures["layers/count"] = sum(map(len, layers_of_models(record).values()))
    figures["layers/sources"] = len(record.layers)
    figures["layers/names"] = layers_words(record)  # every one is in the table `layers`
    if len(record.layers) == 1:  # a point in the chart of accuracy by depth
        figures["layers/depth"] = record.layers[0].depth
    figures |= {f"baseline/{metric}": value for metric, value in record.baseline.test.items()}
    figures |= {f"cost/{name}": value for name, value in asdict(record.cost).items()}
    figures["cost/flops_per_text"] = record.flops_per_text
    for name, backbone in record.backbones.items():
        for cost in ("parameters", "flops_per_text", "milliseconds_per_text", "store_bytes"):
            figures[f"cost/{name}/{cost}"] = getattr(backbone, cost)
        figures[f"cost/{name}/highest_layer"] = backbone.highest_layer
        figures[f"cost/{name}/cut_texts"] = backbone.cut_texts
    figures["data/fingerprint"] = record.dataset.fingerprint
    return {name: value for name, value in figures.items() if value is not None}


def layer_table(record: RunRecord) -> Table:
    """Return the selected layers, one row for each, with the fields of the record."""
    columns = [field.name for field in fields(LayerRecord)]
    return columns, [list(astuple(layer)) for layer in record.layers]


def probe_table(record: RunRecord) -> Table:
    """Return the probe of every layer that the selection could take, with its interval."""
    columns = [field.name for field in fields(ProbeRecord)]
    return columns, [list(astuple(probe)) for probe in record.probes]


def prediction_table(answers: Answers | SetAnswers) -> Table:
    """Return the label and the answer of test rows: the worst mistakes first, then the others.

    Of several labels a row, all are named in one cell, and the log-loss of the row stands in the
    place of the probability of its answer. The texts are a column only where `answers` has them.
    """
    several = isinstance(answers, SetAnswers)
    figure = answers.losses if several else answers.confidence
    right = np.flatnonzero(answers.right)
    doubt = -figure if several else figure
    order = [*answers.worst(), *right[np.argsort(doubt[right], kind="stable")]]
    columns = ["row", "label", "answer", "log_loss" if several else "probability"]
    columns += ["text"] if answers.texts else []
    rows = [
        [
            row,
            label_words(answers.names, answers.target[row]),
            label_words(answers.names, answers.answer[row]),
            round(float(figure[row]), 4),
            *([answers.texts[row]] if answers.texts else []),
        ]
        for row in map(int, order[:MAX_PREDICTIONS])
    ]
    return columns, rows


def class_table(answers: SetAnswers) -> Table:
    """Return rows, precision, recall and F1 of each label; a figure of no row is None."""
    columns = ["label", "rows", "precision", "recall", "f1"]
    rows = [
        [one.name, one.rows, *(None if x != x else x for x in (one.precision, one.recall, one.f1))]
        for one in answers.classes()
    ]
    return columns, rows


def job_media(record: RunRecord, answers: Answers | SetAnswers | None) -> dict[str, Any]:
    """Build the tables and charts of a job: layers, probes, gates, and where it is right."""
    import wandb

    columns, rows = layer_table(record)
    shown: dict[str, Any] = {"layers": wandb.Table(columns=columns, data=rows)}
    if record.probes:
        columns, rows = probe_table(record)
        shown["probes"] = wandb.Table(columns=columns, data=rows)
        shown["layer_profile"] = _depth_lines(
            [
                (_source(probe.backbone, probe.pooling), probe.depth, probe.accuracy)
                for probe in record.probes
            ]
        )
    names = [_name(layer) for layer in record.layers]
    if record.gates is not None:
        if record.gates.epochs:
            by_layer = [list(gates) for gates in zip(*record.gates.epochs, strict=True)]
            epochs = [list(range(1, len(record.gates.epochs) + 1))] * len(names)
            shown["gates_by_epoch"] = _lines(epochs, by_layer, names, "Gates by epoch", EPOCH)
        shown["gates_by_class"] = wandb.Table(
            columns=[record.dataset.kind, "rows", *names],
            data=[[one.label, one.rows, *one.gates] for one in record.gates.classes],
        )
    return shown if answers is None else {**shown, **_answer_media(answers)}


def _answer_media(answers: Answers | SetAnswers) -> dict[str, Any]:
    """Build the table of predictions, the chart of calibration and the confusion matrix.

    Where a row has several labels, no label is taken for another: a table of the labels stands in
    the place of the matrix.
    """
    import wandb

    columns, rows = prediction_table(answers)
    shown: dict[str, Any] = {"predictions": wandb.Table(columns=columns, data=rows)}
    several = isinstance(answers, SetAnswers)
    parts = answers.ranges()
    shown["calibration"] = _lines(
        [[part.probability for part in parts], [0.0, 1.0]],
        [[part.share for part in parts], [0.0, 1.0]],
        ["labels" if several else "answers", "perfect"],
        "Share of rows that have a label by its probability"
        if several
        else "Accuracy by probability of the answer",
        "probability",
    )
    if several:
        columns, rows = class_table(answers)
        shown["labels"] = wandb.Table(columns=columns, data=rows)
    elif len(answers.names) <= MAX_CONFUSION_CLASSES:
        shown["confusion"] = wandb.plot.confusion_matrix(
            y_true=answers.target.tolist(),
            preds=answers.answer.tolist(),
            class_names=list(answers.names),
        )
    return shown


def _source(backbone: str, pooling: str) -> str:
    return backbone if pooling == "mean" else f"{backbone} ({pooling})"


def _name(layer: LayerRecord) -> str:
    return f"{layer.backbone}:{layer.layer}:{layer.pooling}"


# -- a layer profile ----------------------------------------------------------------------------


def profile_summary(profile: Profile) -> Figures:
    """Return the layer with the best probe accuracy of each source."""
    figures: Figures = {
        "job": profile.job,
        "data/fingerprint": profile.dataset.fingerprint,
        "layers/count": len({(layer.backbone, layer.layer) for layer in profile.layers}),
    }
    for source, layers in _by_source(profile).items():
        best = max(layers, key=lambda layer: layer[1])
        figures |= {
            f"best/{source}/layer": best[2],
            f"best/{source}/depth": best[0],
            f"best/{source}/probe_accuracy": best[1],
        }
    return figures


def score_table(profile: Profile) -> Table:
    """Return one row for each layer: its name, scores, costs and, if judged, test accuracy."""
    scores = list(dict.fromkeys(name for layer in profile.layers for name in layer.scores))
    places = ["backbone", "layer", "pooling", "depth"]
    costs = ["flops_per_text", "milliseconds_per_text"]
    rows = [
        [
            *(getattr(layer, name) for name in places),
            *(layer.scores.get(name) for name in scores),
            *(getattr(layer, name) for name in costs),
            layer.test.mean if layer.test else None,
        ]
        for layer in profile.layers
    ]
    return [*places, *scores, *costs, "test_accuracy"], rows


def selection_table(profile: Profile) -> Table:
    """Return one row for each selection: its layers, and its accuracy and regret if judged."""
    columns = ["selection", "layers", "test_accuracy", "regret"]
    rows = [
        [
            one.name,
            ", ".join(profile.layers[place].name for place in one.layers),
            one.test.mean if one.test else None,
            one.regret.mean if one.regret else None,
        ]
        for one in profile.selections
    ]
    return columns, rows


def profile_media(profile: Profile) -> dict[str, Any]:
    """Build the tables, and a chart of probe accuracy by depth with one line for each source."""
    import wandb

    shown: dict[str, Any] = {}
    for name, make in (("scores", score_table), ("selections", selection_table)):
        columns, rows = make(profile)
        shown[name] = wandb.Table(columns=columns, data=rows)
    shown["layer_profile"] = _depth_lines(
        [
            (source, depth, accuracy)
            for source, layers in _by_source(profile).items()
            for depth, accuracy, _ in layers
        ]
    )
    return shown


def _by_source(profile: Profile) -> dict[str, list[tuple[float, float, str]]]:
    """Return depth, probe accuracy and name of the layers of each source."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for layer in profile.layers:
        accuracy = layer.scores.get("accuracy")
        if accuracy is not None:
            found.setdefault(layer.source, []).append((layer.depth, accuracy, layer.layer))
    return found


def _depth_lines(points: Sequence[tuple[str, float, float]]) -> Any:
    """Draw source, relative depth and probe accuracy of layers, one line for each source."""
    by_source: dict[str, tuple[list[float], list[float]]] = {}
    for source, depth, accuracy in points:
        depths, accuracies = by_source.setdefault(source, ([], []))
        depths.append(depth)
        accuracies.append(accuracy)
    return _lines(
        [depths for depths, _ in by_source.values()],
        [accuracies for _, accuracies in by_source.values()],
        list(by_source),
        "Probe accuracy by relative depth",
        "depth",
    )


def _lines(
    xs: Sequence[list[float]] | Sequence[list[int]],
    ys: Sequence[list[float]],
    names: list[str],
    title: str,
    x: str,
) -> Any:
    """Draw a line chart. If there are too many points, it has only the first lines."""
    import wandb

    most = max(1, MAX_CHART_POINTS // max(len(line) for line in ys)) if ys else 0
    return wandb.plot.line_series(
        xs=xs[:most], ys=ys[:most], keys=names[:most], title=title, xname=x
    )
