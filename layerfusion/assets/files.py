"""Writing files atomically, so that no reader ever sees half of one; and reading any JSON."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerfusion.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or a share of one, that has no space left."""
REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EFBIG,
)  # fmt: skip
"""Errors of a folder that cannot be written, or not by this user, or not to this size, or is no
folder."""

SHOWN_IN_ONE_LINE = {
    errno.EACCES,
    errno.EBUSY,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EIO,
    errno.EISDIR,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENFILE,
    errno.ENOLCK,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
}
"""Errors of the operating system that are shown as one line, without a traceback."""


class DiskError(UserError):
    """The disk is full, or a folder cannot be written; once it can, the same command goes on."""


def refuse_foreign(files: Iterable[Path], way_out: str) -> None:
    """Refuse to write over files that are not known to be of an earlier run.

    Args:
        files: what is about to be written, without what an earlier run has left.
        way_out: what the user can do besides moving the file.

    Raises:
        UserError: naming the first that exists.
    """
    for path in files:
        if path.exists() or path.is_symlink():
            raise UserError(
                f"{path}: it is there already, and not known as a file of LayerFusion's, so it is"
                f" not written over; move it elsewhere, or {way_out}"
            )


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`, which is renamed to `path` at the end.

    On an error it is removed. The content is on disk (fsync of file and folder) before the name
    appears. What killed writers of the same file have left is removed.

    Raises:
        DiskError: if the disk is full, the folder cannot be written, or a folder lies at `path`.
    """
    with disk_errors_told(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise DiskError(f"{path}: a folder lies where a file is written; move it elsewhere")
        remove_leftovers(path.parent, path.name)
        handle, temporary = _locked_temporary(path)
        try:
            yield temporary
            os.fsync(handle)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(handle)


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """Make a temporary file that is locked as long as its writer lives, and return its handle."""
    while True:
        temporary = _temporary_name(path)
        try:
            # The system takes from these rights what the user's mask or the folder says.
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # another process took it for a leftover before it was locked


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path` under a temporary name; what is left of it is removed.

    It has the rights that the user gives to new folders.
    """
    while True:
        folder = _temporary_name(path)
        try:
            folder.mkdir()
            break
        except FileExistsError:
            continue
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def give_rights(folder: Path) -> None:
    """Give all that is in a folder the rights of the folder itself; no file may be run.

    Some libraries write files that their owner alone can read.
    """
    rights = stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(rights if path.is_dir() else rights & 0o666)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove temporary files of killed writers: those that no living process has locked.

    Args:
        folder: the folder.
        name: the file that they were to become; None means any.
    """
    of = ".+" if name is None else re.escape(name)
    leftover = re.compile(rf"\.{of}\.[a-z0-9_]{{8}}\.tmp")
    for path in [Path(x.path) for x in os.scandir(folder) if leftover.fullmatch(x.name)]:
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            continue  # its writer has finished, it is another user's, or the disk is read-only
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except (BlockingIOError, PermissionError):
            continue  # its writer lives, or the folder cannot be written
        finally:
            os.close(handle)


def find_named(folder: Path, name: str) -> list[Path]:
    """Find everything of one name under a folder, in order, while others write and delete there.

    A folder that is gone before it is looked into is passed over; `Path.rglob` ends at it.
    """
    return sorted(
        Path(place, name)
        for place, folders, files in os.walk(folder)
        if name in folders or name in files
    )


def sync_folder(folder: Path) -> None:
    """Make the names inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Write a whole file or nothing.

    Args:
        path: the file.
        *content: its content, in pieces that follow each other.

    Raises:
        DiskError: as `temporary_beside` does.
    """
    with temporary_beside(path) as temporary, temporary.open("wb") as file:
        for piece in content:
            file.write(piece)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Parse JSON that anyone may have written.

    Args:
        text: the JSON.
        **options: of `json.loads`.

    Raises:
        ValueError: if it is no JSON, or nested more deeply than Python can follow.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@contextmanager
def disk_errors_told(folder: Path) -> Iterator[None]:
    """Turn the errors of a disk that is full or cannot be written into one line with its folder."""
    try:
        yield
    except OSError as error:
        if error.errno in (*FULL, *REFUSED):
            raise DiskError(_disk_error(error, folder)) from error
        raise


def is_shown_in_one_line(error: OSError) -> bool:
    """Tell whether an error of the operating system is one that a user can mend.

    A file that is missing would be a fault of ours, unless it is a link to nothing.
    """
    return error.errno in SHOWN_IN_ONE_LINE or _is_link_to_nothing(error, error.filename)


def _is_link_to_nothing(error: OSError, path: object) -> bool:
    return error.errno == errno.ENOENT and isinstance(path, str) and os.path.islink(path)


def in_one_line(error: OSError) -> str:
    """Say what an error of the operating system is about, with the file or its folder.

    A write that fails does not name its file. The libraries that we call hold it open, so it is
    looked up in the frames of the traceback.
    """
    path = error.filename2 or error.filename
    trace = error.__traceback__
    while trace is not None and path is None:
        opened = [x for x in trace.tb_frame.f_locals.values() if isinstance(x, io.IOBase)]
        names = [getattr(file, "name", None) for file in opened]
        path = next((name for name in names if isinstance(name, str)), None)
        trace = trace.tb_next
    if path is not None and error.errno in (*FULL, errno.EFBIG):
        return _disk_error(error, Path(os.fsdecode(path)).parent)
    if _is_link_to_nothing(error, path):
        return f"{path}: it is a link to nothing; remove it, or bring back its file"
    if path is not None and error.errno in (errno.ENOTDIR, errno.EEXIST):
        return _disk_error(error, Path(os.fsdecode(path)))
    return f"{f'{os.fsdecode(path)}: ' if path else ''}{error.strerror or error}"


def _disk_error(error: OSError, folder: Path) -> str:
    if error.errno in FULL:
        return str(disk_full(folder))
    for place in [*reversed(folder.parents), folder]:
        if os.path.lexists(place) and not place.is_dir():
            kind = "file" if place.exists() else "link to nothing"
            return f"{place}: a {kind} lies where a folder is needed; move it elsewhere"
    return f"{folder}: it cannot be written: {error.strerror}; choose another folder"


def disk_full(folder: Path) -> DiskError:
    """The error for a full disk."""
    return DiskError(
        f"no space left on the disk of {folder}; nothing that was finished is lost:"
        " free some space there, or choose another folder, and start again"
    )
