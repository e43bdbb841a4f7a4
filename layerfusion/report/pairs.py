"""Several models against the one of them alone that validation prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerfusion.records.format import plural
from layerfusion.report.blocks import Block
from layerfusion.report.canvas import GRID, INK, MUTED, SERIES, Drawing, canvas, drawing, shortened
from layerfusion.report.findings import Finding, Findings
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import count, listing, mean_sd, p_value, point_interval, points
from layerfusion.report.systems import (
    System,
    by_system,
    model_names,
    recipe_names,
    system_name,
    system_of,
    taken,
)
from layerfusion.report.tables import Column, Row, Table

DEEPEST = 5.0
"""Points at which a cell has its full colour."""


def pair_block(group: DataGroup, findings: Findings) -> Block | None:
    """A table of all jobs on several models, and a matrix of the pairs for each way of fusing."""
    found = {
        system: row
        for row in findings.rows
        if row.kind == "part"
        and row.what is not None
        and (system := system_of(row.what)) is not None
    }
    if not found:
        return None
    known = by_system(group.jobs)
    recipes = recipe_names(known)
    ways = dict.fromkeys(replace(s, models=frozenset()) for s in found if len(s.models) == 2)
    figures = [
        _figure(group, known, found, way, recipes[way.recipe], number)
        for number, way in enumerate(ways, start=1)
    ]
    return Block(
        "Whether a second model helps",
        "Several models against one of them alone, under the same settings: the one that validation"
        " prefers, which need not be the one that does better on test.",
        tuple(figures),
        (_table(found, recipes, findings),),
    )


def _table(
    found: Mapping[System, Finding], recipes: Mapping[str, str], findings: Findings
) -> Table:
    rows = []
    order = sorted(
        found, key=lambda s: (recipes[s.recipe], sorted(s.lexical), len(s.models), model_names(s))
    )
    for system in order:
        row = found[system]
        if row.what is None or row.against is None:
            continue
        best = system_of(row.against)
        rows.append(
            Row(
                (
                    system_name(system),
                    recipes[system.recipe],
                    taken(row.what),
                    mean_sd(row.what.record.test["accuracy"]),
                    "" if best is None else listing(model_names(best)),
                    mean_sd(row.against.record.test["accuracy"]),
                    f"{points(row.difference.mean)} {point_interval(row.difference)}",
                    count(row.mcnemar.only_a),
                    count(row.mcnemar.only_b),
                    p_value(row.mcnemar.p),
                    p_value(row.adjusted),
                    row.mark,
                )
            )
        )
    return Table(
        "Several models and one of them alone",
        (
            Column("Models", numeric=False),
            Column("Layers, fusion", numeric=False),
            Column("Taken", numeric=False),
            Column("Test %"),
            Column("Alone, by validation", numeric=False),
            Column("Its test %"),
            Column("Difference, points"),
            Column("Only together right"),
            Column("Only alone right"),
            Column("p"),
            Column("p (Holm)"),
            Column("Shown", numeric=False),
        ),
        tuple(rows),
        "Taken: the sources that the selection took; a model that it leaves out is one that it"
        " found nothing to gain from. Paired differences of the mean accuracies over seeds; exact"
        " McNemar of the consensus, adjusted (Holm) for the"
        f" {plural(findings.family['part'], 'different comparison')} of this kind in the report.",
    )


def _figure(
    group: DataGroup,
    known: Mapping[System, Job],
    found: Mapping[System, Finding],
    way: System,
    recipe: str,
    number: int,
) -> Drawing:
    """The matrix of pairs of one recipe, with the same lexical sources."""
    pairs = {s: row for s, row in found.items() if len(s.models) == 2 and _same_way(s, way)}
    models = sorted({model for system in pairs for model in system.models})
    alone = {model: known[replace(way, models=frozenset([model]))] for model in models}
    cells = {tuple(sorted(system.models)): (known[system], row) for system, row in pairs.items()}
    beside = f" with {listing(sorted(way.lexical))}" if way.lexical else ""

    def draw(narrow: bool) -> Figure:
        return _draw(
            [model.label for model in models],
            [100 * alone[model].record.test["accuracy"].mean for model in models],
            {
                (models.index(b), models.index(a)): (
                    100 * job.record.test["accuracy"].mean,
                    row,
                )
                for (a, b), (job, row) in cells.items()
            },
            narrow=narrow,
        )

    return drawing(
        f"{group.key}-pairs-{number}",
        draw,
        alt=f"{group.label}, {recipe}{beside}: test accuracy of pairs of models. "
        + "; ".join(
            f"{system_name(s)} {points(row.difference.mean)}{row.mark}" for s, row in pairs.items()
        ),
        caption=f"{recipe}{beside}: test accuracy in %, on the diagonal of a model alone, below it"
        " of a pair, with the difference in points to the one of the two that validation prefers."
        " Blue: above it, orange: below it. ▲ and ▼: a difference that the exact test, adjusted for"
        " the number of comparisons, shows.",
    )


def _same_way(system: System, way: System) -> bool:
    return (system.recipe, system.lexical) == (way.recipe, way.lexical)


def _draw(
    names: Sequence[str],
    alone: Sequence[float],
    pairs: Mapping[tuple[int, int], tuple[float, Finding]],
    *,
    narrow: bool,
) -> Figure:
    size = len(names)
    left = 84 if narrow else 130
    cell = min(104.0, ((360 if narrow else 760) - left - 10) / size)
    height = 56.0
    figure, axes = canvas(left + size * cell + 10, size * height + 46, left, 10, 8, 38)
    axes.set(xlim=(0, size), ylim=(size, 0))
    axes.spines["bottom"].set_visible(False)
    most = int(cell / 7.2)
    middles = [index + 0.5 for index in range(size)]
    axes.set_xticks(middles, [shortened(name, most) for name in names])
    axes.set_yticks(middles, [shortened(name, 11 if narrow else 18) for name in names])

    def put(row: int, column: int, value: str, note: str, color: str, alpha: float) -> None:
        box = Rectangle((column + 0.02, row + 0.03), 0.96, 0.94, linewidth=0)
        box.set(facecolor=color, alpha=alpha)
        axes.add_patch(box)
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
        axes.text(column + 0.5, row + (0.34 if note else 0.5), value, fontsize=12.5, **style)
        axes.text(column + 0.5, row + 0.7, note, fontsize=10.5, **style)

    for index, value in enumerate(alone):
        put(index, index, f"{value:.1f}", "alone", GRID, 0.6)
    for (row, column), (value, finding) in pairs.items():
        difference = finding.difference.mean
        color = SERIES[0] if difference > 0 else SERIES[1] if difference < 0 else MUTED
        depth = 0.06 + 0.4 * min(1.0, abs(100 * difference) / DEEPEST)
        put(row, column, f"{value:.1f}", f"{points(difference)} {finding.mark}", color, depth)
    return figure
