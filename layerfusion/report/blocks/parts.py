"""Jobs against parts of themselves: one of their models alone, or without lexical sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.identities import (
    JobIdentity,
    by_identity,
    identity_name,
    identity_of,
    model_names,
    models_of,
    recipe_names,
    taken,
    way_name,
)
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.tests import Finding, Findings, Kind
from layerfusion.records.format import listing, plural
from layerfusion.report.block import Block
from layerfusion.report.blocks.fusion import p_columns
from layerfusion.report.figures.canvas import (
    Drawing,
    draw_cell,
    drawing,
    is_narrow,
    matrix_axes,
    new_axes,
)
from layerfusion.report.figures.colors import GRID, MUTED, SERIES
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.format import COUNT, PERCENT, POINTS, points, shortened
from layerfusion.report.table import Column, Table

DEEPEST = 5.0
"""Points of difference at which a cell of the matrix has its full colour."""


def pair_block(group: DataGroup, findings: Findings) -> Block | None:
    """List all jobs on several models, and draw a matrix of the pairs for each way of fusing."""
    found = _by_identity(findings, "part")
    if not found:
        return None
    known = by_identity(group.jobs)
    recipes = recipe_names(known)
    pairs = grouped((x for x in found if len(x.models) == 2), lambda identity: identity.way)
    return Block(
        "Whether a second model helps",
        (
            "Several models against one of them alone, under the same settings: the one that"
            " validation prefers, which need not be the one that does better on test.",
            *(
                _figure(group, known, way, {x: found[x] for x in own}, number)
                for number, (way, own) in enumerate(pairs.items(), start=1)
            ),
            _table(found, recipes, findings.family["part"]),
        ),
    )


def _by_identity(findings: Findings, kind: Kind) -> dict[JobIdentity, Finding]:
    """Map the identity of each job to its comparison of a kind."""
    rows = [row for row in findings.rows if row.kind == kind and row.what is not None]
    found = {identity_of(row.what): row for row in rows if row.what is not None}
    return {identity: row for identity, row in found.items() if identity is not None}


def _table(found: Mapping[JobIdentity, Finding], recipes: Mapping[str, str], family: int) -> Table:
    def order(identity: JobIdentity) -> tuple[object, ...]:
        models = model_names(identity)
        return recipes[identity.recipe], sorted(identity.lexical), len(models), models

    identities = {found[identity]: identity for identity in sorted(found, key=order)}
    return comparison_table(
        "Several models and one of them alone",
        [
            Column("Models", lambda row: identity_name(identities[row])),
            Column("Layers, fusion", lambda row: recipes[identities[row].recipe]),
            Column("Taken", lambda row: taken(row.what)),
            Column("Test %", lambda row: row.what.accuracy, PERCENT),
            Column("Alone, by validation", lambda row: models_of(row.against)),
            Column("Its test %", lambda row: row.against.accuracy, PERCENT),
        ],
        ("Only together right", "Only alone right"),
        list(identities),
        "Taken: the sources that the selection took. It leaves out a model that promises no gain.",
        family,
    )


def comparison_table(
    title: str,
    columns: list[Column],
    only: tuple[str, str],
    rows: list[Finding],
    note: str,
    family: int,
) -> Table:
    """List findings between jobs with their tests.

    Args:
        title: title of the table.
        columns: columns that say what is compared.
        only: headings of the rows that only the one and only the other has right.
        rows: the findings.
        note: how to read the columns.
        family: number of different comparisons of this kind in the report.
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
        f"{note} Paired differences of the mean accuracies over seeds; exact McNemar test of the"
        f" consensus, adjusted (Holm) for the {plural(family, 'different comparison')} of this kind"
        " in the report.",
    )


def _figure(
    group: DataGroup,
    known: Mapping[JobIdentity, FinishedJob],
    way: JobIdentity,
    pairs: Mapping[JobIdentity, Finding],
    number: int,
) -> Drawing:
    """Draw the matrix of the pairs of one way of fusing."""
    models = sorted({model for identity in pairs for model in identity.models})
    cells = {}
    for identity, row in pairs.items():
        a, b = sorted(identity.models)
        cells[models.index(b), models.index(a)] = known[identity].accuracy.mean, row
    names = [model.label for model in models]
    accuracies = [known[way.on(model)].accuracy.mean for model in models]
    title = way_name(way, recipe_names(known))
    return drawing(
        f"{group.key}-pairs-{number}",
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
    narrow = is_narrow(ax)
    rows = [shortened(name, 11 if narrow else 18) for name in names]
    cell = matrix_axes(ax, rows, len(names), names=94 if narrow else 140, widest=104)
    middles = [index + 0.5 for index in range(len(names))]
    ax.set_xticks(middles, [shortened(name, int(cell / 7.2)) for name in names])
    for index, value in enumerate(alone):
        draw_cell(ax, (index, index), GRID, 0.6, PERCENT(value), "alone")
    for place, (value, finding) in pairs.items():
        difference = finding.difference.mean
        color = SERIES[0] if difference > 0 else SERIES[1] if difference < 0 else MUTED
        depth = 0.06 + 0.4 * min(1.0, abs(100 * difference) / DEEPEST)
        draw_cell(ax, place, color, depth, PERCENT(value), f"{points(difference)} {finding.mark}")
    return ax


# -- lexical sources ----------------------------------------------------------------------------


def lexical_block(group: DataGroup, findings: Findings) -> Block | None:
    """Compare every job with lexical sources with the same job without them."""
    found = _by_identity(findings, "lexical")
    if not found:
        return None
    recipes = recipe_names(by_identity(group.jobs))

    def name(identity: JobIdentity) -> Name:
        models = model_names(identity)
        return recipes[identity.recipe], len(models), " + ".join(models)

    names = {found[identity]: name(identity) for identity in sorted(found, key=name)}
    return Block(
        "What the lexical sources add",
        (
            "TF-IDF of the texts as further sources, beside the layers of the models: the same jobs"
            " with them and without.",
            _lexical_figure(group, names),
            _lexical_table(names, findings.family["lexical"]),
        ),
    )


Name = tuple[str, int, str]
"""Recipe, number of models, and models: the order of the rows, and their names."""


def _lexical_table(names: dict[Finding, Name], family: int) -> Table:
    lexical = sorted({x for row in names if row.what for x in row.what.record.lexical})
    return comparison_table(
        "With and without lexical sources",
        [
            Column("Models", lambda row: names[row][2]),
            Column("Layers, fusion", lambda row: names[row][0]),
            Column("Taken", lambda row: taken(row.what)),
            Column("Without %", lambda row: row.against.accuracy, PERCENT),
            Column("With %", lambda row: row.what.accuracy, PERCENT),
        ],
        ("Only with it right", "Only without it right"),
        list(names),
        f"Lexical sources: {listing(lexical)}. Taken: the sources that the selection took, which"
        " may leave lexical ones out.",
        family,
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
