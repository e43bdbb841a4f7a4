"""Accuracy by the number of rows to learn from, over samples that share their test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerfusion.records.format import plural
from layerfusion.report.blocks import Block
from layerfusion.report.canvas import (
    GRID,
    INK,
    MUTED,
    Colors,
    Drawing,
    canvas,
    drawing,
    shortened,
)
from layerfusion.report.draws import DrawFinding, draw_table, draws_in_words
from layerfusion.report.jobs import Job
from layerfusion.report.layer_curves import LINES
from layerfusion.report.line_ends import LineEnd, name_lines
from layerfusion.report.names import NONE, SPACE, count
from layerfusion.report.systems import (
    System,
    by_system,
    model_names,
    recipe_names,
    system_name,
)
from layerfusion.report.tables import Column, Row, Table
from layerfusion.report.trials import Size, Trial
from layerfusion.statistics.intervals import mean_sd


def curve_block(trial: Trial, colors: Colors, found: Sequence[DrawFinding] = ()) -> Block | None:
    """Accuracy by rows a class of every system that was tried on several sizes.

    Args:
        trial: samples that share their test rows.
        colors: of the models.
        found: several models against the best one of them alone, over the draws.
    """
    accuracies, known = _accuracies(trial)
    if not accuracies:
        return None
    recipes = recipe_names(known)
    names = {
        system: system_name(system)
        if len({one.recipe for one in accuracies}) == 1
        else f"{system_name(system)}, {recipes[system.recipe]}"
        for system in accuracies
    }
    rows = plural(trial.groups[0].rows, "test row")
    return Block(
        f"How many rows it takes: {trial.label}",
        f"The same {rows}, and fewer rows to learn and choose from, in several draws.",
        (_figure(trial, accuracies, _short(names), colors, found),),
        (_table(trial, accuracies, names), *([draw_table(found, recipes)] if found else [])),
    )


def _accuracies(
    trial: Trial,
) -> tuple[dict[System, dict[Size, list[float]]], dict[System, Job]]:
    """Test accuracies of each system by size, one a draw, and a job of each system."""
    found: dict[System, dict[Size, list[float]]] = {}
    known: dict[System, Job] = {}
    for group in trial.groups:
        for system, job in by_system(group.jobs).items():
            sizes = found.setdefault(system, {})
            sizes.setdefault(group.data.per_class, []).append(job.record.test["accuracy"].mean)
            known[system] = job
    several = {system: sizes for system, sizes in found.items() if len(sizes) > 1}
    order = sorted(
        several,
        key=lambda s: (s.recipe, len(s.models), model_names(s), sorted(s.lexical)),
    )
    return {system: several[system] for system in order}, known


def _short(names: Mapping[System, str]) -> dict[System, str]:
    """Names that fit beside a line, as long as they are distinct."""
    short = {}
    for system, name in names.items():
        number = len(system.models)
        models = f"{number} models" if number > 2 else " + ".join(model_names(system))
        short[system] = f"{models} + lexical" if system.lexical else models
        if list(short.values()).count(short[system]) > 1:
            short[system] = name
    return short


def _baseline(trial: Trial) -> dict[Size, list[float]]:
    found: dict[Size, list[float]] = {}
    for group in trial.groups:
        accuracy = group.jobs[0].record.baseline.test["accuracy"]
        found.setdefault(group.data.per_class, []).append(accuracy)
    return found


def _table(
    trial: Trial, accuracies: Mapping[System, dict[Size, list[float]]], names: Mapping[System, str]
) -> Table:
    lines = [("TF-IDF baseline", _baseline(trial))]
    lines += [(names[system], sizes) for system, sizes in accuracies.items()]
    rows = [
        Row((name, *(_cell(sizes.get(size)) for size in trial.sizes)), "" if place else "baseline")
        for place, (name, sizes) in enumerate(lines)
    ]
    return Table(
        "Test accuracy by rows a class",
        (Column("System", numeric=False), *(Column(_title(trial, s)) for s in trial.sizes)),
        tuple(rows),
        "In %: mean ± standard deviation over the draws, each the mean of its seeds; in round"
        " brackets the number of draws. Rows of validation are among those counted.",
    )


def _title(trial: Trial, size: Size) -> str:
    rows = trial.rows(size)
    return f"{size} a class" if size is not None else f"All ({count(rows)} a class)"


def _cell(values: Sequence[float] | None) -> str:
    if not values:
        return NONE
    mean, sd = mean_sd(values)
    spread = "" if sd is None else f"{SPACE}±{SPACE}{100 * sd:.1f}"
    return f"{100 * mean:.1f}{spread}{SPACE}({len(values)})"


# -- the figure ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    name: str
    x: list[float]
    means: list[float]
    sds: list[float]
    color: str
    style: Any


def _figure(
    trial: Trial,
    accuracies: Mapping[System, dict[Size, list[float]]],
    names: Mapping[System, str],
    colors: Colors,
    found: Sequence[DrawFinding],
) -> Drawing:
    recipes = list(dict.fromkeys(system.recipe for system in accuracies))
    lines = [_line(trial, "TF-IDF baseline", _baseline(trial), MUTED, (0, (6, 3)))]
    for system, sizes in accuracies.items():
        models = [model.name for model in system.models]
        color = colors.get(models[0], INK) if len(models) == 1 else INK
        style = LINES[(2 * recipes.index(system.recipe) + bool(system.lexical)) % len(LINES)]
        lines.append(_line(trial, names[system], sizes, color, style))
    return drawing(
        f"{trial.key}-learning-curves",
        lambda narrow: _draw(trial, lines, narrow=narrow),
        alt=f"{trial.label}: test accuracy by rows a class. "
        + "; ".join(f"{line.name} {line.means[0]:.1f} to {line.means[-1]:.1f} %" for line in lines),
        caption="Test accuracy against the rows of each class to learn and choose from; bars: one"
        " standard deviation over the draws, up and down. Black: several models, coloured: one."
        " Broken: with lexical sources, or other settings. Grey: the baseline."
        + draws_in_words(found),
    )


def _line(
    trial: Trial, name: str, sizes: Mapping[Size, Sequence[float]], color: str, style: Any
) -> _Line:
    there = [size for size in trial.sizes if size in sizes]
    figures = [mean_sd(sizes[size]) for size in there]
    return _Line(
        name,
        [trial.rows(size) for size in there],
        [100 * mean for mean, _ in figures],
        [100 * (sd or 0.0) for _, sd in figures],
        color,
        style,
    )


def _draw(trial: Trial, lines: Sequence[_Line], *, narrow: bool) -> Figure:
    legend = 18 * len(lines) + 10 if narrow else 0
    width, plot, right = (360, 230, 14) if narrow else (760, 300, 238)
    height = plot + legend + 62
    figure, axes = canvas(width, height, 54, right, 12 + legend, 50)
    axes.set_xscale("log")
    places = [trial.rows(size) for size in trial.sizes]
    axes.set_xticks(places, [str(size) if size is not None else "all" for size in trial.sizes])
    axes.set_xticks([], minor=True)
    axes.set_xlim(places[0] / 1.15, places[-1] * 1.15)
    axes.set_xlabel("rows a class")
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for index, line in enumerate(lines):
        # Bars of lines that share a place stand side by side.
        shift = 1 + 0.012 * (index - (len(lines) - 1) / 2)
        x = [place * shift for place in line.x]
        axes.plot(x, line.means, color=line.color, linestyle=line.style, linewidth=1.8)
        axes.vlines(
            x,
            np.subtract(line.means, line.sds),
            np.add(line.means, line.sds),
            color=line.color,
            linewidth=1.2,
            alpha=0.7,
        )
        axes.plot(x, line.means, color=line.color, linestyle="none", marker="o", markersize=4)
    if narrow:
        for index, line in enumerate(lines):
            y = 1 - (10 + 18 * index) / height
            style: dict[str, Any] = {"color": line.color, "linestyle": line.style}
            x = [14 / width, 40 / width]
            mark = Line2D(x, [y, y], linewidth=1.8, transform=figure.transFigure, **style)
            figure.add_artist(mark)
            name = shortened(line.name, 46)
            figure.text(48 / width, y, name, color=line.color, fontsize=11, va="center")
        return figure
    ends = [LineEnd(shortened(li.name, 34), li.x[-1], li.means[-1], li.color) for li in lines]
    name_lines(axes, ends)
    return figure
