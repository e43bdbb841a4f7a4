"""Tables and figures as files: CSV and LaTeX for every table, PNG and PDF for every figure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from layerfusion.assets.files import refuse_foreign, write_atomically
from layerfusion.findings.grouping import file_names
from layerfusion.report.block import Block
from layerfusion.report.figures.canvas import Drawing
from layerfusion.report.format import utf8
from layerfusion.report.render.latex import table_latex
from layerfusion.report.table import Table

_FORMULA = re.compile(r"[\t\r\n]|\s*[=+\-@＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)
FOLDERS, PAGES = ("figures", "tables"), ("report.html", "report.md")
MANIFEST = ".report-files.json"
"""Names the files that the last report wrote into these folders."""


def named_tables(sections: Sequence[Block]) -> dict[str, Table]:
    """Map file names without their endings, which are distinct, to all tables of some sections."""
    tables = [(section.files, table) for section in sections for table in section.tables]
    names = file_names((f"{files} {table.title}" for files, table in tables), "table")
    return {name: table for name, (_, table) in zip(names, tables, strict=True)}


def table_csv(table: Table) -> str:
    """Write a table's data frame as RFC 4180 has it: all digits, and nothing for no number.

    A spreadsheet runs a text that begins like a formula. Such a text gets an apostrophe before it;
    numbers stay as they are.
    """
    frame = table.frame().map(disarmed).rename(columns=disarmed)
    return frame.to_csv(index=False, lineterminator="\r\n")


def disarmed(value: object) -> object:
    """Put an apostrophe before a text that a spreadsheet would take for a formula.

    Example:
        >>> [disarmed(value) for value in ("=1+1", " @SUM(A1)", "-0.5", -0.5, "minilm")]
        ["'=1+1", "' @SUM(A1)", '-0.5', -0.5, 'minilm']
    """
    if not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value.strip()):
        return value
    return f"'{value}"


def write_exports(out: Path, tables: Mapping[str, Table], figures: Iterable[Drawing]) -> None:
    """Write every table and figure, and remove what an earlier report left and this one lacks.

    Only what it listed beside the page is removed or written over; other files are a UserError.
    """
    files: dict[str, bytes] = {}
    for figure in figures:
        files |= {f"figures/{figure.key}.{kind}": getattr(figure, kind) for kind in ("png", "pdf")}
    for name, table in tables.items():
        for kind, text in (("csv", table_csv(table)), ("tex", table_latex(table))):
            files[f"tables/{name}.{kind}"] = utf8(text)
    before, pages = _written_before(out), () if (out / MANIFEST).exists() else PAGES
    others = [out / name for name in (*pages, *files) if name not in before]
    refuse_foreign(others, "choose another folder (-o FOLDER)")
    for name in before - files.keys():
        (out / name).unlink(missing_ok=True)
    # The list is written first, so that a report that is cut off leaves no file outside of it.
    write_atomically(out / MANIFEST, json.dumps(sorted(files), indent=0).encode())
    for name, content in files.items():
        write_atomically(out / name, content)


def _written_before(out: Path) -> set[str]:
    try:
        names = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return set()  # no report yet, or no valid list: no file is known to be the report's
    paths = [Path(name) for name in names if isinstance(name, str)]
    return {path.as_posix() for path in paths if len(path.parts) == 2 and path.parts[0] in FOLDERS}
