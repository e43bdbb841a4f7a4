"""Ways of damaging a file, and the commands that have to notice it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.trust.world import World

Damage = Callable[[Path], None]


@dataclass(frozen=True)
class Kind:
    """A kind of files, and the commands that read such a file again.

    Args:
        name: the kind, for messages.
        pattern: of the files, below the world's folder.
        commands: run in this order after each damage; the last has to give the figures as before.
        before: patterns of files that are removed first, so that the file is needed.
    """

    name: str
    pattern: str
    commands: tuple[str, ...]
    before: tuple[str, ...] = ()


NEEDED = ("out/job", "out/job2", "out/profiles")
KINDS = (
    Kind("shard", "cache/embeddings/*/*.safetensors", ("train",), NEEDED),
    Kind("store", "cache/embeddings/*/store.json", ("train",), NEEDED),
    Kind("shape", "cache/embeddings/*/shape.json", ("train",), NEEDED),
    Kind("latency", "cache/embeddings/*/latency-*.json", ("train",), NEEDED),
    Kind("calibration", "cache/calibrations.json", ("train",), (*NEEDED, "cache/embeddings")),
    Kind("baseline", "cache/floors/*.json", ("train",), NEEDED),
    Kind("reading", "cache/readings/*.json", ("train",), NEEDED),
    Kind("lexical", "cache/lexical/*.safetensors", ("train",), NEEDED),
    Kind("probes", "cache/scores/*.safetensors", ("train",), NEEDED),
    Kind("score", "cache/scores/*.json", ("profile",), NEEDED),
    Kind("hashes", "cache/assets/hashes.json", ("train2",), NEEDED),
    Kind("asset", "cache/assets/packed-*/*/*", ("train",), (*NEEDED, "cache/embeddings")),
    Kind("asset list", "cache/assets/.packed-*.json", ("train",), NEEDED),
    Kind("record", "out/job/metrics.json", ("predict", "report job", "train"), ()),
    Kind("predictions", "out/job/predictions.parquet", ("report job", "train"), ()),
    Kind("bundle", "out/job/bundle/*", ("predict", "train"), ()),
    Kind("lexical of a bundle", "out/job2/bundle/pairs.*", ("predict2", "train2"), ()),
    Kind("profile", "out/profiles/*/profile.json", ("report profile", "profile"), ()),
    Kind("plan", "out/sweeps/grid/.plans/*", ("status", "sweep"), ()),
    Kind("record of a sweep", "out/sweeps/grid/*/metrics.json", ("status", "sweep"), ()),
    Kind("journal", "out/search/small/optuna.journal", ("search",), ()),
    Kind("history", "out/search/small/search.json", ("report search", "search"), ()),
    Kind("other files", "out/job/*.*", ("predict", "train"), ()),
    Kind("hydra", "out/sweeps/grid/*/.hydra/*", ("status", "sweep"), ()),
)


def flips(path: Path, count: int, seed: int) -> Iterator[tuple[str, Damage]]:
    """Change one byte: the first, the last and others at random."""
    size, drawn = path.stat().st_size, random.Random(f"{seed} {path.name}")
    if not size:
        return
    ends = [0, size - 1] if count > 2 else []
    for place in [*ends, *(drawn.randrange(size) for _ in range(count - len(ends)))]:
        mask = drawn.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])

        def flip(path: Path, place: int = place, mask: int = mask) -> None:
            content = bytearray(path.read_bytes())
            content[place] ^= mask
            path.write_bytes(content)

        yield f"byte {place} of {size} ^ {mask}", flip


def cut(share: float) -> Damage:
    """Cut a file off after a share of its bytes."""

    def do(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return do


def to_folder(path: Path) -> None:
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


def to_broken_link(path: Path) -> None:
    """Put a link to nothing in the place of a file."""
    path.unlink()
    path.symlink_to("no such file")


def without_last(path: Path) -> None:
    """Take the last byte away."""
    path.write_bytes(path.read_bytes()[:-1])


WHOLE: dict[str, Damage] = {
    "cut to a half": cut(0.5),
    "without its last byte": without_last,
    "empty": cut(0.0),
    "a folder": to_folder,
    "a link to nothing": to_broken_link,
    "gone": Path.unlink,
}


def swaps(world: World, path: Path) -> Iterator[tuple[str, Damage]]:
    """Replace a file by another of the same kind."""
    relative = path.relative_to(world.root)
    twins = {"job": "job2", "job2": "job"}
    parts = [twins.get(part, part) for part in relative.parts]
    rivals = [world.root.joinpath(*parts)]
    rivals += sorted(path.parent.glob(f"*{path.suffix}"))
    rivals += sorted(path.parent.parent.glob(f"*/{path.name}"))
    if path.suffix == ".safetensors":
        rivals += sorted(path.parent.parent.glob(f"*/*{path.suffix}"))
    found = [x for x in dict.fromkeys(rivals) if x.is_file() and x != path]

    def replace(at: Path, by: Path) -> None:
        shutil.copy(by, at)

    for rival in [x for x in found if x.read_bytes() != path.read_bytes()][:3]:
        yield f"replaced by {rival.relative_to(world.root)}", partial(replace, by=rival)
