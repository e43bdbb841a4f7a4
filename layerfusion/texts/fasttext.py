"""fastText's form of labelled texts: `__label__spam Win a prize now`, a text on each line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layerfusion.errors import UserError
from layerfusion.texts.cells import READ_SEVERAL
from layerfusion.texts.columns import Columns
from layerfusion.texts.delimited import first_lines, lines_of
from layerfusion.texts.table import Changes, Table, make_table

_LABEL = re.compile(r"(?<!\S)__label__(\S+)[^\S\n]*")
"""A label is a word of a line, in front of the text or after it."""
_FIRST = re.compile(r"__label__[^\s,;|]+(\s|$)|\S.*\s__label__[^\s,;|]+$")
"""How the first line of such a file begins or ends; a label beside a delimiter is a cell."""


def begins_fasttext(content: str) -> bool:
    """Tell fastText's form by the first line."""
    lines = first_lines(content)
    return bool(lines) and _FIRST.match(lines[0][1].strip()) is not None


def fasttext_table(
    path: Path, content: str, columns: Columns, changes: Changes | None = None
) -> Table:
    """Read labelled texts of fastText's form.

    Args:
        path: the file, for messages.
        content: its text.
        columns: names that the texts and labels get.
        changes: as for `make_table`.

    Raises:
        UserError: naming a row with several labels, where one is wanted.
    """
    texts: list[str] = []
    labels: list[Any] = []
    for line in filter(str.strip, lines_of(content)):
        found = _LABEL.findall(line)
        if len(found) > 1 and columns.label is not None and not columns.multilabel:
            raise UserError(
                f"{path}, row {len(texts) + 1}: it has {len(found)} labels"
                f" ({', '.join(found[:5])}); one is needed; {READ_SEVERAL}"
            )
        texts.append(_LABEL.sub("", line))
        labels.append((found if columns.multilabel else " ".join(found)) or None)
    values: Mapping[str, Any] = {columns.text: texts, columns.label or "label": labels}
    note = f"{path.name}: read as fastText has it, with __label__ in front of each label"
    return make_table(path.name, values, columns, typed=False, notes=(note,), changes=changes)
