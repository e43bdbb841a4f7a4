"""Objects that users name in a config, `package.module:name`, from their packages or folders."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import linecache
import marshal
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from layerfusion.config.user_code import told
from layerfusion.errors import UserError, naming_extras

_user_folders: list[Path] = []
_on_path: list[str] = []
"""The user's folders that `import_from` put on Python's path, for it to take them off again."""
_loaded: dict[str, Path] = {}
"""Top name of each module that was loaded from a folder of the user's, to that folder."""
_ran: dict[str, tuple[object, str | None]] = {}
"""Name of each module of the user's to its spec, and to its source as it was when it ran."""
_beside: dict[str, tuple[object, dict[str, str]]] = {}
"""Name of a module to its spec, and to what it imports beside it, until a command begins anew."""
_edited: set[str] = set()
"""Those whose files have changed since they ran. They run anew when they are named next."""


def is_import_path(name: object) -> bool:
    """Tell an import path, `package.module:name`, from a name that LayerFusion itself knows."""
    return isinstance(name, str) and ":" in name


def import_object(key: str, path: str) -> Any:
    """Import the object that a config names.

    Args:
        key: the config key that names it, for messages.
        path: `package.module:name`, or `package.module.name` as Hydra's `_target_` has it.

    Raises:
        UserError: where the module is not found, cannot be imported, lacks the name, or is another
            one than the user's file of that name.
    """
    module_name, colon, name = path.partition(":") if ":" in path else path.rpartition(".")
    if not module_name or not colon or not name.isidentifier():
        raise UserError(f"{key}={path}: an object is named as package.module:name")
    home = _make_way(module_name)
    try:
        with naming_extras():
            module = _run(module_name)
            home_of = _home_of(getattr(module, name, None), module_name)
            beside = dict.fromkeys(_imported_beside(module))
            if _is_users(home_of):
                beside[home_of] = None
            beside.pop(module_name, None)
            if _edited & {*beside}:
                for one in filter(sys.modules.__contains__, beside):
                    _edited.add(one)  # those between hold what they took from the edited ones
                    _run(one)
                module = importlib.reload(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"{key}={path}: {module_name} cannot be imported: {error}") from error
        raise UserError(
            f"{key}={path}: there is no module {error.name!r}; modules are looked for among the"
            " installed packages, in the folders of --config-dir and in the current folder"
        ) from error
    except UserError:
        raise
    except Exception as error:
        if _is_of_layerfusion(module_name):
            raise
        fault = told(error, module_name)
        raise UserError(f"{key}={path}: {module_name} cannot be imported: {fault}") from error
    if home is not None and not _lies_in(module, home):
        raise UserError(
            f"{key}={path}: another module of that name,"
            f" {getattr(module, '__file__', None) or 'of Python itself'}, comes before the one in"
            f" {home}; give your file another name"
        )
    try:
        return getattr(module, name)
    except AttributeError as error:
        public = ", ".join(sorted(entry for entry in vars(module) if not entry.startswith("_")))
        raise UserError(
            f"{key}={path}: {module_name} has no {name!r}; it has: {public or 'nothing'}"
        ) from error


def code_hash(key: str, path: str) -> str | None:
    """Hash the source of the module with a user's function or class, and what it imports beside it.

    We hash whole modules, since a function may call others in them: its own and, unless that is of
    an installed package, those that this imports from the same folder. For a
    `functools.partial`, or another object that is called, it is the module that `path` names, where
    its values stand. It is the source that runs, also where the file has been edited since. Of a
    notebook it is that of the function or class alone.

    Args:
        key: the config key that names the object, for messages.
        path: as for `import_object`.

    Returns:
        16 hex digits; None if the source cannot be read, for example of a compiled module.

    Raises:
        UserError: as `import_object`.
    """
    named = import_object(key, path)
    module = sys.modules.get(_home_of(named, _module_of(path)))
    source = _source_that_ran(module) if module is not None else None
    code = source.encode() if source is not None else b""
    if source is None or module is sys.modules.get("__main__"):  # as a notebook writes it, or again
        own = _source_of(named)
        if own is not None:
            code += own.encode()
        elif inspect.isfunction(named):
            code += marshal.dumps(named.__code__)
    if code and module is not None:
        beside = _imported_beside(module)
        code += "".join(beside[name] for name in sorted(beside)).encode()
    return hashlib.sha256(code).hexdigest()[:16] if code else None


