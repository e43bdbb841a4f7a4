"""Composes a command's config with Hydra, and turns Hydra's errors into one line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from layerfusion.assets.files import in_one_line, is_shown_in_one_line
from layerfusion.composing.launching import JobsFailed, JobTask, LauncherFailed
from layerfusion.composing.mteb import register_tasks
from layerfusion.composing.own_models import named_by_key, named_models
from layerfusion.composing.registration import VERSION_BASE, register, schema_of
from layerfusion.config.check import of_value
from layerfusion.config.imports import import_from
from layerfusion.config.job import TrainConfig
from layerfusion.config.operators import EVERY_HEAD, TARGET, config_folder
from layerfusion.config.options import as_option
from layerfusion.config.secrets import shown
from layerfusion.errors import UserError, library_errors, one_line, raised_in, unknown

MULTIRUN = {"-m", "--multirun"}
WITH_VALUE = {
    *("--cfg", "-c", "--package", "-p", "--info", "-i"),
    *("--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun"),
}
"""Flags of Hydra that are followed by a value."""
_FLAGS = {"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r"}
_FUSION_KEYS = {*EVERY_HEAD, TARGET}


def run_hydra(name: str, task: Callable[[TrainConfig, Path], Any], arguments: Sequence[str]) -> int:
    """Compose `conf/NAME.yaml` with the command line and call the task once for each job.

    Hydra reads everything after the command: overrides, `-m`, `--cfg job`, `--config-dir`,
    `--help`.

    Args:
        name: name of the primary config.
        task: function that gets the checked config and the job's folder.
        arguments: the command line after the command.

    Returns:
        0, or 1 if a job of a sweep failed.

    Raises:
        UserError: for a mistake in the command line or, outside a sweep, in the job.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    register()
    modules = [*split_config_dirs(arguments)[1], Path()]
    import_from(modules)
    _refuse_hidden_files(modules[:-1])
    sweep = bool(MULTIRUN & set(arguments))
    if sweep and {"--cfg", "-c", "--info", "-i"} & set(arguments):
        raise UserError("--cfg and --info show a single job: leave -m out")
    job = JobTask(name, task, sweep=sweep, modules=modules)
    mistakes: list[UserError] = []

    def run(composed: DictConfig) -> Any:
        try:
            return job(composed)
        except UserError as error:
            mistakes.append(error)  # raised at the end, as Hydra would print a traceback
            return None
        except OSError as error:
            if not is_shown_in_one_line(error):
                raise
            mistakes.append(UserError(in_one_line(error)))
            return None

    words, verbose = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [f"layerfusion {name}", *user_keys(_flags_first(arguments))]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then passes errors on instead of exiting
    try:
        place = str(config_folder())
        with _hydra_errors():
            hydra.main(version_base=VERSION_BASE, config_path=place, config_name=name)(run)()
    except (JobsFailed, LauncherFailed) as error:
        print(f"layerfusion: {shown(str(error))}", file=sys.stderr)
        return 1
    except (HydraException, OmegaConfBaseException) as error:
        raise as_user_error(error, arguments, schema_of(name)) from error
    except ValueError as error:  # of logging, where it cannot open the log of the job
        cause = error.__cause__
        if not isinstance(cause, OSError) or not is_shown_in_one_line(cause):
            raise
        raise UserError(in_one_line(cause)) from error
    finally:
        sys.argv = words
        if verbose is None:
            os.environ.pop("HYDRA_FULL_ERROR")
        else:
            os.environ["HYDRA_FULL_ERROR"] = verbose
    if mistakes:
        raise mistakes[0]
    return 0


