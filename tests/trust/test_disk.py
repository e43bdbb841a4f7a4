"""Disks that fill, folders that cannot be written, clocks that jump: one line, a clean resume."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.trust.world import Ended, World

FULL = bool(os.environ.get("TRUST_POSITIONS"))
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95) if FULL else (0.5,)
"""Sizes of the disk, as shares of what the commands write in all."""
FILE_BYTES = (0, 300, 3000, 12_000, 60_000) if FULL else (3000,)
COMMANDS = ("extract", "profile", "train", "sweep", "search", "predict", "report job")
QUICK = ("search",)
LATER = ("predict", "report job")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A world in which nothing has run, in a folder that any user can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        world = World(Path(folder) / "world").make()
        world.keep()
        yield world


@pytest.fixture(scope="module")
def whole(world: World) -> dict[str, object]:
    """The figures of the commands on a disk with space."""
    return finish(world)


def commands() -> tuple[str, ...]:
    return COMMANDS if FULL else QUICK


def finish(world: World) -> dict[str, object]:
    found = {}
    for command in commands():
        ended = world.run(command)
        assert (ended.code, ended.mistakes) == (0, []), (command, ended.said[-3000:])
        found[command] = world.figures(command)
    return found


def problems(ended: Ended, reason: str, place: str, command: str) -> list[str]:
    """What is wrong about a command that could not write to a folder."""
    found = list(ended.mistakes)
    told = [line for line in ended.said.splitlines() if reason in line]
    if ended.code and not any(re.search(rf"\b{place}(/|\b)", line) for line in told):
        found.append(f"no line says {reason!r} and {place!r}")
    return [f"{command}: {problem}\n{ended.said[-1500:]}" for problem in found]


@contextmanager
def disk(place: Path, size: int) -> Iterator[None]:
    """Put a disk of a size in the place of a folder, with the folder's content."""
    kept = place.with_name(f"{place.name}.aside")
    place.mkdir(exist_ok=True)
    place.rename(kept)
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        place.rmdir()
        kept.rename(place)
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", str(place)], check=False, capture_output=True)
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()
        kept.rename(place)


def used(folder: Path) -> int:
    """Bytes that the files of a folder take on a disk in memory, where folders take none."""
    return sum(-(-x.lstat().st_size // 4096) * 4096 for x in folder.rglob("*") if x.is_file())


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("place", ["cache", "out"])
def test_a_disk_that_fills_is_named_and_the_same_commands_go_on(
    place: str, share: float, world: World, whole: dict[str, object]
) -> None:
    needed = used(world.root / place)
    world.restore()
    wrong: list[str] = []
    folder = world.root / place
    kept = used(folder) if folder.exists() else 0
    full = 0
    with disk(folder, kept + int(share * max(0, needed - kept))):
        for command in commands():
            ended = world.run(command)
            if ended.code == 2 and command in LATER:  # for want of the job that found no space
                continue
            wrong += problems(ended, "no space left", place, command)
            full += ended.code != 0
        size = 64 * 2**20
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
        leftover = [str(x) for x in folder.rglob(".*.tmp")]
        found = finish(world)
        if leftover:
            wrong.append(f"left: {leftover}")
    assert found == whole
    print(f"\n{place} at {share:.0%}: {full} of {len(commands())} commands met the full disk")
    assert not wrong, "\n".join(wrong)
    assert full or share > 0.5
    finish(world)  # the next test asks what is needed


@pytest.mark.parametrize("limit", FILE_BYTES)
def test_a_file_that_may_not_grow_is_one_line(
    limit: int, world: World, whole: dict[str, object]
) -> None:
    world.restore()
    wrong: list[str] = []
    for command in commands():
        handle = world.run(command, file_bytes=limit)
        wrong += [f"{command}: {x}\n{handle.said[-1500:]}" for x in handle.mistakes]
    assert finish(world) == whole
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("place", ["cache", "out"])
def test_a_folder_that_cannot_be_written_is_named(
    place: str, world: World, whole: dict[str, object]
) -> None:
    world.restore()
    (world.root / place).mkdir(exist_ok=True)
    for folder in [world.root / place, *(world.root / place).rglob("*")]:
        folder.chmod(0o555)
    wrong: list[str] = []
    for command in commands():
        ended = world.run(command, ordinary=True)
        if ended.code == 2 and command in LATER:  # for want of the job that could not be written
            wrong += ended.mistakes
            continue
        wrong += problems(ended, "ermission denied", place, command)
    for folder in [world.root / place, *(world.root / place).rglob("*")]:
        folder.chmod(0o755)
    assert finish(world) == whole
    assert not wrong, "\n".join(wrong)


def test_a_finished_cache_serves_a_reader_who_cannot_write_it(
    world: World, whole: dict[str, object]
) -> None:
    world.restore()
    finish(world)
    for path in [world.cache, *world.cache.rglob("*")]:
        path.chmod(0o555)
    shutil.rmtree(world.out)
    ended = {command: world.run(command, ordinary=True) for command in commands()}
    for path in [world.cache, *world.cache.rglob("*")]:
        path.chmod(0o755)
    assert not [
        x
        for command, one in ended.items()
        if one.code != 2 or command not in LATER  # which may lack the job
        for x in problems(one, "denied", "cache", command)
    ]


def test_files_from_the_future_change_nothing(world: World, whole: dict[str, object]) -> None:
    world.restore()
    finish(world)
    shutil.rmtree(world.out)
    future = time.time() + 40 * 24 * 3600
    (world.cache / "embeddings").mkdir(exist_ok=True)
    left = [path / ".x.safetensors.abcdefgh.tmp" for path in (world.cache / "embeddings").iterdir()]
    left.append(world.root / ".predicted.csv.abcdefgh.tmp")
    for path in left:
        path.write_bytes(b"of a killed writer")
    for path in world.root.rglob("*"):
        os.utime(path, (future, future))
    assert finish(world) == whole
    assert [x for x in left[:-1] if x.exists()] == []
