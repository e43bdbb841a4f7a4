"""Jobs against parts of themselves: one of their models alone, or without lexical sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from layerfusion.findings.compare import best_chosen
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.identities import JobIdentity, by_identity, models_of, recipe_names, taken
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.measures import test_name
from layerfusion.findings.tests import Finding, Findings, Kind, same_system
from layerfusion.records.format import capital, listing, plural
from layerfusion.report.block import Block
from layerfusion.report.blocks.fusion import test_columns
from layerfusion.report.figures.axes import draw_cell, is_narrow, matrix_axes, new_axes
from layerfusion.report.figures.canvas import Drawing, drawing
from layerfusion.report.figures.colors import GRID, MUTED, SERIES
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.format import PERCENT, POINTS
from layerfusion.report.metrics import titled
from layerfusion.report.sentences import shortened, verdict
from layerfusion.report.table import Column, Table

DEEPEST = 5.0
"""Points of difference at which a cell of the matrix has its full colour."""


def pair_block(group: DataGroup, findings: Findings) -> Block | None:
    """List all jobs on several models, and draw a matrix of the pairs for each way of fusing."""
    known = by_identity(group.jobs)
    recipes = recipe_names(known)
    found = findings.identified("part", recipes)
    if not found:
        return None
    pairs = [row for row in findings.rows if row in found and len(found[row].models) == 2]
    by_way = grouped(pairs, lambda row: found[row].way)
    table = Table(
        "Several models and one of them alone",
        list(found),
        Column("Models", lambda x: found[x].name),
        Column("Layers, fusion", lambda x: recipes[found[x].recipe]),
        Column("Taken", lambda x: taken(x.what), later=True),
        Column(titled("Test", group.measure), lambda x: x.what.score, PERCENT),
        Column(f"Alone, by {group.judge.name}", lambda x: models_of(x.against), later=True),
        Column(titled("Its test", group.measure), lambda x: x.against.score, PERCENT, later=True),
        *test_columns("Rows together has right more often", "Rows alone has"),
        note="Taken: the sources that the selection took. It leaves out a model that promises no"
        f" gain.{_tested(findings, 'part', group)}",
    )
    return Block(
        "Whether a second model helps",
        (
            _verdict(group, found),
            "Several models against one of them alone, under the same settings: the one that"
            f" {group.judge.chooses}, which need not be the one that does better on test.",
            *(
                _figure(group, known, {found[row]: row for row in rows}, number)
                for number, rows in enumerate(by_way.values(), start=1)
                if len(rows) > 1
            ),
            table,
        ),
    )


def _verdict(group: DataGroup, found: Mapping[Finding, JobIdentity]) -> str:
    """Say what the chosen one of some jobs is worth against the job that it is held against."""
    best = best_chosen([row.what for row in found if row.what])
    row = next(row for row in found if row.what is best)
    rival = row.against or best
    against = "the same without" if row.kind == "lexical" else f"{models_of(rival)} alone"
    if row.kind == "part" and found[row].lexical:  # the one model has them too
        against += f" (also with {listing(sorted(found[row].lexical))})"
    what = f"the combination that {group.judge.chooses}, {found[row].name},"
    if same_system(best, rival):
        return f"{capital(what)} ended in the layers of {against}: nothing more promised a gain."
    return verdict(what, row, against)


def _tested(findings: Findings, kind: Kind, group: DataGroup) -> str:
    """Say in the note of a table how its findings were tested."""
    number = findings.family.get(kind, 0)
    return (
        f" Paired differences of the mean {group.measure} over seeds;"
        f" {test_name(group.judge.metric)}, corrected (Holm) for the"
        f" {plural(number, 'different comparison')} of this kind in the report."
    )


def _figure(
    group: DataGroup,
    known: Mapping[JobIdentity, FinishedJob],
    pairs: Mapping[JobIdentity, Finding],
    number: int,
) -> Drawing:
    """Draw the matrix of the pairs of one way of fusing."""
    models = sorted({model for identity in pairs for model in identity.models})
    cells = {}
    for identity, row in pairs.items():
        a, b = sorted(identity.models)
        cells[models.index(b), models.index(a)] = known[identity].score.mean, row
    names, way = [model.label for model in models], next(iter(pairs)).way
    accuracies = [known[way.on(model)].score.mean for model in models]
    title = way.way_name(recipe_names(known))
    return drawing(
        f"{group.key}-pairs-{number}",
        lambda ax: plot_pairs(names, accuracies, cells, ax),
        alt=f"{group.label}, {title}: test {group.measure} of pairs of models. "
        + "; ".join(
            f"{identity.name} {POINTS(row.difference.mean)}{row.mark}"
            for identity, row in pairs.items()
        ),
        caption=f"{title}: test {group.measure} in %, on the diagonal of a model alone,"
        " below it of a pair, with the difference in points to the one of the two that"
        f" {group.judge.chooses}. Blue: above it, orange: below it. ▲ ▼: better or worse,"
        " △ ▽: probably so.",
    )


def plot_pairs(
    names: Sequence[str],
    alone: Sequence[float],
    pairs: Mapping[tuple[int, int], tuple[float, Finding]],
    ax: Axes,
) -> None:
    """Draw test accuracies of models alone (on the diagonal) and in pairs (below it).

    `pairs` maps row and column to the test accuracy of the pair, and to its comparison with the
    better model alone.
    """
    new_axes(ax, 56.0 * len(names) + 46)
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
        draw_cell(ax, place, color, depth, PERCENT(value), f"{POINTS(difference)} {finding.mark}")


# -- lexical sources ----------------------------------------------------------------------------


def lexical_block(group: DataGroup, findings: Findings) -> Block | None:
    """Compare every job with lexical sources with the same job without them."""
    recipes = recipe_names(by_identity(group.jobs))
    found = findings.identified("lexical", recipes)
    if not found:
        return None
    models = {row: " + ".join(identity.model_names) for row, identity in found.items()}
    ways = {row: recipes[identity.recipe] for row, identity in found.items()}
    single = len(set(ways.values())) == 1
    rows = [ForestRow(x if single else f"{x}, {ways[row]}", row) for row, x in models.items()]
    lexical = sorted({name for identity in found.values() for name in identity.lexical})
    figure = forest_drawing(
        f"{group.key}-lexical",
        rows,
        "points against the same without",
        alt=f"{group.label}: what lexical sources add to the {group.measure}, in points.",
        caption=f"Test {group.measure} with lexical sources minus that of the same job without"
        " them, with 95 % intervals over the same test rows.",
    )
    table = Table(
        "With and without lexical sources",
        list(models),
        Column("Models", lambda row: models[row]),
        Column("Layers, fusion", lambda row: ways[row]),
        Column("Taken", lambda row: taken(row.what), later=True),
        Column(titled("Without", group.measure), lambda row: row.against.score, PERCENT),
        Column(titled("With", group.measure), lambda row: row.what.score, PERCENT),
        *test_columns("Only with it right", "Only without it right"),
        note=f"Lexical sources: {listing(lexical)}. Taken: the sources that the selection took,"
        f" which may leave lexical ones out.{_tested(findings, 'lexical', group)}",
    )
    return Block(
        "What the lexical sources add",
        (
            _verdict(group, found),
            "TF-IDF of the texts as further sources, beside the layers of the models: the same jobs"
            " with them and without.",
            figure,
            table,
        ),
    )