def import_from(folders: Iterable[Path]) -> None:
    """Let `import_object` find the modules in some folders, and in none of an earlier command's.

    The folders go behind all other places, so that a file of the user's cannot hide a package. A
    module whose file has been edited since it ran, runs anew when it is named next: a command calls
    this at its start alone, so that the code of its jobs stays the same to their end.

    Raises:
        UserError: for a folder that does not exist.
    """
    folders = list(folders)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--config-dir {folder}: there is no such folder")
    sys.path[:] = [place for place in sys.path if place not in _on_path]
    _user_folders[:] = dict.fromkeys(folder.resolve() for folder in folders)
    _on_path[:] = [str(folder) for folder in _user_folders if str(folder) not in sys.path]
    sys.path.extend(_on_path)
    importlib.invalidate_caches()  # a file may have been written a moment ago
    _beside.clear()
    for name in list(_ran):
        _notice_edit(name)


def require_named(key: str, path: str, modules: Iterable[str]) -> None:
    """Refuse an import path that a file of someone else's names, unless the user names its module.

    Args:
        key: the setting that names it, for messages.
        path: as `import_object` takes it.
        modules: modules that may be imported from, with what lies below them.

    Raises:
        UserError: for any other module; the message says how to name it.
    """
    module = _module_of(path)
    if any(f"{module}.".startswith(f"{name}.") for name in modules):
        return
    top = module.partition(".")[0]
    raise UserError(
        f"{key} {path}: it is not part of LayerFusion; if you trust its code, name the folder of"
        f" {top}.py, `layerfusion predict … --config-dir FOLDER`, or in Python modules=[{top!r}]"
    )


def user_folders() -> tuple[Path, ...]:
    """The folders that `import_from` was given last."""
    return tuple(_user_folders)


def _module_of(path: str) -> str:
    return path.partition(":")[0] if ":" in path else path.rpartition(".")[0]


def _make_way(module_name: str) -> Path | None:
    """Find the user's folder with a module, and forget one of that name from another folder."""
    top = module_name.partition(".")[0]
    if _is_of_layerfusion(top):  # a checkout of LayerFusion as the current folder
        return None
    home = next((folder for folder in _user_folders if _holds(folder, top)), None)
    if home is not None and _loaded.get(top, home) != home:
        for loaded in [name for name in sys.modules if f"{name}.".startswith(f"{top}.")]:
            del sys.modules[loaded]
    if home is not None and top not in sys.modules:
        _loaded[top] = home
    return home


def _run(name: str) -> ModuleType:
    """Import a module; if its file has been edited since it ran, run it anew."""
    module = sys.modules.get(name)
    if module is None or _is_of_layerfusion(name):
        module = importlib.import_module(name)
    elif name not in _ran and _is_older_than_its_file(module):
        _edited.add(name)
    if name in _edited:
        # Python takes compiled code for that of a file of the same second and size.
        with suppress(OSError):
            Path(importlib.util.cache_from_source(str(module.__file__))).unlink(missing_ok=True)
        module = importlib.reload(module)
        _edited.discard(name)
        _beside.clear()
    if not _is_of_layerfusion(name):
        _source_that_ran(module)
    return module


def _home_of(named: object, module_name: str) -> str:
    """Name the module that a function or class was written in; of other objects the given one."""
    if inspect.isroutine(named) or inspect.isclass(named):
        return getattr(named, "__module__", None) or module_name
    return module_name


def _source_that_ran(module: ModuleType) -> str | None:
    """Return the source of a module as it was when it ran; None where there is none to read."""
    name, spec = module.__name__, module.__spec__
    if name not in _ran or _ran[name][0] is not spec:  # the user may reload it too
        _ran[name] = spec, _source_of(module)
    return _ran[name][1]


