"""Merge the small shards of a store into large ones, while other processes read and write it.

A merged shard is complete and on disk before those that it replaces are removed. A kill in between
leaves both, which harms nothing, and the next compaction removes the shards that are replaced. A
reader that finds a shard gone looks for its texts in the new one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from layerfusion.assets.files import disk_errors_told, remove_leftovers
from layerfusion.embeddings.index import HashIndex
from layerfusion.embeddings.shards import (
    DamagedShard,
    Layout,
    Part,
    Shard,
    is_whole,
    merge,
    open_shard,
    read_parts,
)
from layerfusion.errors import UserError

MERGED_BYTES = 2**28
"""Size of a merged shard, in bytes. A few times as much memory is needed to write one."""
LOCK = ".compact.lock"
"""File of a store that the process holds that compacts it."""


@dataclass(frozen=True)
class Compaction:
    """Shards and bytes of a store before and after, and the number of damaged shards."""

    shards: tuple[int, int] = (0, 0)
    size: tuple[int, int] = (0, 0)
    damaged: int = 0

    def __add__(self, other: Compaction) -> Compaction:
        """Add up two stores."""
        return Compaction(
            (self.shards[0] + other.shards[0], self.shards[1] + other.shards[1]),
            (self.size[0] + other.size[0], self.size[1] + other.size[1]),
            self.damaged + other.damaged,
        )

    def __str__(self) -> str:
        """Return the line that is printed."""
        line = " -> ".join(
            f"{shards} shard{'' if shards == 1 else 's'}, {size / 1e6:.1f} MB"
            for shards, size in zip(self.shards, self.size, strict=True)
        )
        damaged = f"; {self.damaged} damaged, left as they are: layerfusion cache verify"
        return line + (damaged if self.damaged else "")


@dataclass(frozen=True)
class _Known:
    """A shard that was there when the compaction began."""

    shard: Shard
    hashes: np.ndarray
    size: int
    when: int


def compact(folder: Path, *, merged_bytes: int = MERGED_BYTES) -> Compaction:
    """Merge the small shards of a store.

    Args:
        folder: the store.
        merged_bytes: size that a merged shard reaches. Shards of half of it are left as they are.

    Raises:
        UserError: if another process compacts the store, the folder cannot be written or the disk
            is full. What was merged before stays merged.
    """
    with disk_errors_told(folder):
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            with lock:
                return _compact(folder, merged_bytes)
        except Timeout:
            raise UserError(
                f"{folder}: another process is compacting it; when it has ended, start again"
            ) from None


def _compact(folder: Path, merged_bytes: int) -> Compaction:
    remove_leftovers(folder)
    known, sizes, damaged = [], {}, 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            state = path.stat()
            sizes[path] = state.st_size
            known.append(_Known(*open_shard(path), state.st_size, state.st_mtime_ns))
        except FileNotFoundError:
            sizes.pop(path, None)  # a job beside us has found it damaged
        except DamagedShard:
            damaged += 1
    shards, size = len(sizes), sum(sizes.values())
    kept, replaced = _without_repeats(known)
    for entry in replaced:
        entry.shard.path.unlink(missing_ok=True)
        del sizes[entry.shard.path]
    for group in _groups(kept, merged_bytes):
        whole: list[Shard] = []
        parts: list[Part] = []
        arrays: dict[str, list[np.ndarray]] = defaultdict(list)
        for entry in group:
            try:
                own_parts, own_arrays = read_parts(entry.shard)
            except (DamagedShard, FileNotFoundError) as error:
                if isinstance(error, FileNotFoundError):
                    del sizes[entry.shard.path]
                damaged += isinstance(error, DamagedShard)
                continue
            whole.append(entry.shard)
            parts += own_parts
            for name, values in own_arrays.items():
                arrays[name] += values
        if len(whole) < 2:
            continue
        merged = merge(folder, parts, arrays)
        open_shard(merged.path)  # it can be read before anything is removed
        sizes[merged.path] = merged.path.stat().st_size
        for shard in whole:
            shard.path.unlink(missing_ok=True)
            del sizes[shard.path]
    return Compaction((shards, len(sizes)), (size, sum(sizes.values())), damaged)


def _without_repeats(known: Sequence[_Known]) -> tuple[list[_Known], list[_Known]]:
    """Set aside the shards whose texts and layers all lie in others, such as a merged one."""
    index = HashIndex()
    index.add([(number, entry.hashes) for number, entry in enumerate(known)])
    kept = np.ones(len(known), bool)
    if index.count(kept) == len(index):
        return list(known), []
    layouts = [entry.shard.layout for entry in known]

    @cache
    def is_undamaged(number: int) -> bool:
        return is_whole(known[number].shard.path)

    for number in sorted(range(len(known)), key=lambda place: known[place].shard.rows):
        covering = {x: set(layouts[number].arrays) <= set(x.arrays) for x in set(layouts)}
        others = kept & np.array([covering[layout] for layout in layouts])
        others[number] = False
        places = index.find(known[number].hashes, others)[0]
        if places.min() >= 0 and all(map(is_undamaged, np.unique(places).tolist())):
            kept[number] = False
    return (
        [entry for entry, keep in zip(known, kept, strict=True) if keep],
        [entry for entry, keep in zip(known, kept, strict=True) if not keep],
    )


def _groups(known: Sequence[_Known], merged_bytes: int) -> Iterator[list[_Known]]:
    """Group small shards with the same arrays, those that were written together side by side."""
    by_layout: dict[Layout, list[_Known]] = defaultdict(list)
    for entry in sorted(known, key=lambda entry: (entry.when, entry.shard.path.name)):
        if 2 * entry.size <= merged_bytes:
            by_layout[entry.shard.layout].append(entry)
    for entries in by_layout.values():
        group: list[_Known] = []
        size = 0
        for entry in entries:
            if group and size + entry.size > merged_bytes:
                yield group
                group, size = [], 0
            group.append(entry)
            size += entry.size
        yield group
