"""The curves of a training run over its epochs: those of each seed, and their mean."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from wandb import Run

EPOCH = "epoch"
"""Name of the horizontal axis of all curves."""
BEST: Mapping[str, Literal["max", "min"]] = {
    "accuracy": "max",
    "macro_f1": "max",
    "micro_f1": "max",
    "log_loss": "min",
    "calibration_error": "min",
}
"""For each metric, whether higher (`max`) or lower (`min`) is better."""
GATES = "gates/"
"""Begins the names of the gates, of which there is one for each layer. Their mean over the seeds is
a chart of its own, with a line for each layer."""
EpochFigures = dict[int, dict[str, float]]
"""Epoch to its metrics."""


def hide_seed(run: Run, prefix: str) -> None:
    """Tell W&B to plot the metrics of a seed over epochs, but to make no chart of them by itself.

    With 39 layers and 6 seeds there would be 264 charts. Hidden metrics can be added to any panel.
    They are left out of the summary, too.
    """
    run.define_metric(EPOCH, hidden=True)
    run.define_metric(f"{prefix}/*", step_metric=EPOCH, hidden=True, summary="none")


def log_mean_curves(run: Run, seeds: Mapping[str, EpochFigures]) -> None:
    """Show the mean over the seeds of each metric, as one chart, with the ends of its band."""
    rows = mean_curves(seeds)
    for name in dict.fromkeys(name for row in rows for name in row):
        base = name.removesuffix("_lowest").removesuffix("_highest")
        if name == EPOCH:
            continue
        if base != name:
            run.define_metric(name, step_metric=EPOCH, hidden=True, summary="none")
        elif (best := BEST.get(name.rpartition("/")[2])) is not None:
            run.define_metric(name, step_metric=EPOCH, summary=best)
        else:
            run.define_metric(name, step_metric=EPOCH)
    for row in rows:
        run.log(row)


def mean_curves(seeds: Mapping[str, EpochFigures]) -> list[dict[str, float]]:
    """Average the metrics of each epoch over the seeds; gates are left out.

    Args:
        seeds: the curves of each seed.

    Returns:
        The epochs that all seeds trained, in order. Each has `epoch` and the mean of every metric;
        of several seeds also the lowest and the highest, as `NAME_lowest` and `NAME_highest`.
    """
    if not seeds:
        return []
    shared = sorted(set.intersection(*(set(epochs) for epochs in seeds.values())))
    rows: list[dict[str, float]] = []
    for epoch in shared:
        figures = [epochs[epoch] for epochs in seeds.values()]
        row: dict[str, float] = {EPOCH: epoch}
        for name in figures[0]:
            values = [own[name] for own in figures if name in own]
            if name.startswith(GATES) or len(values) < len(figures):
                continue
            row[name] = mean(values)
            if len(values) > 1:
                row[f"{name}_lowest"], row[f"{name}_highest"] = min(values), max(values)
        rows.append(row)
    return rows