def compose(name: str, overrides: Sequence[str]) -> Any:
    """Compose a config outside `hydra.main`, for commands that create several jobs themselves.

    Args:
        name: name of the primary config.
        overrides: overrides as on the command line, `--config-dir` included.

    Raises:
        UserError: for a name or key that does not exist.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register()
    rest, folders = split_config_dirs(user_keys(overrides))
    import_from([*folders, Path()])
    _refuse_hidden_files(folders)
    places = ",".join(f"file://{folder.resolve()}" for folder in folders)
    search = [f"hydra.searchpath=[{places}]"] if folders else []
    try:
        place = str(config_folder().resolve())
        with _hydra_errors(), initialize_config_dir(place, version_base=VERSION_BASE):
            return hydra_compose(name, overrides=[*rest, *search])
    except (HydraException, OmegaConfBaseException) as error:
        raise as_user_error(error, overrides, schema_of(name)) from error


def _hydra_errors() -> AbstractContextManager[None]:
    """Turn what Hydra raises for odd overrides or files, and is of no kind of its own, into a line.

    Errors of its own kinds, and of a job, pass.
    """
    from hydra.errors import HydraException
    from yaml import MarkedYAMLError

    def passing(error: Exception) -> bool:
        if isinstance(error, MarkedYAMLError):
            return False
        return isinstance(error, HydraException) or raised_in(error) != "hydra"

    def explain(error: Exception) -> str:
        if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
            place = error.problem_mark
            return f"{place.name}: no valid YAML in line {place.line + 1}: {error.problem}"
        return f"Hydra cannot read the overrides: {one_line(error)}"

    return library_errors(explain, passing)


# -- keys that no file declares -----------------------------------------------------------------


def user_keys(arguments: Sequence[str]) -> list[str]:
    """Let users set keys that no file declares: a backbone's layers, its keys, or a new backbone.

    These are `layers.fixed.NAME=[…]` or `layers.fixed={NAME: […]}`, `dataset.files={SPLIT: FILE}`,
    `backbone.NAME.KEY=…`, `backbone.NAME.path=FOLDER` (or `endpoint=`, `vectors=`, `pipeline=`) and
    `fusion.ARGUMENT=…`, which an operator takes though its file does not list it. Hydra requires
    `++` before such a key, which is added here. A backbone that is declared only by its path is
    removed from the list `backbone=[…]`, since no file describes it. Without such a list, it is the
    job's only backbone. One that is added whole, `+backbone.NAME={…}`, stands beside the others. A
    model that the list names by its place, a folder or `owner/name` on the hub, gets a name.
    """
    known = set(group_options("backbone", arguments))
    whole = (re.match(r"\++backbone\.([^.=]+)=\{", argument) for argument in arguments)
    added = {match[1] for match in whole if match}
    own = named_by_key(arguments) - known - added
    register_tasks(arguments)
    arguments, named = named_models(arguments, known | own)
    known |= named
    _refuse_numbers_as_options(arguments)
    listed = any(argument.startswith("backbone=") for argument in arguments)
    result = []
    for argument in arguments:
        of_operator = re.match(r"fusion\.(\w+)=", argument)
        new = of_operator is not None and of_operator[1] not in _FUSION_KEYS
        if new or re.match(r"layers\.fixed(\.[^.=]+)?=|dataset\.files(\.\w+)?=", argument):
            argument = f"++{argument}"
        elif match := re.match(r"backbone\.([^.=]+)\.", argument):
            argument = f"++{argument}" if match[1] in own | known | added else argument
            if match[1] in own and not listed:
                result.append("backbone=[]")
                listed = True
        elif own and argument.startswith("backbone="):
            argument = re.sub(r"\[([^\]]*)\]", lambda found: _without(own, found[1]), argument)
        result.append(argument)
    return result


def _refuse_numbers_as_options(arguments: Sequence[str]) -> None:
    """Refuse a config group whose option is no name, for which Hydra raises errors of Python's."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for argument in arguments:
        match = re.match(r"\+*([a-z]+)=", argument)
        options = group_options(match[1], arguments) if match else []
        if match is None or not options:
            continue
        try:
            value: Any = parser.parse_override(argument).value()
        except HydraException:  # told when Hydra reads it
            continue
        values = value.list if isinstance(value, ChoiceSweep) else [value]
        names = [name for one in values for name in (one if isinstance(one, list) else [one])]
        wrong = next((n for n in names if not isinstance(n, str)), "")
        if wrong != "":
            raise unknown(match[1], wrong, options)


def _without(own: set[str], names: str) -> str:
    kept = [name for name in names.split(",") if name.strip() not in own]
    return f"[{','.join(kept)}]"


