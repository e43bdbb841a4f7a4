"""Block on learning curves: accuracy by training rows, over samples with the same test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes

from layerfusion.findings.grouping import grouped
from layerfusion.findings.learning import (
    FAR,
    DrawFinding,
    LearningCurve,
    LearningLine,
    Outlook,
    Size,
    over_draws,
)
from layerfusion.findings.results import Results
from layerfusion.records.format import capital, plural
from layerfusion.report.block import Block
from layerfusion.report.figures.axes import LINE, NARROW, is_narrow, new_axes
from layerfusion.report.figures.canvas import Drawing, drawing
from layerfusion.report.figures.colors import INK, MUTED, model_colors
from layerfusion.report.figures.layers import DASHED, LINES
from layerfusion.report.figures.line_ends import LineEnd, name_curves
from layerfusion.report.format import COUNT, NONE, P_VALUE, PERCENT, POINTS
from layerfusion.report.metrics import titled
from layerfusion.report.sentences import bracket, percent, shortened
from layerfusion.report.table import Cell, Column, Mark, Table, cell_text


def _mark(line: LearningLine) -> Mark:
    return "baseline" if line.is_baseline else "chosen" if line.chosen else ""


def curve_sections(results: Results) -> list[Block]:
    """Make one section for each learning curve."""
    colors = model_colors(results.groups[0].models) if results.groups else {}
    return [
        curve_block(curve, colors, found, f"curve-{number}")
        for number, (curve, found) in enumerate(results.curves.items(), start=1)
    ]


def curve_block(
    curve: LearningCurve, colors: Mapping[str, str], found: Sequence[DrawFinding], key: str
) -> Block:
    """Show accuracy by rows a class, for all that was tried on several sizes.

    `found` compares several models with the best one of them alone, over the draws.
    """
    measure, size = curve.measure, curve.size_words
    lines = [curve.baseline_line, *curve.lines]
    spans = [(x.short, [y.mean for y in map(x.figure, curve.sizes) if y]) for x in lines]
    figure = drawing(
        f"{curve.key}-learning-curves",
        lambda ax: plot_learning(curve, lines, colors, ax),
        alt=f"{curve.label}: test {measure} by {size}. "
        + "; ".join(f"{x} {PERCENT(y[0])} to {PERCENT(y[-1])} %" for x, y in spans),
        caption=f"Test {measure} against the {size} to learn and choose from"
        + ("; bars: one standard deviation over the draws, up and down" if curve.draws > 1 else "")
        + ". In the colour of the text: several models; in another one: one model."
        " Broken: with lexical sources, or other settings. Grey: the baseline."
        + _draw_sentence(found, size),
    )
    outlooks = {line: one for line in lines if (one := curve.outlook(line.sizes))}
    words = [_outlook_sentence(line, curve) for line in lines if line.chosen]
    rows = plural(curve.groups[0].rows, "test row")
    draws = "several draws" if curve.draws > 1 else "one draw of each size"
    return Block(
        f"How many rows it takes: {curve.label}",
        (
            f"The same {rows}, and fewer rows to learn and choose from, in {draws}.",
            figure,
            _table(curve, lines),
            *words,
            _outlook_table(outlooks, curve),
            _draw_table(found, curve) if found else None,
        ),
        key,
    )


def _size(curve: LearningCurve, size: Size) -> str:
    return f"{size} a {curve.kind}" if size is not None else f"All ({COUNT(curve.rows(size))})"


def _table(curve: LearningCurve, lines: Sequence[LearningLine]) -> Table:
    def accuracy(line: LearningLine, size: Size) -> Cell:
        draws = len(line.sizes.get(size, ()))
        return Cell.of(line.figure(size), note=f"({draws})" if draws else "")

    several = "In %: mean ± standard deviation over the draws"
    each = several if curve.draws > 1 else "In %: a draw"
    return Table(
        f"Test {curve.measure} by {curve.size_words}",
        lines,
        Column("Models", lambda line: line.name),
        *(
            Column(_size(curve, size), lambda line, size=size: accuracy(line, size), PERCENT)
            for size in curve.sizes
        ),
        note=f"{each}, each the mean of its seeds; in round brackets the number of draws. Rows of"
        " validation are among those counted.",
        mark=_mark,
    )


# -- more labels --------------------------------------------------------------------------------


def chosen_line(curve: LearningCurve) -> LearningLine | None:
    """Find the line of what is chosen with the most rows."""
    return next((line for line in curve.lines if line.chosen), None)


def curve_facts(curve: LearningCurve, line: LearningLine) -> list[tuple[str, str]]:
    """Say what a line reaches with fewer rows, beside the baseline, and what more would give."""
    fewer = []
    for size in curve.sizes[:-1]:
        if size in line.sizes and size is not None:
            own, base = (cell_text(x.figure(size), PERCENT) for x in (line, curve.baseline_line))
            fewer.append(f"{COUNT(size)} {curve.size_words}: {own} % (baseline {base} %)")
    outlook = _outlook_sentence(line, curve)
    return [("With fewer rows", "; ".join(fewer)), *([("With more", outlook)] if outlook else [])]


def curve_figure(curve: LearningCurve, line: LearningLine) -> Drawing:
    """Draw the line of what is chosen, beside the baseline, small enough for a card."""
    lines = [curve.baseline_line, replace(line, variant=0)]
    colors = model_colors(curve.groups[0].models)
    return drawing(
        f"{curve.key}-answer-curve",
        lambda ax: plot_learning(curve, lines, colors, ax),
        alt=f"{curve.label}: test {curve.measure} by {curve.size_words}, of {line.name} and of the"
        " baseline.",
        wide=NARROW - 10,
    )


def _outlook_sentence(line: LearningLine, curve: LearningCurve) -> str:
    """Say what more labels would give to a line; nothing where its samples are too few."""
    found = curve.outlook(line.sizes)
    if found is None:
        return ""
    if not found.law.falls:
        return f"Whether more labels would help {line.short} cannot be told from these samples."
    twice = found.doubled
    return (
        f"Each doubling of the labels has avoided {percent(found.law.cut.mean)} of the errors of"
        f" {line.short}. If that goes on, twice the rows, {COUNT(2 * found.rows)} a {curve.kind} on"
        f" average, would give {percent(twice.mean)} {bracket(twice)},"
        f" {POINTS(twice.mean - found.score)} points."
    )


def _outlook_table(found: Mapping[LearningLine, Outlook], curve: LearningCurve) -> Table:
    size = curve.size_words
    return Table(
        "What more labels would give",
        tuple(found.items()),
        Column("Models", lambda x: x[0].name),
        Column(f"{capital(size)} on average", lambda x: x[1].rows, COUNT, later=True),
        Column(titled("Test", curve.measure), lambda x: x[1].score, PERCENT, later=True),
        Column("Errors that a doubling avoids, %", lambda x: x[1].law.cut, PERCENT, later=True),
        Column("Test % with twice the rows", lambda x: x[1].doubled, PERCENT),
        Column(f"{capital(size)} for one point more", lambda x: x[1].rows_for_a_point, COUNT),
        note="A power law, fitted to the errors of all samples, with 95 % intervals of the fit."
        f" A {curve.kind} with fewer rows than were asked for gives all it has."
        " Close to the errors that no classifier avoids, curves flatten, so that this is rather too"
        f" much than too little. {NONE}: the interval does not show that errors fall, or one"
        f" point would take more than {FAR} times the rows.",
        mark=lambda x: _mark(x[0]),
    )


# -- several models and one of them alone -------------------------------------------------------


def _draw_table(found: Sequence[DrawFinding], curve: LearningCurve) -> Table:
    recipes, size = curve.recipes, curve.size_words

    def test(finding: DrawFinding, place: int) -> object:
        return over_draws([pair[place].record.test[curve.metric].mean for pair in finding.pairs])

    return Table(
        f"Several models and one of them alone, by {size}",
        found,
        Column("Models", lambda x: x.identity.name),
        Column("Layers, fusion", lambda x: recipes[x.identity.recipe]),
        Column(capital(size), lambda x: x.size, COUNT),
        Column("Draws", lambda x: x.difference.draws, COUNT, later=True),
        Column(titled("Test", curve.measure), lambda x: test(x, 0), PERCENT, later=True),
        Column("Alone, as chosen", lambda x: x.alone, later=True),
        Column(titled("Its test", curve.measure), lambda x: test(x, 1), PERCENT, later=True),
        Column("Difference, points", lambda x: x.difference, POINTS),
        Column("p", lambda x: x.difference.p, P_VALUE, later=True),
        Column("p (Holm)", lambda x: x.adjusted, P_VALUE, later=True),
        Column("Shown", lambda x: x.mark),
        note="Alone: in each draw the model that is chosen, with the number of draws. Paired"
        " differences on the same test rows. Draws and test rows both count as samples, so the"
        " interval tells what to expect of another draw of as many rows and of other test texts."
        " With few draws it is wide, and rather too wide than too narrow. p (Holm): adjusted for"
        f" the {plural(found[0].family, 'comparison')} over draws in this report. ▲ better, ▼"
        " worse: adjusted p below 0.05.",
    )


def _draw_sentence(found: Sequence[DrawFinding], rows: str) -> str:
    """Put the comparisons into a sentence for a caption; nothing where there is none."""
    if not found:
        return ""
    sentences = []
    for identity, own in grouped(found, lambda finding: finding.identity).items():
        sizes = (
            f"{POINTS(x.difference.mean)} {bracket(x.difference, POINTS)}{x.mark} with"
            f" {COUNT(x.size)} {rows}"
            for x in own
        )
        sentences.append(f"{identity.short_name}: {', '.join(sizes)}")
    return (
        " Several models against the best one of them alone, in points, with 95 % intervals over"
        f" draws and test rows: {'; '.join(sentences)}."
    )


def plot_learning(
    curve: LearningCurve, lines: Sequence[LearningLine], colors: Mapping[str, str], ax: Axes
) -> None:
    """Draw test accuracy against the rows of each class, with its standard deviation."""
    new_axes(ax, 362, (292 if len(lines) > 2 else 212) + LINE * len(lines), grid="y")
    ax.set_xscale("log")
    places = [curve.rows(size) for size in curve.sizes]
    ax.set_xticks(places, [str(size) if size is not None else "all" for size in curve.sizes])
    ax.set_xticks([], minor=True)
    ax.set_xlim(places[0] / 1.15, places[-1] * 1.15)
    ax.set(xlabel=curve.size_words, ylabel=f"{curve.measure}, %")
    ends = []
    for index, line in enumerate(lines):
        # Bars of lines that share a place stand side by side.
        shift = 1 + 0.012 * (index - (len(lines) - 1) / 2)
        known = [(curve.rows(size), x) for size in curve.sizes if (x := line.figure(size))]
        x = [place * shift for place, _ in known]
        means = np.array([100 * figure.mean for _, figure in known])
        sds = np.array([100 * (figure.sd or 0.0) for _, figure in known])
        name = shortened(line.short, 46 if is_narrow(ax) else 34)
        color, style = MUTED, DASHED
        if not line.is_baseline:
            color = colors.get(line.models[0], INK) if len(line.models) == 1 else INK
            style = LINES[line.variant % len(LINES)]
        ax.plot(x, means, color=color, linestyle=style, linewidth=1.8, label=name)
        ax.vlines(x, means - sds, means + sds, color=color, linewidth=1.2, alpha=0.7)
        ax.plot(x, means, color=color, linestyle="none", marker="o", markersize=4)
        ends.append(LineEnd(name, known[-1][0], float(means[-1]), color))
    name_curves(ax, ends)
