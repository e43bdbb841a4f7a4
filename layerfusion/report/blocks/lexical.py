"""What lexical sources add to the same models under the same settings."""

from __future__ import annotations

from layerfusion.records.format import plural
from layerfusion.report.block import Block
from layerfusion.report.blocks.pairs import comparison_table
from layerfusion.report.figures.canvas import Drawing
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.findings.identities import (
    by_identity,
    identity_of,
    model_names,
    recipe_names,
    taken,
)
from layerfusion.report.findings.tests import Finding, Findings
from layerfusion.report.format import PERCENT, listing
from layerfusion.report.jobs import FinishedJob
from layerfusion.report.load import DataGroup
from layerfusion.report.table import Column, Table

Name = tuple[str, int, str]
"""Recipe, number of models, and models: the order of the rows, and their names."""


def lexical_block(group: DataGroup, findings: Findings) -> Block | None:
    """Compare every job with lexical sources with the same job without them."""
    recipes = recipe_names(by_identity(group.jobs))
    names = {
        row: _name(row.what, recipes)
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
            _figure(group, names),
            _table(names, findings.family["lexical"]),
        ),
    )


def _name(job: FinishedJob, recipes: dict[str, str]) -> Name:
    identity = identity_of(job)
    if identity is None:
        return "", 0, ""
    models = model_names(identity)
    return recipes[identity.recipe], len(models), " + ".join(models)


def _table(names: dict[Finding, Name], family: int) -> Table:
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


def _figure(group: DataGroup, names: dict[Finding, Name]) -> Drawing:
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
