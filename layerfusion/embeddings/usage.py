"""Which processes use a store, when it was last used, and by which names its model was called.

Every process that has a store open holds a shared lock on its file `.used`; the file's time is that
of the last opening, and its lines name the model. Whoever removes a store first takes the lock for
itself, so that no store goes that a process has open.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

USED = ".used"
"""File of a store that its users have locked."""
MOST_NAMES = 4096
"""Bytes of names that are read."""


def hold(folder: Path, user: object) -> None:
    """Keep a store from being removed as long as an object lives, and note that it is used now.

    On a disk where nothing can be written or locked, nothing is noted.

    Args:
        folder: the store.
        user: the lock is given up once this object is gone.
    """
    with suppress(OSError):
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                handle = _open(folder / USED)
            except FileNotFoundError:  # the folder was removed in between
                continue
            fcntl.flock(handle, fcntl.LOCK_SH)
            if os.fstat(handle).st_nlink:
                break
            os.close(handle)  # it was removed while we waited
        weakref.finalize(user, os.close, handle)
        os.utime(handle)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def note_name(folder: Path, name: str) -> None:
    """Note what the model of a store is called, unless it is noted already."""
    with suppress(OSError):
        if name not in names_of(folder):
            with (folder / USED).open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")


def names_of(folder: Path) -> list[str]:
    """The names by which the model of a store was called."""
    try:
        with (folder / USED).open(encoding="utf-8", errors="replace") as file:
            return [line for line in file.read(MOST_NAMES).splitlines() if line.isprintable()]
    except OSError:
        return []


def last_used(folder: Path) -> float:
    """When a store was last opened, in seconds since 1970; older ones: last written."""
    times = [folder.stat().st_mtime]
    with suppress(OSError):
        times = [(folder / USED).stat().st_mtime]
    return max(times)


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Lock a store against all users; the value is False where a process has it open."""
    handle = _open(folder / USED)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)
