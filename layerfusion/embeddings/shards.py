"""Shards: the immutable files of a store, how they are written, opened and read.

A shard is a safetensors file whose name is the sha256 of its content. Its header has a checksum of
each array. A shard that `layerfusion cache compact` has merged consists of parts, which are the
shards that it replaces. It keeps the checksums and the duration of each, so that a few rows are
read and checked without the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash
from safetensors import SafetensorError, safe_open

from layerfusion.assets.files import parse_json, write_atomically
from layerfusion.assets.memo import CHECKSUM, hash_of, seal, unseal

SECONDS, SUMS = "seconds", "sums"
"""Metadata of a shard: duration of its pass, and the checksum of each of its arrays as JSON."""
PARTS = "parts"
"""Metadata of a merged shard: rows, seconds and checksums of its parts, as sealed JSON."""
HASHES = "hashes"
"""Array of a shard that holds the hashes of its texts."""
TOKENS = "tokens"
"""Array of a shard that holds the token counts of its texts, in the order of `TokenCounts`. Shards
of earlier versions have the first two only."""
DTYPES = {"F16": np.float16, "F32": np.float32, "I32": np.int32, "U8": np.uint8}
"""Types of numbers in a shard, by their names in its header."""
COPIED = 2**15
"""Numbers that are copied at a time. They stay in the cache of a core, and PyTorch converts as many
without calling other threads."""
HEADER = "__metadata__"
DIGITS = 32
"""Hex digits of a checksum."""


class DamagedShard(ValueError):
    """A shard's content is not what was written."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The arrays that shards have in common. Shards with the same arrays share one object."""

    arrays: tuple[tuple[str, str, int], ...]
    """Name, type and number of columns of each array, sorted by name."""

    @property
    def layers(self) -> frozenset[str]:
        """Return the names of the layers."""
        return frozenset(name for name, _, _ in self.arrays) - {HASHES, TOKENS}

    def columns(self, name: str) -> int:
        """Return the number of columns of an array."""
        return next(columns for array, _, columns in self.arrays if array == name)

    def bytes_per_text(self, name: str) -> int:
        """Return the bytes that an array takes for one text."""
        dtype = next(dtype for array, dtype, _ in self.arrays if array == name)
        return self.columns(name) * np.dtype(DTYPES[dtype]).itemsize


@cache
def _shared(arrays: tuple[tuple[str, str, int], ...]) -> Layout:
    return Layout(arrays)


