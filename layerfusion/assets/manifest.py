"""The list of files that lies beside a downloaded or converted folder, with a checksum of each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from layerfusion.assets.memo import read_facts, write_facts
from layerfusion.assets.paths import real_path
from layerfusion.errors import UserError

DEPTH = 4
"""Number of folders, from that of the files upwards, in which the list is looked for."""
SMALL = 32 * 2**20
"""Size in bytes up to which a file is read for its checksum whenever its folder is opened."""
PIECE = 2**22


def list_of(folder: Path) -> Path:
    """Return the path of a folder's list of files; folders of older versions have none."""
    return folder.with_name(f".{folder.name}.files.json")


def write_manifest(folder: Path, final: Path) -> None:
    """List every file of a folder with its size and checksum.

    Args:
        folder: the folder, while it is made.
        final: the folder once it is made, beside which the list lies.
    """
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, _sum(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_facts(list_of(final), files)


def require_whole(path: Path, key: str, *, weights: bool) -> None:
    """Check that files that this program or the hub's client has fetched are still as they were.

    Files without a known checksum, as a user's own, pass.

    Args:
        path: the folder that the files are read from, or the only file of one.
        key: config key, for messages.
        weights: read the large files too; otherwise only their sizes are compared.

    Raises:
        UserError: naming the file that has changed, and the folder to remove.
    """
    for place in [path, *path.parents][:DEPTH]:
        listed = list_of(place) if place.name else None
        if listed is not None and listed.exists():
            files = read_facts(listed, "list of files")
            changed = [listed] if files is None else list(_changed(place, files, weights))
            if changed:
                raise UserError(
                    f"{key}: {changed[0]} has changed since it was fetched, or is damaged; remove"
                    f" the folder {place}, and the same command fetches it again"
                )
            return
    for file in sorted(path.glob("*")) if path.is_dir() and weights else []:
        if not _is_its_blob(file):
            raise UserError(
                f"{key}: {real_path(file)} has changed since it was downloaded, or is damaged;"
                " remove it, and the same command downloads it again"
            )


def _changed(folder: Path, files: dict[str, Any], weights: bool) -> Iterator[Path]:
    for name, (size, checksum) in files.items():
        path = folder / name
        looked_at = weights or size <= SMALL
        if (
            not path.is_file()
            or path.stat().st_size != size
            or (looked_at and _sum(path) != checksum)
        ):
            yield path


def _is_its_blob(file: Path) -> bool:
    """Compare a file with the hash that names it in the cache of the hub's client.

    Large files are named by their sha256, small ones by the sha1 of a blob of Git.
    """
    blob = real_path(file)
    if not file.is_symlink() or not blob.is_file() or blob.parent.name != "blobs":
        return True
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        with blob.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == blob.name
    if re.fullmatch(r"[0-9a-f]{40}", blob.name):
        content = blob.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == blob.name
    return True


def _sum(path: Path) -> str:
    """Compute the XXH3 checksum of a file, which costs less than reading it."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
