"""Texts that are files of their own, in a folder for each class: `train/pos/7.txt`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from layerfusion.assets.paths import data_suffix
from layerfusion.config.registry import READERS
from layerfusion.errors import UserError, unknown
from layerfusion.texts.columns import Columns
from layerfusion.texts.encoding import read_text
from layerfusion.texts.split_names import named_parts, parts_by_word
from layerfusion.texts.table import Table, make_table

UNLABELLED = ("unsup", "unsupervised", "unlabeled", "unlabelled")
"""Names of folders whose texts have no label, as in the reviews of IMDb."""
SUFFIX = ".txt"
NO_TABLES = (".txt", ".data", ".train", ".valid", ".test")
"""Suffixes of files that are more likely texts, or have labels in their lines."""
_ABOUT = re.compile(
    r"[._].*|.*readme.*|(licen[cs]e|copying|notice|changelog|authors|makefile|cmds)(\..*)?",
    re.IGNORECASE,
)
"""Names of files that are about the data, or that a system leaves beside them."""
_ABOUT_TEXTS = re.compile(r"readme|licen[cs]e", re.IGNORECASE)
"""Names of files that are no text of a class, though they lie in its folder."""
_FORMAT = re.compile(r"\.([a-z][a-z0-9]{0,4}|[a-z]{2,12})", re.IGNORECASE)
"""A suffix that says a format; digits, or a longer one, are part of a name."""


def class_folders(folder: Path, files: Mapping[str, str]) -> dict[str, Path]:
    """Find the folders that hold a folder of texts for each class.

    Args:
        folder: has the folders of the classes itself, or those of the splits above them.
        files: split to the name of its folder; empty: their names say it.

    Returns:
        Split to the folder above its classes; empty if the texts do not lie in such folders.

    Raises:
        UserError: where two folders claim one split, a folder that `files` names is missing, or a
            table beside the classes is called as a split is.
    """
    parts = folders_of(folder)
    if files:
        given = {split: folder / name for split, name in files.items()}
        if not any(_classes(place) for place in given.values()) and not any(
            map(_classes, parts.values())
        ):
            return {}
        for split, place in given.items():
            if not _classes(place):
                there = [name for name, part in parts.items() if _classes(part)]
                raise unknown(f"{folder}: folder of {split} with a folder for each class",
                              files[split], there)  # fmt: skip
        return given
    tables = [file for file in tables_beside(folder) if named_parts([_bare(file)])]
    if tables:
        classes = _classes(folder)
        if (
            len(classes) > 1
            and not named_parts(classes)
            and not named_parts(map(_bare, tables)).get("train")
        ):
            raise UserError(
                f"{folder}: it has folders of texts ({', '.join(list(classes)[:4])}) and a table,"
                f" {tables[0].name}; put both into folders named after their splits, or"
                " dataset.files.train=. reads the folders alone"
            )
        return {}
    splits = parts_by_word(name for name, part in parts.items() if _classes(part))
    for split, names in splits.items():
        if len(names) > 1:
            raise UserError(
                f"{folder}: several folders for {split} ({', '.join(names)}); name the one to use:"
                f" dataset.files.{split}={names[0]}"
            )
    if "train" in splits:
        return {split: folder / names[0] for split, names in splits.items()}
    classes = _classes(folder)
    if len(classes) > 1 and not named_parts(classes):
        _refuse_splits_of_classes(folder, classes)
        return {"train": folder}
    return {}


def _refuse_splits_of_classes(folder: Path, classes: Mapping[str, list[Path]]) -> None:
    """Refuse a file for each split in the folder of each class, as no such file is one text."""
    if all("train" in named_parts(map(_bare, files)) for files in classes.values()):
        label, files = next(iter(classes.items()))
        train = next(file for file in files if "train" in named_parts([_bare(file)]))
        raise UserError(
            f"{folder}: {label}/{train.name} is called after a split, and lies in the folder of a"
            f" class, where each file is one text; if each of its lines is a text, move it to"
            f" train/{label}{train.suffix}, and so the files of all classes and splits"
        )


def read_class_folders(
    place: Path, splits: Mapping[str, Path], columns: Columns, encoding: str
) -> dict[str, Table]:
    """Read every file as one text, whose label is the name of its folder.

    Args:
        place: the folder that the user names; messages call files by their paths from there.
        splits: as `class_folders` found them.
        columns: names for texts and labels.
        encoding: of the files.

    Raises:
        UserError: for a file that cannot be read.
    """
    tables: dict[str, Table] = {}
    used: set[Path] = set()
    left_out: list[str] = []
    for split, folder in splits.items():
        texts, labels, names = [], [], []
        for label, members in _classes(folder).items():
            used.update(members)
            if label.lower() in UNLABELLED:
                left_out.append(
                    f"{split}: {(folder / label).relative_to(place)} is left out, as its name says"
                    f" that its {len(members):,} texts have no label"
                )
                continue
            for file in members:
                texts.append(read_text(file, encoding))
                labels.append(label)
                names.append(str(file.relative_to(place)))
        values = {columns.text: texts, columns.label or "label": labels}
        table = make_table(str(folder), values, columns, typed=False)
        tables[split] = replace(table, row_names=tuple(names))
    left_out += _without_texts(place, splits)
    looked_at = {place, *splits.values(), *(file.parent for file in used)}
    used.update(tables_beside(place))  # noted where they are looked at
    others = [file for folder in sorted(looked_at) for file in sorted(folder.iterdir())]
    shown = [
        str(file.relative_to(place))
        for file in others
        if file.is_file() and file not in used and not is_hidden(file, place)
    ]
    if shown:
        more = f" and {len(shown) - 3:,} more" if len(shown) > 3 else ""
        are = "is" if len(shown) == 1 else "are"
        left_out.append(
            f"{', '.join(shown[:3])}{more} in {place} {are} not used; the texts of a class are the"
            f" {SUFFIX} files in its folder, or, where it has none, its files without a suffix"
        )
    tables["train"] = replace(tables["train"], notes=(*tables["train"].notes, *left_out))
    return tables


def _without_texts(place: Path, splits: Mapping[str, Path]) -> list[str]:
    """Note the folders among those of the classes that hold no texts."""
    empty = []
    for folder in splits.values():
        classes = _classes(folder)
        parts = [part for name, part in folders_of(folder).items() if name not in classes]
        empty += [str(part.relative_to(place)) for part in parts if part not in splits.values()]
    if not empty:
        return []
    verb = "holds" if len(empty) == 1 else "hold"
    more = f" and {len(empty) - 3:,} more" if len(empty) > 3 else ""
    return [
        f"{', '.join(empty[:3])}{more} in {place} {verb} no texts (files in {SUFFIX} or without a"
        " suffix), and so no class"
    ]


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Name of each folder that holds texts to its files, in order.

    None where each of these folders holds tables too, and so does another one: then those are it.
    """
    parts = folders_of(folder)
    found = {name: files for name, part in parts.items() if (files := _texts(part))}
    tables = {name for name, part in parts.items() if tables_in(part)}
    return {} if set(found) < tables else found


