"""Finding the files that hold each split of a data set, and saying what else may be meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from layerfusion.assets.paths import data_suffix
from layerfusion.config.options import as_option
from layerfusion.config.registry import PACKED, READERS
from layerfusion.errors import Mendable, UserError, unknown
from layerfusion.texts.class_files import class_files
from layerfusion.texts.class_folders import (
    class_folders,
    class_names,
    files_in,
    has_format,
    is_about,
    is_of_system,
    tables_in,
)
from layerfusion.texts.class_tables import class_tables
from layerfusion.texts.columnar import is_saved
from layerfusion.texts.line_pairs import line_pairs
from layerfusion.texts.numbered_files import (
    are_numbered,
    in_order,
    numbered_name,
    refuse_gap,
    states_total,
)
from layerfusion.texts.readers import is_known_other, not_read
from layerfusion.texts.split_names import ALIASES, named_parts, parts_by_word, splits_in
from layerfusion.texts.table import SPLITS
from layerfusion.texts.table_pairs import labels_tables

LABELS_FILE = "labels.json"
"""The file beside the data that names its classes."""
_FACTS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
"""Files with facts about the data, which the `datasets` library writes beside them."""
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
        for split in splits_in(bare(file)) - set(chosen):
            places.setdefault(split, []).append(str(file))
    if len(places) > len(chosen):
        words = " ".join(as_option(f"dataset.{split}", names[0]) for split, names in places.items())
        raise UserError(f"{folder}: some splits are folders and some are files; {words} reads them")
    return chosen


def unused_beside(folder: Path, splits: Mapping[str, Path]) -> tuple[str, ...]:
    """Notes on what lies beside the folders of the splits, and in them, and is not used.

    Args:
        folder: has the folders of the splits.
        splits: split to its folder.
    """
    names = [file.name for file in data_files(folder)]
    names += [part.name for part in _folders(folder) if _has_part(part)]
    used = {split: part.name for split, part in splits.items()}
    left = unused(
        str(folder), [name for name in names if name not in used.values()], used, whole=True
    )
    inside = [] if any(map(is_saved, splits.values())) else list(splits.values())
    within = [note for part in inside for note in (*_others_left(part), *folders_left(part))]
    return (*left, *_others_left(folder), *within)


def unused_classes(folder: Path, splits: Mapping[str, Path]) -> tuple[str, ...]:
    """Notes on the folders beside those of the splits, where each has a folder for each class."""
    parts = [part for part in _folders(folder) if part not in splits.values()]
    alike = [part.name for part in parts if len(class_names({"": part})) > 1]
    used = {split: part.name for split, part in splits.items()}
    others = [*splits.values(), *(folder / name for name in alike)]
    return (*unused(str(folder), alike, used), *folders_left(folder, others))


def _has_part(folder: Path) -> bool:
    return is_saved(folder) or bool(data_files(folder))


def _splits_of_files(folder: Path) -> set[str]:
    return {split for file in data_files(folder) for split in splits_in(bare(file))}


def other_splits(file: Path, split: str) -> set[str]:
    """The splits that a file in the folder of another one is called after."""
    found = splits_in(bare(file))
    return set() if split in found else found


def joined(files: Sequence[Path], what: str = "") -> str:
    """Note that several files of a folder are read as one table."""
    names = [file.name for file in files]
    shown = f"{', '.join(names[:3])} …" if len(names) > 4 else ", ".join(names)
    return f"{what or files[0].parent.name}: {len(names):,} files are joined: {shown}"


def split_files(
    folder: Path, files: Mapping[str, str]
) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Find the files of a folder that hold each split.

    Args:
        folder: its direct members are looked at.
        files: split to file name, or to a pattern of several (train*.csv); empty: found by their
            names (train.csv, Dev.tsv, reviews_test.csv, test-00000-of-00002.parquet), or else the
            only data file there is.

    Returns:
        Split to its files in order, and notes on the files that are not used.

    Raises:
        UserError: naming the files of the folder.
    """
    found = data_files(folder)
    names = [file.name for file in found]
    if files:
        given = {split: _of_pattern(folder, name) for split, name in files.items()}
        for split, members in given.items():
            if not members:
                raise unknown(f"{folder}: file of {split}", files[split], names)
        return given, tuple(joined(one, split) for split, one in given.items() if len(one) > 1)
    labels = labels_tables(found).values()
    found = [file for file in found if file not in labels]
    names = [file.name for file in found]
    stems = {file.name: bare(file) for file in found}
    named = assign_splits(str(folder), stems)
    if "train" not in named:
        if not named and _are_parts(found):
            refuse_gap(folder, stems)
            return {"train": found}, (joined(found),)
        if named or len(found) != 1:
            meant, options = _meant(found)
            raise Mendable(
                f"{folder}: a file named train is needed, or a single data file; there are:"
                f" {', '.join(names) or 'none'}; allowed: {', '.join(READERS)}"
                f"{_others_said(folder)}{_below(folder) or _in_folders(folder)}{meant}",
                *options,
            )
        refuse_gap(folder, stems)
        return {"train": found}, (*_others_left(folder), *folders_left(folder))
    used = {name for members in named.values() for name in members}
    _refuse_folders(folder, named)
    members = {split: [folder / name for name in group] for split, group in named.items()}
    chosen = {split: _pattern(group) for split, group in named.items()}
    left = unused(str(folder), [name for name in names if name not in used], chosen)
    # Names that state the number of all parts are those of one table without doubt.
    parts = [
        joined(group, split)
        for split, group in members.items()
        if len(group) > 1 and not all(states_total(bare(file)) for file in group)
    ]
    return members, (*parts, *left, *_others_left(folder), *folders_left(folder))


