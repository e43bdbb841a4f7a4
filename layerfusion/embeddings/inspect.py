"""List the stores of a cache and check that their files are undamaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from layerfusion.embeddings.source import EMBEDDINGS
from layerfusion.embeddings.store import (
    SPEC_FILE,
    DamagedShard,
    is_whole,
    open_shard,
    read_description,
)
from layerfusion.errors import UserError


def stores(cache: Path) -> list[Path]:
    """List the folders of all stores of a cache.

    Raises:
        UserError: if there is no such cache.
    """
    root = cache / EMBEDDINGS
    if not root.is_dir():
        raise UserError(f"{cache}: no embeddings are cached there (paths.cache=FOLDER chooses)")
    return sorted(path.parent for path in root.glob(f"*/{SPEC_FILE}"))


def list_stores(cache: Path) -> Iterator[str]:
    """Describe each store in one line: its hash, size, contents and spec."""
    for folder in stores(cache):
        spec = read_description(folder)["spec"]
        shards, damaged = [], 0
        for path in sorted(folder.glob("*.safetensors")):
            try:
                shards.append(open_shard(path))
            except DamagedShard:
                damaged += 1
        texts = {text for shard in shards for text in shard.hashes}
        layers = {layer for shard in shards for layer in shard.layers}
        size = sum(shard.path.stat().st_size for shard in shards)
        yield (
            f"{folder.name}  {size / 1e6:8.1f} MB  {len(texts):7d} texts  {len(layers):3d} layers"
            f"  {len(shards):4d} shards  {spec['pool']}, {spec['dtype']}, max_length"
            f" {spec['max_length']}, model {spec['model'][:24]}"
            + (f"  {damaged} damaged: layerfusion cache verify" if damaged else "")
        )


def verify_stores(cache: Path, *, delete: bool) -> int:
    """Compare the content of every shard with the checksum that names the file.

    Args:
        cache: folder of the cache.
        delete: remove damaged shards; their texts are computed again when they are next needed.

    Returns:
        0 if all shards are undamaged or the damaged ones were removed, else 1.
    """
    shards = [path for folder in stores(cache) for path in sorted(folder.glob("*.safetensors"))]
    damaged = [path for path in shards if not is_whole(path)]
    for path in damaged:
        if delete:
            path.unlink()
        print(f"{'removed' if delete else 'damaged'}: {path}")
    print(f"{len(shards)} shards read, {len(damaged)} damaged")
    return 1 if damaged and not delete else 0
