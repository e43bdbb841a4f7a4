"""Writing files atomically, so that no reader ever sees half of one; and reading any JSON."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`, which is renamed to `path` at the end.

    On an error it is removed. The content is on disk (fsync of file and folder) before the name
    appears.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    with temporary_beside(path) as temporary:
        temporary.write_bytes(content)


def remove_stale(folder: Path, hours: float = 24.0) -> None:
    """Remove temporary files of killed writers, once they are too old for a running one to need."""
    for path in folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > hours * 3600:
                path.unlink()
        except FileNotFoundError:
            continue


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
