"""Results that are kept on disk, named by what they were computed from and checked when read.

A result that is missing, damaged, changed by a byte or replaced by another one's file is computed
again, with a warning where it was there. Files of older versions, which have no checksum or one
without the file's name, are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from layerfusion.assets.files import disk_errors_told, write_atomically

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

FACTS = "facts"
CHECKSUM = "checksum"
"""Names of a result and of its checksum, in JSON as in the metadata of arrays."""
SHA256 = "sha256:"
"""Prefix of a sealed content's checksum, so that it is found under a damaged name too."""
Result = TypeVar("Result")
Arrays = Mapping[str, "np.ndarray"]


def hash_of(content: Any, *, spaced: bool = False) -> str:
    """Return the sha256 of a content as canonical JSON, whatever the order of its keys.

    Args:
        content: anything that JSON can hold.
        spaced: with spaces after commas and colons, as the names of some kinds of files were made.
    """
    separators = None if spaced else (",", ":")
    text = json.dumps(content, sort_keys=True, separators=separators)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(content: bytes) -> str:
    """Return the sha256 of a content in hex digits."""
    return hashlib.sha256(content).hexdigest()


def computed_once(
    path: Path,
    compute: Callable[[], Result],
    write: Callable[[Path, Result], None],
    read: Callable[[Path], Result | None],
) -> Result:
    """Read a result, or compute and keep it; of several processes one computes, the others wait.

    Args:
        path: the file of the result.
        compute: makes the result.
        write: keeps it in the file.
        read: gives what the file holds, None where there is none or it is damaged.

    Raises:
        DiskError: if nothing is kept and the folder cannot be written.
    """
    if path.exists() and (kept := read(path)) is not None:
        return kept  # without the lock, which in another user's cache may not be taken
    with ExitStack() as locked:
        with disk_errors_told(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            locked.enter_context(FileLock(path.with_suffix(".lock")))
        kept = read(path)
        if kept is None:
            kept = compute()
            write(path, kept)
    return kept


# -- JSON ----------------------------------------------------------------------------------------


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add a checksum to a content whose keys a reader of the file expects at its top."""
    plain = json.loads(json.dumps(content))  # with the keys as text, as a reader finds them
    return {**plain, CHECKSUM: SHA256 + hash_of(plain)}


def unseal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Take away the checksum that `seal` added. What has none, of an older version, stays as it is.

    Raises:
        ValueError: if the checksum does not fit the content.
    """
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    if CHECKSUM in content:
        if content[CHECKSUM] != SHA256 + hash_of(rest):
            raise ValueError("its checksum differs")
    elif any(isinstance(x, str) and x.startswith(SHA256) for x in rest.values()):
        raise ValueError("the name of its checksum is damaged")
    return rest


def write_facts(path: Path, facts: Mapping[str, Any], of: str | None = None) -> None:
    """Keep an object as JSON with its checksum.

    Args:
        path: the file.
        facts: the object.
        of: what the object belongs to, which the checksum covers too; None means the file's name.
    """
    content = {FACTS: facts, CHECKSUM: _checksum(facts, of or path.name)}
    write_atomically(path, json.dumps(content, indent=1).encode())


def read_facts(path: Path, what: str, of: str | None = None) -> dict[str, Any] | None:
    """Read an object that `write_facts` has kept.

    Args:
        path: the file.
        what: kind of the result, for the warning.
        of: as it was given to `write_facts`.

    Returns:
        The object without its checksum; None where there is no file or it is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        if not {FACTS, CHECKSUM} & content.keys():
            return content
        if content.keys() != {FACTS, CHECKSUM} or not isinstance(content[FACTS], dict):
            raise ValueError("it lacks a part")
        facts = content[FACTS]
        # Older files have a checksum of the object alone.
        if content[CHECKSUM] not in (_checksum(facts, of or path.name), hash_of(facts)):
            raise ValueError("its checksum differs")
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError) as error:
        warn_of_damage(what, path, error)
        return None
    return facts


def read_kept(path: Path, kind: type[Result], what: str, of: str | None = None) -> Result | None:
    """Read a dataclass that `write_facts` has kept; None where there is none or it is damaged.

    Args:
        path: the file.
        kind: the dataclass.
        what: kind of the result, for the warning.
        of: as it was given to `write_facts`.
    """
    from pydantic import ValidationError

    facts = read_facts(path, what, of)
    if facts is None:
        return None
    try:
        return type_adapter(kind).validate_python(facts)
    except ValidationError as error:
        first = error.errors()[0]
        warn_of_damage(what, path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        return None


@cache
def type_adapter(kind: type) -> Any:
    """Return what pydantic reads a dataclass with; it takes milliseconds to make."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _checksum(facts: Mapping[str, Any], of: str) -> str:
    return hash_of({"of": of, FACTS: json.loads(json.dumps(facts))})


# -- arrays --------------------------------------------------------------------------------------


def write_arrays(path: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Keep arrays as safetensors, with facts beside them and a checksum over both."""
    import numpy as np
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(facts)
    metadata = {FACTS: text, CHECKSUM: _sum(whole, text, path.name)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(whole, metadata=metadata))


def read_arrays(
    path: Path, what: str, facts_key: str = FACTS
) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Read arrays that `write_arrays` has kept.

    Args:
        path: the file.
        what: kind of the result, for the warning.
        facts_key: name under which an older version kept the facts.

    Returns:
        The arrays and the facts; None where there is no file or it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        old = metadata.keys() == {facts_key}
        text = metadata[facts_key if old else FACTS]
        if not old and metadata.get(CHECKSUM) not in (
            _sum(arrays, text, path.name),
            _sum(arrays, text),  # of an older version, whose checksum covers no name
        ):
            raise ValueError("its checksum differs")
        facts = json.loads(text)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        warn_of_damage(what, path, error)
        return None
    return arrays, facts


def _sum(arrays: Arrays, text: str, name: str = "") -> str:
    digest = hashlib.sha256(f"{name}{text}".encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def warn_of_damage(what: str, path: Path, error: object) -> None:
    """Say that a file is damaged, and that its content is computed again."""
    log.warning("%s: %s is damaged (%s); computing it again", what, path, error)
