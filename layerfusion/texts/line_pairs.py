"""Texts and labels in two files, line by line: `train.txt` beside `train.label`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from layerfusion.assets.paths import data_suffix
from layerfusion.errors import UserError
from layerfusion.texts.class_folders import is_about
from layerfusion.texts.columns import Columns
from layerfusion.texts.delimited import lines_of
from layerfusion.texts.encoding import read_text
from layerfusion.texts.fasttext import begins_fasttext
from layerfusion.texts.form import WORDS, begins_table
from layerfusion.texts.json_tables import begins_json
from layerfusion.texts.split_names import named_parts, splits_in
from layerfusion.texts.table import Table, make_table

Pair = tuple[Path, Path]
"""A file with a text on each line, and one with the labels of the same lines."""
_OF_TEXTS = (".txt", ".text", ".texts", ".in")
_OF_LABELS = (".label", ".labels", ".lbl", ".lab")
"""Suffixes of the two files; `seq.in` lies beside `label` in data of intents."""
_TEXT_WORDS = {
    "text", "texts", "sentence", "sentences", "data", "input", "inputs", "document", "documents",
    "review", "reviews", "corpus", "x", "seq", "features",
}  # fmt: skip
_LABEL_WORDS = {"label", "labels", "target", "targets", "y", "class", "classes", "gold"}


def line_pairs(folder: Path, encoding: str) -> dict[str, Pair]:
    """Find the two files of each split, in a folder or in its folders of splits.

    Args:
        folder: has `train.txt` and `train.label`, or `train_text.txt` and `train_labels.txt`, or
            two such files below `train` and `test`.
        encoding: of the files.

    Returns:
        Split to its two files; empty if this is no such folder, or the files of a split are not
        clear.
    """
    parts = named_parts(part.name for part in sorted(folder.iterdir()) if part.is_dir())
    if "train" in parts:
        found = {split: _pairs(folder / names[0], encoding) for split, names in parts.items()}
        clear = all(len(pairs) == 1 for pairs in found.values())
        clear &= all(len(names) == 1 for names in parts.values())
        return {s: next(iter(pairs.values())) for s, pairs in found.items()} if clear else {}
    pairs = _pairs(folder, encoding)
    if len(pairs) == 1 and not splits_in(next(iter(pairs))):
        return {"train": next(iter(pairs.values()))}
    by_split: dict[str, list[Pair]] = {}
    for name, pair in pairs.items():
        for split in splits_in(name):
            by_split.setdefault(split, []).append(pair)
    clear = "train" in by_split and all(len(found) == 1 for found in by_split.values())
    return {split: found[0] for split, found in by_split.items()} if clear else {}


def labels_beside(texts: Path, encoding: str) -> Path | None:
    """Find the labels of the lines of a file; none where it is a table, or none lie beside it."""
    return next(
        (labels for one, labels in _pairs(texts.parent, encoding).values() if one == texts), None
    )


def read_line_pairs(
    place: Path, pairs: Mapping[str, Pair], columns: Columns, encoding: str
) -> dict[str, Table]:
    """Read the texts of each split with their labels, and note what lies there and is not used.

    Args:
        place: the folder that the user names; messages call files by their paths from there.
        pairs: as `line_pairs` found them.
        columns: names for texts and labels.
        encoding: of the files.

    Raises:
        UserError: where the files of a split have different numbers of lines.
    """
    for file in sorted(place.iterdir()):
        for split in splits_in(_bare(file)) - pairs.keys():
            if file.is_file() and data_suffix(file) in _OF_TEXTS and len(splits_in(file.name)) == 1:
                raise UserError(
                    f"{place}: no file has the labels of {file.name}; put them beside it, as in"
                    f" {pairs['train'][1].name}, or move it away, and {split} is made from train"
                )
    tables = {split: read_pair(*pair, columns, encoding) for split, pair in pairs.items()}
    used = {file for pair in pairs.values() for file in pair}
    others = sorted(
        str(file.relative_to(place))
        for folder in {place, *(file.parent for file in used)}
        for file in folder.iterdir()
        if file.is_file() and not file.name.startswith(".") and file not in used
    )
    if others:
        are = "is" if len(others) == 1 else "are"
        note = f"{', '.join(others[:6])} in {place} {are} not used"
        tables["train"] = replace(tables["train"], notes=(*tables["train"].notes, note))
    return tables


def read_pair(texts: Path, labels: Path, columns: Columns, encoding: str) -> Table:
    """Read the texts of one file with the labels of another, line by line.

    Raises:
        UserError: where the files have different numbers of lines, or there is a label for each
            word.
    """
    lines, names = lines_of(read_text(texts, encoding)), lines_of(read_text(labels, encoding))
    if len(lines) != len(names):
        raise UserError(
            f"{texts}: it has {len(lines):,} lines, and {labels.name}, which would have the label"
            f" of each, has {len(names):,}"
        )
    sizes = [
        (len(text.split()), len(label.split())) for text, label in zip(lines, names, strict=True)
    ]
    if all(words == tags for words, tags in sizes) and any(words > 1 for words, _ in sizes):
        raise UserError(f"{labels}: {WORDS}")
    note = f"{texts.name}, {labels.name}: a text and its label on each line"
    values = {columns.text: lines, columns.label or "label": names}
    alike = replace(columns, where={})
    return make_table(texts.name, values, alike, typed=False, notes=(note,))


def _pairs(folder: Path, encoding: str) -> dict[str, Pair]:
    """What the names of two files have in common, to the files; `train` of `train_labels.txt`."""
    texts: dict[str, list[Path]] = {}
    labels: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.name.startswith(".") or is_about(file):
            continue
        suffix = data_suffix(file)
        common, named = name_of_pair(file)
        if suffix in _OF_LABELS or (named and suffix in (".txt", "")):
            labels.setdefault(common, []).append(file)
        elif suffix in _OF_TEXTS:
            texts.setdefault(common, []).append(file)
    return {
        common: (files[0], labels[common][0])
        for common, files in texts.items()
        if len(files) == len(labels.get(common, ())) == 1 and _are_lines(files[0], encoding)
    }


def name_of_pair(file: Path) -> tuple[str, bool]:
    """What a name has in common with that of its partner, and whether it is that of labels."""
    words = [word for word in re.split(r"[^a-z0-9]+", _bare(file)) if word]
    common = "_".join(word for word in words if word not in _TEXT_WORDS | _LABEL_WORDS)
    return common, bool(_LABEL_WORDS & set(words))


def _bare(file: Path) -> str:
    return file.name.lower().removesuffix("".join(file.suffixes).lower())


def _are_lines(file: Path, encoding: str) -> bool:
    """Tell a text on each line from a table or another form that has labels of its own."""
    try:
        content = read_text(file, encoding)[:20_000]
    except UserError:
        return True  # said when it is read
    return not (begins_json(content) or begins_fasttext(content) or begins_table(content, "text"))
