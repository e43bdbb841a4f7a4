"""What lexical sources add to the same models under the same settings."""

from __future__ import annotations

from layerfusion.records.format import plural
from layerfusion.report.blocks import Block
from layerfusion.report.canvas import INK, Drawing, drawing
from layerfusion.report.findings import Finding, Findings
from layerfusion.report.forest import FILLED, Branch, draw_forest
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import count, listing, mean_sd, p_value, point_interval, points
from layerfusion.report.systems import by_system, model_names, recipe_names, system_of, taken
from layerfusion.report.tables import Column, Row, Table


def lexical_block(group: DataGroup, findings: Findings) -> Block | None:
    """Every job with lexical sources against the same job without them."""
    found = [row for row in findings.rows if row.kind == "lexical"]
    if not found:
        return None
    recipes = recipe_names(by_system(group.jobs))
    rows = sorted(
        ((_name(row.what, recipes), row) for row in found if row.what is not None),
        key=lambda pair: pair[0],
    )
    return Block(
        "What the lexical sources add",
        "TF-IDF of the texts as further sources, beside the layers of the models: the same jobs"
        " with them and without.",
        (_figure(group, rows),),
        (_table(rows, findings),),
    )


def _name(job: Job | None, recipes: dict[str, str]) -> tuple[str, int, str]:
    """Recipe, number of models, and models: the order of the rows and what they are called."""
    system = None if job is None else system_of(job)
    if system is None:
        return "", 0, ""
    models = model_names(system)
    return recipes[system.recipe], len(models), " + ".join(models)


def _table(rows: list[tuple[tuple[str, int, str], Finding]], findings: Findings) -> Table:
    shown = []
    for (recipe, _, models), row in rows:
        if row.what is None or row.against is None:
            continue
        shown.append(
            Row(
                (
                    models,
                    recipe,
                    taken(row.what),
                    mean_sd(row.against.record.test["accuracy"]),
                    mean_sd(row.what.record.test["accuracy"]),
                    f"{points(row.difference.mean)} {point_interval(row.difference)}",
                    count(row.mcnemar.only_a),
                    count(row.mcnemar.only_b),
                    p_value(row.mcnemar.p),
                    p_value(row.adjusted),
                    row.mark,
                )
            )
        )
    lexical = sorted({x for _, row in rows if row.what for x in row.what.record.lexical})
    return Table(
        "With and without lexical sources",
        (
            Column("Models", numeric=False),
            Column("Layers, fusion", numeric=False),
            Column("Taken", numeric=False),
            Column("Without %"),
            Column("With %"),
            Column("Difference, points"),
            Column("Only with it right"),
            Column("Only without it right"),
            Column("p"),
            Column("p (Holm)"),
            Column("Shown", numeric=False),
        ),
        tuple(shown),
        f"Lexical sources: {listing(lexical)}. Taken: the sources that the selection took, which"
        " may leave lexical ones out. Paired differences of the mean accuracies over seeds;"
        " exact McNemar of the consensus, adjusted (Holm) for the"
        f" {plural(findings.family['lexical'], 'different comparison')} of this kind in the"
        " report.",
    )


def _figure(group: DataGroup, rows: list[tuple[tuple[str, int, str], Finding]]) -> Drawing:
    one = len({recipe for (recipe, *_), _ in rows}) == 1
    branches = [
        Branch(models if one else f"{models}, {recipe}", row, INK)
        for (recipe, _, models), row in rows
    ]
    return drawing(
        f"{group.key}-lexical",
        lambda narrow: draw_forest(branches, "points against the same without", narrow=narrow),
        alt=f"{group.label}: what lexical sources add to the accuracy, in points. "
        + "; ".join(f"{b.name}: {points(b.finding.difference.mean)}" for b in branches),
        caption="Test accuracy with lexical sources minus that of the same job without them, with"
        f" 95 % intervals over the same test rows. {FILLED}",
    )
