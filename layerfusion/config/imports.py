"""Objects that users name in a config, `package.module:name`, from their packages or folders."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from layerfusion.errors import UserError

_user_folders: list[Path] = []


def is_import_path(name: object) -> bool:
    """Tell an import path, `package.module:name`, from a name that LayerFusion itself knows."""
    return isinstance(name, str) and ":" in name


def import_object(key: str, path: str) -> Any:
    """Import the object that a config names.

    Args:
        key: the config key that names it, for messages.
        path: `package.module:name`, or `package.module.name` as Hydra's `_target_` has it.

    Raises:
        UserError: where the module is not found, cannot be imported, or lacks the name.
    """
    module_name, colon, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module_name or not colon or not name.isidentifier():
        raise UserError(f"{key}={path}: an object is named as package.module:name")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"{key}={path}: {module_name} cannot be imported: {error}") from error
        raise UserError(
            f"{key}={path}: there is no module {error.name!r}; modules are looked for among the"
            " installed packages, in the folders of --config-dir and in the current folder"
        ) from error
    except (ImportError, SyntaxError) as error:
        raise UserError(f"{key}={path}: {module_name} cannot be imported: {error}") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        public = ", ".join(sorted(entry for entry in vars(module) if not entry.startswith("_")))
        raise UserError(
            f"{key}={path}: {module_name} has no {name!r}; it has: {public or 'nothing'}"
        ) from error


def import_from(folders: Iterable[Path]) -> None:
    """Let `import_object` find the modules that lie in some folders.

    The folders go behind all other places, so that a file of the user's cannot hide a package.
    """
    for folder in folders:
        if folder.resolve() not in _user_folders:
            _user_folders.append(folder.resolve())
        place = str(folder.resolve())
        if place not in sys.path:
            sys.path.append(place)


def user_folders() -> tuple[Path, ...]:
    """The folders that `import_from` was given in this process."""
    return tuple(_user_folders)
