"""Finding the files that hold each split of a data set, and saying what else may be meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from layerfusion.assets.paths import data_suffix
from layerfusion.config.options import as_option
from layerfusion.config.registry import PACKED, READERS
from layerfusion.errors import UserError, unknown
from layerfusion.texts.class_files import class_files
from layerfusion.texts.class_folders import class_folders, has_format, is_about
from layerfusion.texts.columnar import is_saved
from layerfusion.texts.line_pairs import line_pairs
from layerfusion.texts.readers import is_known_other, not_read
from layerfusion.texts.split_names import ALIASES, named_parts, parts_by_word, splits_in
from layerfusion.texts.table import SPLITS

LABELS_FILE = "labels.json"
"""The file beside the data that names its classes."""
_FACTS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
"""Files with facts about the data, which the `datasets` library writes beside them."""
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")
_PART = re.compile(r"(part|data|chunk|shard)?[-_]?\d+\b")
"""Name of a numbered part of a table."""
_OF_CLASSES = re.compile(
    r"(id2label|label2id|(label|class)_?(names|map|mapping|list)?|labels|classes|mapping|categories)"
    r"\.(txt|json|csv|tsv)",
    re.IGNORECASE,
)
"""Names of files that often list the classes, and are no split."""
_NO_DATA = (".py", ".ipynb", ".sh", ".r", ".md", ".log", ".yaml", ".yml", ".html", ".pdf", ".png")
"""Suffixes of files that are no data, whatever they are called."""
_DEEP, _MANY = 3, 50
"""Levels of folders, and folders of a level, that are looked at for what else may be meant."""


def split_folders(folder: Path, files: Mapping[str, str]) -> dict[str, Path]:
    """Find the folders that hold the files of each split: `train/0.parquet`, `train/1.parquet`.

    Args:
        folder: has them.
        files: split to the name of its folder; empty: their names say it.

    Returns:
        Split to folder; empty where there is none for train, or a file may be train.
    """
    if files:
        given = {split: folder / name for split, name in files.items()}
        return given if all(part.is_dir() for part in given.values()) else {}
    parts = parts_by_word(part.name for part in folder.iterdir() if part.is_dir())
    found = {split: [folder / name for name in names] for split, names in parts.items()}
    found = {split: [one for one in group if _has_part(one)] for split, group in found.items()}
    if not found.get("train") or "train" in _splits_of_files(folder):
        return {}
    for split, group in found.items():
        if len(group) > 1:
            raise UserError(
                f"{folder}: several folders for {split} ({', '.join(one.name for one in group)});"
                f" leave one, or name the folder of each split: dataset.files={{train: …}}"
            )
    chosen = {split: group[0] for split, group in found.items() if group}
    places = {split: [str(part)] for split, part in chosen.items()}
    for file in data_files(folder):
        for split in splits_in(_bare(file)) - set(chosen):
            places.setdefault(split, []).append(str(file))
    if len(places) > len(chosen):
        words = " ".join(as_option(f"dataset.{split}", names[0]) for split, names in places.items())
        raise UserError(f"{folder}: some splits are folders and some are files; {words} reads them")
    return chosen


def unused_beside(folder: Path) -> tuple[str, ...]:
    """Notes on the files that lie beside the folders of the splits."""
    names = [file.name for file in data_files(folder)]
    return (*unused(str(folder), names), *_others_left(folder))


def _has_part(folder: Path) -> bool:
    return is_saved(folder) or bool(data_files(folder))


def _splits_of_files(folder: Path) -> set[str]:
    return {split for file in data_files(folder) for split in splits_in(_bare(file))}


def other_splits(file: Path, split: str) -> set[str]:
    """The splits that a file in the folder of another one is called after."""
    found = splits_in(_bare(file))
    return set() if split in found else found


def joined(files: Sequence[Path]) -> str:
    """Note that several files of a folder are read as one table."""
    names = [file.name for file in files]
    shown = f"{', '.join(names[:3])} …" if len(names) > 4 else ", ".join(names)
    return f"{files[0].parent.name}: {len(names):,} files are joined: {shown}"


def split_files(
    folder: Path, files: Mapping[str, str]
) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Find the files of a folder that hold each split.

    Args:
        folder: its direct members are looked at.
        files: split to file name; empty: found by their names (train.csv, Dev.tsv,
            reviews_test.csv, test-00000-of-00002.parquet), or else the only data file there is.

    Returns:
        Split to its files in order, and notes on the files that are not used.

    Raises:
        UserError: naming the files of the folder.
    """
    found = data_files(folder)
    names = [file.name for file in found]
    if files:
        for split, name in files.items():
            if not (folder / name).is_file():
                raise unknown(f"{folder}: file of {split}", name, names)
        return {split: [folder / name] for split, name in files.items()}, ()
    named = assign_splits(str(folder), {file.name: _bare(file) for file in found})
    if "train" not in named:
        if not named and _are_parts(found):
            return {"train": found}, (joined(found),)
        if named or len(found) != 1:
            raise UserError(
                f"{folder}: a file named train is needed, or a single data file; there are:"
                f" {', '.join(names) or 'none'}; allowed: {', '.join(READERS)}{_meant(found)}"
                f"{_others_said(folder)}{_below(folder) or _in_folders(folder)}"
            )
        return {"train": found}, (*_others_left(folder), *_folders_left(folder))
    used = {name for members in named.values() for name in members}
    _refuse_folders(folder, named)
    members = {split: [folder / name for name in group] for split, group in named.items()}
    left = unused(str(folder), [name for name in names if name not in used])
    return members, (*left, *_others_left(folder), *_folders_left(folder))