def _imported_beside(module: ModuleType) -> dict[str, str]:
    """Find the modules from the folder of a module that it imports, or that these import.

    We read the imports in the sources: what else Python has loaded does not change the answer.

    Returns:
        Name to source, as it was when it ran; each comes after those that it imports itself.
    """
    name = module.__name__
    if name not in _beside or _beside[name][0] is not module.__spec__:
        _beside[name] = module.__spec__, _follow_imports(module)
    return _beside[name][1]


def _is_users(name: str) -> bool:
    """Tell whether a loaded module is of the user's own files."""
    top, module = name.partition(".")[0], sys.modules.get(name)
    known = top in sys.stdlib_module_names or _is_of_layerfusion(top)
    return module is not None and not known and not _is_installed(module)


def _follow_imports(module: ModuleType) -> dict[str, str]:
    file = getattr(module, "__file__", None)
    source = _source_that_ran(module) if file else None
    if file is None or source is None or not _is_users(module.__name__):
        return {}
    path = Path(os.path.abspath(file))
    is_package = path.name == "__init__.py"
    root = path.parents[module.__name__.count(".") + is_package]
    found, seen = dict[str, str](), {module.__name__}

    def follow(source: str, package: str) -> None:
        for name in _imports(source, package):
            if name in seen or _is_of_layerfusion(name):
                continue
            seen.add(name)
            place = root.joinpath(*name.split("."))
            files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
            there = next((one for one in files if one.is_file()), None)
            loaded = sys.modules.get(name)
            if there is None or (loaded is not None and not _lies_in(loaded, there.resolve())):
                continue
            if loaded is None:
                linecache.checkcache(str(there))
                own = "".join(linecache.getlines(str(there)))  # as `inspect` reads what is loaded
            else:
                own = _source_that_ran(loaded)
            follow(own or "", name if there == files[0] else name.rpartition(".")[0])
            found[name] = own or ""

    follow(source, module.__name__ if is_package else module.__name__.rpartition(".")[0])
    return found


def _imports(source: str, package: str) -> Iterator[str]:
    """Name the modules that a source imports, and the packages above them."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # told where it is imported
        return
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # of more dots than there are packages
                above = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                names = [f"{above}.{one.name}" for one in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _source_of(code: Any) -> str | None:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):
        return None


def _notice_edit(name: str) -> None:
    """Note that a module of the user's is to run anew, if its file is another one than it was."""
    module = sys.modules.get(name)
    if module is None or name == "__main__" or _is_installed(module):
        return
    ran, found = _source_that_ran(module), _source_of(module)
    if found is not None and found != ran:
        _edited.add(name)


def _is_older_than_its_file(module: ModuleType) -> bool:
    """Tell whether the file of a module that others imported has been edited since, if known."""
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py") or module.__name__ == "__main__":
        return False
    if _is_installed(module):
        return False
    try:
        now = Path(file).stat()
        compiled = Path(importlib.util.cache_from_source(file)).read_bytes()[:16]
    except (OSError, NotImplementedError):
        return False
    flags, time, size = (int.from_bytes(compiled[n : n + 4], "little") for n in (4, 8, 12))
    facts = int(now.st_mtime) & 0xFFFFFFFF, now.st_size & 0xFFFFFFFF
    return flags == 0 and facts != (time, size)


def _is_installed(module: ModuleType) -> bool:
    parts = Path(getattr(module, "__file__", None) or "").parts
    return "site-packages" in parts or "dist-packages" in parts


def _is_of_layerfusion(module_name: str) -> bool:
    return module_name.partition(".")[0] == __name__.partition(".")[0]


def _holds(folder: Path, top: str) -> bool:
    return (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()


def _lies_in(module: ModuleType, home: Path) -> bool:
    place = getattr(module, "__file__", None)
    return place is not None and Path(place).resolve().is_relative_to(home)