def _of_pattern(folder: Path, name: str) -> list[Path]:
    """The file of a name, or all files of a pattern, in the order of the numbers in their names."""
    if (folder / name).is_file() or not re.search(r"[*?[]", name):
        return [folder / name] if (folder / name).is_file() else []
    found = [file for file in folder.glob(name) if file.is_file()]
    return sorted(found, key=lambda file: in_numbers(file.name))


def _pattern(names: Sequence[str]) -> str:
    """The pattern that several names have, or the only name."""
    if len(names) == 1:
        return names[0]
    start = names[0]
    while not all(name.startswith(start) for name in names):
        start = start[:-1]
    return f"{start}*{data_suffix(Path(names[0]))}"


def in_numbers(name: str) -> list[tuple[int, str]]:
    """Order names as people do: `part10` after `part9`."""
    return [(int(part or -1), word) for word, part in re.findall(r"(\D+)|(\d+)", name)]


def _are_parts(files: Sequence[Path]) -> bool:
    """Tell the numbered parts of one table, as Spark writes them: `part-00000-….parquet`."""
    return are_numbered([bare(file) for file in files]) and len(set(map(data_suffix, files))) == 1


def _meant(files: Sequence[Path]) -> tuple[str, list[str]]:
    """Name the files whose names have those of splits somewhere in them: `trainset.csv`.

    Returns:
        The end of a message, and the options that take these files, where that is the only way.
    """
    found = {
        split: [file.name for file in files if any(word in bare(file) for word in words)]
        for split, words in ALIASES.items()
    }
    words = [
        as_option(f"dataset.files.{split}", names[0]) for split, names in found.items() if names
    ]
    if not found["train"]:
        words = ["dataset.files.train=FILE", "dataset.files.test=FILE"]
        way_out = f"; say which is which: {' '.join(words)}"
        way_out += ", or, if each is of one class, give each a column of labels"
        return (way_out if len(files) > 1 else ""), []
    if all(len(names) < 2 for names in found.values()):
        return f"; did you mean {' '.join(words)}?", words
    whole = [
        as_option(f"dataset.files.{split}", _pattern(names))
        for split, names in found.items()
        if names
    ]
    line = f"; {' '.join(words)} takes the first of each, and {' '.join(whole)} all of them as one"
    return f"{line} table", []


