"""What a folder of the Hugging Face hub says of its files and classes, in its own words.

A data set's `README.md` begins with YAML that may list the files of each split (`configs`) and the
names of the classes (`dataset_info`): https://huggingface.co/docs/hub/datasets-manual-configuration.
Older ones have the names in `dataset_info.json` or `dataset_infos.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from layerfusion.assets.files import parse_json
from layerfusion.config.options import as_option
from layerfusion.errors import UserError
from layerfusion.texts.numbered_files import refuse_gap
from layerfusion.texts.split_files import assign_splits, bare, data_files, in_numbers
from layerfusion.texts.table import Table

CARD = "README.md"
_INFOS = ("dataset_info.json", "dataset_infos.json")
_FENCE = "---"
"""The line before and after the YAML of a card."""


@dataclass(frozen=True)
class DataCard:
    """What a folder says of itself; nothing where it says nothing."""

    folder: Path
    subsets: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """Subset to its own names of its splits to the patterns of their files. A default is alone."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column to the names of the classes 0, 1, …, in which all subsets that may be read agree."""

    def files(self) -> dict[str, list[Path]]:
        """Find the files of each split, in order; empty where the card lists none.

        Raises:
            UserError: if there are several subsets, there is no train, a part is missing, or a
                split has no file.
        """
        if not self.subsets:
            return {}
        place, (patterns, *others) = str(self.folder / CARD), self.subsets.values()
        if others:
            words = (
                as_option(f"dataset.files.{split}", some[0]) for split, some in patterns.items()
            )
            raise UserError(
                f"{place}: it describes several subsets ({', '.join(self.subsets)}); name the files"
                f" of one: {' '.join(words)}"
            )
        named = assign_splits(place, {name: name.lower() for name in patterns})
        if "train" not in named:
            first = next(iter(patterns.values()))[0]
            raise UserError(
                f"{place}: it names no split train; there are: {', '.join(patterns)};"
                f" {as_option('dataset.files.train', first)} reads that file as train"
            )
        return {split: self._of_split(names[0], patterns) for split, names in named.items()}

    def notes(self, used: Mapping[str, Sequence[Path]]) -> Iterator[str]:
        """Say whose word was taken, and which files it leaves out.

        Args:
            used: what `files` found.
        """
        yield f"{CARD} in {self.folder} says which files are which split"
        taken = {file for files in used.values() for file in files}
        folders = dict.fromkeys([self.folder, *(file.parent for file in taken)])
        left = [str(file.relative_to(self.folder)) for one in folders for file in data_files(one)
                if file not in taken]  # fmt: skip
        if left:
            are = "is" if len(left) == 1 else "are"
            yield (
                f"{', '.join(left)} in {self.folder} {are} not used, as {CARD} names"
                f" {'it' if len(left) == 1 else 'them'} for no split that is read;"
                f" {as_option('dataset.files.test', left[0])} beside dataset.files.train=FILE would"
                f" use {left[0]} as test"
            )

    def class_names(self, column: str | None, tables: Mapping[str, Table]) -> tuple[str, ...]:
        """Return the names of the classes, if all labels are numbers of them.

        Args:
            column: the column that has the labels, if the user names it.
            tables: split to its table.
        """
        names = self.classes.get(column or "label", ())
        if not names and len(self.classes) == 1:
            (names,) = self.classes.values()
        numbers = {str(number) for number in range(-1, len(names))}
        labels = (label for table in tables.values() for label in table.labels)
        each = (one for label in labels for one in (label if isinstance(label, list) else [label]))
        return names if all(str(one).strip() in numbers for one in each) else ()

    def _of_split(self, split: str, patterns: Mapping[str, Sequence[str]]) -> list[Path]:
        found: dict[Path, None] = {}
        for pattern in patterns[split]:
            if "://" in pattern or Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise UserError(f"{self.folder / CARD}: {pattern} of {split} lies outside of it")
            try:
                some = [self.folder] if pattern in ("", ".") else sorted(self.folder.glob(pattern))
            except ValueError as error:  # such as ** within a name
                raise UserError(f"{self.folder / CARD}: {pattern} of {split}: {error}") from error
            for one in some:
                found |= dict.fromkeys(data_files(one) if one.is_dir() else [one])
        files = sorted(found, key=lambda file: in_numbers(str(file)))
        if not files:
            raise UserError(
                f"{self.folder / CARD}: no file is called {', '.join(patterns[split])}, which"
                f" it names for {split}"
            )
        refuse_gap(files[0].parent, {file.name: bare(file) for file in files})
        return files


