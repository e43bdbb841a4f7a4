"""What tests read of a report."""

from __future__ import annotations

from layerfusion.report.block import Block
from layerfusion.report.contents import Report


def section_of(report: Report, key: str) -> Block:
    """The section with an anchor."""
    return next(section for section in report.sections if section.key == key)


def text_of(block: Block) -> str:
    """The paragraphs and sentences of a block, as one text."""
    found: list[str] = []
    for part in block.parts:
        found += [part] if isinstance(part, str) else getattr(part, "lines", ())
    return " ".join(found)
