"""Jobs against parts of themselves: one of their models alone, or without lexical sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from layerfusion.records.format import plural
from layerfusion.report.block import Block
from layerfusion.report.blocks.fusion import p_columns
from layerfusion.report.figures.canvas import NARROW, WIDE, Drawing, drawing, is_narrow, new_axes
from layerfusion.report.figures.colors import GRID, INK, MUTED, SERIES
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.findings.identities import (
    JobIdentity,
    by_identity,
    identity_name,
    identity_of,
    model_names,
    recipe_names,
    taken,
)
from layerfusion.report.findings.tests import Finding, Findings
from layerfusion.report.format import COUNT, PERCENT, POINTS, listing, points, shortened
from layerfusion.report.jobs import FinishedJob
from layerfusion.report.load import DataGroup
from layerfusion.report.table import Column, Table

DEEPEST = 5.0
"""Points of difference at which a cell of the matrix has its full colour."""


def pair_block(group: DataGroup, findings: Findings) -> Block | None:
    """List all jobs on several models, and draw a matrix of the pairs for each way of fusing."""
    found = {
        identity: row
        for row in findings.rows
        if row.kind == "part"
        and row.what is not None
        and (identity := identity_of(row.what)) is not None
    }
    if not found:
        return None
    known = by_identity(group.jobs)
    recipes = recipe_names(known)
    ways = dict.fromkeys(replace(x, models=frozenset()) for x in found if len(x.models) == 2)
    return Block(
        "Whether a second model helps",
        (
            "Several models against one of them alone, under the same settings: the one that"
            " validation prefers, which need not be the one that does better on test.",
            *(
                _figure(group, known, found, way, f"{group.key}-pairs-{number}")
                for number, way in enumerate(ways, start=1)
            ),
            _table(found, recipes, findings.family["part"]),
        ),
    )


def _table(found: Mapping[JobIdentity, Finding], recipes: Mapping[str, str], family: int) -> Table:
    entries = sorted(
        found.items(),
        key=lambda pair: (
            recipes[pair[0].recipe],
            sorted(pair[0].lexical),
            len(pair[0].models),
            model_names(pair[0]),
        ),
    )
    identities = {row: identity for identity, row in entries if row.against is not None}
    return comparison_table(
        "Several models and one of them alone",
        [
            Column("Models", lambda row: identity_name(identities[row])),
            Column("Layers, fusion", lambda row: recipes[identities[row].recipe]),
            Column("Taken", lambda row: taken(row.what)),
            Column("Test %", lambda row: row.what.record.test["accuracy"], PERCENT),
            Column("Alone, by validation", lambda row: _models_of(row.against)),
            Column("Its test %", lambda row: row.against.record.test["accuracy"], PERCENT),
        ],
        ("Only together right", "Only alone right"),
        list(identities),
        "Taken: the sources that the selection took. It leaves out a model that promises no gain."
        " Paired differences of the mean accuracies over seeds; exact McNemar test of the"
        f" consensus, adjusted (Holm) for the {plural(family, 'different comparison')} of this kind"
        " in the report.",
    )


def comparison_table(
    title: str, columns: list[Column], only: tuple[str, str], rows: list[Finding], note: str
) -> Table:
    """List findings between jobs with their tests.

    Args:
        title: title of the table.
        columns: columns that say what is compared.
        only: headings of the rows that only the one and only the other has right.
        rows: the findings.
        note: how to read the table.
    """
    return Table(
        title,
        (
            *columns,
            Column("Difference, points", lambda row: row.difference, POINTS),
            Column(only[0], lambda row: row.mcnemar.only_a, COUNT),
            Column(only[1], lambda row: row.mcnemar.only_b, COUNT),
            *p_columns(),
        ),
        rows,
        note,
    )


def _models_of(job: FinishedJob) -> str:
    identity = identity_of(job)
    return "" if identity is None else listing(model_names(identity))


def _figure(
    group: DataGroup,
    known: Mapping[JobIdentity, FinishedJob],
    found: Mapping[JobIdentity, Finding],
    way: JobIdentity,
    key: str,
) -> Drawing:
    """Draw the matrix of pairs of one recipe, with the same lexical sources."""
    pairs = {
        identity: row
        for identity, row in found.items()
        if len(identity.models) == 2 and replace(identity, models=frozenset()) == way
    }
    models = sorted({model for identity in pairs for model in identity.models})
    alone = [known[replace(way, models=frozenset([model]))] for model in models]
    cells = {}
    for identity, row in pairs.items():
        a, b = sorted(identity.models)
        place = models.index(b), models.index(a)
        cells[place] = known[identity].record.test["accuracy"].mean, row
    names = [model.label for model in models]
    accuracies = [job.record.test["accuracy"].mean for job in alone]
    beside = f" with {listing(sorted(way.lexical))}" if way.lexical else ""
    title = f"{recipe_names(known)[way.recipe]}{beside}"
    return drawing(
        key,
        lambda ax: plot_pairs(names, accuracies, cells, ax),
        alt=f"{group.label}, {title}: test accuracy of pairs of models. "
        + "; ".join(
            f"{identity_name(identity)} {points(row.difference.mean)}{row.mark}"
            for identity, row in pairs.items()
        ),
        caption=f"{title}: test accuracy in %, on the diagonal of a model alone, below it"
        " of a pair, with the difference in points to the one of the two that validation prefers."
        " Blue: above it, orange: below it. ▲ and ▼: a difference that the exact test, adjusted for"
        " the number of comparisons, shows.",
    )


def plot_pairs(
    names: Sequence[str],
    alone: Sequence[float],
    pairs: Mapping[tuple[int, int], tuple[float, Finding]],
    ax: Axes | None = None,
) -> Axes:
    """Draw test accuracies of models alone (on the diagonal) and in pairs (below it).

    `pairs` maps row and column to the test accuracy of the pair, and to its comparison with the
    better model alone.
    """
    ax = new_axes(ax, 56.0 * len(names) + 46)
    narrow, size = is_narrow(ax), len(names)
    room = (NARROW if narrow else WIDE) - (94 if narrow else 140)
    cell = min(104.0, room / size)
    ax.set(xlim=(0, room / cell), ylim=(size, 0))
    ax.spines["bottom"].set_visible(False)
    middles = [index + 0.5 for index in range(size)]
    ax.set_xticks(middles, [shortened(name, int(cell / 7.2)) for name in names])
    ax.set_yticks(middles, [shortened(name, 11 if narrow else 18) for name in names])

    def put(row: int, column: int, value: float, note: str, color: str, alpha: float) -> None:
        box = Rectangle((column + 0.02, row + 0.03), 0.96, 0.94, linewidth=0)
        box.set(facecolor=color, alpha=alpha)
        ax.add_patch(box)
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
        ax.text(column + 0.5, row + 0.34, PERCENT(value), fontsize=12.5, **style)
        ax.text(column + 0.5, row + 0.7, note, fontsize=10.5, **style)

    for index, value in enumerate(alone):
        put(index, index, value, "alone", GRID, 0.6)
    for (row, column), (value, finding) in pairs.items():
        difference = finding.difference.mean
        color = SERIES[0] if difference > 0 else SERIES[1] if difference < 0 else MUTED
        depth = 0.06 + 0.4 * min(1.0, abs(100 * difference) / DEEPEST)
        put(row, column, value, f"{points(difference)} {finding.mark}", color, depth)
    return ax


# -- lexical sources ----------------------------------------------------------------------------

Name = tuple[str, int, str]
"""Recipe, number of models, and models: the order of the rows, and their names."""


def lexical_block(group: DataGroup, findings: Findings) -> Block | None:
    """Compare every job with lexical sources with the same job without them."""
    recipes = recipe_names(by_identity(group.jobs))
    names = {
        row: _lexical_name(row.what, recipes)
        for row in findings.rows
        if row.kind == "lexical" and row.what is not None
    }
    if not names:
        return None
    names = dict(sorted(names.items(), key=lambda pair: pair[1]))
    return Block(
        "What the lexical sources add",
        (
            "TF-IDF of the texts as further sources, beside the layers of the models: the same jobs"
            " with them and without.",
            _lexical_figure(group, names),
            _lexical_table(names, findings.family["lexical"]),
        ),
    )


def _lexical_name(job: FinishedJob, recipes: dict[str, str]) -> Name:
    identity = identity_of(job)
    if identity is None:
        return "", 0, ""
    models = model_names(identity)
    return recipes[identity.recipe], len(models), " + ".join(models)


def _lexical_table(names: dict[Finding, Name], family: int) -> Table:
    lexical = sorted({x for row in names if row.what for x in row.what.record.lexical})
    return comparison_table(
        "With and without lexical sources",
        [
            Column("Models", lambda row: names[row][2]),
            Column("Layers, fusion", lambda row: names[row][0]),
            Column("Taken", lambda row: taken(row.what)),
            Column("Without %", lambda row: row.against.record.test["accuracy"], PERCENT),
            Column("With %", lambda row: row.what.record.test["accuracy"], PERCENT),
        ],
        ("Only with it right", "Only without it right"),
        list(names),
        f"Lexical sources: {listing(lexical)}. Taken: the sources that the selection took, which"
        " may leave lexical ones out. Paired differences of the mean accuracies over seeds; exact"
        " McNemar test of the consensus, adjusted (Holm) for the"
        f" {plural(family, 'different comparison')} of this kind in the report.",
    )


def _lexical_figure(group: DataGroup, names: dict[Finding, Name]) -> Drawing:
    single = len({recipe for recipe, _, _ in names.values()}) == 1
    rows = [
        ForestRow(models if single else f"{models}, {recipe}", row)
        for row, (recipe, _, models) in names.items()
    ]
    return forest_drawing(
        f"{group.key}-lexical",
        rows,
        "points against the same without",
        alt=f"{group.label}: what lexical sources add to the accuracy, in points.",
        caption="Test accuracy with lexical sources minus that of the same job without them, with"
        " 95 % intervals over the same test rows.",
    )
