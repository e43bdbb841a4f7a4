"""The fusion operators that can be named, as `conf/fusion/*.yaml` describes them.

A file with Hydra's `_target_` describes an operator: its class, and the class's own arguments
beside the keys that every head has. Files of the user's, in the folders of `--config-dir`, count as
ours do. Nothing here imports an operator: torch is slow, and configs are composed all the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from layerfusion.config.imports import user_folders
from layerfusion.config.job import AUTO, LATE_STACK, STACKED, STACKS, FusionConfig
from layerfusion.errors import UserError, unknown

TARGET = "_target_"
EVERY_HEAD = tuple(item.name for item in fields(FusionConfig))
"""Keys of the group `fusion` that belong to every head; all others are the operator's own."""
OF_AUTO = ("among", "widths", "members", "prefer")
"""Keys of `EVERY_HEAD` that only `fusion=auto` reads."""
FORMER = {"temperature": 1.0, "source_dropout": 0.0, "side": 16, "experts": 4, "heads": 4}
"""Arguments that every fusion had, whatever its operator, with their defaults: old bundles hold
them, and the names of jobs are still made from them."""


@dataclass(frozen=True)
class OperatorEntry:
    """One operator that a config can name."""

    name: str
    target: str
    """Import path of its class, as Hydra writes it: `package.module.Class`."""
    arguments: Mapping[str, Any]
    """The class's own arguments with the values in the file."""
    shipped: bool
    """True for an operator of LayerFusion, false for one from a folder of the user's."""


def config_folder() -> Path:
    """The folder of the YAML files: inside the installed package, or at the checkout's root."""
    package = Path(__file__).parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def find_operator(name: str) -> OperatorEntry | None:
    """The operator of that name, or None; ours come before the user's."""
    path = _file_of(name)
    return None if path is None else _read(path, path.stat().st_mtime_ns)


def _file_of(name: str) -> Path | None:
    for folder in (config_folder(), *user_folders()):
        path = folder / "fusion" / f"{name}.yaml"
        if name.isidentifier() and path.is_file():
            return path
    return None


def operator_names() -> list[str]:
    """Names of all operators, ours and the user's."""
    folders = (config_folder(), *user_folders())
    names = sorted({path.stem for folder in folders for path in folder.glob("fusion/*.yaml")})
    return [name for name in names if find_operator(name) is not None]


@lru_cache(maxsize=1000)
def _read(path: Path, changed: int) -> OperatorEntry | None:
    """Read a file of the group `fusion`; None where it describes no operator."""
    from omegaconf import DictConfig, OmegaConf

    content = OmegaConf.load(path)
    if not isinstance(content, DictConfig) or TARGET not in content:
        return None
    settings: Any = OmegaConf.to_container(content)
    shipped = path.is_relative_to(config_folder())
    return OperatorEntry(path.stem, settings[TARGET], _own_arguments(settings), shipped)


def _own_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    known = (*EVERY_HEAD, TARGET, "defaults")
    return {key: value for key, value in settings.items() if key not in known}


def gather_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Move an operator's own arguments out of the keys that every head has.

    Args:
        settings: the composed node `fusion`, where both stand side by side.

    Returns:
        What `FusionConfig` takes.
    """
    gathered = {key: value for key, value in settings.items() if key in EVERY_HEAD}
    gathered["arguments"] = (gathered.get("arguments") or {}) | _own_arguments(settings)
    gathered["target"] = settings.get(TARGET) or gathered.get("target") or ""
    return gathered


def settle(fusion: FusionConfig) -> FusionConfig:
    """Complete a fusion with its operator's class and default arguments, and check their names.

    The arguments of a class of the user's are checked where the operator is built, since that
    needs the class.

    Raises:
        UserError: for an operator that does not exist, or an argument that it does not take.
    """
    if fusion.name == AUTO:
        return replace(fusion, arguments=_arguments_of_auto(fusion))
    entry = find_operator(fusion.name)
    if entry is None:
        file = _file_of(fusion.name)
        if file is not None and not fusion.target and not file.is_relative_to(config_folder()):
            raise UserError(
                f"{file}: it names no operator; add the line {TARGET}: my_module.MyClass"
            )
        if file is not None:  # a stack, or a head of another protocol
            for key in fusion.arguments:
                raise unknown(f"fusion={fusion.name}", key, ())
            return fusion
        if not fusion.target or fusion.target.startswith("layerfusion."):  # a class of ours
            raise unknown("fusion", fusion.name, [*operator_names(), *STACKS, AUTO])
        return fusion
    if fusion.target not in ("", entry.target):
        raise UserError(
            f"fusion.{TARGET}={fusion.target}: the name {fusion.name!r} belongs to {entry.target};"
            " give the operator a name of its own, `name: NAME` in its file"
        )
    given = fusion.arguments
    if entry.shipped:
        for key in given:
            if key not in entry.arguments:
                raise unknown(f"fusion={fusion.name}", key, _keys(entry.arguments))
        given = {key: _typed_as(key, value, entry.arguments[key]) for key, value in given.items()}
    return replace(fusion, target=entry.target, arguments={**entry.arguments, **given})


def among_of(auto: FusionConfig, *, multilabel: bool) -> list[str]:
    """Name the fusions that `fusion=auto` tries.

    A trained head is worth most where a text has several labels: there a stack with one as a member
    is tried too, unless the user says otherwise.

    Args:
        auto: the settings of `fusion=auto`.
        multilabel: whether a text has any number of the labels.
    """
    if auto.among is not None:
        return list(auto.among)
    return [STACKED, LATE_STACK] if multilabel else [STACKED]


def settled_head(auto: FusionConfig, name: str, width: int | None = None) -> FusionConfig:
    """One of the fusions that `fusion=auto` tries.

    Args:
        auto: the settings of `fusion=auto`.
        name: one of its `among`.
        width: one of its `widths`; None for the one in `auto`.
    """
    head = replace(auto, name=name, width=auto.width if width is None else width, arguments={})
    entry = find_operator(name)
    if entry is not None:
        taken = {key: value for key, value in auto.arguments.items() if key in entry.arguments}
        head = replace(head, arguments=taken)
    return settle(head)


def _arguments_of_auto(fusion: FusionConfig) -> dict[str, Any]:
    """Check the arguments that the user set for `auto`: some operator has to take each of them."""
    takers: dict[str, Any] = {}
    for name in fusion.among or ():
        entry = find_operator(name)
        if entry is None and name not in STACKS:
            raise unknown("fusion.among", name, [*operator_names(), *STACKS])
        takers |= {} if entry is None else entry.arguments
    for key in fusion.arguments:
        if key not in takers:
            raise unknown("fusion=auto", key, _keys(takers))
    return {key: _typed_as(key, value, takers[key]) for key, value in fusion.arguments.items()}


def _keys(arguments: Mapping[str, Any]) -> list[str]:
    """List the keys that a user may set: those of every head, and the operator's arguments."""
    hidden = ("target", "arguments", *OF_AUTO)
    return [*(key for key in EVERY_HEAD if key not in hidden), *arguments]


def _typed_as(key: str, value: Any, default: Any) -> Any:
    """The value with the type of the default: a whole number may stand for a decimal one."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if default is not None and value is not None and type(value) is not type(default):
        raise UserError(f"fusion.{key}={value}: a value like {default!r} is needed")
    return value


def former_fusion(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a bundle of schema 1, without the arguments that its operator does not take."""
    entry = find_operator(settings["name"])
    taken = entry.arguments if entry is not None else ()
    return {key: value for key, value in settings.items() if key not in FORMER or key in taken}
