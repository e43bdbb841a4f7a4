"""Folders whose own lists say which of their files count: those of table formats and of the hub."""

from __future__ import annotations

from pathlib import Path

from layerfusion.config.options import as_option
from layerfusion.errors import UserError

_LOGS = {
    "_delta_log": "a table of Delta Lake",
    ".hoodie": "a table of Hudi",
    "_versions": "a table of Lance",
}
"""The folder in which a format keeps its list, to what the folder beside it is."""
_ICEBERG = "metadata/*.metadata.json"


def refuse_managed(folder: Path) -> None:
    """Refuse a folder in which rows that were removed may lie beside those that count.

    Raises:
        UserError: saying what it is, and what to do.
    """
    above = folder.parent
    logs = [kind for name, kind in _LOGS.items() if (folder / name).is_dir()]
    if any(folder.glob(_ICEBERG)) or (folder.name == "data" and any(above.glob(_ICEBERG))):
        logs.append("a table of Iceberg")
    if logs:
        raise UserError(
            f"{folder}: it is {logs[0]}, whose own list says which of its files count, as others"
            " may hold rows that were removed; read it by its own library, and write its rows to"
            " one parquet file"
        )
    snapshots = folder / "snapshots"
    if (folder / "blobs").is_dir() and snapshots.is_dir():
        ways = [as_option("dataset.path", str(one)) for one in sorted(snapshots.iterdir())][:3]
        raise UserError(
            f"{folder}: it is kept by the hub's client, which has the files of each commit in a"
            f" folder of their own{'; ' if ways else ''}{' or '.join(ways)}"
        )