def _are_parts(files: Sequence[Path]) -> bool:
    """Tell the numbered parts of one table, as Spark writes them: `part-00000-….parquet`."""
    return len(files) > 1 and len({data_suffix(file) for file in files}) == 1 and all(
        _PART.match(file.name) for file in files
    )  # fmt: skip


def _meant(files: Sequence[Path]) -> str:
    """Name the files whose names have those of splits somewhere in them: `trainset.csv`."""
    found = {
        split: [file.name for file in files if any(word in _bare(file) for word in words)]
        for split, words in ALIASES.items()
    }
    if any(len(names) > 1 for names in found.values()) or not found["train"]:
        return ""
    words = [
        as_option(f"dataset.files.{split}", names[0]) for split, names in found.items() if names
    ]
    return f"; did you mean {' '.join(words)}?"


def _others(folder: Path) -> list[Path]:
    """Files that are data in a form that is not read: by their suffix, or called as a split is."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    return [
        file
        for file in files
        if not file.name.startswith(".")
        and (
            is_known_other(file)
            or (
                bool(data_suffix(file))
                and data_suffix(file) not in (*READERS, *_NO_DATA)
                and bool(splits_in(_bare(file)))
            )
        )
    ]


def _others_said(folder: Path) -> str:
    return "".join(f"; {file.name}: {not_read(file)}" for file in _others(folder)[:3])


def _others_left(folder: Path) -> tuple[str, ...]:
    return tuple(
        f"{file.name} in {folder} is not used: {not_read(file)}" for file in _others(folder)
    )


def _folders_left(folder: Path) -> tuple[str, ...]:
    """Notes on folders with data beside the files that are read."""
    return tuple(
        f"{part.name} in {folder} is not used; {as_option('dataset.path', str(part))} would read"
        " what lies in it"
        for part in _folders(folder)
        if _is_data(part)
    )


def _refuse_folders(folder: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Refuse splits of which some are files and some are folders."""
    parts = parts_by_word(part.name for part in _folders(folder))
    places = {
        split: [*(str(folder / name) for name in files.get(split, ())), *folders]
        for split, names in parts.items()
        if (folders := [str(folder / name) for name in names if _has_part(folder / name)])
    }
    if places:
        chosen = {split: str(folder / names[0]) for split, names in files.items()}
        chosen |= {split: found[0] for split, found in places.items()}
        words = " ".join(as_option(f"dataset.{split}", place) for split, place in chosen.items())
        raise UserError(f"{folder}: some splits are folders and some are files; {words} reads them")


def _below(folder: Path) -> str:
    """Name the key that would read what lies deeper."""
    level = [folder]
    for _ in range(_DEEP):
        level = [part for above in level for part in _folders(above)]
        if found := [part for part in level if _is_data(part)]:
            if "train" in named_parts(part.parent.name for part in found if part.parent != folder):
                deep = found[0].relative_to(folder)
                return (
                    f"; below {deep} there are folders, and the texts of a class have to lie in its"
                    " own folder; move them up, or list them in a table"
                )
            words = [as_option("dataset.path", str(part)) for part in found[:3]]
            return f"; {' or '.join(words)} would read what lies below it"
        level = level[:_MANY]
    return ""


def _folders(above: Path) -> list[Path]:
    """The folders in a folder, the first ones of many; none where it may not be read."""
    try:
        parts = [one for one in sorted(above.iterdir()) if not one.name.startswith((".", "__"))]
        return [one for one in parts if one.is_dir()][:_MANY]
    except OSError:
        return []


def _in_folders(folder: Path) -> str:
    """Say what the folders hold that may be those of classes, and why they are not read."""
    held: dict[str, set[str]] = {}
    for part in _folders(folder):
        suffixes = {data_suffix(file) for file in _members(part) if has_format(file)}
        if suffixes:
            held[part.name] = suffixes
    if len(held) < 2:
        return ""
    shown = ", ".join(sorted({suffix for suffixes in held.values() for suffix in suffixes})[:4])
    return (
        f"; the folders {', '.join(list(held)[:4])} hold files in {shown}; the texts of a class are"
        " files in .txt or without a suffix"
    )