@dataclass(frozen=True)
class Shard:
    """An immutable file of a store."""

    path: Path
    layout: Layout
    ends: tuple[int, ...]
    """For each part, the number of rows up to its end. A shard that was not merged has one part."""
    seconds: tuple[float, ...]
    """Duration of the forward pass of each part's texts."""

    @property
    def rows(self) -> int:
        """Return the number of texts."""
        return self.ends[-1]

    @property
    def layers(self) -> frozenset[str]:
        """Return the names of the layers."""
        return self.layout.layers

    def seconds_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the share of each row in the duration of its part. Shape: (rows,), float64."""
        ends = np.array(self.ends)
        each = np.array(self.seconds) / np.diff(ends, prepend=0)
        return each[np.searchsorted(ends, rows, side="right")]


@dataclass(frozen=True)
class Part:
    """What a merged shard keeps of a shard that it replaces."""

    rows: int
    seconds: float
    sums: Mapping[str, str]


# -- writing ------------------------------------------------------------------------------------


def write_shard(
    folder: Path, arrays: Mapping[str, np.ndarray], *, seconds: float, parts: Sequence[Part] = ()
) -> Shard:
    """Write one shard.

    Args:
        folder: folder of the store.
        arrays: the arrays. Shape: (texts, columns).
        seconds: duration of the forward pass.
        parts: the shards that this one replaces, in the order of the rows.

    Raises:
        UserError: if the disk is full.
    """
    metadata = {SECONDS: f"{seconds:.6f}", SUMS: json.dumps(_sums(arrays))}
    metadata[CHECKSUM] = _header_sum(metadata, folder.name)
    if parts:
        kept = {
            "rows": [part.rows for part in parts],
            "seconds": [part.seconds for part in parts],
            "sums": {name: "".join(part.sums[name] for part in parts) for name in arrays},
        }
        metadata[PARTS] = json.dumps(seal(kept))
    content = _serialised(arrays, metadata)
    digest = hashlib.sha256()
    for piece in content:
        digest.update(piece)
    path = folder / f"{digest.hexdigest()}.safetensors"
    write_atomically(path, *content)
    layout = tuple(sorted((name, _dtype_of(x), x.shape[1]) for name, x in arrays.items()))
    ends = tuple(accumulate(part.rows for part in parts)) or (len(arrays[HASHES]),)
    each = tuple(part.seconds for part in parts) or (float(metadata[SECONDS]),)
    return Shard(path, _shared(layout), ends, each)


def _serialised(
    arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> list[bytes | memoryview]:
    """Return the pieces of a safetensors file: its header, and the arrays as they lie in memory.

    The library would either copy all of it into one string, while no other thread can run, or
    write a file of its own that is neither locked nor synced. It also shuffles the metadata, so
    that the same vectors would have another checksum each time.
    """
    # The widest numbers come first, so that each array begins at a multiple of its numbers' size.
    names = sorted(arrays, key=lambda x: (-arrays[x].itemsize, _dtype_of(arrays[x]), x))
    ends = list(accumulate((arrays[name].nbytes for name in names), initial=0))
    header: dict[str, Any] = {HEADER: dict(metadata)}
    for name, (begin, end) in zip(names, pairwise(ends), strict=True):
        header[name] = {
            "dtype": _dtype_of(arrays[name]),
            "shape": list(arrays[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    pieces = [np.ascontiguousarray(arrays[name]).data for name in names]
    return [len(text).to_bytes(8, "little") + text, *pieces]


def _dtype_of(array: np.ndarray) -> str:
    """Return the name that a safetensors file has for the type of an array's numbers."""
    return next(name for name, dtype in DTYPES.items() if array.dtype == dtype)


# -- reading ------------------------------------------------------------------------------------


def open_shard(path: Path) -> tuple[Shard, np.ndarray]:
    """Read the layout and the text hashes of a shard, but not its vectors.

    A shard of an older version has no checksums of its arrays. All of it is compared with its name
    when vectors are read from it.

    Returns:
        The shard, and the hashes of its texts. Shape: (texts, 16), uint8.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedShard: if the file is damaged.
    """
    with damage_told(path), safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        sums = _checked_sums(metadata, path.parent.name)
        names = sorted(file.keys())
        if sums and sums.keys() != set(names):
            raise DamagedShard("it has other arrays than its header says")
        slices = {name: file.get_slice(name) for name in names}
        shapes = {name: part.get_shape() for name, part in slices.items()}
        layout = tuple((name, slices[name].get_dtype(), shapes[name][1]) for name in names)
        hashes = np.ascontiguousarray(file.get_tensor(HASHES))
        if sums and sum_of(hashes) != sums[HASHES]:
            raise DamagedShard(f"the checksum of {HASHES!r} differs")
        rows = len(hashes)
        if not {dtype for _, dtype, _ in layout} <= DTYPES.keys():
            raise DamagedShard("it has numbers of another type")
        if any(shape[0] != rows for shape in shapes.values()) or hashes.shape[1:] != (16,):
            raise DamagedShard("its arrays have different numbers of rows")
        ends, seconds = (rows,), (float(metadata[SECONDS]),)
        if PARTS in metadata:
            parts = _parts(metadata, rows)
            ends, seconds = tuple(accumulate(parts["rows"])), tuple(parts["seconds"])
    return Shard(path, _shared(layout), ends, seconds), hashes


