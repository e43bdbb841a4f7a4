"""`layerfusion cache`: look after the cached embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerfusion.commands.arguments import ArgumentParser
from layerfusion.errors import unknown


def main(arguments: Sequence[str]) -> int:
    """List the stores, or compare their shards with the checksums."""
    from layerfusion.config.job import PathsConfig
    from layerfusion.embeddings.inspect import list_stores, verify_stores

    parser = ArgumentParser(
        "layerfusion cache",
        description="ls: what is cached; verify: compare every shard with its checksum.",
    )
    parser.add_argument("action", metavar="ls|verify")
    parser.add_argument("folder", nargs="?", default=PathsConfig().cache, metavar="FOLDER")
    parser.add_argument("--delete", action="store_true", help="remove the shards that are damaged")
    options = parser.parse_args(arguments)
    if options.action not in ("ls", "verify"):
        raise unknown("layerfusion cache", options.action, ("ls", "verify [--delete]"))
    if options.action == "ls":
        for line in list_stores(Path(options.folder)):
            print(line)
        return 0
    return verify_stores(Path(options.folder), delete=options.delete)
