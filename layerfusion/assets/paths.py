"""Finding the files and folders that users name, and identifying their content."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from layerfusion.assets.files import DiskError
from layerfusion.assets.memo import read_facts, write_facts
from layerfusion.assets.source import Kind, SourceUnavailable
from layerfusion.config.registry import PACKED
from layerfusion.errors import UserError

STATES = 2000
"""Most files of a folder that are each looked at to see whether they have changed."""
FOLDERS = {
    "backbone": "LAYERFUSION_MODELS",
    "pipeline": "LAYERFUSION_MODELS",
    "dataset": "LAYERFUSION_DATA",
}
"""Environment variables with folders to look in, separated as in PATH."""

_also: ContextVar[tuple[str, ...]] = ContextVar("also", default=())
"""Folders in which relative paths are looked for after all others."""
MODEL_FILES = ("*.safetensors", "*.gguf", "*.json", "*.txt", "*.model")
"""Files whose content identifies a model. A data set is identified by its texts and labels."""


def find_path(path: str, kind: Kind) -> Path:
    """Find the file or folder that a path names.

    Args:
        path: absolute, relative to the working folder, or relative to one of the folders that the
            environment names for this kind.
        kind: backbone, pipeline or dataset.

    Raises:
        SourceUnavailable: if it does not exist, naming the places that were looked at.
        UserError: if it is neither a file nor a folder.
    """
    wanted = Path(os.path.expanduser(path))  # which keeps the ~ of an unknown user
    variable = FOLDERS[kind]
    folders = _named_folders(variable)
    places = [Path.cwd(), *folders, *map(Path, _also.get())]
    if wanted.is_absolute():
        places = places[:1]  # an absolute path replaces what it is joined to
    for place in places:
        if os.path.exists(place / wanted):  # a name may be longer than the system allows
            refuse_stream(place / wanted)
            return real_path(place / wanted)
    if wanted.is_absolute():
        raise SourceUnavailable("it does not exist")
    searched = ", ".join(dict.fromkeys(map(str, places)))
    hint = "" if folders else f"; {variable} may name more folders"
    raise SourceUnavailable(f"not found in {searched}{hint}")


def _named_folders(variable: str) -> list[Path]:
    """Return the folders that a variable of the environment names."""
    named = os.environ.get(variable, "").split(os.pathsep)
    return [Path(os.path.expanduser(folder)) for folder in named if folder]


def folders_looked_in() -> list[str]:
    """Return where relative paths are looked for now: here, and in what the environment names."""
    named = [folder for variable in FOLDERS.values() for folder in _named_folders(variable)]
    return list(dict.fromkeys(os.path.abspath(place) for place in [Path.cwd(), *named]))


@contextmanager
def looking_also_in(folders: Sequence[str]) -> Iterator[None]:
    """Find relative paths in some folders too, after all others, inside the block.

    Args:
        folders: those of an earlier job, as `folders_looked_in` gave them.
    """
    token = _also.set(tuple(folders))
    try:
        yield
    finally:
        _also.reset(token)


def real_path(path: Path) -> Path:
    """Return a path without links; of links that lead to themselves, what was given."""
    return Path(os.path.realpath(path))


def refuse_stream(path: Path) -> None:
    """Refuse a pipe or a device, as of `<(zcat reviews.csv.gz)`, which can be read but once.

    Raises:
        UserError: naming it and what to do.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise UserError(
            f"{path}: it is a pipe or a device, which can be read but once; write what it gives to"
            " a file, or give it as the standard input, which - stands for"
        )


def is_readable(folder: Path | str) -> bool:
    """Tell whether there is a folder that this user may look into.

    A place that a record or a classifier names may be another user's, where `Path.is_dir` raises an
    error; it is then no more use than one that is not there.
    """
    return os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK)


def is_hub_id(text: str) -> bool:
    """Tell `owner/name` from a path."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text) is not None


def content_identity(path: Path, cache: Path, *, everywhere: bool = False) -> str:
    """Compute the sha256 of the names and contents of a model's files.

    Hashing gigabytes takes seconds. So `cache/assets/hashes.json` keeps the hash of each file as
    long as it is the same file on disk and nothing has written to it.

    Args:
        path: a file, or a folder with its direct subfolders.
        cache: folder of the caches.
        everywhere: take the files of all subfolders.

    Raises:
        UserError: if the folder has no such files or one cannot be read.
    """
    if path.is_file():
        files = {f"file{path.suffix}": path}
    else:
        files = {str(file.relative_to(path).as_posix()): file for file in _files(path, everywhere)}
        if not files:
            raise UserError(
                f"backbone path {path}: the folder holds none of {', '.join(MODEL_FILES)}"
                + models_inside(path)
            )
    memory = _Hashes(cache / "assets" / "hashes.json")
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{memory.sha256(files[name])}\n".encode())
    memory.save()
    return digest.hexdigest()


def models_inside(folder: Path) -> str:
    """Name the models in the folders of a folder, to end a message with; nothing if there are none.

    The hub's cache keeps a model as a folder of snapshots.
    """
    found = [*folder.glob("*/config.json"), *folder.glob("snapshots/*/config.json")]
    inner = sorted(file.parent.relative_to(folder).as_posix() for file in found)
    return f"; there is one in its folder {', '.join(inner)}" if inner else ""


def file_hash(path: Path, cache: Path) -> str:
    """Compute the sha256 of a file; it is kept as `content_identity` keeps those of models."""
    memory = _Hashes(cache / "assets" / "hashes.json")
    found = memory.sha256(path)
    memory.save()
    return found


def data_suffix(path: Path) -> str:
    """The suffix that says the format of a data file, in lower case.

    Example:
        >>> data_suffix(Path("reviews.CSV.gz"))
        '.csv'
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _files(folder: Path, everywhere: bool) -> list[Path]:
    """List the files of a model in a folder and its direct subfolders, or in all of them."""
    return sorted(
        file
        for pattern in (("**/*",) if everywhere else ("*", "*/*"))
        for file in folder.glob(pattern)
        if file.is_file()
        and not file.name.startswith(".")
        and any(file.match(pattern) for pattern in MODEL_FILES)
    )


def state_of(path: Path) -> list[list[int]]:
    """Tell a file, or all files of a folder, from what they were before, without reading them.

    Returns:
        Size, times and number on disk of each file; nothing where there is none. Of a folder with
        more than `STATES` files, those of its folders, which change with every file that comes or
        goes, but not with one that is written anew.
    """
    if not path.is_dir():
        return [_state(path)] if path.is_file() else []
    inside = sorted(path.rglob("*"))
    files = [file for file in inside if file.is_file()]
    folders = [path, *(folder for folder in inside if folder.is_dir())]
    return [_state(one) for one in (files if len(files) <= STATES else folders)]


def _state(path: Path) -> list[int]:
    """Return size, times and number on disk of a file or folder.

    Whoever copies or unpacks a file may set the time of its modification to that of another one;
    the time of its last change is the system's own.
    """
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


class _Hashes:
    """Hashes of files, kept as long as path and `state_of` stay the same."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._changed = False
        self._known = read_facts(file, "hashes of files") or {}

    def sha256(self, path: Path) -> str:
        """Hash the content of a file, unless its hash is known."""
        try:
            state = _state(path)
            entry = self._known.get(str(path))
            if isinstance(entry, list) and entry[:-1] == state:
                return str(entry[-1])
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        self._known[str(path)] = [*state, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Save new hashes. To lose some only costs time.

        Two processes at once may do so, and so does a job whose user may not write to the cache.
        """
        if self._changed:
            with suppress(DiskError):
                write_facts(self._file, self._known)