def _is_data(folder: Path) -> bool:
    """Tell whether a folder holds what can be read."""
    try:
        if is_saved(folder) or class_folders(folder, {}) or class_files(folder, "utf-8"):
            return True
        if line_pairs(folder, "utf-8"):
            return True
        return bool(split_folders(folder, {})) or _is_named(folder)
    except UserError:
        return True  # it is data, and reading it says what is wrong
    except OSError:
        return False  # it may not be looked into


def _members(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_named(folder: Path) -> bool:
    files = [file for file in data_files(folder) if file.suffix]
    return len(files) == 1 or "train" in assign_splits(
        str(folder), {file.name: _bare(file) for file in files}
    )


def assign_splits(place: str, stems: Mapping[str, str]) -> dict[str, list[str]]:
    """Say by their names which files, or parts of a saved data set, hold which split.

    A name that is a split's (train, dev, test-00000-of-00002) goes before one in which a split's
    name is a word (reviews_test); of several such (validation_matched, validation_mismatched) none
    is taken.

    Args:
        place: where they lie, for messages.
        stems: name of each to its stem in lower case, without suffixes.

    Raises:
        UserError: where several claim one split, or a shard is missing.
    """
    result = {}
    for split in SPLITS:
        whole = [name for name, stem in stems.items() if _SHARD.sub("", stem) in ALIASES[split]]
        members = whole or [
            name for name, stem in stems.items() if splits_in(_SHARD.sub("", stem)) == {split}
        ]
        if not whole and len({_SHARD.sub("", stems[name]) for name in members}) > 1:
            continue
        if members:
            _check_shards(place, split, {name: stems[name] for name in members})
            result[split] = members
    return result


def _check_shards(place: str, split: str, stems: Mapping[str, str]) -> None:
    """Several files of one split have to be all the shards of one file."""
    shards = {name: match for name, stem in stems.items() if (match := _SHARD.search(stem))}
    kinds = {(_SHARD.sub("", stem), name in shards) for name, stem in stems.items()}
    if len(kinds) > 1 or (len(stems) > 1 and not shards):
        listed = ", ".join(stems)
        raise UserError(
            f"{place}: several files for {split} ({listed}); leave one, or name what to use:"
            f" dataset.files={{{split}: {next(iter(stems))}, …}}"
        )
    totals = {int(match[2]) for match in shards.values()}
    missing = sorted(set(range(max(totals, default=0))) - {int(m[1]) for m in shards.values()})
    if missing or len(totals) > 1:
        which = ", ".join(map(str, missing[:5])) or "some"
        raise UserError(
            f"{place}: shard {which} of {split} is missing; its shards are numbered from 0 to"
            f" {max(totals) - 1}, and there are: {', '.join(shards)}"
        )


def unused(place: str, names: Sequence[str]) -> tuple[str, ...]:
    """Note the files, or parts of a saved data set, that no split has."""
    of_classes = [name for name in names if _OF_CLASSES.fullmatch(name)]
    notes = tuple(
        f"{name} in {place} is not used; if it names the classes 0, 1, …, say so:"
        " dataset.label_names=[…]"
        for name in of_classes
    )
    names = [name for name in names if name not in of_classes]
    if not names:
        return notes
    are = "is" if len(names) == 1 else "are"
    return (
        *notes,
        f"{', '.join(names)} in {place} {are} not used, as no split has such a name;"
        f" dataset.files={{train: …, test: {names[0]}}} would use {names[0]} as test",
    )


def beside(path: Path, used: Sequence[Path] = ()) -> tuple[str, ...]:
    """Note what lies beside a file of train and is not used either, such as test.csv."""
    if "train" not in splits_in(_bare(path)):
        return ()
    others = [
        file.name
        for file in data_files(path.parent)
        if file not in (path, *used) and splits_in(_bare(file)) & {"validation", "test"}
    ]
    if not others:
        return ()
    return (
        f"{', '.join(others)} beside {path.name} {'is' if len(others) == 1 else 'are'} not used;"
        f" dataset.path={path.parent} or dataset.test=FILE would",
    )


def data_files(folder: Path) -> list[Path]:
    """The files of a folder that are read: those of known suffixes, or else those without one."""
    files = _files_of(folder)
    return [file for file in files if file.suffix] or files


def _files_of(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and (data_suffix(file) in READERS or not file.suffix)
        and not (data_suffix(file) in ("", ".txt") and is_about(file))
        and file.name != LABELS_FILE
        and not file.name.startswith((".", "_"))
        and file.name not in _FACTS
    )


def _bare(file: Path) -> str:
    """A file's name without its suffixes, in lower case; a suffix that is a split's name stays."""
    name, suffix = file.name.lower(), data_suffix(file)
    for packed in PACKED:
        name = name.removesuffix(packed)
    return name if named_parts([suffix[1:]]) else name.removesuffix(suffix)
