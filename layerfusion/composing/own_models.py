"""Models and data that a command names by their place: a folder, or `owner/name` on the hub."""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerfusion.assets.paths import data_suffix, find_path, is_hub_id
from layerfusion.assets.sentence import Asked, asked_for
from layerfusion.assets.source import Kind, SourceUnavailable
from layerfusion.config.imports import user_folders
from layerfusion.config.operators import config_folder
from layerfusion.config.options import as_option
from layerfusion.config.registry import READERS
from layerfusion.errors import UserError

USUAL = ("mean",)
"""The poolings of a job that names none."""
_ENTRY = re.compile(r"""'[^']*'|"[^"]*"|[^\[\],'"\s]+""")
"""A name, or a place, in the value of `backbone=[…]`."""
_DECLARED = r"\.(path|endpoint|vectors|pipeline)=|=\{"
"""What follows the name of a model in the word that declares it."""
_OF_MODELS = ("config.json", "*/config.json", "*.gguf", "modules.json", "adapter_config.json")
"""Files of which a model's folder has one. What lies there is checked when it is loaded."""
_FORMS = (
    "a folder with config.json, tokenizer and *.safetensors, a .gguf file, owner/name of the hub or"
    " a name of conf/backbone is needed"
)


def is_config(kind: Kind, name: str | Path) -> bool:
    """Tell a name in `conf/backbone` or `conf/dataset` from a path.

    A `Path`, and a string with a separator or the suffix of a data file, is always a path.

    Raises:
        UserError: for the name of a config that is also that of a file or folder here.
    """
    if isinstance(name, Path) or re.search(r"[/\\]|^[.~]", name) or _has_data_suffix(kind, name):
        return False
    folders = (config_folder(), *user_folders())
    known = any(os.path.isfile(folder / kind / f"{name}.yaml") for folder in folders)
    if known and os.path.exists(name):
        raise UserError(
            f"{kind}: {name!r} is a name in conf/{kind}, and there is a file or folder of that name"
            f" here; write {f'./{name}'!r} for the latter, or work in another folder"
        )
    return known or not found(kind, name)


def _has_data_suffix(kind: Kind, name: str) -> bool:
    return kind == "dataset" and data_suffix(Path(name)) in READERS


def found(kind: Kind, path: str) -> bool:
    """Tell whether a path exists, here or in a folder that the environment names for this kind."""
    try:
        find_path(path, kind)
    except SourceUnavailable:
        return False
    return True


def distinct_names(places: Sequence[str | Path], named: Sequence[str]) -> list[str]:
    """Name models by the last part of their paths, or the last two where that is not enough.

    Raises:
        UserError: where two models would still have the same name.
    """
    parts = [Path(os.path.abspath(os.path.expanduser(place))).parts for place in places]
    last = Counter([*named, *(part[-1] for part in parts)])
    names = ["_".join(part[-1:] if last[part[-1]] == 1 else part[-2:]) for part in parts]
    names = [re.sub(r"\W", "_", name) for name in names]
    for number, name in enumerate(names):
        if name in (*named, *names[:number]):
            raise UserError(
                f"backbone: {str(places[number])!r} would be a second model of the name {name!r};"
                " give each a name of its own with a file in conf/backbone"
            )
    return names


def named_models(arguments: Sequence[str], known: set[str]) -> tuple[list[str], set[str]]:
    """Give the models that `backbone=` names by their place a name, and register them with Hydra.

    Args:
        arguments: overrides. In `backbone=[minilm,owner/name,./folder]` the last two are places;
            `owner/name@commit` is a commit of the hub.
        known: names of models that have a config.

    Returns:
        The overrides with names alone, and the names that were given.

    Raises:
        UserError: where two models would have the same name.
    """
    words = [word for word in arguments if re.match(r"\+*backbone=", word)]
    entries = [one for word in words for one in _entries(word) if _is_place(one, known)]
    if not entries:
        return list(arguments), set()
    kept: dict[str, str] = {}  # one folder may be written in several ways
    for entry in entries:
        kept.setdefault(checked_place(entry), entry)
    places = list(kept.values())
    for place in places:
        _say_if_of_the_hub(place)
    names = distinct_names([place.partition("@")[0] for place in places], sorted(known))
    for name, place in zip(names, places, strict=True):
        _register(name, place)
    by_place = dict(zip(kept, names, strict=True))
    named = {entry: by_place[checked_place(entry)] for entry in entries}

    def renamed(match: re.Match[str]) -> str:
        return named.get(match[0].strip("'\""), match[0])

    def changed(word: str) -> str:
        key, _, value = word.partition("=")
        return f"{key}={_ENTRY.sub(renamed, value)}"

    arguments = [changed(word) if word in words else word for word in arguments]
    asked, said = as_asked(arguments, dict(zip(names, places, strict=True)))
    for line in said:
        print(line, file=sys.stderr)
    return [*arguments, *asked], set(names)