class ShardReader:
    """The arrays of one shard, mapped into memory: only the rows that are asked for are read.

    Args:
        shard: the shard.
        trusted: true if all of a shard without checksums was compared with its name before.

    Raises:
        FileNotFoundError: if the file is gone.
        DamagedShard: if its header is damaged.
    """

    def __init__(self, shard: Shard, *, trusted: bool = False) -> None:
        self._shard = shard
        with damage_told(shard.path):
            with shard.path.open("rb") as file:
                self._header, offset = _header_of(file)
                # Changes would stay in memory; PyTorch takes only what can be written.
                mapped = mmap(file.fileno(), 0, access=ACCESS_COPY)
            self._content = np.frombuffer(mapped, np.uint8)[offset:]
            metadata = self._header.get(HEADER) or {}
            self._sums = _checked_sums(metadata, shard.path.parent.name)
            if not self._sums and not trusted and not is_whole(shard.path):
                raise DamagedShard("its content does not match its name")
            self._parts = self._sums
            if PARTS in metadata:
                self._parts = _parts(metadata, shard.rows)["sums"]

    @property
    def has_sums(self) -> bool:
        """Return false for a shard of an older version."""
        return bool(self._sums)

    def array(self, name: str) -> np.ndarray:
        """Return an array without reading or checking it. Shape: (rows, columns)."""
        with damage_told(self._shard.path):
            entry = self._header[name]
            start, stop = entry["data_offsets"]
            raw = self._content[start:stop].view(DTYPES[entry["dtype"]])
            values = raw.reshape(entry["shape"])
            if values.ndim != 2 or len(values) != self._shard.rows:
                raise DamagedShard(f"the shape of {name!r} differs")
            return values

    def part(self, name: str, number: int) -> tuple[np.ndarray, str]:
        """Return the rows of one part, and the checksum with which they were compared."""
        ends = self._shard.ends
        values = self.array(name)[ends[number - 1] if number else 0 : ends[number]]
        found = sum_of(values)
        with damage_told(self._shard.path):
            if self._parts and found != self._parts[name][DIGITS * number : DIGITS * (number + 1)]:
                raise DamagedShard(f"the checksum of {name!r} differs")
        return values, found

    def copy(self, name: str, rows: np.ndarray, into: np.ndarray, positions: np.ndarray) -> None:
        """Copy rows of an array, part by part.

        Args:
            name: the array.
            rows: numbers of the rows, ascending. Shape: (rows,).
            into: where they belong. It has at least the array's columns.
            positions: row of `into` for each of them. Shape: (rows,).

        Raises:
            DamagedShard: if a part is damaged.
        """
        ends = self._shard.ends
        edges = [0, *np.searchsorted(rows, ends).tolist()]
        for number, (begin, end) in enumerate(pairwise(edges)):
            if begin < end:
                values, _ = self.part(name, number)
                first = ends[number - 1] if number else 0
                _copy(values, rows[begin:end] - first, into, positions[begin:end])


def read_parts(
    shard: Shard, *, damaged: bool = False
) -> tuple[list[Part], dict[str, list[np.ndarray]]]:
    """Read and check all parts of a shard.

    Args:
        shard: the shard.
        damaged: pass over damaged parts, instead of raising an error.

    Returns:
        The parts, and for each array its rows by part.

    Raises:
        DamagedShard: if a part is damaged, or the header.
    """
    reader = ShardReader(shard)
    arrays: dict[str, list[np.ndarray]] = {name: [] for name, _, _ in shard.layout.arrays}
    parts = []
    for number, seconds in enumerate(shard.seconds):
        try:
            read = {name: reader.part(name, number) for name in arrays}
        except DamagedShard:
            if not damaged:
                raise
            continue
        for name, (values, _) in read.items():
            arrays[name].append(values)
        sums = {name: found for name, (_, found) in read.items()}
        parts.append(Part(len(read[HASHES][0]), seconds, sums))
    return parts, arrays


def merge(folder: Path, parts: Sequence[Part], arrays: Mapping[str, Sequence[np.ndarray]]) -> Shard:
    """Write parts, as `read_parts` returns them, to one shard."""
    whole = {name: np.concatenate(values) for name, values in arrays.items()}
    return write_shard(folder, whole, seconds=sum(part.seconds for part in parts), parts=parts)


