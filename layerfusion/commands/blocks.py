"""Blocks of the report that a user names, `package.module:function`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from layerfusion.config.imports import import_object
from layerfusion.config.user_code import name_of, user_code_errors
from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.report import Block, DataGroup, Findings
    from layerfusion.report.contents import SectionBlock


def find_blocks(key: str, paths: Sequence[str]) -> list[SectionBlock]:
    """Import the functions of some blocks.

    Args:
        key: what names them, for messages.
        paths: as `import_object` takes them.

    Raises:
        UserError: for a path that leads to no function.
    """
    return [_find_block(key, path) for path in paths]


def _find_block(key: str, path: str) -> SectionBlock:
    block = import_object(key, path)
    if isinstance(block, type) or not callable(block):
        raise UserError(
            f"{key} {path}: it is of type {type(block).__name__}; a function (group, findings) ->"
            " Block or None is needed"
        )

    def made(group: DataGroup, findings: Findings) -> Block | None:
        with user_code_errors("block", block):
            found: Any = block(group, findings)
            for table in getattr(found, "tables", ()):
                _ = (
                    table.rows
                )  # runs the functions of its columns now, and not while a page is made
        for part in getattr(found, "parts", ()):
            if not isinstance(part, str) and not hasattr(part, "kind"):
                raise UserError(
                    f"block {name_of(block)}: a part of type {type(part).__name__}; paragraphs,"
                    " tables, figures and blocks are parts"
                )
        return found

    made.__name__ = name_of(block)
    return made
