"""The report as Markdown, for reading in a repository."""

from __future__ import annotations

import re

from layerfusion.report.blocks import Block
from layerfusion.report.canvas import Drawing
from layerfusion.report.contents import Report, Section
from layerfusion.report.tables import Table
from layerfusion.report.words import Summary

GATES = (
    "A gate is the weight that the fusion gives a layer, averaged over test texts and seeds. It is"
    " a weight, not a proof of importance: layers that say the same share it in any proportion."
)
FILES = (
    "Every table lies as CSV and LaTeX in tables/, every figure as PNG and PDF in figures/, beside"
    " this page."
)


def markdown(report: Report) -> str:
    """Everything that the page shows; the figures are the PNG files beside it."""
    parts = [
        f"# {plain(report.title)}",
        *map(plain, report.intro),
        "## Summary" if report.sections else "",
    ]
    for section in report.sections:
        parts += [f"### {plain(section.label)}", *_summary(section.summary)]
    for section in report.sections:
        parts += _section(section)
    for block in (*report.curves, *report.searches, *report.profiles):
        parts += _block(block, "##")
    if report.published is not None:
        parts += ["## Published against honest", *map(plain, report.published.intro)]
        for table in (*report.published.tables, report.published.provenance):
            parts += markdown_table(table)
    parts.append("## Where it comes from")
    parts += _bullets(report.facts)
    parts.append(FILES)
    for table in report.provenance:
        parts += markdown_table(table)
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Text with everything escaped that Markdown or HTML would read as more than text."""
    line = " ".join(text.splitlines())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", line).replace("&", "&amp;")


def _summary(summary: Summary) -> list[str]:
    tiles = "; ".join(
        f"{tile.name.lower()} **{plain(tile.value)}** {plain(tile.interval)}"
        for tile in summary.tiles
    )
    sample = [f"**{plain(summary.sample)}**"] if summary.sample else []
    return [
        *sample,
        f"**{plain(summary.headline)}.**",
        tiles,
        *map(plain, summary.paragraphs),
    ]


def _section(section: Section) -> list[str]:
    parts = [f"## {plain(section.label)}", "### Layers"]
    if section.layer_figure is None or section.layer_table is None:
        parts.append("No layer was run alone.")
    else:
        parts += [*_figure(section.layer_figure), *markdown_table(section.layer_table)]
    parts.append("### Fusion")
    if section.fusion_figure is not None:
        parts += _figure(section.fusion_figure)
    parts += markdown_table(section.fusion_table)
    if section.finding_table is not None:
        parts += markdown_table(section.finding_table)
    for block in section.experiments:
        parts += _block(block, "###")
    if section.choices:
        parts.append("### Choices")
    for table in section.choices:
        parts += markdown_table(table)
    if section.gates:
        parts += ["### Gates", GATES]
    for view in section.gates:
        for figure in (view.figure, *view.more):
            parts += _figure(figure)
        for table in (view.table, *view.tables):
            parts += markdown_table(table)
    parts.append("### Cost")
    for table in section.costs:
        parts += markdown_table(table)
    return [*parts, "### Data and protocol", *_bullets(section.notes)]


def _block(block: Block, level: str) -> list[str]:
    parts = [f"{level} {plain(block.title)}", plain(block.text)]
    for figure in block.figures:
        parts += _figure(figure)
    parts += _bullets(block.lines) if block.lines else []
    for table in (*block.tables, *block.folded):
        parts += markdown_table(table)
    return parts


def _figure(figure: Drawing) -> list[str]:
    return [f"![{plain(figure.alt)}](figures/{figure.key}.png)", f"*{plain(figure.caption)}*"]


def _bullets(lines: tuple[str, ...]) -> list[str]:
    return ["\n".join(f"- {plain(line)}" for line in lines)]


def markdown_table(table: Table) -> list[str]:
    """A table with its title above and its note below, as blocks of Markdown."""
    head = " | ".join(plain(column.title) for column in table.columns)
    rule = " | ".join("---:" if column.numeric else "---" for column in table.columns)
    lines = [f"| {head} |", f"| {rule} |"]
    for row in table.rows:
        cells = [plain(cell) for cell in row.cells]
        if row.mark == "chosen":
            cells = [f"**{cell}**" for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    return [f"**{plain(table.title)}**", "\n".join(lines), plain(table.note)]
