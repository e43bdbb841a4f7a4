"""Where each text of a store lies: sorted arrays of hashes, 24 bytes a text, no object a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

HASH_BYTES = 16
LOOKED_UP = 2**18
"""Number of texts that are looked up at a time; it bounds the memory that a look-up takes."""


def as_hashes(texts: Sequence[bytes] | np.ndarray) -> np.ndarray:
    """Return the hashes of texts as one array. Shape: (texts, 16), uint8."""
    if isinstance(texts, np.ndarray):
        return np.ascontiguousarray(texts, np.uint8).reshape(-1, HASH_BYTES)
    return np.frombuffer(b"".join(texts), np.uint8).reshape(-1, HASH_BYTES)


@dataclass(frozen=True)
class _Run:
    """Rows of some shards, sorted by hash; equal hashes are in the order in which they came.

    Shapes: (rows,).
    """

    first: np.ndarray
    """First 64 bits of each hash, uint64."""
    rest: np.ndarray
    """Other 64 bits, uint64."""
    shard: np.ndarray
    """Number of the shard, int32."""
    row: np.ndarray
    """Row in the shard, int32."""

    def __len__(self) -> int:
        return len(self.first)


class HashIndex:
    """The shards and rows of texts.

    The rows lie in sorted runs, each less than half as long as the one before. A new shard starts a
    run of its own, and runs that have become too long for this are merged. Each row is therefore
    moved a few times only, however many shards come one after the other.
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def add(self, shards: Sequence[tuple[int, np.ndarray]]) -> None:
        """Add shards.

        Args:
            shards: number and hashes of each shard. Shape of the hashes: (rows, 16), uint8.
        """
        if not sum(len(hashes) for _, hashes in shards):
            return
        words = [hashes.view(np.uint64) for _, hashes in shards]
        first = np.concatenate([part[:, 0] for part in words])
        order = _order(first, lambda: np.concatenate([part[:, 1] for part in words]))
        first = first[order]
        rest = np.concatenate([part[:, 1] for part in words])[order]
        lengths = [len(hashes) for _, hashes in shards]
        numbers = np.array([number for number, _ in shards], np.int32)
        shard = np.repeat(numbers, lengths)[order]
        starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)[order]
        self._runs.append(_Run(first, rest, shard, (order - starts).astype(np.int32)))
        while len(self._runs) > 1 and 2 * len(self._runs[-1]) >= len(self._runs[-2]):
            self._merge_last()

    def _merge_last(self) -> None:
        earlier, later = self._runs[-2:]
        first = np.concatenate([earlier.first, later.first])
        order = _order(first, lambda: np.concatenate([earlier.rest, later.rest]), sorted_runs=True)
        columns = [
            np.concatenate([getattr(earlier, name), getattr(later, name)])[order]
            for name in ("rest", "shard", "row")
        ]
        self._runs[-2:] = [_Run(first[order], *columns)]

    def find(self, hashes: np.ndarray, accepted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find a row of each text; of several, the one that was added first.

        Args:
            hashes: the texts. Shape: (texts, 16), uint8.
            accepted: for each number of a shard, true if its rows count. Shape: (shards,), bool.

        Returns:
            The number of the shard, which is -1 for a text that is not found, and the row in it.
            Shapes: (texts,), int32.
        """
        shard = np.full(len(hashes), -1, np.int32)
        row = np.zeros(len(hashes), np.int32)
        for start in range(0, len(hashes), LOOKED_UP):
            words = hashes[start : start + LOOKED_UP].view(np.uint64)
            first, rest = np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])
            pending = np.argsort(first)  # neighbours of a sorted search share most of their way
            for run in self._runs:
                pending = _find_in(run, first, rest, pending, accepted, (shard, row), start)
        return shard, row

    def count(self, accepted: np.ndarray) -> int:
        """Count the distinct texts in the accepted shards."""
        while len(self._runs) > 1:
            self._merge_last()
        if not self._runs:
            return 0
        run = self._runs[0]
        here = accepted[run.shard]
        first, rest = run.first[here], run.rest[here]
        if not len(first):
            return 0
        return 1 + int(((first[1:] != first[:-1]) | (rest[1:] != rest[:-1])).sum())

    def __len__(self) -> int:
        """Return the number of rows, repeats and those of forgotten shards included."""
        return sum(map(len, self._runs))

    @property
    def nbytes(self) -> int:
        """Return the memory that the arrays take, in bytes."""
        columns = ("first", "rest", "shard", "row")
        return sum(getattr(run, name).nbytes for run in self._runs for name in columns)


def _order(
    first: np.ndarray, rest: Callable[[], np.ndarray], *, sorted_runs: bool = False
) -> np.ndarray:
    """Sort by hash, equal ones in their order. Sorting by half of the hash nearly always does.

    Args:
        first: first halves of the hashes.
        rest: function that returns the other halves.
        sorted_runs: true if `first` is made of sorted runs, which a stable sort merges fast.
    """
    if not sorted_runs:
        order = np.argsort(first)
        ordered = first[order]
        if not (ordered[1:] == ordered[:-1]).any():
            return order
    order = np.argsort(first, kind="stable")
    ordered = first[order]
    ties = np.flatnonzero(ordered[1:] == ordered[:-1])
    if len(ties):
        other = rest()
        if (other[order[ties]] != other[order[ties + 1]]).any():
            return np.lexsort((other, first))
    return order


def _find_in(
    run: _Run,
    first: np.ndarray,
    rest: np.ndarray,
    pending: np.ndarray,
    accepted: np.ndarray,
    found: tuple[np.ndarray, np.ndarray],
    start: int,
) -> np.ndarray:
    """Look up the pending texts in one run, and return those that are not in it."""
    shard, row = found
    place = np.searchsorted(run.first, first[pending])
    left = []
    while len(pending):
        inside = place < len(run)
        inside[inside] = run.first[place[inside]] == first[pending[inside]]
        left.append(pending[~inside])
        pending, place = pending[inside], place[inside]
        match = (run.rest[place] == rest[pending]) & accepted[run.shard[place]]
        shard[start + pending[match]] = run.shard[place[match]]
        row[start + pending[match]] = run.row[place[match]]
        pending, place = pending[~match], place[~match] + 1
    return np.concatenate(left) if left else pending
