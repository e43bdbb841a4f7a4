"""List the stores of a cache and check that their files are undamaged."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from layerfusion.config.job import FLOAT16, FLOAT32
from layerfusion.embeddings.cache_key import ROUNDED
from layerfusion.embeddings.index import HashIndex
from layerfusion.embeddings.shards import DamagedShard, is_whole, open_shard, save_undamaged
from layerfusion.embeddings.source import EMBEDDINGS
from layerfusion.embeddings.store import SPEC_FILE, spec_of
from layerfusion.embeddings.usage import last_used, names_of
from layerfusion.errors import UserError

SHARD = re.compile(r"[0-9a-f]{64}\.safetensors")
"""Name of a shard."""


def is_store(folder: Path) -> bool:
    """Tell a store, whole or damaged, from what else lies beside it, such as a user's own folder.

    A link is none, since what it leads to lies elsewhere.
    """
    if folder.is_symlink() or not folder.is_dir() or not re.fullmatch("[0-9a-f]{16}", folder.name):
        return False
    return any(path.name == SPEC_FILE or SHARD.fullmatch(path.name) for path in folder.iterdir())


def stores(cache: Path) -> list[Path]:
    """List the folders of all stores of a cache, and no other folders.

    Raises:
        UserError: if there is no such cache.
    """
    root = cache / EMBEDDINGS
    if not root.is_dir():
        raise UserError(f"{cache}: no embeddings are cached there (paths.cache=FOLDER chooses)")
    return sorted(path for path in root.iterdir() if is_store(path))


def list_stores(cache: Path) -> Iterator[str]:
    """Describe each store in one line: its hash, size, contents and spec."""
    for folder in stores(cache):
        layers: set[str] = set()
        index, shards, size, damaged = HashIndex(), 0, 0, 0
        for path in sorted(folder.glob("*.safetensors")):
            try:
                shard, hashes = open_shard(path)
                size += path.stat().st_size
            except DamagedShard:
                damaged += 1
                continue
            except FileNotFoundError:
                continue  # a job beside us has found it damaged, or has merged it
            index.add([(shards, hashes)])
            layers |= shard.layers
            shards += 1
        texts = index.count(np.ones(shards, bool))
        days = (time.time() - last_used(folder)) / 86400
        used = "used today" if days < 1 else f"unused for {days:.0f} days"
        names = "".join(f"{name}, " for name in names_of(folder)[:3])
        yield (
            f"{folder.name}  {size / 1e6:8.1f} MB  {texts:7d} texts  {len(layers):3d} layers"
            f"  {shards:4d} shards  {used}  {names}{_described(folder)}"
            + (f"  {damaged} damaged: layerfusion cache verify" if damaged else "")
        )


def _described(folder: Path) -> str:
    """Describe the spec of a store, or say why it cannot be read."""
    try:
        spec = spec_of(folder)
    except UserError as error:
        return str(error)
    kept = f" kept as {FLOAT16}" if spec.store_dtype == ROUNDED and spec.dtype == FLOAT32 else ""
    return f"{spec.pool}, {spec.dtype}{kept}, max_length {spec.max_length}, model {spec.model[:24]}"


def _opens(path: Path) -> bool:
    """Tell whether jobs read a shard; not one that was copied from another store, for example."""
    try:
        open_shard(path)
    except DamagedShard:
        return False
    return True


def verify_stores(cache: Path, *, delete: bool) -> int:
    """Compare the content of every shard with the checksum that names the file, and open it.

    Args:
        cache: folder of the cache.
        delete: remove damaged shards; their texts are computed again when they are next needed.

    Returns:
        0 if all shards are undamaged or the damaged ones were removed, else 1.
    """
    read = damaged = left = 0
    for path in [path for folder in stores(cache) for path in sorted(folder.glob("*.safetensors"))]:
        if path.is_file():
            try:
                whole = is_whole(path) and _opens(path)
            except FileNotFoundError:
                continue  # a job beside us has found it damaged
        elif path.is_symlink() or path.is_dir():
            whole = False
        else:
            continue
        read += 1
        if whole:
            continue
        damaged += 1
        if path.is_dir():
            print(f"damaged: {path} is a folder; move it elsewhere")
        elif delete:
            save_undamaged(path)
            path.unlink(missing_ok=True)
            print(f"removed: {path}")
            continue
        else:
            print(f"damaged: {path}")
        left += 1
    print(f"{read} shards read, {damaged} damaged")
    return 1 if left else 0
