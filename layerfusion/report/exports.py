"""Tables and figures as files: CSV and LaTeX for every table, PNG and PDF for every figure.

The numbers of a cell such as `86.5 ± 1.6` or `+1.2 [−0.3, +2.7] ▲` go to columns of their own in
the CSV, so that nothing has to be cut out of a text before it can be computed with.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from layerfusion.assets.files import write_atomically
from layerfusion.report.canvas import Drawing
from layerfusion.report.names import MINUS, NONE, SPACE
from layerfusion.report.tables import Table

FOLDERS = ("figures", "tables")
MANIFEST = ".report-files.json"
"""What the last report wrote into these folders."""

NUMBER = r"[+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
CELL = re.compile(
    rf"(?P<value>{NUMBER})?(?: ?± ?(?P<sd>{NUMBER}))?"
    rf"(?: ?\[(?P<low>{NUMBER}), ?(?P<high>{NUMBER})\])?(?: ?(?P<mark>[▲▼]))?"
)
PARTS = ("value", "sd", "low", "high", "mark")

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Not \textquotedbl, which LaTeX's own font encoding (OT1) does not have.
    '"': r"\char34{}",
    SPACE: "~",
    MINUS: "$-$",
    NONE: "--",
    "…": r"\ldots{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "↓": r"$\downarrow$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
}

Part = TypeVar("Part")


def find_parts(node: object, kind: type[Part]) -> Iterator[Part]:
    """Every table or figure inside a report, in the order of the fields that hold them."""
    if isinstance(node, kind):
        yield node
    elif isinstance(node, tuple):
        for member in node:
            yield from find_parts(member, kind)
    elif dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            yield from find_parts(getattr(node, field.name), kind)


def named_tables(groups: Iterable[tuple[str, Iterable[Table]]]) -> dict[str, Table]:
    """File name without its ending to table; names are distinct.

    Args:
        groups: what goes ahead of the titles in the names, and the tables.
    """
    named: dict[str, Table] = {}
    for ahead, tables in groups:
        for table in tables:
            base = re.sub(r"[^a-z0-9]+", "-", f"{ahead} {table.title}".lower()).strip("-")
            base = base[:80].rstrip("-") or "table"
            name, again = base, 1
            while name in named:
                again += 1
                name = f"{base}-{again}"
            named[name] = table
    return named


def write_exports(out: Path, tables: Mapping[str, Table], figures: Iterable[Drawing]) -> None:
    """Write every table and figure, and remove what an earlier report left and this one lacks.

    Only files that an earlier report wrote are removed: its list lies beside the page.
    """
    files: dict[str, bytes] = {}
    for figure in figures:
        files[f"figures/{figure.key}.png"] = figure.png
        files[f"figures/{figure.key}.pdf"] = figure.pdf
    for name, table in tables.items():
        files[f"tables/{name}.csv"] = table_csv(table).encode()
        files[f"tables/{name}.tex"] = table_latex(table).encode()
    for name in _written_before(out) - files.keys():
        (out / name).unlink(missing_ok=True)
    # Named before they are written: a report that is cut off leaves nothing that the next misses.
    write_atomically(out / MANIFEST, json.dumps(sorted(files), indent=0).encode())
    for name, content in files.items():
        write_atomically(out / name, content)


def _written_before(out: Path) -> set[str]:
    try:
        names = json.loads((out / MANIFEST).read_text())
    except (FileNotFoundError, ValueError):
        return set()  # no report yet, or a list that is none: nothing is known to be the report's
    paths = [Path(name) for name in names if isinstance(name, str)]
    return {path.as_posix() for path in paths if len(path.parts) == 2 and path.parts[0] in FOLDERS}


# -- CSV ----------------------------------------------------------------------------------------


def table_csv(table: Table) -> str:
    """A table as RFC 4180 has it: numbers as numbers, empty for none, texts as they are.

    A column of numbers with standard deviations, intervals or marks becomes several: `Test %`,
    `Test %, sd`, `Test %, low`, `Test %, high`, `Test %, mark`.
    """
    columns = [
        _split(column.title, [row.cells[place] for row in table.rows])
        if column.numeric
        else [(column.title, [_simple(row.cells[place]) for row in table.rows])]
        for place, column in enumerate(table.columns)
    ]
    flat = [column for split in columns for column in split]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow([title for title, _ in flat])
    writer.writerows(zip(*(cells for _, cells in flat), strict=True))
    return text.getvalue()


def _split(title: str, cells: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The columns that the parts of some numeric cells take; those that no cell has are left out.

    A cell that is no number, such as `norm`, stays whole in the first of them.
    """
    read = [_parts(cell) for cell in cells]
    used = [part for part in PARTS if any(parts.get(part) for parts in read)] or [PARTS[0]]
    return [
        (title if part == "value" else f"{title}, {part}", [p.get(part, "") for p in read])
        for part in used
    ]


def _parts(cell: str) -> dict[str, str]:
    text = _simple(cell)
    found = CELL.fullmatch(text)
    if found is None:
        return {"value": text}
    parts = {part: value or "" for part, value in found.groupdict().items()}
    return {
        part: value if part == "mark" else value.replace(",", "").removeprefix("+")
        for part, value in parts.items()
    }


def _simple(cell: str) -> str:
    text = cell.replace(SPACE, " ").replace(MINUS, "-").strip()
    return "" if text == NONE else text


# -- LaTeX --------------------------------------------------------------------------------------


def table_latex(table: Table) -> str:
    """A table as a `tabular` of the packages booktabs and amssymb, to be put into a paper."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        f"% {_comment(table.title)}",
        *([f"% {_comment(table.note)}"] if table.note else []),
        "% needs \\usepackage{booktabs,amssymb}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        _latex_row([latex(column.title) for column in table.columns]),
        "\\midrule",
    ]
    for row in table.rows:
        cells = [latex(cell) for cell in row.cells]
        bold = row.mark == "chosen"
        lines.append(_latex_row([f"\\textbf{{{cell}}}" if bold else cell for cell in cells]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def latex(text: str) -> str:
    """Text with everything escaped that LaTeX would read as more than text."""
    line = " ".join(text.splitlines())
    return "".join(LATEX.get(character, character) for character in line)


def _latex_row(cells: Sequence[str]) -> str:
    # A row that begins with a bracket would be read as the option of the \\ before it.
    first = f"{{}}{cells[0]}" if cells and cells[0].startswith(("[", "*")) else cells[0]
    return f"{' & '.join([first, *cells[1:]])} \\\\"


def _comment(text: str) -> str:
    return " ".join(text.split())
