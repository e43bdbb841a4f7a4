"""Block on learning curves: accuracy by training rows, over samples with the same test rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from layerfusion.records.format import plural
from layerfusion.records.job import Estimate
from layerfusion.report.block import Block, some
from layerfusion.report.figures.canvas import LINE, drawing, is_narrow, legend, new_axes
from layerfusion.report.figures.colors import GRID, INK, MUTED
from layerfusion.report.figures.layers import DASHED, LINES
from layerfusion.report.figures.line_ends import LineEnd, name_lines
from layerfusion.report.findings.identities import (
    JobIdentity,
    identity_name,
    identity_of,
    model_names,
    short_name,
)
from layerfusion.report.findings.learning import (
    DrawFinding,
    LearningCurve,
    Size,
    learning_figures,
    over_draws,
)
from layerfusion.report.format import (
    COUNT,
    P_VALUE,
    PERCENT,
    POINTS,
    count,
    listing,
    point_interval,
    points,
    shortened,
)
from layerfusion.report.results import Results
from layerfusion.report.table import Cell, Column, Table

BASELINE = "TF-IDF baseline"


@dataclass(frozen=True)
class LearningLine:
    """One line of a learning curve."""

    name: str
    rows: list[float]
    """Rows of each class at each point."""
    figures: list[Estimate]
    """Mean accuracy at each point and its standard deviation over draws."""
    color: str
    style: Any


def curve_sections(results: Results) -> list[Block]:
    """Make one section for each learning curve."""
    colors = results.groups[0].colors if results.groups else {}
    return [
        curve_block(curve, colors, found, key=f"curve-{number}")
        for number, (curve, found) in enumerate(results.curves.items(), start=1)
    ]


def curve_block(
    curve: LearningCurve,
    colors: Mapping[str, str],
    found: Sequence[DrawFinding] = (),
    *,
    key: str = "",
) -> Block:
    """Show accuracy by rows a class, for all that was tried on several sizes.

    Args:
        curve: samples that share their test rows.
        colors: backbone to its colour.
        found: several models against the best one of them alone, over the draws.
        key: anchor of the section.
    """
    recipes = curve.recipes
    several = len({identity.recipe for identity in curve.accuracies}) > 1
    names = {
        identity: identity_name(identity) + (f", {recipes[identity.recipe]}" if several else "")
        for identity in curve.accuracies
    }
    lines = _lines(curve, _short(names), colors)
    spans = [(line, line.figures[0].mean, line.figures[-1].mean) for line in lines]
    figure = drawing(
        f"{curve.key}-learning-curves",
        lambda ax: plot_learning(curve, lines, ax),
        alt=f"{curve.label}: test accuracy by rows a class. "
        + "; ".join(f"{x.name} {PERCENT(low)} to {PERCENT(high)} %" for x, low, high in spans),
        caption="Test accuracy against the rows of each class to learn and choose from; bars: one"
        " standard deviation over the draws, up and down. Black: several models, coloured: one."
        " Broken: with lexical sources, or other settings. Grey: the baseline."
        + _draw_sentence(found),
    )
    rows = plural(curve.groups[0].rows, "test row")
    return Block(
        f"How many rows it takes: {curve.label}",
        some(
            f"The same {rows}, and fewer rows to learn and choose from, in several draws.",
            figure,
            _table(curve, names),
            _draw_table(found, recipes) if found else None,
        ),
        key,
    )


def _short(names: Mapping[JobIdentity, str]) -> dict[JobIdentity, str]:
    """Shorten names so that they fit beside a line, as long as they stay distinct."""
    short: dict[JobIdentity, str] = {}
    for identity, name in names.items():
        fits = short_name(identity)
        short[identity] = name if fits in short.values() else fits
    return short


def _lines(
    curve: LearningCurve, names: Mapping[JobIdentity, str], colors: Mapping[str, str]
) -> list[LearningLine]:
    def line(
        name: str, sizes: Mapping[Size, list[float]], color: str, style: object
    ) -> LearningLine:
        rows = [curve.rows(size) for size in curve.sizes if size in sizes]
        return LearningLine(name, rows, learning_figures(curve, sizes), color, style)

    recipes = list(dict.fromkeys(identity.recipe for identity in curve.accuracies))
    lines = [line(BASELINE, curve.baseline, MUTED, DASHED)]
    for identity, sizes in curve.accuracies.items():
        models = [model.name for model in identity.models]
        color = colors.get(models[0], INK) if len(models) == 1 else INK
        variant = 2 * recipes.index(identity.recipe) + bool(identity.lexical)
        lines.append(line(names[identity], sizes, color, LINES[variant % len(LINES)]))
    return lines


def _table(curve: LearningCurve, names: Mapping[JobIdentity, str]) -> Table:
    entries = [(BASELINE, curve.baseline)]
    entries += [(names[identity], sizes) for identity, sizes in curve.accuracies.items()]

    def accuracy(sizes: Mapping[Size, list[float]], size: Size) -> Cell:
        if size not in sizes:
            return Cell()
        return Cell.of(over_draws(sizes[size]), note=f"({len(sizes[size])})")

    def title(size: Size) -> str:
        return f"{size} a class" if size is not None else f"All ({count(curve.rows(size))} a class)"

    return Table(
        "Test accuracy by rows a class",
        (
            Column("Models", lambda entry: entry[0]),
            *(
                Column(title(size), lambda entry, size=size: accuracy(entry[1], size), PERCENT)
                for size in curve.sizes
            ),
        ),
        entries,
        "In %: mean ± standard deviation over the draws, each the mean of its seeds; in round"
        " brackets the number of draws. Rows of validation are among those counted.",
        lambda entry: "baseline" if entry[0] == BASELINE else "",
    )


# -- several models and one of them alone -------------------------------------------------------


def _draw_table(found: Sequence[DrawFinding], recipes: Mapping[str, str]) -> Table:
    def test(finding: DrawFinding, place: int) -> object:
        return over_draws([pair[place].record.test["accuracy"].mean for pair in finding.pairs])

    return Table(
        "Several models and one of them alone, by rows a class",
        (
            Column("Models", lambda x: identity_name(x.identity)),
            Column("Layers, fusion", lambda x: recipes[x.identity.recipe]),
            Column("Rows a class", lambda x: x.size, COUNT),
            Column("Draws", lambda x: x.difference.draws, COUNT),
            Column("Test %", lambda x: test(x, 0), PERCENT),
            Column("Alone, by validation", _chosen),
            Column("Its test %", lambda x: test(x, 1), PERCENT),
            Column("Difference, points", lambda x: x.difference, POINTS),
            Column("p", lambda x: x.difference.p, P_VALUE),
            Column("p (Holm)", lambda x: x.adjusted, P_VALUE),
            Column("Shown", lambda x: x.mark),
        ),
        found,
        "Alone: in each draw the model that validation prefers, with the number of draws. Paired"
        " differences on the same test rows. Draws and test rows both count as samples, so the"
        " interval tells what to expect of another draw of as many rows and of other test texts."
        " With few draws it is wide, and rather too wide than too narrow. p (Holm): adjusted for"
        f" the {plural(found[0].family, 'comparison')} over draws in this report. ▲ better, ▼"
        " worse: adjusted p below 0.05.",
    )


def _chosen(finding: DrawFinding) -> str | None:
    """Name the models alone, each with its draws: mpnet (2), smollm2 (1)."""
    identities = [identity_of(alone) for _, alone in finding.pairs]
    names = Counter(listing(model_names(x)) for x in identities if x is not None)
    return ", ".join(f"{name} ({times})" for name, times in sorted(names.items())) or None


def _draw_sentence(found: Sequence[DrawFinding]) -> str:
    """Put the comparisons into a sentence for a caption; nothing where there is none."""
    if not found:
        return ""
    sentences = []
    for identity in dict.fromkeys(finding.identity for finding in found):
        sizes = ", ".join(
            f"{points(x.difference.mean)} {point_interval(x.difference)}{x.mark} with"
            f" {count(x.size)} rows a class"
            for x in found
            if x.identity == identity
        )
        sentences.append(f"{short_name(identity)}: {sizes}")
    return (
        " Several models against the best one of them alone, in points, with 95 % intervals over"
        f" draws and test rows: {'; '.join(sentences)}."
    )


# -- figure -------------------------------------------------------------------------------------


def plot_learning(
    curve: LearningCurve, lines: Sequence[LearningLine], ax: Axes | None = None
) -> Axes:
    """Draw test accuracy against the rows of each class, with its standard deviation."""
    ax = new_axes(ax, 362, 292 + LINE * len(lines))
    ax.set_xscale("log")
    places = [curve.rows(size) for size in curve.sizes]
    ax.set_xticks(places, [str(size) if size is not None else "all" for size in curve.sizes])
    ax.set_xticks([], minor=True)
    ax.set_xlim(places[0] / 1.15, places[-1] * 1.15)
    ax.set(xlabel="rows a class", ylabel="accuracy, %")
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    ends = []
    for index, line in enumerate(lines):
        # Bars of lines that share a place stand side by side.
        shift = 1 + 0.012 * (index - (len(lines) - 1) / 2)
        x = [place * shift for place in line.rows]
        means = np.array([100 * figure.mean for figure in line.figures])
        sds = np.array([100 * (figure.sd or 0.0) for figure in line.figures])
        name = shortened(line.name, 46 if is_narrow(ax) else 34)
        style: dict[str, Any] = {"linestyle": line.style, "linewidth": 1.8, "label": name}
        ax.plot(x, means, color=line.color, **style)
        ax.vlines(x, means - sds, means + sds, color=line.color, linewidth=1.2, alpha=0.7)
        ax.plot(x, means, color=line.color, linestyle="none", marker="o", markersize=4)
        ends.append(LineEnd(name, line.rows[-1], float(means[-1]), line.color))
    if is_narrow(ax):
        legend(ax)
    else:
        name_lines(ax, ends)
    return ax
