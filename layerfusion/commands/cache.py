"""`layerfusion cache`: look after the cached embeddings."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from layerfusion.commands.arguments import ArgumentParser
from layerfusion.errors import UserError, unknown

OPTIONS = {
    "ls": (),
    "verify": ("repair", "delete"),
    "compact": (),
    "gc": ("delete", "unused", "most", "spec"),
    "export": ("layers",),
}
"""Options of each action, beside the folder."""
ACTIONS = tuple(OPTIONS)
_DESCRIPTION = """\
ls: what is cached, how large it is and when it was last used;
verify: compare every shard with its checksum;
compact: merge small shards into large ones, also while jobs run;
gc: list the stores to remove, and with --delete remove those that no process has open;
export STORE OUT: write the vectors of a store to a .parquet or .npy file."""


def main(arguments: Sequence[str]) -> int:
    """List, check, merge, remove or export the stores of a cache."""
    from layerfusion.config.job import PathsConfig

    options = _parser(PathsConfig().cache).parse_args(arguments)
    if options.action not in ACTIONS:
        raise unknown("layerfusion cache", options.action, ACTIONS)
    for name in dict.fromkeys(name for names in OPTIONS.values() for name in names):
        if getattr(options, name) not in (None, False) and name not in OPTIONS[options.action]:
            fitting = " and ".join(action for action in ACTIONS if name in OPTIONS[action])
            raise UserError(f"cache {options.action}: --{name} is an option of {fitting}")
    if options.action == "export":
        return _export(options)
    if len(options.words) > 1:
        raise UserError(f"cache {options.action}: one folder is needed, found {options.words}")
    from layerfusion.embeddings.compact import Compaction, compact
    from layerfusion.embeddings.inspect import list_stores, stores, verify_stores

    folder = Path(options.words[0] if options.words else options.cache)
    if options.action == "gc":
        return _collect(folder, options)
    if options.action == "ls":
        for line in list_stores(folder):
            print(line)
        return 0
    if options.action == "compact":
        print(sum(map(compact, stores(folder)), Compaction()))
        return 0
    return verify_stores(folder, delete=options.delete or options.repair)


def _parser(cache: str) -> ArgumentParser:
    parser = ArgumentParser("layerfusion cache", description=_DESCRIPTION)
    parser.add_argument("action", metavar="|".join(ACTIONS))
    parser.add_argument(
        "words", nargs="*", metavar="FOLDER", help=f"of the cache; {cache} without it"
    )
    parser.add_argument("--cache", default=cache, metavar="FOLDER", help="the same, for export")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="verify: remove damaged shards; what is whole in them is kept, the next job computes"
        " the rest",
    )
    parser.add_argument("--delete", action="store_true", help="gc: remove; verify: as --repair")
    parser.add_argument(
        "--unused", metavar="TIME", help="gc: stores that were not used for 30d, 12h, …"
    )
    parser.add_argument(
        "--most",
        metavar="SIZE",
        help="gc: remove stores, longest unused first, until at most this much (10GB, 500MB) is"
        " left",
    )
    parser.add_argument("--spec", metavar="SPEC", help="gc: of this store or model, as ls shows it")
    parser.add_argument(
        "--layers", metavar="LAYERS", help="export: 4,norm, …; without it, all that are there"
    )
    return parser


def _collect(folder: Path, options: Namespace) -> int:
    """List the stores to remove, and remove them if that is asked for."""
    from layerfusion.embeddings.collect import bytes_in, chosen_stores, days_in, remove_store

    if not (options.unused or options.most or options.spec):
        raise UserError(
            "cache gc: say which stores, by --unused 30d, --most 10GB or --spec SPEC; without"
            " --delete nothing is removed"
        )
    found = chosen_stores(
        folder,
        days=days_in(options.unused) if options.unused else None,
        most_bytes=bytes_in(options.most) if options.most else None,
        spec=options.spec,
    )
    removed = freed = 0
    for store in found:
        gone = options.delete and remove_store(store.folder)
        done = "removed" if gone else "in use, kept" if options.delete else "would be removed"
        print(f"{store.folder.name}  {store.size / 1e6:8.1f} MB  {store.why}: {done}")
        if gone or not options.delete:
            removed, freed = removed + 1, freed + store.size
    would = "" if options.delete else "would be "
    more = "" if options.delete or not found else "; --delete removes them"
    stores = "1 store" if removed == 1 else f"{removed} stores"
    print(f"{stores}, {freed / 1e6:.1f} MB {would}removed{more}")
    return 0


def _export(options: Namespace) -> int:
    from layerfusion.embeddings.collect import export_store

    if len(options.words) != 2:
        raise UserError(
            "cache export: STORE and OUT are needed, such as `layerfusion cache export 82210fc4"
            " vectors.parquet`; layerfusion cache ls names the stores"
        )
    store, out = options.words
    layers = options.layers.split(",") if options.layers else []
    texts = export_store(Path(options.cache), store, Path(out), layers)
    print(f"{texts} texts: {out}")
    return 0
