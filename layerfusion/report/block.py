"""Blocks of the pages: a heading, and parts that are shown in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

from layerfusion.report.table import Table

if TYPE_CHECKING:
    from layerfusion.report.blocks.summary import Summary
    from layerfusion.report.figures.canvas import Drawing

Part: TypeAlias = "str | Text | Bullets | Drawing | Table | Folded | Summary | Block"
Kind = TypeVar("Kind")


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


@dataclass(frozen=True, eq=False)
class Folded:
    """Parts that a reader of the page has to open; a single table is folded under its own title."""

    kind: ClassVar[str] = "folded"
    parts: tuple[Part, ...]
    title: str = ""


@dataclass(frozen=True, eq=False)
class Block:
    """A heading with what stands under it, in order.

    A part is a paragraph (a plain string), a table, a figure, a list, something folded, or a block
    of its own.
    """

    kind: ClassVar[str] = "block"
    title: str
    parts: tuple[Part, ...]
    key: str = ""
    """Its anchor on the page, for a block that is a section."""
    files: str = ""
    """Beginning of the file names of its tables."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table in the block, in order."""
        return tuple(parts_of(self, Table))

    @property
    def figures(self) -> tuple[Drawing, ...]:
        """Every figure in the block, in order."""
        from layerfusion.report.figures.canvas import Drawing

        return tuple(parts_of(self, Drawing))

    @property
    def text(self) -> str:
        """The paragraphs and sentences in the block, as one text."""
        found: list[str] = []
        for part in self.parts:
            found += [part] if isinstance(part, str) else getattr(part, "lines", ())
        return " ".join(found)


def parts_of(node: object, kind: type[Kind]) -> Iterator[Kind]:
    """Find the parts of one kind in a block, at any depth, in order."""
    if isinstance(node, kind):
        yield node
    for part in getattr(node, "parts", ()):
        yield from parts_of(part, kind)


def some(*parts: Part | None) -> tuple[Part, ...]:
    """Leave out parts that are none, and tables without rows."""
    return tuple(
        part
        for part in parts
        if part is not None and part != "" and not (isinstance(part, Table) and not part.entries)
    )
