"""`layerfusion cache`: look after the cached embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerfusion.commands.arguments import ArgumentParser
from layerfusion.errors import unknown


def main(arguments: Sequence[str]) -> int:
    """List the stores, compare their shards with the checksums, or merge small shards."""
    from layerfusion.config.job import PathsConfig
    from layerfusion.embeddings.compact import Compaction, compact
    from layerfusion.embeddings.inspect import list_stores, stores, verify_stores

    parser = ArgumentParser(
        "layerfusion cache",
        description="ls: what is cached; verify: compare every shard with its checksum;"
        " compact: merge small shards into large ones, also while jobs run.",
    )
    parser.add_argument("action", metavar="ls|verify|compact")
    parser.add_argument("folder", nargs="?", default=PathsConfig().cache, metavar="FOLDER")
    parser.add_argument("--delete", action="store_true", help="remove the shards that are damaged")
    options = parser.parse_args(arguments)
    if options.action not in ("ls", "verify", "compact"):
        raise unknown("layerfusion cache", options.action, ("ls", "verify [--delete]", "compact"))
    if options.action == "ls":
        for line in list_stores(Path(options.folder)):
            print(line)
        return 0
    if options.action == "compact":
        print(sum(map(compact, stores(Path(options.folder))), Compaction()))
        return 0
    return verify_stores(Path(options.folder), delete=options.delete)
