"""Figures, tables and charts of jobs and layer profiles in W&B."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from layerfusion.records.job import LayerRecord, RunRecord
from layerfusion.records.profile import Profile

if TYPE_CHECKING:
    from wandb import Run

Confusion = tuple[np.ndarray, np.ndarray, Sequence[str]]
"""Target and predicted class of every row, shapes (rows,), and the names of the classes."""
Figures = dict[str, float | int | str]
Table = tuple[list[Any], list[Any]]
"""Names of the columns, and the rows."""

BEST: Mapping[str, Literal["max", "min"]] = {
    "accuracy": "max",
    "macro_f1": "max",
    "log_loss": "min",
    "calibration_error": "min",
}
"""For each metric, whether higher (`max`) or lower (`min`) is better."""
EPOCH = "epoch"
"""Name of the horizontal axis for the metrics of all seeds."""
MAX_CONFUSION_CLASSES = 100
"""Limit for the confusion matrix, since W&B keeps at most 10,000 cells of a table."""
MAX_CHART_POINTS = 10_000


def define_result_metrics(run: Run) -> None:
    """Tell W&B whether higher or lower is better for each metric of the result."""
    for split in ("validation", "test"):
        for metric, best in BEST.items():
            run.define_metric(f"{split}/{metric}", summary=best)


def define_epoch_metrics(run: Run, prefix: str) -> None:
    """Tell W&B to plot a training run over its epochs, and to summarise it by its best epoch."""
    run.define_metric(EPOCH, hidden=True)
    run.define_metric(f"{prefix}/*", step_metric=EPOCH)
    for metric, best in BEST.items():
        run.define_metric(f"{prefix}/val/{metric}", step_metric=EPOCH, summary=best)
    run.define_metric(f"{prefix}/train/loss", step_metric=EPOCH, summary="min")


# -- a job --------------------------------------------------------------------------------------


def summary(record: RunRecord) -> Figures:
    """Return the figures of a job for the table of runs, without those that are unknown."""
    figures: dict[str, float | int | str | None] = {"job": record.job, "protocol": record.protocol}
    for split, estimates in (("validation", record.validation), ("test", record.test)):
        for metric, estimate in estimates.items():
            figures[f"{split}/{metric}"] = estimate.mean
            for part in ("sd", "low", "high"):
                figures[f"{split}/{metric}_{part}"] = getattr(estimate, part)
    figures["layers/count"] = len(record.layers)
    figures["layers/names"] = " ".join(_name(layer) for layer in record.layers)
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


def job_media(record: RunRecord, confusion: Confusion | None) -> dict[str, Any]:
    """Build the tables and charts of a job: layers, gates and confusion matrix."""
    import wandb

    columns, rows = layer_table(record)
    shown: dict[str, Any] = {"layers": wandb.Table(columns=columns, data=rows)}
    names = [_name(layer) for layer in record.layers]
    if record.gates is not None:
        if record.gates.epochs:
            by_layer = [list(gates) for gates in zip(*record.gates.epochs, strict=True)]
            epochs = [list(range(1, len(record.gates.epochs) + 1))] * len(names)
            shown["gates_by_epoch"] = _lines(epochs, by_layer, names, "Gates by epoch", EPOCH)
        shown["gates_by_class"] = wandb.Table(
            columns=["class", "rows", *names],
            data=[[one.label, one.rows, *one.gates] for one in record.gates.classes],
        )
    if confusion is not None and len(confusion[2]) <= MAX_CONFUSION_CLASSES:
        target, preds, label_names = confusion
        shown["confusion"] = wandb.plot.confusion_matrix(
            y_true=target.tolist(), preds=preds.tolist(), class_names=list(label_names)
        )
    return shown


def _name(layer: LayerRecord) -> str:
    return f"{layer.backbone}:{layer.layer}:{layer.pooling}"


# -- a layer profile ----------------------------------------------------------------------------


def profile_summary(profile: Profile) -> Figures:
    """Return the layer with the best probe accuracy of each source."""
    figures: Figures = {
        "job": profile.job,
        "data/fingerprint": profile.dataset.fingerprint,
        "layers/count": len(profile.layers),
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
    by_source = _by_source(profile)
    shown["layer_profile"] = _lines(
        [[depth for depth, _, _ in layers] for layers in by_source.values()],
        [[accuracy for _, accuracy, _ in layers] for layers in by_source.values()],
        list(by_source),
        "Probe accuracy by relative depth",
        "depth",
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