def tables_in(folder: Path) -> list[Path]:
    """The tables in the folder of a class, whose rows are texts."""
    return [
        file
        for file in files_in(folder)
        if data_suffix(file) in READERS
        and data_suffix(file) not in NO_TABLES
        and not file.name.startswith("_")
        and not is_hidden(file, folder)
    ]


def _texts(folder: Path) -> list[Path]:
    """The files of a folder that are texts: those in `.txt`, or else those without a suffix."""
    files = files_in(folder)
    files = [file for file in files if not is_hidden(file, folder)]
    return [file for file in files if _is_text(file) and not _ABOUT_TEXTS.match(file.name)] or [
        file for file in files if not has_format(file) and not is_about(file)
    ]


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, in order.

    Raises:
        UserError: for a link to a file that does not exist, as those of git-annex and DVC may be,
            and for a pipe or a device, which cannot be read twice.
    """
    members = sorted(folder.iterdir())
    for one in members:
        if one.is_file() or one.is_dir() or one.name.startswith("."):
            continue
        if one.is_symlink() and not one.exists():
            raise UserError(f"{one}: it is a link to {one.readlink()}, which does not exist")
        raise UserError(f"{one}: it is neither a file nor a folder; write what it gives to a file")
    return [one for one in members if one.is_file()]


def has_format(file: Path) -> bool:
    """Tell whether a name ends in a suffix that says a format."""
    return bool(file.suffix) and _FORMAT.fullmatch(data_suffix(file) or file.suffix) is not None


def is_about(file: Path) -> bool:
    """Tell a file that is about the data, such as a README, from the data."""
    return _ABOUT.fullmatch(file.name) is not None


def folders_of(folder: Path) -> dict[str, Path]:
    """Name of each folder in a folder to it, in order; none where it is no folder."""
    if not folder.is_dir():
        return {}
    return {
        part.name: part
        for part in sorted(folder.iterdir())
        if part.is_dir() and not is_hidden(part, folder)
    }


def _is_text(file: Path) -> bool:
    return data_suffix(file) == SUFFIX and file.is_file() and not file.name.startswith(".")


def tables_beside(folder: Path) -> list[Path]:
    """The tables in a folder, as its notes in `.txt` are none unless they are called a split."""
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and data_suffix(file) in READERS
        and not is_hidden(file, folder)
        and (named_parts([_bare(file)]) or not _is_text(file))
    ]


def class_names(splits: Mapping[str, Path]) -> set[str]:
    """Names of the classes in the folders that `class_folders` found."""
    return {name for folder in splits.values() for name in _classes(folder)}


def _bare(file: Path) -> str:
    return file.name.lower().split(".")[0]


def is_hidden(path: Path, above: Path) -> bool:
    """Tell whether a file is no data: a system left it there, or it names the classes."""
    parts = path.relative_to(above).parts
    return any(is_of_system(part) for part in parts) or path.name == "labels.json"


def is_of_system(name: str) -> bool:
    """Tell whether a system, or an office program with a file open, leaves files of this name."""
    return name.startswith((".", "__MACOSX", "~$")) or name.lower() in ("thumbs.db", "desktop.ini")
