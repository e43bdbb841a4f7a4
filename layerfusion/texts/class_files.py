"""A file for each class, with a text on each line: `pos.txt` and `neg.txt`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from layerfusion.assets.paths import data_suffix
from layerfusion.errors import UserError
from layerfusion.texts.class_folders import SUFFIX, is_about
from layerfusion.texts.columns import Columns
from layerfusion.texts.delimited import lines_of
from layerfusion.texts.encoding import read_text
from layerfusion.texts.fasttext import begins_fasttext
from layerfusion.texts.form import begins_table
from layerfusion.texts.json_tables import begins_json
from layerfusion.texts.split_names import ALIASES, named_parts, splits_in
from layerfusion.texts.table import SPLITS, Table, join_tables, make_table

Files = dict[str, dict[str, Path]]
"""Split to the file of each class."""
_OF_CLASS = (".pos", ".neg")
"""Suffixes that name the class, as of the film reviews `rt-polarity.pos` and `rt-polarity.neg`."""
_NO_CLASS = {
    "data", "text", "texts", "sentence", "sentences", "document", "documents", "corpus", "input",
    "label", "labels", "class", "classes", "category", "categories", "target", "targets", "output",
    "source", "src", "tgt", "vocab", "vocabulary", "words", "stopwords", "urls", "index", "ids",
}  # fmt: skip
"""Words for other files, such as the texts and the labels of the same rows."""


def class_files(folder: Path, encoding: str) -> Files:
    """Find a file for each class: in the folder, in its folders of splits, or by both words.

    Args:
        folder: has `pos.txt` and `neg.txt`, or these in `train` and `test`, or `train_pos.txt`,
            `test_pos.txt` and so on.
        encoding: of the files.

    Returns:
        Split to class to file; empty if this is no such folder.
    """
    parts = named_parts(part.name for part in sorted(folder.iterdir()) if part.is_dir())
    if "train" in parts:
        found = {split: _classes(folder / names[0], encoding) for split, names in parts.items()}
        whole = all(found.values()) and all(len(names) == 1 for names in parts.values())
        return found if whole and not _text_files(folder) else {}
    files = _classes(folder, encoding)
    if not files:
        return {}
    by_split: Files = {split: {} for split in SPLITS}
    for name, file in files.items():
        splits = splits_in(name)
        if len(splits) == 1:
            (split,) = splits
            by_split[split][_without(name, ALIASES[split])] = file
    if not any(by_split.values()):
        return {"train": files}
    named = {split: classes for split, classes in by_split.items() if classes}
    total = sum(map(len, named.values()))
    classes = set(named.get("train", ()))
    right = total == len(files) and len(classes) > 1 and "" not in classes
    return named if right and all(set(one) <= classes for one in named.values()) else {}


def read_class_files(
    place: Path, files: Mapping[str, Mapping[str, Path]], columns: Columns, encoding: str
) -> dict[str, Table]:
    """Read every line as one text, whose label is the name of its file.

    Args:
        place: the folder that the user names; messages call files by their paths from there.
        files: as `class_files` found them.
        columns: names for texts and labels.
        encoding: of the files.

    Raises:
        UserError: for a file that cannot be read, or has no text.
    """
    tables: dict[str, Table] = {}
    for split, classes in files.items():
        parts = [
            _of_class(str(file.relative_to(place)), read_text(file, encoding), label, columns)
            for label, file in classes.items()
        ]
        # A row is named by its own file.
        names = tuple(part.where(row) for part in parts for row in range(len(part.texts)))
        tables[split] = replace(join_tables(parts), row_names=names)
    used = [str(f.relative_to(place)) for part in files.values() for f in part.values()]
    shown = ", ".join(used[:6]) + (f" and {len(used) - 6:,} more" if len(used) > 6 else "")
    notes = [f"{shown}: a class each, with a text on each line"]
    looked_at = {place, *(file.parent for part in files.values() for file in part.values())}
    others = sorted(
        str(file.relative_to(place))
        for folder in looked_at
        for file in folder.iterdir()
        if file.is_file() and not file.name.startswith(".")
    )
    if left := [name for name in others if name not in used]:
        notes.append(
            f"{', '.join(left[:6])} in {place} {'is' if len(left) == 1 else 'are'} not used"
        )
    tables["train"] = replace(tables["train"], notes=(*notes, *tables["train"].notes))
    return tables


def _of_class(place: str, content: str, label: str, columns: Columns) -> Table:
    lines = lines_of(content)
    headed = len(lines) > 1 and lines[0].strip() == columns.text
    rows = [number for number, line in enumerate(lines, start=1) if line.strip()][headed:]
    texts = [lines[number - 1] for number in rows]
    values = {columns.text: texts, columns.label or "label": [label] * len(texts)}
    notes = [header_note(place, columns.text)] if headed else []
    table = make_table(place, values, replace(columns, where={}), typed=False, notes=notes)
    return replace(table, rows=rows)


def header_note(place: str, column: str) -> str:
    """Say that the first line of a text on each line names the column."""
    return f"{place}: its first line, {column!r}, names the column and is no text"


def _classes(folder: Path, encoding: str) -> dict[str, Path]:
    """Name of each class to its file; empty unless every file of texts may be one."""
    files = _text_files(folder)
    if files and all(data_suffix(file) in _OF_CLASS for file in files):
        stems = {file.stem for file in files}
        if len(stems) > 1:  # train.pos, train.neg, test.pos, test.neg
            return {f"{file.stem}_{data_suffix(file)[1:]}": file for file in files}
        found = {data_suffix(file)[1:]: file for file in files}
        return found if len(found) == len(files) == len(_OF_CLASS) else {}
    found = {file.name[: len(file.name) - len(_suffixes(file))]: file for file in files}
    usual = all(data_suffix(file) == SUFFIX for file in files)
    words = [set(re.split(r"[^a-z]+", name.lower())) for name in found]
    # Where every name has a number in it, each file is more likely one text, or a part of a table.
    numbered = all(re.search(r"\d", name) for name in found)
    other = numbered or any(one & _NO_CLASS for one in words) or bool(named_parts(found))
    if len(found) < 2 or len(found) < len(files) or not usual or other:
        return {}
    return {} if any(_is_no_list(file, encoding) for file in files) else found


def _text_files(folder: Path) -> list[Path]:
    """All files of a folder but those that are about the data."""
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and not is_about(file) and not file.name.startswith(".")
        and (data_suffix(file) not in (".md", ".html", ".pdf", ".py"))
    ]  # fmt: skip


def _suffixes(file: Path) -> str:
    """The suffix of a text file, with that of its packing."""
    name, suffix = file.name.lower(), data_suffix(file)
    return name[name.rindex(suffix) :]


def _is_no_list(file: Path, encoding: str) -> bool:
    """Tell a table or another form from a text on each line, by the beginning of a file."""
    try:
        content = read_text(file, encoding)[:20_000]
    except UserError:
        return False  # said when it is read
    lines = [line for line in lines_of(content)[:20] if line.strip()]
    cells = all("\t" in line for line in lines)
    form = begins_json(content) or begins_fasttext(content) or begins_table(content, "text")
    return form or (cells and bool(lines))


def _without(name: str, words: Sequence[str]) -> str:
    """Take the word for a split out of a name: `train_pos` is `pos`."""
    parts = re.split(r"([^A-Za-z0-9]+)", name)
    kept = [part for part in parts if part.lower() not in words]
    return "".join(kept).strip("_-. ")
