"""Commands that are killed, at any moment, and many at once: nothing finished is lost."""

from __future__ import annotations

import os
import random
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.trust.world import Ended, World, start

KILLS = int(os.environ.get("TRUST_KILLS", "0"))
"""Number of kills, each followed by the command to its end; 0 stands for the ordinary suite."""
COMMANDS = ("extract", "profile", "train", "sweep", "search", "predict", "report job")
QUICK = ("sweep", "search")
IN_A_ROW = 6
"""Kills of each command in the ordinary suite, before it runs to its end."""
LATEST = 1.0 if KILLS else 0.6
"""Latest moment of a kill, as a share of the time that the command takes without one."""
PROCESSES = 8
LONG = "it takes a minute: `make trust` runs it"


@dataclass
class Unkilled:
    """What each command finds without a kill, and the seconds that it takes."""

    figures: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("kills") / "world").make()
    world.keep()
    return world


@pytest.fixture(scope="module")
def unkilled(world: World) -> Unkilled:
    """Run every command once from the start, and then go back."""
    found = Unkilled()
    for command in COMMANDS if KILLS else QUICK:
        begun = time.monotonic()
        finish(world, command)
        found.seconds[command] = time.monotonic() - begun
        found.figures[command] = world.figures(command)
    world.restore()
    return found


def finish(world: World, command: str) -> None:
    ended = world.run(command)
    assert (ended.code, ended.mistakes) == (0, []), (command, ended.said[-3000:])


def finished(world: World) -> dict[Path, tuple[int, int]]:
    """Find the files of finished work, with the number and the time of each."""
    paths = [*world.root.glob("cache/embeddings/*/*.safetensors"), *world.out.rglob("metrics.json")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def kill(world: World, command: str, seconds: float) -> bool:
    """Start a command and kill it after some seconds; return False if it had ended before."""
    process = start(world.commands[command], world.root / ".said", world.root)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -9


def leftovers(world: World) -> list[Path]:
    return [*world.root.rglob(".*.tmp"), *world.root.rglob("*.journal.lock")]


def test_killed_commands_end_as_if_they_had_never_been_killed(
    world: World, unkilled: Unkilled
) -> None:
    drawn = random.Random(0)
    kills = left = rounds = 0
    while kills < (KILLS or IN_A_ROW * len(QUICK)):
        rounds += 1
        world.restore()
        for command, seconds in unkilled.seconds.items():
            done: dict[Path, tuple[int, int]] = {}
            for _ in range(1 if KILLS else IN_A_ROW):
                kills += kill(world, command, drawn.uniform(0.05, LATEST) * seconds)
                after = finished(world)
                assert done.items() <= after.items(), f"{command}: finished work is gone"
                done = after
            left += len(leftovers(world))
            finish(world, command)
            assert world.figures(command) == unkilled.figures[command]
            assert done.items() <= finished(world).items(), f"{command}: it was computed again"
            assert not leftovers(world)
    print(
        f"\n{kills} kills in {rounds} rounds of {len(unkilled.seconds)} commands; {left} temporary"
        " files were left and swept"
    )
    assert kills


def together(world: World, commands: list[list[str]]) -> list[Ended]:
    """Run commands at the same time."""
    places = [world.root / f".said{n}" for n in range(len(commands))]
    running = [start(words, at, world.root) for words, at in zip(commands, places, strict=True)]
    for process in running:
        process.join()
    return [
        Ended(process.exitcode, at.read_text()) for process, at in zip(running, places, strict=True)
    ]


@pytest.mark.skipif(not KILLS, reason=LONG)
def test_several_processes_share_one_store(world: World, unkilled: Unkilled) -> None:
    world.restore()
    jobs = [[*world.commands["train"], f"hydra.run.dir=out/{n}"] for n in range(PROCESSES)]
    assert [(x.code, x.mistakes) for x in together(world, jobs)] == [(0, [])] * PROCESSES
    for n in range(PROCESSES):
        shutil.rmtree(world.out / "job", ignore_errors=True)
        shutil.copytree(world.out / str(n), world.out / "job")
        assert world.figures("train") == unkilled.figures["train"]
    assert not leftovers(world)


@pytest.mark.skipif(not KILLS, reason=LONG)
def test_two_sweeps_in_one_folder_and_a_reader_beside_them(
    world: World, unkilled: Unkilled
) -> None:
    world.restore()
    words = world.commands["sweep"]
    places = [world.root / f".sweep{n}" for n in range(2)]
    running = [start(words, at, world.root) for at in places]
    looks = 0
    while any(process.is_alive() for process in running):
        for command in ("status", "report sweep"):
            ended = world.run(command)
            assert not ended.mistakes, ended.said
            looks += 1
    for process, at in zip(running, places, strict=True):
        process.join()
        ended = Ended(process.exitcode, at.read_text())
        assert (ended.code, ended.mistakes) == (0, []), ended.said
    print(f"\n{looks} looks at two sweeps in one folder")
    assert looks
    assert world.figures("sweep") == unkilled.figures["sweep"]
