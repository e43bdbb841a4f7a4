"""Blocks of the pages: a heading, and parts that are shown in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from layerfusion.report.table import Table

if TYPE_CHECKING:
    from layerfusion.report.blocks.summary import Card
    from layerfusion.report.figures.canvas import Drawing

Part: TypeAlias = "str | Text | Bullets | Drawing | Table | Folded | Card | Block"


@dataclass(frozen=True)
class Text:
    """A paragraph that looks unlike the others."""

    kind: ClassVar[str] = "text"
    text: str
    style: str
    """Its class in the style sheet: `sample` or `note`."""


@dataclass(frozen=True)
class Bullets:
    """Sentences below each other."""

    kind: ClassVar[str] = "bullets"
    lines: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.lines)


@dataclass(frozen=True, eq=False)
class Folded:
    """Parts that a reader of the page has to open; a single table is folded under its own title."""

    kind: ClassVar[str] = "folded"
    parts: tuple[Part, ...]
    title: str = ""

    def __bool__(self) -> bool:
        return any(self.parts)


class Block:
    """A heading with what stands under it, in order.

    A part is a paragraph (a plain string), a table, a figure, a list, something folded, or a block
    of its own. Parts with nothing to show, such as None or a table without rows, are left out.
    """

    kind = "block"

    def __init__(
        self,
        title: str,
        parts: Iterable[Part | None],
        key: str = "",
        files: str = "",
        *,
        folded: bool = False,
    ) -> None:
        """Keep the parts that have something to show.

        Args:
            title: the heading.
            parts: what stands under it.
            key: its anchor on the page, for a block that is a section.
            files: beginning of the file names of its tables.
            folded: True if a reader of the page has to open it.
        """
        self.title, self.key, self.files, self.folded = title, key, files, folded
        self.parts: tuple[Part, ...] = tuple(filter(None, parts))

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table in the block, in order."""
        return tuple(parts_of(self, "table"))

    @property
    def figures(self) -> tuple[Drawing, ...]:
        """Every figure in the block, in order."""
        return tuple(parts_of(self, "figure"))


def parts_of(node: object, kind: str) -> Iterator[Any]:
    """Find the parts of one kind in a block, at any depth, in order."""
    if getattr(node, "kind", "") == kind:
        yield node
    for part in getattr(node, "parts", ()):
        yield from parts_of(part, kind)
