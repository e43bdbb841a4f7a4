"""Damaged files that the program wrote and reads again: noticed in normal use, no wrong figure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.trust.damage import KINDS, WHOLE, Damage, Kind, flips, swaps
from tests.trust.world import World

POSITIONS = int(os.environ.get("TRUST_POSITIONS", "0"))
"""Bytes that are changed in each file; 0 stands for the few trials of the ordinary suite."""
QUICK = ("shard", "shape", "lexical", "probes", "record", "bundle", "journal")
OF_FIRST = ("profile", "train", "predict") if POSITIONS else ("train", "predict")
OF_SECOND = ("extract", "profile2", "train2", "sweep", "search", "predict2")
OF_SECOND = OF_SECOND if POSITIONS else ("search",)
REPORTS = ("report job", "report profile", "report search")
MADE_BY = (*OF_FIRST, *OF_SECOND, *(REPORTS if POSITIONS else ()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which every command has run once."""
    world = World(tmp_path_factory.mktemp("trust") / "world").make()
    for command in MADE_BY:
        if command == OF_SECOND[0]:
            world.of_first = {x for x in world.root.rglob("*") if x.is_file()}
        ended = world.run(command)
        assert (ended.code, ended.mistakes) == (0, []), ended.said
    world.keep()
    return world


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if POSITIONS or kind.name in QUICK], ids=lambda x: x.name
)
def test_a_damaged_file_is_noticed_and_no_figure_is_wrong(kind: Kind, world: World) -> None:
    before = {command: world.figures(command) for command in MADE_BY}
    wrong: list[str] = []
    trials = recomputed = named = harmless = 0
    for path, how, damage in list(_trials(kind, world)):
        world.restore()
        commands = [x for x in kind.commands if POSITIONS or x not in REPORTS]
        if {"cache", "profiles"} & set(path.parts) and world.root / path not in world.of_first:
            commands = [f"{x}2" if x in ("train", "profile") else x for x in commands]
        for pattern in kind.before:
            for place in world.root.glob(pattern):
                shutil.rmtree(place)
        damage(world.root / path)
        trials += 1
        noticed, code = False, None
        for command in commands:
            ended = world.run(command)
            noticed, code = noticed or ended.noticed, ended.code
            problem = list(ended.mistakes)
            # A report tells what there is, and names what it leaves out.
            lacks = command in REPORTS and (how == "gone" or ended.leaves_out(path))
            if not lacks and ended.code == 0 and world.figures(command) != before.get(command):
                problem.append("another figure")
            if ended.code:
                print(f"{path}, {how}: {command}: {_last(ended.said)}", flush=True)
            if problem:
                print(f"{path}, {how}: {command}: {problem}\n{_last(ended.said)}", flush=True)
                wrong.append(f"{path}, {how}: {command}: {', '.join(problem)}\n{_last(ended.said)}")
        named += code != 0
        recomputed += code == 0 and noticed
        harmless += code == 0 and not noticed
    world.restore()
    print(
        f"\n{kind.name}: {trials} damaged files: {recomputed} computed again, {named} named in one"
        f" line, {harmless} without effect, {len(wrong)} wrong"
    )
    assert trials
    assert not wrong, "\n\n".join([f"{len(wrong)} of {trials}", *wrong])


def _trials(kind: Kind, world: World) -> Iterator[tuple[Path, str, Damage]]:
    paths = [path for path in sorted(world.root.glob(kind.pattern)) if path.is_file()]
    # The files that one job uses first, so that the whole list begins with a file of each job.
    paths.sort(key=lambda path: path not in world.of_first)
    ends = list(dict.fromkeys([*paths[:1], *paths[-1:]]))
    for number, path in enumerate(ends if POSITIONS else paths[:1]):
        relative = path.relative_to(world.root)
        ways = list(flips(path, POSITIONS or 1, seed=len(KINDS)))
        if POSITIONS and not number:
            ways += [*WHOLE.items(), *swaps(world, path)]
        for how, damage in ways:
            yield relative, how, damage


def _last(said: str) -> str:
    return "\n".join(f"    {line[:300]}" for line in said.splitlines()[-6:])
