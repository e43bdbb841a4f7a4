"""Results that are kept on disk, named by what they were computed from and checked when read.

A result that is missing, damaged or changed by a byte is computed again, with a warning where it
was there. Files of older versions, which have no checksum, are read as they are.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock

from layerfusion.assets.files import write_atomically

log = logging.getLogger(__name__)

FACTS = "facts"
CHECKSUM = "checksum"
"""Names of a result and of its checksum, in JSON as in the metadata of arrays."""
Result = TypeVar("Result")
Arrays = Mapping[str, np.ndarray]


def hash_of(content: Any, *, spaced: bool = False) -> str:
    """Return the sha256 of a content as canonical JSON, whatever the order of its keys.

    Args:
        content: anything that JSON can hold.
        spaced: with spaces after commas and colons, as the names of some kinds of files were made.
    """
    separators = None if spaced else (",", ":")
    text = json.dumps(content, sort_keys=True, separators=separators)
    return hashlib.sha256(text.encode()).hexdigest()


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        kept = read(path)
        if kept is None:
            kept = compute()
            write(path, kept)
    return kept


# -- JSON ----------------------------------------------------------------------------------------


def write_facts(path: Path, facts: Mapping[str, Any]) -> None:
    """Keep an object as JSON with its checksum."""
    content = {FACTS: facts, CHECKSUM: hash_of(facts)}
    write_atomically(path, json.dumps(content, indent=1).encode())


def read_facts(path: Path, what: str) -> dict[str, Any] | None:
    """Read an object that `write_facts` has kept.

    Args:
        path: the file.
        what: kind of the result, for the warning.

    Returns:
        The object without its checksum; None where there is no file or it is damaged.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        if not {FACTS, CHECKSUM} & content.keys():
            return content
        if content.keys() != {FACTS, CHECKSUM} or content[CHECKSUM] != hash_of(content[FACTS]):
            raise ValueError("its checksum differs")
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        _warn(what, path, error)
        return None
    return content[FACTS]


# -- arrays --------------------------------------------------------------------------------------


def write_arrays(path: Path, arrays: Arrays, facts: Mapping[str, Any]) -> None:
    """Keep arrays as safetensors, with facts beside them and a checksum over both."""
    from safetensors.numpy import save

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps(facts)
    metadata = {FACTS: text, CHECKSUM: _sum(whole, text)}
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
        if not old and metadata.get(CHECKSUM) != _sum(arrays, text):
            raise ValueError("its checksum differs")
        facts = json.loads(text)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        _warn(what, path, error)
        return None
    return arrays, facts


def _sum(arrays: Arrays, text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _warn(what: str, path: Path, error: Exception) -> None:
    log.warning("%s: %s is damaged (%s); computing it again", what, path, error)
