"""Tables as LaTeX, for papers."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import category

from layerfusion.report.format import MINUS, NONE, SPACE
from layerfusion.report.table import Table

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
    "→": r"$\to$",
    "↓": r"$\downarrow$",
    "▲": r"$\blacktriangle$",
    "△": r"$\vartriangle$",
    "▽": r"$\triangledown$",
    "▼": r"$\blacktriangledown$",
}


def table_latex(table: Table) -> str:
    """Write a table as a `tabular` of the packages booktabs and amssymb."""
    align = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        f"% {' '.join(table.title.split())}",
        *([f"% {' '.join(table.note.split())}"] if table.note else []),
        "% needs \\usepackage{booktabs,amssymb}",
        f"\\begin{{tabular}}{{{align}}}",
        "\\toprule",
        _row([latex(column.title) for column in table.columns]),
        "\\midrule",
    ]
    for row in table.rows:
        cells = [latex(text) for text in row.texts]
        bold = row.mark == "chosen"
        lines.append(_row([f"\\textbf{{{cell}}}" if bold else cell for cell in cells]))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def latex(text: str) -> str:
    """Escape everything that LaTeX would read as more than text."""
    line = " ".join(text.splitlines())
    line = "".join(" " if category(character) == "Cc" else character for character in line)
    return "".join(LATEX.get(character, character) for character in line)


def _row(cells: Sequence[str]) -> str:
    # A row that begins with a bracket would be read as the option of the \\ before it.
    first = f"{{}}{cells[0]}" if cells and cells[0].startswith(("[", "*")) else cells[0]
    return f"{' & '.join([first, *cells[1:]])} \\\\"
