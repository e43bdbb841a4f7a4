"""Blocks and tables as Markdown, for reading in a repository."""

from __future__ import annotations

import re
from collections.abc import Sequence

from layerfusion.report.block import Block, Bullets, Folded, Part, Text
from layerfusion.report.blocks.summary import Card
from layerfusion.report.table import Table


def markdown(title: str, intro: Sequence[str], sections: Sequence[Block]) -> str:
    """Write everything that the page shows; the figures are the PNG files beside it."""
    parts = [f"# {plain(title)}", *map(plain, intro)]
    for section in sections:
        parts += _paragraphs(section, 2)
    return "\n\n".join(parts) + "\n"


def _paragraphs(part: Part, level: int) -> list[str]:
    """Write a part of the page; a heading in it has the level."""
    if isinstance(part, str):
        return [plain(part)]
    if isinstance(part, Text):
        return [f"**{plain(part.text)}**" if part.style == "sample" else plain(part.text)]
    if isinstance(part, Bullets):
        return ["\n".join(f"- {plain(line)}" for line in part.lines)]
    if isinstance(part, Table):
        return table_markdown(part)
    if isinstance(part, Block | Folded):
        head = [f"{'#' * level} {plain(part.title)}"] if isinstance(part, Block) else []
        level += len(head)
        return head + [paragraph for one in part.parts for paragraph in _paragraphs(one, level)]
    if isinstance(part, Card):
        return _summary(part, level)
    caption = [f"*{plain(part.caption)}*"] if part.caption else []
    return [f"![{plain(part.alt)}](figures/{part.key}.png)", *caption]


def _summary(summary: Card, level: int) -> list[str]:
    value, interval = summary.accuracy
    figures = [paragraph for one in summary.parts for paragraph in _paragraphs(one, level)]
    usage = [f"{title}:\n\n```\n{text.replace('`', '')}\n```" for title, text in summary.usage]
    return [
        f"{'#' * level} {plain(summary.label)}",
        *([f"**{plain(summary.sample)}**"] if summary.sample else []),
        f"**{plain(summary.headline)}:** {plain(value)} {plain(interval)}.",
        "\n".join(f"- {plain(name)}: {plain(words)}" for name, words in summary.facts),
        *figures,
        *usage,
    ]


def table_markdown(table: Table) -> list[str]:
    """Write a table with its title above and its note below, as paragraphs."""
    head = " | ".join(plain(column.title) for column in table.columns)
    rule = " | ".join("---:" if column.numeric else "---" for column in table.columns)
    lines = [f"| {head} |", f"| {rule} |"]
    for row in table.rows:
        cells = [plain(text) for text in row.texts]
        if row.mark == "chosen":
            cells = [f"**{cell}**" if cell else "" for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    note = [plain(table.note)] if table.note else []
    return [f"**{plain(table.title)}**", "\n".join(lines), *note]


def plain(text: str) -> str:
    """Escape everything that Markdown or HTML would read as more than text."""
    line = " ".join(text.splitlines()).strip()
    line = re.sub(r"([\\`*_\[\]<>|#~$])", r"\\\1", line).replace("&", "&amp;")
    # At its beginning, what would make the line an item of a list, a rule or a heading.
    return re.sub(r"^(\d*)([-+.)](?=\s|$)|[-=](?=[-=\s]*$))", r"\1\\\2", line)