def named_by_key(arguments: Iterable[str]) -> set[str]:
    """Name the models that overrides declare without a file: `backbone.x.path=` and the like."""
    found = (re.match(rf"\+*backbone\.([^.=]+)({_DECLARED})", word) for word in arguments)
    return {match[1] for match in found if match}


def as_asked(
    arguments: Sequence[str], places: Mapping[str, str | Path]
) -> tuple[list[str], list[str]]:
    """Take over what folders of sentence-transformers ask for, unless the user says otherwise.

    Length and prompt are part of a model's config already. The poolings are those of the job, so
    they are taken over where it has this model alone.

    Args:
        arguments: overrides, without those that the configs of these models are made of.
        places: name of each model that is named by its place, to that place.

    Returns:
        The overrides that this adds, and a line for each folder that asks for something.
    """
    own = {word.lstrip("+").partition("=")[0] for word in arguments}
    listed = [word for word in arguments if word.lstrip("+").startswith("backbone=")]
    named = re.findall(r"\w+", listed[-1].partition("=")[2]) if listed else []
    models = {*places, *named, *named_by_key(arguments)}
    words, said = [], []
    for name, place in places.items():
        asked = _asked(str(place))
        taken: dict[str, str | list[str]] = {
            f"backbone.{name}.{key}": str(value) for key, value in asked.settings.items()
        }
        free = len(models) == 1 and not own & {"pooling", "experiment"}
        if asked.pooling not in ((), USUAL) and free:
            taken["pooling"] = list(asked.pooling)
            words.append(f"pooling=[{','.join(asked.pooling)}]")
        shown = [as_option(key, value) for key, value in taken.items() if key not in own]
        if shown:
            asks = "as its files for sentence-transformers ask"
            said.append(f"backbone={place}: {asks}: {' '.join(shown)}")
    return words, said


def _asked(place: str) -> Asked:
    """What the folder of a model asks for; nothing of one on the hub, which is not here yet."""
    try:
        return asked_for(find_path(place, "backbone"))
    except SourceUnavailable:
        return Asked()


def _entries(word: str) -> list[str]:
    return [entry.strip("'\"") for entry in _ENTRY.findall(word.partition("=")[2])]


def _is_place(entry: str, known: set[str]) -> bool:
    """Tell a folder, a file or an id of the hub from the name of a config."""
    if entry in known or not entry or entry == "???" or re.search(r"[(){}$:]", entry):
        return False
    return bool(re.search(r"[/\\]|^[.~]", entry)) or found("backbone", entry)


def checked_place(place: str) -> str:
    """Return the path of a model in full, or its id on the hub.

    Raises:
        UserError: for a path that is no model.
    """
    try:
        path = find_path(place, "backbone")
    except SourceUnavailable as error:
        if is_hub_id(place.partition("@")[0]) and not os.path.exists(os.path.dirname(place)):
            return place
        raise UserError(
            f"backbone={place}: {error}; {_FORMS}, for example backbone=minilm"
        ) from None
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise UserError(f"backbone={place}: it is a file; {_FORMS}")
    if path.is_dir() and not any(next(path.glob(one), None) for one in _OF_MODELS):
        raise UserError(f"backbone={place}: the folder has no config.json; {_FORMS}")
    return str(path)


def _say_if_of_the_hub(place: str) -> None:
    """Say that a place is taken for an id of the hub, as a folder that is not here may be meant.

    Each command says so before it does anything, also one that would not ask the hub.
    """
    try:
        find_path(place, "backbone")
    except SourceUnavailable as error:
        said = f"backbone={place}: {error}; taken for a model of the Hugging Face hub"
        print(said, file=sys.stderr)


def folder_settings(place: str) -> dict[str, Any]:
    """Return the keys of the config of a model in a folder or file.

    They are its path and, of a folder of sentence-transformers, the length and the prompt that it
    asks for.
    """
    return {"path": place, **_asked(place).settings}


def place_settings(place: str) -> dict[str, Any]:
    """Return the keys of a model's config that name its place: its path, or its sources on the hub.

    Args:
        place: a folder or file, `owner/name` or `owner/name@commit`. What exists here is no id.
    """
    repository, _, revision = place.partition("@")
    if not is_hub_id(repository) or found("backbone", place):
        return folder_settings(place)
    hub = {"hub": repository, **({"revision": revision} if revision else {})}
    return {"sources": [{"path": repository}, hub]}


def _register(name: str, place: str) -> None:
    """Register the config of a model with Hydra, for this process and those of a launcher."""
    from hydra.core.config_store import ConfigStore

    node = {name: place_settings(place)}
    ConfigStore.instance().store(group="backbone", name=name, node=node)
