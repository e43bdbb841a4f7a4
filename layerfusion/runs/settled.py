"""Sweeps that are finished: recognised without composing each of their jobs again.

Composing a job takes longer than checking one that is finished. At its end, a sweep whose jobs are
all finished therefore notes what it was made from and what its jobs left. Where both are still the
same, one job stands for all that have the same texts and models, and only this one is composed and
checked in full.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import xxhash

from layerfusion import __version__
from layerfusion.assets.files import parse_json, write_atomically
from layerfusion.assets.memo import hash_of, seal, unseal
from layerfusion.config.identity import result_versions
from layerfusion.config.secrets import redact_line

NOTES = ".settled"
"""Folder of a sweep that holds a note for each of its grids."""
HEAD = ("fusion", "layers", "trainer", "seeds", "sweep", "hydra", "bundle")
"""Parts of a job's config that do not say which texts and models it has."""
COMPOSERS = ("hydra-core", "omegaconf")
"""Packages that compose the configs."""
FROM_ENVIRONMENT = re.compile(r"oc\.env:\s*(\w+)")
IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class SettledJob:
    """A finished job of a sweep."""

    overrides: list[str]
    folder: str
    inputs: str
    """Hash of the part of its config that says which texts and models it has."""
    content: str
    """Checksum of what it left."""


def sources_id(command: str, grid: Sequence[Sequence[str]], folders: Iterable[Path]) -> str:
    """Hash what the configs of a grid are composed from.

    Args:
        command: command that runs the jobs.
        grid: overrides of each job.
        folders: folders with config files, and with a user's modules.
    """
    digest = xxhash.xxh3_128()
    names = {name for name in os.environ if name.startswith("LAYERFUSION_")}
    for folder in folders:
        for path in sorted([*folder.rglob("*.yaml"), *folder.glob("*.py")]):
            content = path.read_bytes()
            names |= set(FROM_ENVIRONMENT.findall(content.decode(errors="replace")))
            digest.update(f"{path} {len(content)}\n".encode() + content)
    names |= {name for words in grid for word in words for name in FROM_ENVIRONMENT.findall(word)}
    variables = {name: os.environ.get(name) for name in sorted(names)}
    versions = [__version__, result_versions(), *map(version, COMPOSERS)]
    plain = [command, *map(list, grid)]
    return hash_of([plain, variables, versions, os.getcwd(), digest.hexdigest()])[:16]


def inputs_id(config: dict[str, Any]) -> str | None:
    """Hash the part of a composed config that says which texts and models a job has.

    Returns:
        None if code of the user takes part, since its files are not known.
    """
    if any(_is_code(key, value) for key, value in _leaves(config)):
        return None
    return hash_of({key: value for key, value in config.items() if key not in HEAD})


def _leaves(value: Any, key: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def _is_code(key: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if key in ("target", "_target_"):
        return not value.startswith("layerfusion.")
    return IMPORT_PATH.fullmatch(value) is not None


def content_of(folder: Path) -> str:
    """Compute a checksum of everything that a job left, except its logs."""
    digest = xxhash.xxh3_128()
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "wandb")))
        for name in sorted(files):
            if not name.startswith(".") and not name.endswith(".log"):
                path = Path(place, name)
                content = path.read_bytes()
                digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def write_note(sweep: Path, sources: str, jobs: Sequence[SettledJob]) -> None:
    """Note the jobs of a sweep that are all finished. Words with a key in them are not kept."""
    if any(redact_line(word) != word for job in jobs for word in job.overrides):
        return
    content = seal({"jobs": [asdict(job) for job in jobs]})
    write_atomically(sweep / NOTES / f"{sources}.json", json.dumps(content).encode())


def read_note(sweep: Path, sources: str) -> list[SettledJob]:
    """Return the jobs of a note; none where there is none, it is damaged or a job has changed."""
    try:
        note = unseal(parse_json((sweep / NOTES / f"{sources}.json").read_bytes()))
        jobs = [SettledJob(**job) for job in note["jobs"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return jobs if unchanged(jobs) else []


def unchanged(jobs: Iterable[SettledJob]) -> bool:
    """Return true if all that the jobs left is still the same."""
    try:
        return all(content_of(Path(job.folder)) == job.content for job in jobs)
    except OSError:
        return False
