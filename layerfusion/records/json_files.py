"""Records as JSON files, read by pydantic into the dataclasses that describe them.

Each file has a checksum of its content; files of older versions, which have none, are read too.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from layerfusion.assets.files import find_named, in_one_line, parse_json, write_atomically
from layerfusion.assets.memo import seal, type_adapter, unseal
from layerfusion.config.secrets import redacted
from layerfusion.errors import UserError

Record = TypeVar("Record")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
Damaged = dict[Path, str]
"""File of a record that cannot be read, to the line that says why."""


class DamagedRecord(UserError):
    """A record is not what was written; where its command runs again, it is computed again."""


def write_json(path: Path, record: Any, *, indent: int = 1) -> None:
    """Write a dataclass as JSON, atomically: a reader sees the old file or the new one."""
    content = seal(redacted(asdict(record)))
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode())


def read_json(
    path: Path,
    kind: type[Record],
    what: str,
    upgrade: Upgrade | None = None,
    fault: Callable[[Record], str] = lambda _: "",
) -> Record:
    """Read a dataclass from a JSON file, and check the type of every field.

    Args:
        path: the file.
        kind: the dataclass.
        what: what the file should be, for messages, such as "a layer profile".
        upgrade: from what an older version wrote to the present form.
        fault: says what is wrong with a record whose fields all have the right types.

    Raises:
        DamagedRecord: naming the file, and the field that is missing or wrong.
        UserError: if a folder lies in its place.
    """
    from pydantic import ValidationError

    def damaged(why: object) -> DamagedRecord:
        return DamagedRecord(f"{path}: not {what} ({why}); the same command as before makes it new")

    try:
        raw = parse_json(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        raw = unseal(raw) if isinstance(raw, dict) else raw
    except IsADirectoryError as error:
        raise UserError(f"{path}: not {what}, but a folder; move it elsewhere") from error
    except ValueError as error:
        raise damaged(error) from error
    if not isinstance(raw, dict):
        raise damaged(f"it is of type {type(raw).__name__}")
    try:
        record = type_adapter(kind).validate_python(raw if upgrade is None else upgrade(raw))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise damaged(f"{field}: {first['msg']}") from error
    except (KeyError, TypeError, AttributeError) as error:  # in the upgrade of a broken file
        raise damaged(error) from error
    if why := fault(record):
        raise damaged(why)
    return record


def may_be_record(path: Path, keys: Iterable[str]) -> bool:
    """Tell whether a file that is no whole record may be a damaged one, by some of its keys.

    JSON without them is someone else's. What is no JSON at all may have been a record.
    """
    try:
        raw = json.loads(path.read_bytes())
    except ValueError:
        return True
    return isinstance(raw, dict) and set(keys) <= raw.keys()


def read_all(
    folder: Path, name: str, read: Callable[[Path], Record], damaged: Damaged | None = None
) -> list[tuple[Path, Record]]:
    """Read every record of one kind under a folder, in the order of their paths.

    Args:
        folder: the folder.
        name: the records' file name.
        read: reads the record that lies in a folder.
        damaged: takes what cannot be read; where None, the first such record is an error.

    Raises:
        UserError: naming the file.
    """
    found = []
    for path in find_named(folder, name):
        with damaged_told(path, damaged):
            found.append((path.parent, read(path.parent)))
    return found


def _no_number(text: str) -> None:
    """Refuse `NaN` and `Infinity`, which no record was ever written with."""
    raise ValueError(f"{text} is no number")


@contextmanager
def damaged_told(path: Path, damaged: Damaged | None) -> Iterator[None]:
    """Note the file that the block cannot read and go on; without a place to note it, raise."""
    try:
        yield
    except (UserError, OSError) as error:
        if damaged is None:
            raise
        damaged[path] = in_one_line(error) if isinstance(error, OSError) else str(error)


def warn_of(damaged: Damaged, *, left: bool) -> None:
    """Warn a notebook of what could not be read.

    Args:
        damaged: the files, with the lines that say why.
        left: whether there is anything else to show.

    Raises:
        UserError: with the first line, where nothing is left.
    """
    lines = [f"left out: {line}" for line in damaged.values()]
    if lines and not left:
        raise UserError(f"nothing here can be read: {next(iter(damaged.values()))}")
    for line in lines:
        warnings.warn(line, stacklevel=4)


def require_own_folder(path: Path, job: str) -> None:
    """Refuse a record that lies in the folder of another job, which a hash of the job names.

    Raises:
        UserError: if the folder's name is the hash of another job.
    """
    if re.fullmatch(r"[0-9a-f]{12}", path.parent.name) and path.parent.name != job:
        raise UserError(
            f"{path}: it is the record of job {job}, and the folder is of job {path.parent.name};"
            " remove it, and the command of that job runs it again"
        )


def require_schema(path: Path, found: object, known: tuple[int, ...]) -> None:
    """Refuse a record that another version wrote.

    Raises:
        UserError: where the schema is none of those that this version reads.
    """
    if found not in known:
        reads = " and ".join(map(str, known))
        raise UserError(f"{path}: schema {found}, this version reads {reads}")
