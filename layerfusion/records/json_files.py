"""Records as JSON files, read by pydantic into the dataclasses that describe them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from layerfusion.assets.files import parse_json, write_atomically
from layerfusion.assets.secrets import redacted
from layerfusion.errors import UserError

Record = TypeVar("Record")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]


def write_json(path: Path, record: Any, *, indent: int = 1) -> None:
    """Write a dataclass as JSON, atomically: a reader sees the old file or the new one."""
    text = json.dumps(redacted(asdict(record)), indent=indent, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text.encode())


def read_json(path: Path, kind: type[Record], what: str, upgrade: Upgrade | None = None) -> Record:
    """Read a dataclass from a JSON file, and check the type of every field.

    Args:
        path: the file.
        kind: the dataclass.
        what: what the file should be, for messages, such as "a layer profile".
        upgrade: from what an older version wrote to the present form.

    Raises:
        UserError: naming the file, and the field that is missing or has the wrong type.
    """
    from pydantic import ValidationError

    try:
        raw = parse_json(path.read_text(encoding="utf-8"))
    except (ValueError, IsADirectoryError) as error:
        raise UserError(f"{path}: not {what} ({error})") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: not {what}, but of type {type(raw).__name__}")
    try:
        return _adapter(kind).validate_python(raw if upgrade is None else upgrade(raw))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: not {what} ({field}: {first['msg']})") from error
    except (KeyError, TypeError, AttributeError) as error:  # in the upgrade of a broken file
        raise UserError(f"{path}: not {what} ({error})") from error


def require_schema(path: Path, found: object, known: tuple[int, ...]) -> None:
    """Refuse a record that another version wrote.

    Raises:
        UserError: where the schema is none of those that this version reads.
    """
    if found not in known:
        reads = " and ".join(map(str, known))
        raise UserError(f"{path}: schema {found}, this version reads {reads}")


@cache
def _adapter(kind: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