def _others(folder: Path) -> list[Path]:
    """Files that are data in a form that is not read: by their suffix, or called as a split is."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file()]
    return [
        file
        for file in files
        if not is_of_system(file.name)
        and (
            is_known_other(file)
            or (
                bool(data_suffix(file))
                and data_suffix(file) not in (*READERS, *_NO_DATA)
                and bool(splits_in(bare(file)))
            )
        )
    ]


def _others_said(folder: Path) -> str:
    reasons = {not_read(file): file.name for file in _others(folder)[:3]}
    return "".join(f"; {name}: {reason}" for reason, name in reasons.items())


def _others_left(folder: Path) -> tuple[str, ...]:
    return tuple(
        f"{file.name} in {folder} is not used: {not_read(file)}" for file in _others(folder)
    )


def folders_left(folder: Path, used: Sequence[Path] = ()) -> tuple[str, ...]:
    """Notes on folders with data beside what is read, but for those that are used."""
    return tuple(
        f"{part.name} in {folder} is not used; {as_option('dataset.path', str(part))} would read"
        " what lies in it"
        for part in _folders(folder)
        if part not in used and _is_data(part)
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
    if mixed := _mixed(folder):
        return mixed
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


def _mixed(folder: Path) -> str:
    """Say that some folders hold texts as files and others tables, where each may be a class."""
    parts = _folders(folder)
    places = [folder, *parts] if "train" in named_parts(part.name for part in parts) else [folder]
    for place in places:
        of_texts = {part: names[0] for part in _folders(place) if (names := _texts_of(part))}
        tables = {part: files[0] for part in _folders(place) if (files := tables_in(part))}
        alone = [file for part, file in tables.items() if part not in of_texts]
        texts = [file for part, file in of_texts.items() if part not in tables]
        if alone and texts and not named_parts(part.name for part in (*of_texts, *tables)):
            return (
                f"; {alone[0].relative_to(folder)} is a table and {texts[0].relative_to(folder)} a"
                " text of its own; the folders of all classes need one form: write the texts to a"
                " table in each, or the rows to files"
            )
    return ""


def _texts_of(folder: Path) -> list[Path]:
    """The files of a folder that are called as texts are."""
    return sorted(f for f in _members(folder) if data_suffix(f) == ".txt" and not is_about(f))


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
        " files in .txt or without a suffix, or rows of tables"
    )


def _is_data(folder: Path) -> bool:
    """Tell whether a folder holds what can be read."""
    try:
        if is_saved(folder) or class_folders(folder, {}) or class_files(folder, "utf-8"):
            return True
        if line_pairs(folder, "utf-8") or class_tables(folder):
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
        str(folder), {file.name: bare(file) for file in files}
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
    parts = {name: numbered_name(stem) for name, stem in stems.items()}
    bases = {name: part.base if part else stems[name] for name, part in parts.items()}
    for split in SPLITS:
        whole = [name for name in stems if bases[name] in ALIASES[split]]
        members = whole or [name for name in stems if splits_in(bases[name]) == {split}]
        if not whole and len({bases[name] for name in members}) > 1:
            continue
        if members:
            result[split] = _all_parts(place, split, {name: stems[name] for name in members})
    return result


def _all_parts(place: str, split: str, stems: Mapping[str, str]) -> list[str]:
    """Several files of one split have to be all the parts of one table; give them in order."""
    parts = {name: part for name, stem in stems.items() if (part := numbered_name(stem))}
    kinds = {parts[name].base if name in parts else "" for name in stems}
    numbers = [part.number for part in parts.values()]
    if len(kinds) > 1 or (len(stems) > 1 and len(set(numbers)) < len(stems)):
        listed = ", ".join(stems)
        raise UserError(
            f"{place}: several files for {split} ({listed}); leave one, or name what to use:"
            f" dataset.files={{{split}: {next(iter(stems))}, …}}"
        )
    return in_order(place, split, parts) if parts else list(stems)


def unused(
    place: str, names: Sequence[str], used: Mapping[str, str], *, whole: bool = False
) -> tuple[str, ...]:
    """Note the files, folders or parts of a saved data set that no split has.

    Args:
        place: where they lie.
        names: their names.
        used: split to the name of what it has.
        whole: true if the paths of files and folders are needed to name them.
    """
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
    own = splits_in(names[0])
    split = own.pop() if len(own) == 1 else "test"
    key = "dataset" if whole else "dataset.files"
    words = " ".join(
        as_option(f"{key}.{one}", str(Path(place, name)) if whole else name)
        for one, name in {**used, split: names[0]}.items()
    )
    return (
        *notes,
        f"{', '.join(names)} in {place} {are} not used, as no split has such a name; {words} would"
        f" use {names[0]} as {split}",
    )


def beside(path: Path, given: Sequence[str] = ()) -> tuple[str, ...]:
    """Note what lies beside a file of train and is not used either, such as test.csv.

    Args:
        path: the file.
        given: the splits that the user names; what else is called so needs no note.
    """
    if "train" not in splits_in(bare(path)):
        return ()
    lacking = {"validation", "test"} - {*given}
    others = {
        split: [
            file
            for file in data_files(path.parent)
            if file != path and split in splits_in(bare(file))
        ]
        for split in SPLITS
        if split in lacking
    }
    names = [file.name for files in others.values() for file in files]
    if not names:
        return ()
    words = [
        as_option(f"dataset.{split}", str(files[0])) if len(files) == 1 else f"dataset.{split}=FILE"
        for split, files in others.items()
        if files
    ]
    own = "" if given else f" beside {as_option('dataset.train', str(path))}"
    return (
        f"{', '.join(names)} beside {path.name} {'is' if len(names) == 1 else 'are'} not used;"
        f" {' '.join(words)}{own} would",
    )


def data_files(folder: Path) -> list[Path]:
    """The files of a folder that are read: those of known suffixes, or else those without one."""
    files = _files_of(folder)
    return [file for file in files if file.suffix] or files


def _files_of(folder: Path) -> list[Path]:
    return [
        file
        for file in files_in(folder)
        if (data_suffix(file) in READERS or not file.suffix)
        and not (data_suffix(file) in ("", ".txt") and is_about(file))
        and file.name != LABELS_FILE
        and not file.name.startswith("_")
        and not is_of_system(file.name)
        and file.name not in _FACTS
    ]


def bare(file: Path) -> str:
    """A file's name without its suffixes, in lower case; a suffix that is a split's name stays."""
    name, suffix = file.name.lower(), data_suffix(file)
    for packed in PACKED:
        name = name.removesuffix(packed)
    return name if named_parts([suffix[1:]]) else name.removesuffix(suffix)
