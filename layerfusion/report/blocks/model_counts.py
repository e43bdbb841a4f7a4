"""Block on the number of models: accuracy, and its spread, for one model and for several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from layerfusion.findings.compare import best_chosen
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.model_counts import Step, ways_of_fusing
from layerfusion.findings.tests import Findings
from layerfusion.records.format import capital
from layerfusion.report.block import Block
from layerfusion.report.figures.axes import LINE, figure_of, is_narrow, new_axes
from layerfusion.report.figures.canvas import drawing
from layerfusion.report.figures.colors import SERIES
from layerfusion.report.format import COUNT, PERCENT, decimals
from layerfusion.report.sentences import percent, shortened
from layerfusion.report.table import Cell, Column, Table
from layerfusion.statistics.intervals import mean_sd

FINE = decimals(2, 100)
"""Percentage points with two decimals."""
FEW = 2
"""With no more than so many numbers of models, the section on pairs says all that there is."""


def count_block(group: DataGroup, findings: Findings) -> Block | None:
    """Show accuracy and its spread by the number of models, for each way of fusing."""
    ways = ways_of_fusing(group)
    if max((len(steps) for steps in ways.values()), default=0) <= FEW:
        return None
    most = max(steps[-1].models for steps in ways.values())
    text = " ".join(
        capital(_sentence(name, steps, group.measure))
        for name, steps in ways.items()
        if steps[-1].models == most
    )
    figure = drawing(
        f"{group.key}-model-counts",
        lambda ax: plot_counts(ways, ax, group.measure),
        alt=f"{group.label}: test {group.measure} and its standard deviation over seeds by"
        f" the number of models fused. {text}",
        caption=f"Test {group.measure}, and its standard deviation over seeds, against the"
        f" number of models. Dots: one subset of the models each. Lines: mean {group.measure}"
        " of the subsets, and root of their mean variance.",
    )
    return Block("Whether more models help", (text, figure, _table(ways, group)))


def _sentence(name: str, steps: Sequence[Step], measure: str) -> str:
    first, last = steps[0], steps[-1]
    words = (
        f"{name}: from {first.models} to {last.models} models the mean {measure} goes from"
        f" {percent(first.mean)} to {percent(last.mean)}"
    )
    known = [sd for step in steps if (sd := step.seed_sd) is not None]
    if len(known) < len(steps):
        return f"{words}."
    falls = all(later < earlier for earlier, later in pairwise(known))
    how = "and falls at every step" if falls else "and does not fall at every step"
    return (
        f"{words}; the standard deviation over seeds goes from {FINE(known[0])} to"
        f" {FINE(known[-1])} points {how}."
    )


def _table(ways: dict[str, list[Step]], group: DataGroup) -> Table:
    entries, on = [(name, x) for name, steps in ways.items() for x in steps], group.judge.name

    def subsets(step: Step) -> Cell:
        return Cell(len(step.jobs), note=f"of {step.possible:,}")

    return Table(
        f"{capital(group.measure)} by number of models",
        entries,
        Column("Layers, fusion", lambda e: e[0]),
        Column("Models", lambda e: e[1].models, COUNT),
        Column("Subsets run", lambda e: subsets(e[1]), COUNT, later=True),
        Column("Mean test %", lambda e: e[1].mean, PERCENT),
        Column("Lowest %", lambda e: min(e[1].scores), PERCENT, later=True),
        Column("Highest %", lambda e: max(e[1].scores), PERCENT, later=True),
        Column(f"Chosen on {on} %", lambda e: best_chosen(e[1].jobs).score.mean, PERCENT),
        Column("Sd over subsets, points", lambda e: mean_sd(e[1].scores)[1], FINE, later=True),
        Column("Sd over seeds, points", lambda e: e[1].seed_sd, FINE),
        note="The sd over seeds is the root of the mean variance of the subsets. The sd over"
        " subsets falls by itself, as larger subsets share most of their models, so its fall says"
        " little. The sd over seeds has no such reason to fall, but with few seeds it is only"
        " roughly known.",
    )


def plot_counts(ways: Mapping[str, Sequence[Step]], first: Axes, measure: str = "accuracy") -> None:
    """Draw the measure and its standard deviation by the number of models, side by side."""
    figure = figure_of(first)
    narrow = is_narrow(first)
    grid = figure.add_gridspec(2, 1) if narrow else figure.add_gridspec(1, 2)
    first.set_subplotspec(grid[0])
    second = figure.add_subplot(grid[1])
    numbers = sorted({step.models for steps in ways.values() for step in steps})
    for ax, label in ((first, f"{measure}, %"), (second, "sd over seeds, points")):
        new_axes(ax, 272 + LINE * len(ways), 464 + LINE * len(ways), grid="y")
        ax.set(xticks=numbers, xlim=(numbers[0] - 0.3, numbers[-1] + 0.3))
        ax.set(xlabel="models", ylabel=label)
    for index, (name, steps) in enumerate(ways.items()):
        color, shift = SERIES[index % len(SERIES)], 0.05 * (index - (len(ways) - 1) / 2)
        dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4, "alpha": 0.55}
        line: dict[str, Any] = {"color": color, "linewidth": 1.8}
        for step in steps:
            for ax, values in ((first, step.scores), (second, step.seed_sds)):
                x = [step.models + shift] * len(values)
                ax.plot(x, [100 * value for value in values], color=color, **dots)
        x = [step.models + shift for step in steps]
        means = [100 * step.mean for step in steps]
        first.plot(x, means, label=shortened(name, 46 if narrow else 90), **line)
        known = [(step.models + shift, 100 * step.seed_sd) for step in steps if step.seed_sd]
        second.plot(*np.transpose(known).reshape(2, -1), **line)
    second.set_ylim(bottom=0)
    figure.legend(loc="outside upper left", frameon=False, labelcolor="linecolor", fontsize=11)
