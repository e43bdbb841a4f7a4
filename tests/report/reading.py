"""What tests read of a report."""

from __future__ import annotations

from layerfusion.report.block import Block
from layerfusion.report.contents import Report
from layerfusion.report.table import Table


def section_of(report: Report, key: str) -> Block:
    """The section with an anchor."""
    return next(section for section in report.sections if section.key == key)


def text_of(block: Block) -> str:
    """The paragraphs and sentences of a block, as one text."""
    found: list[str] = []
    for part in block.parts:
        found += [part] if isinstance(part, str) else getattr(part, "lines", ())
    return " ".join(found)


def column_of(table: Table, title: str) -> list[str]:
    """One column of a table as a reader sees it."""
    place = [column.title for column in table.columns].index(title)
    return [row.texts[place] for row in table.rows]
