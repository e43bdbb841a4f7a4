"""Safe unpacking: no member is written outside the folder, and no pickle is written at all."""

from __future__ import annotations

import logging
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath

from layerfusion.errors import UserError

log = logging.getLogger(__name__)

PICKLES = (
    ".bin",
    ".ckpt",
    ".dill",
    ".joblib",
    ".npy",
    ".npz",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
)
"""Suffixes of files that may run code when they are loaded."""
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError),
    *(FileExistsError, NotADirectoryError, IsADirectoryError),  # one name for a file and a folder
)
"""Errors that a member causes which is damaged, encrypted or there twice."""
_GLOB = "*?["
"""Characters that make a path a pattern."""


def is_pickle(name: str) -> bool:
    """Return true for the name of a file that may run code when it is loaded."""
    return PurePosixPath(name).suffix.lower() in PICKLES


def unpack(archive: Path, folder: Path, *, key: str, inside: str | None = None) -> list[Path]:
    """Unpack the wanted members of a zip into a folder; pickles are left out.

    Args:
        archive: the zip or wheel.
        folder: target folder; the folders that `inside` names are not repeated in it.
        key: config key, for messages.
        inside: a folder, file or glob in the archive; if none, all but a wheel's own metadata.

    Returns:
        The files written.

    Raises:
        UserError: if the archive is broken, a member would leave the folder or is a link, nothing
            matches, or only pickles do.
    """
    with _opened(archive, key) as opened:
        members = wanted_members(opened, archive.name, key=key, inside=inside)
        base = _base(inside, opened)
        written: list[Path] = []
        refused: list[str] = []
        for member in members:
            if is_pickle(member.filename):
                refused.append(member.filename)
                continue
            target = folder / PurePosixPath(member.filename).relative_to(base)
            _copy(opened, member, target, key)
            written.append(target)
    if refused and not written:
        raise UserError(
            f"{key}: {archive.name} holds pickles only ({', '.join(refused)}), which may run code:"
            " refused; safetensors or gguf are allowed"
        )
    if refused:
        log.info("%s: left out of %s, as pickles: %s", key, archive.name, ", ".join(refused))
    return written


def join(archives: Sequence[Path], target: Path, *, key: str, inside: str | None) -> None:
    """Concatenate the wanted members of several archives, in order, to one file.

    Raises:
        UserError: as for `unpack`.
    """
    if is_pickle(target.name):
        raise UserError(f"{key}: join={target.name} is a pickle, which may run code: refused")
    with target.open("wb") as output:
        for archive in archives:
            with _opened(archive, key) as opened:
                for member in wanted_members(opened, archive.name, key=key, inside=inside):
                    with opened.open(member) as part:
                        shutil.copyfileobj(part, output, 1 << 20)


def wanted_members(
    opened: zipfile.ZipFile, name: str, *, key: str, inside: str | None
) -> list[zipfile.ZipInfo]:
    """Check every member of an archive, and list those that `inside` selects, by name."""
    for member in opened.infolist():
        _refuse_unsafe(member, name, key)
    files = sorted(
        (member for member in opened.infolist() if not member.is_dir()),
        key=lambda member: member.filename,
    )
    wanted = [member for member in files if _matches(member.filename, inside)]
    if not wanted:
        shown = ", ".join(member.filename for member in files[:8]) or "nothing"
        raise UserError(f"{key}: {name} has no member inside={inside}; it holds {shown}")
    return wanted


def _matches(name: str, inside: str | None) -> bool:
    if inside is None:
        return not PurePosixPath(name).parts[0].endswith(".dist-info")
    wanted = inside.rstrip("/")
    return name == wanted or name.startswith(f"{wanted}/") or fnmatchcase(name, wanted)


def _base(inside: str | None, opened: zipfile.ZipFile) -> PurePosixPath:
    """The folder in the archive that unpacked paths are relative to."""
    if inside is None:
        return PurePosixPath()
    path = PurePosixPath(inside)
    for number, part in enumerate(path.parts):
        if any(sign in part for sign in _GLOB):
            return PurePosixPath(*path.parts[:number])
    return path.parent if inside in opened.namelist() and not inside.endswith("/") else path


def _refuse_unsafe(member: zipfile.ZipInfo, archive: str, key: str) -> None:
    name = member.filename
    path = PurePosixPath(name)
    windows = PureWindowsPath(name)
    leaves = path.is_absolute() or windows.drive or "\\" in name or ".." in path.parts
    if leaves or not path.parts:
        raise UserError(f"{key}: {archive} has a member that would leave its folder: {name!r}")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UserError(f"{key}: {archive} has a member that is not a plain file: {name!r}")


def _opened(archive: Path, key: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise UserError(f"{key}: {archive.name} is not a readable zip: {error}") from error


def _copy(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, key: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(member) as source, target.open("xb") as output:
            shutil.copyfileobj(source, output, 1 << 20)
    except _BROKEN as error:
        name = Path(opened.filename or "").name
        raise UserError(f"{key}: {member.filename} in {name} is broken: {error}") from error
