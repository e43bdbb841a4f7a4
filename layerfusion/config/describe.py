"""What every group, option and key means, read off the YAML files and the dataclasses.

Nothing here imports Hydra, torch or NumPy, so that `--help` and the completion of a shell are fast.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import yaml

from layerfusion.config import commands, job
from layerfusion.config.operators import config_folder
from layerfusion.config.rules import RULE

GROUPS = {
    "dataset": "the labelled texts",
    "backbone": "the frozen language models, a list: [minilm,smollm2]",
    "layers": "how the layers that become sources are selected",
    "fusion": "how the sources become one prediction",
    "pooling": "how the token vectors of a text become one vector, a list: [mean,last]",
    "lexical": "TF-IDF sources beside the layers, a list: [words]",
    "experiment": "prepared settings of several groups, some of them whole sweeps",
    "trainer": "training of a head",
    "logger": "tracking of the job",
    "paths": "where things are kept",
    "extract": "the pass of the texts through the models",
    "search": "a study of `layerfusion search`",
    "reproduce": "a comparison of `layerfusion reproduce`",
}
"""Groups of `conf/`, in the order in which help lists them."""
LISTS = ("backbone", "pooling", "lexical")
"""Groups that take a list, and whose keys stand under the name of an option."""
NAME = "NAME"
"""Stands for the name of an option in such a key: `backbone.NAME.max_length`."""
_HIDDEN = ("fusion.target", "fusion.arguments", "dataset.sources", "backbone.NAME.sources")
"""Keys that are not set on the command line."""


@dataclass(frozen=True)
class Key:
    """A setting."""

    name: str
    """The key as it is written on the command line."""
    meaning: str
    default: str
    """The default as YAML writes it; empty where there is none."""
    allowed: tuple[str, ...] = ()
    """The values that it may have, where there is a list of them."""
    must: str = ""
    """What its value must do, where there is no list."""


@dataclass(frozen=True)
class Option:
    """A file `conf/GROUP/NAME.yaml`."""

    group: str
    name: str
    file: Path

    @property
    def comment(self) -> str:
        """The comments at the top of the file, and its description if there are none."""
        text = self.file.read_text("utf-8")
        lines = []
        for line in text.splitlines():
            if line.startswith("#") and "@package" not in line:
                lines.append(line[1:].removeprefix(" "))
            elif (line.strip() and not line.startswith("#")) or (lines and not line.strip()):
                break
        return "\n".join(lines) or self.meaning

    @property
    def meaning(self) -> str:
        """What it is, in a line: its description, or else the first sentence of its comments."""
        text = self.file.read_text("utf-8")
        if found := re.search(r"^ *description: (.+)$", text, re.MULTILINE):
            return found[1].strip("\"'")
        comments = re.findall(r"^#(?! @package) ?(.*)$", text, re.MULTILINE)
        sentence = re.match(r"(.{20,}?)(?:[.:](?=\s|$)|; | \(|$)|.+", " ".join(comments))
        return (sentence[1] or sentence[0]).strip() if sentence else ""

    @property
    def sets(self) -> dict[str, Any]:
        """The keys that the file sets, with their values."""
        content = _content(self.file)
        if self.group in LISTS:
            content = content.get(self.name) or {}
        return content if isinstance(content, dict) else {}


def options(group: str, folders: Sequence[Path] = ()) -> list[Option]:
    """List the options of a group, those in folders of the user's included."""
    found = {
        path.stem: path
        for folder in (config_folder(), *folders)
        for path in sorted((folder / group).glob("*.yaml"))
    }
    return [Option(group, name, path) for name, path in sorted(found.items())]


def default_option(group: str) -> str:
    """Name the option that a job has by default, or the list of them; empty if there is none."""
    for file in ("job", "search", "reproduce", "train"):
        for entry in _content(config_folder() / f"{file}.yaml").get("defaults", ()):
            if isinstance(entry, dict) and group in entry:
                value = entry[group]
                return f"[{','.join(value)}]" if isinstance(value, list) else value or ""
    return ""