def save_undamaged(path: Path) -> None:
    """Write the undamaged parts of a merged shard that is damaged elsewhere to another one."""
    try:
        shard, _ = open_shard(path)
        parts, arrays = read_parts(shard, damaged=True)
    except (DamagedShard, FileNotFoundError):
        return
    if 0 < len(parts) < len(shard.ends):
        merge(path.parent, parts, arrays)


def _copy(values: np.ndarray, rows: np.ndarray, into: np.ndarray, positions: np.ndarray) -> None:
    """Copy rows, a few at a time, and convert half precision fast."""
    step = max(1, COPIED // values.shape[1])
    columns = values.shape[1]
    half = values.dtype == np.float16
    for start in range(0, len(rows), step):
        taken, places = rows[start : start + step], positions[start : start + step]
        chosen = values[_range(taken)]
        where = _range(places)
        if not half:
            into[where, :columns] = chosen
            continue
        import torch  # numpy converts at half of the speed

        source = torch.from_numpy(chosen)
        if isinstance(where, slice):
            torch.from_numpy(into)[where, :columns].copy_(source)
        else:
            into[where, :columns] = source.float().numpy()


def _range(numbers: np.ndarray) -> slice | np.ndarray:
    """Return ascending numbers without a gap as a slice, and others as they are."""
    first, last = int(numbers[0]), int(numbers[-1])
    if last - first + 1 == len(numbers) and (numbers[1:] - numbers[:-1] == 1).all():
        return slice(first, last + 1)
    return numbers


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """Turn what reading a damaged file raises into `DamagedShard`."""
    if path.is_dir():
        raise DamagedShard("a folder lies in its place")
    try:
        yield
    except (SafetensorError, LookupError, TypeError, ValueError, OverflowError) as error:
        if not path.exists():
            raise FileNotFoundError(path) from error
        raise DamagedShard(" ".join(str(error).split())) from error


def _checked_sums(metadata: Mapping[str, str], store: str) -> dict[str, str]:
    """Return the checksum of each array; empty for a shard of an older version."""
    if metadata.keys() == {SECONDS}:
        return {}
    if metadata.keys() - {PARTS} != {SECONDS, SUMS, CHECKSUM}:
        raise DamagedShard("its header has other entries")
    if metadata[CHECKSUM] != _header_sum(metadata, store):
        raise DamagedShard("the checksum of its header differs")
    return json.loads(metadata[SUMS])


def _parts(metadata: Mapping[str, str], rows: int) -> dict[str, Any]:
    parts = unseal(json.loads(metadata[PARTS]))
    if sum(parts["rows"]) != rows or len(parts["rows"]) != len(parts["seconds"]):
        raise DamagedShard("its parts have another number of rows")
    return parts


def _sums(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: sum_of(array) for name, array in arrays.items()}


def sum_of(array: np.ndarray) -> str:
    """Compute the XXH3 checksum of an array's bytes, its type and its shape."""
    digest = xxhash.xxh3_128(f"{array.dtype} {array.shape}".encode())
    digest.update(array.data)
    return digest.hexdigest()


def _header_sum(metadata: Mapping[str, str], store: str) -> str:
    """Compute the checksum of a header and its store.

    With the store's name in it, no shard passes for one of another model.
    """
    return hash_of([store, metadata[SECONDS], metadata[SUMS]])


def read_header(path: Path) -> dict[str, Any]:
    """Read the JSON header of a safetensors file."""
    with path.open("rb") as file:
        return _header_of(file)[0]


def _header_of(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Read the header of an open safetensors file, and the offset of the arrays after it."""
    length = int.from_bytes(file.read(8), "little")
    return parse_json(file.read(length)), 8 + length


def is_whole(path: Path) -> bool:
    """Return true if the content of a shard still matches the checksum in its name."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == path.stem
