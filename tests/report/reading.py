"""What tests read of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from layerfusion.report import page
from layerfusion.report.block import Block
from layerfusion.report.contents import Report, build_report
from layerfusion.report.table import Table


def written_report(runs: Path, out: Path, **options: Any) -> Report:
    """Write a report, and return what is on it without drawing it all a second time."""
    made: list[Report] = []

    def build(*arguments: Any, **more: Any) -> Report:
        made.append(build_report(*arguments, **more))
        return made[0]

    with mock.patch.object(page, "build_report", build):
        page.write_report(runs, out, **options)
    return made[0]


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