def read_card(folder: Path, *, named: bool = False) -> DataCard:
    """Read what a folder says of itself.

    Args:
        folder: the folder.
        named: whether the user names the files, which may then be those of any subset.
    """
    facts = _front_matter(folder / CARD)
    subsets = [one for one in _listed(facts.get("configs")) if one.get("data_files")]
    default = [one for one in subsets if one.get("default") or one.get("config_name") == "default"]
    names = {str(one.get("config_name")): one for one in default[:1] or subsets}
    infos = _listed(facts.get("dataset_info")) or [*_infos(folder)]
    own = [one for one in infos if not named and str(one.get("config_name")) in names]
    classes = [dict(_classes(info.get("features"))) for info in own or infos]
    return DataCard(
        folder,
        {
            name: _patterns(one["data_files"], str(one.get("data_dir") or ""))
            for name, one in names.items()
        },
        classes[0] if classes and all(one == classes[0] for one in classes) else {},
    )


def _front_matter(card: Path) -> Mapping[str, Any]:
    """Read the YAML at the beginning of a card; nothing where it has none, or what is no YAML."""
    if not card.is_file():
        return {}
    head, *lines = card.read_text(encoding="utf-8-sig", errors="replace").splitlines() or [""]
    if head.strip() != _FENCE or _FENCE not in (ends := [line.rstrip() for line in lines]):
        return {}
    try:
        found = yaml.safe_load("\n".join(lines[: ends.index(_FENCE)]))
    except (yaml.YAMLError, ValueError, RecursionError):  # some other README, or a month 13
        return {}
    return found if isinstance(found, dict) else {}


def _infos(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Read the facts that older versions of `datasets` wrote beside the data."""
    for name in _INFOS:
        if not (folder / name).is_file():
            continue
        try:
            found = parse_json((folder / name).read_bytes())
        except ValueError:
            continue
        if isinstance(found, dict):
            yield from [found] if "features" in found else _listed([*found.values()])


def _listed(found: Any) -> list[Mapping[str, Any]]:
    every = found if isinstance(found, list) else [found]
    return [one for one in every if isinstance(one, dict)]


def _patterns(found: Any, inside: str) -> dict[str, list[str]]:
    """Give the patterns of each split, whichever of its forms the list of files has."""
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        found = {str(one.get("split", "train")): one.get("path", "") for one in found}
    if not isinstance(found, dict):
        found = {"train": found}
    patterns: dict[str, list[str]] = {}
    for split, some in found.items():
        each = some if isinstance(some, list) else [some]
        patterns[str(split)] = [f"{inside}/{one}" if inside else str(one) for one in each]
    return patterns


def _classes(features: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Find the columns whose numbers have names, in a list of features or an object of them."""
    each: list[tuple[str, Any]]
    if isinstance(features, dict):
        each = [*features.items()]
    else:
        each = [(str(one.get("name")), one) for one in _listed(features)]
    for column, feature in each:
        names = _names_in(feature)
        if names:
            yield column, names


def _names_in(feature: Any, levels: int = 4) -> tuple[str, ...]:
    """Return the names of the classes of a feature, or of those that a list of it has."""
    if not isinstance(feature, dict) or not levels:  # YAML can hold what contains itself
        return ()
    names = feature.get("names")
    if isinstance(names, dict):
        try:
            names = [name for _, name in sorted((int(key), name) for key, name in names.items())]
        except (ValueError, TypeError):
            return ()
    if isinstance(names, list):
        return tuple(map(str, names))
    inner = (feature.get(key) for key in ("class_label", "dtype", "sequence", "list", "feature"))
    return next(filter(None, (_names_in(one, levels - 1) for one in inner)), ())