def _refuse_hidden_files(folders: Sequence[Path]) -> None:
    """Refuse a user's YAML file with the place of one of ours, which Hydra would read instead."""
    shipped = config_folder()
    for folder in folders:
        for ours in sorted(shipped.rglob("*.yaml")):
            file = folder / ours.relative_to(shipped)
            if file.is_file() and ours.read_bytes() != file.read_bytes():
                raise UserError(
                    f"{file}: LayerFusion has a {ours.relative_to(shipped)} of its own, which would"
                    " be read instead; give your file another name"
                )


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Put all flags before the overrides, since Hydra takes none among them."""
    rest, folders = split_config_dirs(arguments)
    flags, overrides = [f"--config-dir={folder}" for folder in folders], []
    words = iter(rest)
    for word in words:
        if word in MULTIRUN:
            flags.append("--multirun")
        elif word in WITH_VALUE:
            flags += [word, next(words, "")]
        else:
            (flags if is_flag(word) else overrides).append(word)
    return [*flags, *overrides]


def is_flag(word: str) -> bool:
    """Tell a flag of Hydra from an override.

    Raises:
        UserError: for a flag that Hydra does not have.
    """
    known = (*MULTIRUN, *WITH_VALUE, *_FLAGS, "--config-dir", "-cd")
    if word.startswith("-") and word != "-" and word.partition("=")[0] not in known:
        raise unknown("options", word, (*sorted(MULTIRUN), "--cfg job", "--config-dir FOLDER"))
    return word.startswith("-")


def split_config_dirs(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Return the command line without `--config-dir`, and the folders that it names."""
    rest: list[str] = []
    folders: list[Path] = []
    words = iter(arguments)
    for word in words:
        if word in ("--config-dir", "-cd"):
            folders.append(Path(next(words, ".")))
        elif word.startswith("--config-dir="):
            folders.append(Path(word.partition("=")[2]))
        else:
            rest.append(word)
    return rest, folders


def group_options(group: str, arguments: Sequence[str] = ()) -> list[str]:
    """List the options of a config group, including those in the user's `--config-dir`."""
    folders = [config_folder(), *split_config_dirs(arguments)[1]]
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


# -- errors -------------------------------------------------------------------------------------


def as_user_error(error: Exception, arguments: Sequence[str], schema: type) -> UserError:
    """Turn an error of Hydra or OmegaConf into one line that says what the schema allows."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause  # raised by a resolver, while Hydra composed the job's name
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    if match := re.search(r"Could not (?:find|load) '([\w/]+)/([^']*)'", text):
        return unknown(
            match[1], match[2], [*group_options(match[1], arguments), *_stored(match[1])]
        )
    if match := re.search(r"In '(experiment/[^']+)': ConfigKeyError", text):
        return UserError(
            f"{match[1]}: its keys are read as keys of `experiment`; begin the file with the line"
            " # @package _global_"
        )
    if match := re.search(r"Could not override '([\w.]+)'", text):
        return _unknown_key(match[1], schema)
    if override := getattr(error, "override", None):
        return UserError(
            f"{override}: Hydra cannot read this override; it must be KEY=VALUE{_quoted(override)}"
        )
    if match := re.search(r"Ambiguous value for argument '([^']*)'", text):
        return UserError(
            f"{match[1]}: a value with commas is a sweep, which needs -m{_quoted(match[1])}"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cause = error.__cause__
    if cause is not None and str(cause).strip():
        lines.append(str(cause).strip().splitlines()[0])
    if match := re.fullmatch(
        r"In '([^']+)': \w+ raised while composing config:", lines[0] if lines else ""
    ):
        key = re.search(r"full_key: (\S+)", text)
        return UserError(f"{match[1]}: {f'{key[1]}: ' if key else ''}{of_value(lines[1])}")
    line = ": ".join(lines[:1] + lines[-1:]) if len(lines) > 1 else text or repr(error)
    if match := re.fullmatch(r"Error merging override \+{0,2}([^\s=]+)=.*?: (.*)", line):
        return UserError(f"{match[1]}: {of_value(match[2])}")
    return UserError(line)


def _quoted(word: str) -> str:
    """Write a word whose value is a plain string as a shell and Hydra read it."""
    key, _, value = word.partition("=")
    if not re.fullmatch(r"\+{0,2}[\w./@]+", key) or not value or value[0] in "[{'\"":
        return ""
    return f", or, if its value is one string, {as_option(key, value)}"


def _stored(group: str) -> list[str]:
    """List the options of a config group that come from Hydra and its plugins."""
    from hydra.core.config_store import ConfigStore

    try:
        return [name.removesuffix(".yaml") for name in ConfigStore.instance().list(group)]
    except OSError:  # the group exists only as files
        return []


def _unknown_key(key: str, schema: type) -> UserError:
    """Build an error that names the deepest existing part of a key and the names it allows."""
    from omegaconf import DictConfig, OmegaConf

    node: Any = OmegaConf.structured(schema)
    parts = key.split(".")
    for depth, part in enumerate(parts):
        names = list(node) if isinstance(node, DictConfig) and not node._is_missing() else []
        if part not in names:
            return unknown(".".join(parts[:depth]) or "config", part, names)
        child = node._get_node(part)
        if isinstance(child, DictConfig) and child._is_missing():
            if is_dataclass(child._metadata.ref_type):
                node = OmegaConf.structured(child._metadata.ref_type)
                continue
            return UserError(f"{key}: there is no such key in the composed config")
        node = child
    return UserError(f"{key}: there is no such key")
