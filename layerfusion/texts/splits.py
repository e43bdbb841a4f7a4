"""Completing the splits of a data set: missing ones are split off, and samples are taken."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress

import numpy as np

from layerfusion.config.job import DatasetConfig, LimitConfig
from layerfusion.errors import UserError
from layerfusion.texts.groups import has_groups, hold_out_groups, units_of
from layerfusion.texts.parts import notes_on_parts
from layerfusion.texts.sampling import (
    fewest,
    first_rows,
    hold_out_together,
    sample,
    sample_classes,
)
from layerfusion.texts.table import SPLITS


@dataclass(frozen=True)
class Split:
    """Texts with their classes."""

    texts: tuple[str, ...]
    labels: np.ndarray
    """Class indices, shape (rows,), int64. Of data with several labels a text: true where a text
    has a label, shape (rows, labels), bool."""
    groups: tuple[str | None, ...] | None = None
    """Group of each row, such as its author, or None for a row without one; None if the data has no
    groups."""

    @cached_property
    def units(self) -> tuple[Hashable, ...]:
        """What tells apart the rows that are independent of one another: see `groups.units_of`."""
        return units_of(self.texts, self.groups)

    @cached_property
    def unit_of(self) -> np.ndarray:
        """The first row with the unit of each row: of its group, or of its text. Shape: (rows,)."""
        return first_rows(self.units)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.texts)

    def __repr__(self) -> str:
        return f"Split({len(self)} rows)"

    def take(self, chosen: np.ndarray) -> Split:
        """Keep the rows where `chosen` is true, in their order."""
        texts = tuple(compress(self.texts, chosen))
        groups = None if self.groups is None else tuple(compress(self.groups, chosen))
        return Split(texts, self.labels[chosen], groups)

    def ordered(self, ranks: np.ndarray) -> np.ndarray:
        """Return the labels as ranks of their classes, or a matrix with its columns by rank."""
        return ranks[self.labels] if self.labels.ndim == 1 else self.labels[:, np.argsort(ranks)]


@dataclass(frozen=True)
class Splits:
    """The three splits, and a description of how they were made."""

    used: dict[str, Split]
    available: dict[str, int]
    """Rows of each split before a sample was taken."""
    sampled: bool
    """True if a sample was taken."""
    overlap: int
    """Rows of test whose text also occurs in train or validation."""
    notes: tuple[str, ...] = field(default=())
    train_order: np.ndarray | None = None
    """Position of each row of train, followed by those of validation, before validation was split
    off; none if the data has its own validation. Shape: (rows,)."""


def complete_splits(
    given: dict[str, Split],
    label_names: tuple[str, ...],
    config: DatasetConfig,
    limit: LimitConfig,
    *,
    seed: int,
) -> Splits:
    """Split off what is missing, drop duplicates and take samples, as configured.

    A given test split stays as it is, and a sample of it depends on test alone.

    Raises:
        UserError: if train would lose a class.
    """
    splits = dict(given)
    notes: list[str] = []
    # Classes are drawn in the order of their names. So the same content gives the same rows,
    # however its files number the classes.
    ranks = np.argsort(np.argsort(np.array(label_names)))
    if "test" not in splits:
        leaves = _leaves(splits["train"], ranks, config, "test", notes)
        splits["test"], splits["train"] = (
            splits["train"].take(leaves),
            splits["train"].take(~leaves),
        )
    if config.dedupe:
        _drop_duplicates(splits, label_names, notes)
    lacks_validation = "validation" not in splits
    available = {split: len(rows) for split, rows in splits.items()}
    if lacks_validation:
        size = int(_held_out(splits["train"], ranks, config, "validation").sum())
        available["train"] -= size
        available["validation"] = size
    sampled = _sample_train(splits, ranks, limit, notes, seed=seed)
    sampled |= _sample_classes(splits, ranks, limit, notes, seed=seed)
    sampled |= _sample_test(splits, ranks, limit, notes, seed=seed)
    order = None
    if lacks_validation:
        whole = splits["train"]
        leaves = _leaves(whole, ranks, config, "validation", notes)
        splits["train"], splits["validation"] = whole.take(~leaves), whole.take(leaves)
        order = np.concatenate([np.flatnonzero(~leaves), np.flatnonzero(leaves)])
    notes += _group_notes(splits)
    if overlap := _again(splits["test"], splits["train"], splits["validation"]):
        notes.append(
            f"{overlap:,} of {len(splits['test']):,} test rows also occur in train;"
            " dataset.dedupe=true drops them from train"
        )
    if not lacks_validation and (again := _again(splits["validation"], splits["train"])):
        notes.append(
            f"{again:,} of {len(splits['validation']):,} validation rows also occur in train"
        )
    notes += _near_notes(splits)
    if splits["train"].groups is None:
        notes += notes_on_parts({name: splits[name].texts for name in SPLITS})
    tested = splits["test"].labels
    if tested.ndim == 1 and len(tested) > 1 and len(set(tested.tolist())) == 1:
        notes.append(
            f"test: all of its {len(tested):,} rows are of {label_names[int(tested[0])]}; its"
            " figures say nothing of other classes"
        )
    if several := _with_several_labels(splits):
        are = "1 text has" if several == 1 else f"{several:,} texts have"
        notes.append(
            f"train and validation: {are} different labels in different rows; no classifier can be"
            " right on all of them"
        )
    return Splits(
        used={split: splits[split] for split in SPLITS},
        available={split: available[split] for split in SPLITS},
        sampled=sampled,
        overlap=overlap,
        notes=tuple(notes),
        train_order=order,
    )


def _leaves(
    train: Split, ranks: np.ndarray, config: DatasetConfig, purpose: str, notes: list[str]
) -> np.ndarray:
    """Choose the rows that leave train for a split that the data lacks. Shape: (rows,), bool."""
    leaves = _held_out(train, ranks, config, purpose)
    share = _share(config, purpose)
    how = "whole groups, stratified" if has_groups(train.units) else "stratified"
    notes.append(
        f"{purpose}: {int(leaves.sum()):,} rows of train, {how} ({share:.0%}, split_seed"
        f" {config.split_seed}), as the data has no {purpose}"
    )
    return leaves


def _held_out(train: Split, ranks: np.ndarray, config: DatasetConfig, purpose: str) -> np.ndarray:
    """Draw the rows that leave train, all rows of a unit together. Shape: (rows,), bool."""
    labels, share = train.ordered(ranks), _share(config, purpose)
    if has_groups(train.units):
        return hold_out_groups(labels, train.units, share, seed=config.split_seed, purpose=purpose)
    return hold_out_together(labels, train.texts, share, seed=config.split_seed, purpose=purpose)


def _share(config: DatasetConfig, purpose: str) -> float:
    return config.test_size if purpose == "test" else config.validation_size


def _drop_duplicates(
    splits: dict[str, Split], label_names: tuple[str, ...], notes: list[str]
) -> None:
    tested = {*splits["test"].texts, *splits["test"].units}
    for split in ("train", "validation"):
        if split not in splits:
            continue
        before = splits[split]
        splits[split] = before.take(
            np.array(
                [
                    text not in tested and unit not in tested
                    for text, unit in zip(before.texts, before.units, strict=True)
                ],
                bool,
            )
        )
        dropped = len(before) - len(splits[split])
        own = ", or whose group does" * (before.groups is not None)
        if dropped:
            notes.append(
                f"dedupe: {dropped:,} rows of {split} dropped that also occur in test{own}"
            )
        if not len(splits[split]):
            own = ", or its group does" * (before.groups is not None)
            raise UserError(f"dataset.dedupe: every text of {split} also occurs in test{own}")
    labels = splits["train"].labels
    kept = (
        labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=len(label_names))
    )
    lost = [name for name, count in zip(label_names, kept, strict=True) if count == 0]
    if lost:
        raise UserError(
            f"dataset.dedupe: all train rows of {', '.join(lost)} also occur in test, so train"
            " would lose the label"
        )


def _sample_train(
    splits: dict[str, Split],
    ranks: np.ndarray,
    limit: LimitConfig,
    notes: list[str],
    *,
    seed: int,
) -> bool:
    """Shrink train and validation together, keeping their proportion."""
    parts = [split for split in ("train", "validation") if split in splits]
    total = sum(len(splits[split]) for split in parts)
    if limit.train is None or limit.train >= total:
        return False
    sizes = {"train": limit.train}
    if len(parts) == 2:
        validation = max(1, round(limit.train * len(splits["validation"]) / total))
        sizes = {"train": limit.train - validation, "validation": validation}
    if sizes["train"] < (least := fewest(splits["train"].labels)):
        each = (
            "labels, each of which needs one"
            if splits["train"].labels.ndim == 1
            else "that it takes for a row with each label and one without it"
        )
        raise UserError(
            f"limit.train={limit.train} leaves {sizes['train']} rows to train on, fewer than the"
            f" {least} {each}"
        )
    for split, size in sizes.items():
        rows = splits[split]
        splits[split] = rows.take(
            sample(rows.ordered(ranks), size, seed=seed, purpose=f"limit.{split}")
        )
    notes.append(f"limit.train: a stratified sample of {limit.train:,} of {total:,} rows")
    return True


def _sample_classes(
    splits: dict[str, Split],
    ranks: np.ndarray,
    limit: LimitConfig,
    notes: list[str],
    *,
    seed: int,
) -> bool:
    """Shrink every class of train and validation together to the same number of rows."""
    if limit.per_class is None:
        return False
    parts = [split for split in ("train", "validation") if split in splits]
    total = sum(len(splits[split]) for split in parts)
    sizes = {"train": limit.per_class}
    if len(parts) == 2:
        validation = max(1, round(limit.per_class * len(splits["validation"]) / total))
        sizes = {"train": limit.per_class - validation, "validation": validation}
    for split, size in sizes.items():
        rows = splits[split]
        purpose = f"limit.per_class.{split}.{limit.draw}"
        chosen = sample_classes(rows.ordered(ranks), size, seed=seed, purpose=purpose)
        splits[split] = rows.take(chosen)
    left = sum(len(splits[split]) for split in parts)
    if left == total:
        return False
    rarest = ", where a row counts for its rarest label" if splits["train"].labels.ndim == 2 else ""
    notes.append(
        f"limit.per_class: {limit.per_class:,} rows of each class{rarest}, {left:,} of {total:,} in"
        f" all (draw {limit.draw})"
    )
    return True


def _sample_test(
    splits: dict[str, Split], ranks: np.ndarray, limit: LimitConfig, notes: list[str], *, seed: int
) -> bool:
    rows = splits["test"]
    if limit.test is None or limit.test >= len(rows):
        return False
    chosen = sample(rows.ordered(ranks), limit.test, seed=seed, purpose="limit.test")
    splits["test"] = rows.take(chosen)
    notes.append(f"limit.test: a stratified sample of {limit.test:,} of {len(rows):,} rows")
    return True


def _group_notes(splits: dict[str, Split]) -> Iterator[str]:
    """Say how many groups there are, and where the data itself divides them."""
    groups = {name: split.groups for name, split in splits.items() if split.groups is not None}
    if not groups:
        return
    counts = {name: len(set(own) - {None}) for name, own in groups.items()}
    alone = sum(own.count(None) for own in groups.values())
    listed = ", ".join(f"{counts[name]:,} of {name}" for name in SPLITS)
    yield (
        f"groups: {listed}; no split or fold made here divides one, and intervals and tests draw"
        " them together" + (f" ({alone:,} rows have none)" if alone else "")
    )
    for name, others in (("test", ("train", "validation")), ("validation", ("train",))):
        known = {group for other in others for group in groups[other]} - {None}
        if again := sum(group in known for group in groups[name]):
            way_out = (
                "; dataset.dedupe=true drops these groups from train" if name == "test" else ""
            )
            yield (
                f"{again:,} of {len(groups[name]):,} {name} rows are of groups that train has rows"
                f" of too{way_out}"
            )


def _again(split: Split, *others: Split) -> int:
    """Count the rows of a split whose text also occurs in one of the others."""
    seen = {text for other in others for text in other.texts}
    return sum(text in seen for text in split.texts)


def _near_notes(splits: dict[str, Split]) -> Iterator[str]:
    """Note how many rows of test, and of validation, are nearly those of train.

    They differ from it in nothing but case, punctuation and white space, as copies of a review or a
    message do. Rows that are the same to the letter are counted by `_again`, and not here.
    """
    texts = {name: set(split.texts) for name, split in splits.items()}
    removed = "".join(
        char
        for char in set().union(*texts["train"], *texts["validation"], *texts["test"])
        if char.isspace() or unicodedata.category(char).startswith("P")
    )
    # Where there is nothing to remove, texts may differ in case: nothing matches `(?!)`.
    between = re.compile(f"[{re.escape(removed)}]+" if removed else "(?!)")

    def bare(text: str) -> int:
        """Hash what is left of a text; of nothing but punctuation, the text as it is."""
        return hash(between.sub("", text.casefold()) or text)

    bared = {name: {text: bare(text) for text in own} for name, own in texts.items()}
    for split, others in (("test", ("train", "validation")), ("validation", ("train",))):
        exact = set[str]().union(*(texts[one] for one in others))
        known = {number for one in others for number in bared[one].values()}
        near = sum(
            text not in exact and bared[split][text] in known for text in splits[split].texts
        )
        if near:
            yield (
                f"{near:,} of {len(splits[split]):,} {split} rows occur in train but for case,"
                " punctuation and white space"
            )


def _with_several_labels(splits: dict[str, Split]) -> int:
    """Count the texts of train and validation whose labels differ from row to row."""
    parts = [splits["train"], splits["validation"]]
    pairs = {
        (text, label.tobytes())
        for part in parts
        for text, label in zip(part.texts, part.labels, strict=True)
    }
    return sum(count > 1 for count in Counter(text for text, _ in pairs).values())
