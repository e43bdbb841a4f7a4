"""Remove stores that are old or too many, and write the vectors of one to a file."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerfusion.assets.files import disk_errors_told, temporary_beside
from layerfusion.embeddings.compact import LOCK
from layerfusion.embeddings.inspect import SHARD, is_store, stores
from layerfusion.embeddings.latency import LATENCY_FILES
from layerfusion.embeddings.shards import DamagedShard, Shard, open_shard
from layerfusion.embeddings.store import (
    ATTEMPTS,
    FILLING,
    SHAPE_FILE,
    SPEC_FILE,
    EmbeddingStore,
    spec_of,
)
from layerfusion.embeddings.usage import USED, alone, last_used, names_of
from layerfusion.errors import UserError, unknown

ROWS_AT_ONCE = 4096
"""Texts whose vectors are in memory at a time."""

_OWN = re.compile(
    rf"{SHARD.pattern}|{LATENCY_FILES.pattern}|\..+\.tmp|"
    + "|".join(map(re.escape, (SPEC_FILE, SHAPE_FILE, LOCK, FILLING)))
)
"""Names of the files of a store, but for the one that its users lock."""


@dataclass(frozen=True)
class Old:
    """A store that is to go."""

    folder: Path
    size: int
    """Bytes."""
    unused_days: float
    why: str


def chosen_stores(
    cache: Path, *, days: float | None, most_bytes: int | None, spec: str | None
) -> list[Old]:
    """Choose the stores to remove: those that one of `days`, `most_bytes` and `spec` names.

    Args:
        cache: folder of the cache.
        days: those that nobody has used for so many days.
        most_bytes: remove the stores used longest ago until those that stay take at most so many
            bytes; with `spec`, only stores that match it are counted.
        spec: only those whose hash begins so, or whose model was called so.

    Raises:
        UserError: if there is no such cache or spec.
    """
    every = stores(cache)
    if spec is not None:
        every = [one for one in every if one.name.startswith(spec) or spec in names_of(one)]
        if not every:
            raise unknown(f"{cache}: --spec", spec, [one.name for one in stores(cache)])
    now = time.time()
    age = {folder: (now - last_used(folder)) / 86400 for folder in every}
    sizes = {folder: _size(folder) for folder in every}
    found: dict[Path, str] = {}
    if days is not None:
        found |= {one: f"unused for {age[one]:.1f} days" for one in every if age[one] >= days}
    if most_bytes is not None:
        left = sum(size for folder, size in sizes.items() if folder not in found)
        for folder in sorted(every, key=lambda one: -age[one]):
            if left > most_bytes and folder not in found:
                found[folder] = f"used longest ago, {age[folder]:.1f} days"
                left -= sizes[folder]
    if days is None and most_bytes is None:
        found = dict.fromkeys(every, "named by --spec")
    return [Old(folder, sizes[folder], age[folder], why) for folder, why in found.items()]


def remove_store(folder: Path) -> bool:
    """Remove a store; False where a process has it open, or opens it just now.

    What is not a file of the store, such as a note that a user has put there, stays.

    Raises:
        UserError: for a folder that is no store.
    """
    if not is_store(folder):
        raise UserError(f"{folder}: it is no store of embeddings, so it is not removed")
    with disk_errors_told(folder), alone(folder) as is_free:
        if is_free:
            for path in folder.iterdir():
                if _OWN.fullmatch(path.name) and (path.is_symlink() or not path.is_dir()):
                    path.unlink(missing_ok=True)
            (folder / USED).unlink()
            with suppress(OSError):  # it holds a file of the user's, or of a process that waited
                folder.rmdir()
        return is_free


def _size(folder: Path) -> int:
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # it was merged meanwhile
            size += path.stat().st_size if path.is_file() else 0
    return size


def bytes_in(text: str) -> int:
    """Read a number of bytes such as `500MB` or `10GB`.

    Raises:
        UserError: for anything else.
    """
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise UserError(f"--most {text}: a size is needed, such as 500MB or 10GB")
    return int(float(match[1]) * units[match[2]])


def days_in(text: str) -> float:
    """Read a time such as `30d`, `12h` or, in days, `30`.

    Raises:
        UserError: for anything else.
    """
    units = {"": 1.0, "d": 1.0, "h": 1 / 24, "w": 7.0}
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([dhw]?)", text.strip().lower())
    if match is None:
        raise UserError(f"--unused {text}: a time is needed, such as 30d or 12h")
    return float(match[1]) * units[match[2]]


# -- export ---------------------------------------------------------------------------------------


def export_store(cache: Path, name: str, out: Path, layers: Sequence[str]) -> int:
    """Write the vectors of a store to a file.

    Args:
        cache: folder of the cache.
        name: hash of the store, or as many of its first digits as tell it from others; or the name
            of its model, if that has one store.
        out: `.parquet`: the hash of each text, and a column of vectors for each layer, which is
            named after it. `.npy`: an array, shape (texts, layers, width), float32; the hashes are
            in `OUT.texts.txt` beside it, one a line.
        layers: which ones; empty for all that every text has.

    Returns:
        Number of texts.

    Raises:
        UserError: for a store or layer that does not exist, another suffix, or a file that does.
    """
    if out.suffix not in (".parquet", ".npy"):
        raise unknown(f"{out}: suffix", out.suffix, (".parquet", ".npy"))
    for file in (out, *([_names_beside(out)] if out.suffix == ".npy" else ())):
        if file.exists():
            raise UserError(f"{file}: it is there already; remove it, or name another file")
    found = [one for one in stores(cache) if one.name.startswith(name) or name in names_of(one)]
    if not found:
        raise unknown(f"{cache}: store", name, [folder.name for folder in stores(cache)])
    if len(found) > 1:
        raise UserError(
            f"{cache}: {name!r} fits several stores: {', '.join(one.name for one in found)}; give"
            " more digits"
        )
    folder = found[0]
    known: dict[bytes, set[str]] = {}
    every: set[str] = set()
    for shard, hashes in _open_all(folder):
        every |= shard.layers
        for text in hashes:
            known.setdefault(text.tobytes(), set()).update(shard.layers)
    wanted = sorted(every, key=lambda x: (not x.isdecimal(), x.zfill(6)))
    for layer in layers:
        if layer not in every:
            raise unknown(f"{folder}: layer", layer, wanted)
    if not layers:
        wanted = [x for x in wanted if all(x in here for here in known.values())]
    else:
        wanted = list(layers)
    texts = sorted(text for text, here in known.items() if here >= set(wanted))
    if not texts or not wanted:
        raise UserError(f"{folder}: no text has all of these layers; name fewer with --layers")
    store = EmbeddingStore(folder.parent, spec_of(folder))
    write = _write_parquet if out.suffix == ".parquet" else _write_array
    write(store, texts, wanted, out)
    return len(texts)


def _open_all(folder: Path) -> list[tuple[Shard, np.ndarray]]:
    """Open every shard of a store. Those that are merged meanwhile are looked for again."""
    for _ in range(ATTEMPTS):
        with suppress(FileNotFoundError):
            return [_open(path) for path in sorted(folder.glob("*.safetensors"))]
    raise UserError(f"{folder}: other processes are changing it; when they have ended, start again")


def _open(path: Path) -> tuple[Shard, np.ndarray]:
    try:
        return open_shard(path)
    except DamagedShard as error:
        raise UserError(f"{path}: it is damaged; layerfusion cache verify --repair") from error


def _write_parquet(
    store: EmbeddingStore, texts: Sequence[bytes], layers: Sequence[str], out: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = store.read(texts[:1], layers[:1])[layers[0]].shape[1]
    vectors = pa.list_(pa.float32(), width)
    schema = pa.schema([("text", pa.string()), *((layer, vectors) for layer in layers)])
    with temporary_beside(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for start in range(0, len(texts), ROWS_AT_ONCE):
            part = texts[start : start + ROWS_AT_ONCE]
            values = store.read(part, layers)
            columns = [pa.array([text.hex() for text in part])]
            columns += [
                pa.FixedSizeListArray.from_arrays(values[layer].reshape(-1), width)
                for layer in layers
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _names_beside(out: Path) -> Path:
    """Name the file with the hashes of the texts of an array."""
    return out.with_name(f"{out.name}.texts.txt")


def _write_array(
    store: EmbeddingStore, texts: Sequence[bytes], layers: Sequence[str], out: Path
) -> None:
    width = store.read(texts[:1], layers[:1])[layers[0]].shape[1]
    shape = (len(texts), len(layers), width)
    with temporary_beside(out) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.dtype(np.float32), shape)
        for start in range(0, len(texts), ROWS_AT_ONCE):
            part = texts[start : start + ROWS_AT_ONCE]
            values = store.read(part, layers)
            for place, layer in enumerate(layers):
                array[start : start + len(part), place] = values[layer]
        array.flush()
    with temporary_beside(_names_beside(out)) as temporary:
        temporary.write_text("".join(f"{text.hex()}\n" for text in texts), encoding="utf-8")