@cache
def keys() -> dict[str, Key]:
    """All keys of jobs, searches and reproductions, by name."""
    found = [
        *_keys_of(job.TrainConfig, "", job),
        *_keys_of(commands.SearchConfig, "search.", commands),
        *_keys_of(commands.ReproduceConfig, "reproduce.", commands),
        *_of_operators(),
    ]
    return {key.name: key for key in found if key.name not in _HIDDEN}


def find_key(name: str) -> Key | None:
    """Find a key; `backbone.minilm.dtype` is `backbone.NAME.dtype`."""
    first, _, rest = name.partition(".")
    if first in LISTS and "." in rest:
        name = f"{first}.{NAME}.{rest.partition('.')[2]}"
    return keys().get(name)


def glossary() -> dict[str, str]:
    """The words of docs/glossary.md with their meanings."""
    package = Path(__file__).parents[1]
    inside = package / "glossary.md"
    file = inside if inside.is_file() else package.parent / "docs/glossary.md"
    if not file.is_file():
        return {}
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \|$", file.read_text("utf-8"), re.MULTILINE)
    return {word: re.sub(r"[`*]", "", meaning) for word, meaning in rows}


# -- dataclasses ----------------------------------------------------------------------------------


def _keys_of(kind: type, prefix: str, module: ModuleType) -> Iterator[Key]:
    meanings, hints = _meanings(module)[kind.__name__], get_type_hints(kind)
    for item in fields(kind):
        name, hint = f"{prefix}{item.name}", hints[item.name]
        inner = next((one for one in (hint, *get_args(hint)) if is_dataclass(one)), None)
        if isinstance(inner, type) and item.name not in ("sources",):
            place = f"{name}.{NAME}." if hint is not inner and name in LISTS else f"{name}."
            if hint is inner or name in LISTS:
                yield from _keys_of(inner, place, module)
                continue
        rule = item.metadata.get(RULE)
        allowed = tuple(map(str, rule.allowed())) if rule is not None and rule.allowed else ()
        must = rule.words if rule is not None else ""
        default: Any = item.default
        if item.default_factory is not MISSING:
            default = item.default_factory()
        set_by_file = _set_by_files(name)
        default = default if set_by_file is None else set_by_file
        shown = "" if default is MISSING or is_dataclass(default) else written(default)
        yield Key(name, meanings.get(item.name, ""), shown, allowed, must)


def _set_by_files(name: str) -> Any:
    """The value that a key has in `conf/job.yaml` or the default option of its group."""
    group, _, key = name.rpartition(".")
    if group == "dataset":  # its default is one data set among others
        return None
    if not group or group == "limit":
        return _content(config_folder() / "job.yaml").get(key) if not group else None
    file = config_folder() / group / f"{default_option(group)}.yaml"
    return _content(file).get(key) if file.is_file() else None


def written(value: Any) -> str:
    """Write a value as on the command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}: {written(entry)}' for key, entry in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


@cache
def _meanings(module: ModuleType) -> dict[str, dict[str, str]]:
    """Class to the sentence that stands below each of its fields in the source."""
    result: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        said = result.setdefault(node.name, {})
        for above, below in zip(node.body, node.body[1:], strict=False):
            if not isinstance(above, ast.AnnAssign) or not isinstance(above.target, ast.Name):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                said[above.target.id] = " ".join(str(below.value.value).split())
    return result


# -- YAML files -----------------------------------------------------------------------------------


@cache
def _content(file: Path) -> dict[str, Any]:
    content = yaml.load(file.read_text("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.Loader))
    return content if isinstance(content, dict) else {}


def _of_operators() -> list[Key]:
    """The arguments of fusion operators, which only their files have."""
    known = {item.name for item in fields(job.FusionConfig)} | {"_target_", "defaults"}
    result = {}
    for option in options("fusion"):
        for key, value in option.sets.items():
            if key not in known:
                said = f"{_comment_of(option.file, key)} (an argument of fusion={option.name})"
                result[key] = Key(f"fusion.{key}", said, written(value))
    return list(result.values())


def _comment_of(file: Path, key: str) -> str:
    """The comment on a key of a file: behind it, or in the lines above it."""
    above: list[str] = []
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("#"):
            above.append(line[1:].strip())
        elif found := re.match(rf"{re.escape(key)}:[^#]*(?:# *(.*))?$", line):
            return found[1] or " ".join(above)
        else:
            above = []
    return ""
