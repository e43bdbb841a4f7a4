"""Building a folder once: under a lock and a temporary name, and renamed when it is complete."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from layerfusion.assets.files import (
    disk_errors_told,
    folder_beside,
    give_rights,
    sync_folder,
)
from layerfusion.assets.manifest import write_manifest
from layerfusion.errors import UserError

log = logging.getLogger(__name__)


def build_once(final: Path, build: Callable[[Path], Path]) -> Path:
    """Make the folder `final` unless it exists; other processes may try the same at once.

    Args:
        final: the folder to make. If it exists, it is complete and returned immediately.
        build: fills the empty folder that it is given, and returns the part of it that becomes
            `final`.

    Raises:
        UserError: if the disk is full or the folder cannot be written.
    """
    if final.is_dir():
        return final
    with disk_errors_told(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        with _locked(final):
            if final.is_dir():  # another process made it while we waited
                return final
            for leftover in final.parent.glob(f".{final.name}.*.tmp"):
                shutil.rmtree(leftover, ignore_errors=True)  # left by a killed process
            with folder_beside(final) as staging:
                ready = build(staging)
                give_rights(staging)
                write_manifest(ready, final)
                _sync_tree(ready)
                ready.rename(final)
                sync_folder(final.parent)
    return final


def write_new_folder(final: Path, build: Callable[[Path], None]) -> None:
    """Write a folder that is not there yet: under a temporary name, renamed when it is complete.

    Args:
        final: the folder. It may exist if it is empty.
        build: fills the empty folder that it is given.

    Raises:
        UserError: if the folder holds files, the disk is full or the folder cannot be written.
    """
    with disk_errors_told(final.parent):
        if final.is_symlink() or (final.exists() and not _is_empty(final)):
            raise UserError(f"{final}: there is something already; choose a new folder")
        final.parent.mkdir(parents=True, exist_ok=True)
        with folder_beside(final) as staging:
            build(staging)
            give_rights(staging)
            _sync_tree(staging)
            try:
                staging.rename(final)
            except OSError as error:  # another process was faster
                if final.is_dir():
                    raise UserError(f"{final}: another process has just written it") from error
                raise
            sync_folder(final.parent)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


@contextmanager
def _locked(final: Path) -> Iterator[None]:
    lock = FileLock(final.parent / f".{final.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is making %s; waiting for it", final)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)
