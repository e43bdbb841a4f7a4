"""Whether more models are more accurate, and whether they vary less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import comb
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerfusion.report.blocks import Block
from layerfusion.report.canvas import GRID, SERIES, Drawing, canvas, drawing, shortened
from layerfusion.report.compare import best_on_validation
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import NONE, count, listing, percent
from layerfusion.report.systems import System, by_system, recipe_names
from layerfusion.report.tables import Column, Row, Table
from layerfusion.statistics.intervals import mean_sd

LEAST = 3
"""Jobs that a way of fusing needs to be shown, over at least two numbers of models."""


@dataclass(frozen=True)
class Step:
    """All jobs of one way of fusing on so many models."""

    models: int
    jobs: tuple[Job, ...]
    possible: int
    """Subsets of as many of the models that were tried."""

    @property
    def accuracies(self) -> list[float]:
        """Test accuracy of each job, mean over its seeds."""
        return [job.record.test["accuracy"].mean for job in self.jobs]

    @property
    def seed_sds(self) -> list[float]:
        """Standard deviation over the seeds of each job that has several."""
        sds = [job.record.test["accuracy"].sd for job in self.jobs]
        return [sd for sd in sds if sd is not None]

    @property
    def seed_sd(self) -> float | None:
        """Root of the mean variance over seeds."""
        return float(np.sqrt(np.mean(np.square(self.seed_sds)))) if self.seed_sds else None


def count_block(group: DataGroup) -> Block | None:
    """Accuracy and its spread by the number of models, for each way of fusing.

    Not where layers are fixed by name: a model then counts as often as layers of it were tried.
    """
    known = by_system(job for job in group.jobs if job.record.selection != "fixed")
    recipes = recipe_names(known)
    ways: dict[str, list[Step]] = {}
    for way in dict.fromkeys(replace(system, models=frozenset()) for system in known):
        own = {s: job for s, job in known.items() if replace(s, models=frozenset()) == way}
        steps = _steps(own)
        if len(steps) > 1 and len(own) >= LEAST:
            beside = f" with {listing(sorted(way.lexical))}" if way.lexical else ""
            ways[f"{recipes[way.recipe]}{beside}"] = steps
    if not ways:
        return None
    return Block(
        "Whether more models help",
        _text(ways),
        (_figure(group, ways),),
        (_table(ways),),
    )


def _steps(known: dict[System, Job]) -> list[Step]:
    models = {model for system in known for model in system.models}
    sizes = sorted({len(system.models) for system in known})
    return [
        Step(
            size,
            tuple(job for system, job in known.items() if len(system.models) == size),
            comb(len(models), size),
        )
        for size in sizes
    ]


def _text(ways: dict[str, list[Step]]) -> str:
    """In words, for the ways of fusing that reach the most models."""
    most = max(steps[-1].models for steps in ways.values())
    said = [_says(name, steps) for name, steps in ways.items() if steps[-1].models == most]
    return " ".join(f"{line[0].upper()}{line[1:]}" for line in said)


def _says(name: str, steps: Sequence[Step]) -> str:
    first, last = steps[0], steps[-1]
    means = [float(np.mean(step.accuracies)) for step in (first, last)]
    words = (
        f"{name}: from {first.models} to {last.models} models the mean accuracy goes from"
        f" {percent(means[0])} to {percent(means[1])}"
    )
    sds = [step.seed_sd for step in steps]
    known = [sd for sd in sds if sd is not None]
    if len(known) < len(sds):
        return f"{words}."
    falls = all(later < earlier for earlier, later in pairwise(known))
    how = "and falls at every step" if falls else "and does not fall at every step"
    return (
        f"{words}; the standard deviation over seeds goes from {100 * known[0]:.2f} to"
        f" {100 * known[-1]:.2f} points {how}."
    )


def _table(ways: dict[str, list[Step]]) -> Table:
    rows = []
    for name, steps in ways.items():
        for step in steps:
            mean, sd = mean_sd(step.accuracies)
            chosen = best_on_validation(step.jobs).record.test["accuracy"].mean
            rows.append(
                Row(
                    (
                        name,
                        count(step.models),
                        f"{len(step.jobs)} of {step.possible}",
                        f"{100 * mean:.1f}",
                        f"{100 * min(step.accuracies):.1f} to {100 * max(step.accuracies):.1f}",
                        f"{100 * chosen:.1f}",
                        NONE if sd is None else f"{100 * sd:.2f}",
                        NONE if step.seed_sd is None else f"{100 * step.seed_sd:.2f}",
                    )
                )
            )
    return Table(
        "Accuracy by number of models",
        (
            Column("Layers, fusion", numeric=False),
            Column("Models"),
            Column("Subsets run"),
            Column("Mean test %"),
            Column("Lowest to highest"),
            Column("Chosen on validation %"),
            Column("Sd over subsets, points"),
            Column("Sd over seeds, points"),
        ),
        tuple(rows),
        "The sd over seeds is the root of the mean variance of the subsets. The sd over subsets"
        " falls by itself as subsets come to share most of their models, so a fall of it says"
        " little; that over seeds has no such reason to, but with few seeds it is itself known"
        " roughly only.",
    )


# -- the figure ---------------------------------------------------------------------------------


def _figure(group: DataGroup, ways: dict[str, list[Step]]) -> Drawing:
    return drawing(
        f"{group.key}-model-counts",
        lambda narrow: _draw(ways, narrow=narrow),
        alt=f"{group.label}: test accuracy and its standard deviation over seeds by the number of"
        f" models fused. {_text(ways)}",
        caption="Test accuracy, and its standard deviation over seeds, against the number of"
        " models. Dots: one subset of the models each. Lines: mean accuracy of the subsets, and"
        " root of their mean variance.",
    )


def _draw(ways: dict[str, list[Step]], *, narrow: bool) -> Figure:
    legend = 18 * len(ways) + 12
    width, panel = (360, 180) if narrow else (760, 220)
    height = legend + (2 * (panel + 52) if narrow else panel + 52)
    below = height - legend - panel
    right = 12 if narrow else width / 2 + 8
    figure, first = canvas(width, height, 54, right, legend, below)
    if narrow:
        box = (54 / width, 46 / height, 1 - 66 / width, panel / height)
    else:
        box = (0.5 + 54 / width, below / height, 0.5 - 66 / width, panel / height)
    second = figure.add_axes(box)
    _like(first, second)
    for index, (name, steps) in enumerate(ways.items()):
        color = SERIES[index % len(SERIES)]
        shift = 0.05 * (index - (len(ways) - 1) / 2)
        x = [step.models + shift for step in steps]
        for place, step in zip(x, steps, strict=True):
            style: dict[str, Any] = {
                "linestyle": "none",
                "marker": "o",
                "markersize": 4,
                "color": color,
            }
            values = [100 * value for value in step.accuracies]
            first.plot([place] * len(values), values, alpha=0.55, **style)
            sds = [100 * sd for sd in step.seed_sds]
            second.plot([place] * len(sds), sds, alpha=0.55, **style)
        first.plot(x, [100 * np.mean(s.accuracies) for s in steps], color=color, linewidth=1.8)
        known = [(p, 100 * s.seed_sd) for p, s in zip(x, steps, strict=True) if s.seed_sd]
        second.plot([p for p, _ in known], [sd for _, sd in known], color=color, linewidth=1.8)
        label = shortened(name, 46 if narrow else 90)
        y = 1 - (10 + 18 * index) / height
        figure.text(54 / width, y, label, color=color, fontsize=12, va="center")
    numbers = sorted({step.models for steps in ways.values() for step in steps})
    for axes, label in ((first, "accuracy, %"), (second, "sd over seeds, points")):
        axes.set_xticks(numbers)
        axes.set_xlim(numbers[0] - 0.3, numbers[-1] + 0.3)
        axes.set_xlabel("models")
        axes.set_ylabel(label)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    second.set_ylim(bottom=0)
    return figure


def _like(model: Axes, axes: Axes) -> None:
    """Make a second plot look as the canvas makes the first."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(model.spines["bottom"].get_edgecolor())
    axes.tick_params(length=0, labelsize=11, colors=model.xaxis.label.get_color(), pad=6)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=model.xaxis.label.get_color(), fontsize=11)
