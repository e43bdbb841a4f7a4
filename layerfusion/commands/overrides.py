"""From the arguments of a Python function to the config that the command line would compose."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from layerfusion.composing.hydra import compose
from layerfusion.composing.own_models import (
    as_asked,
    checked_place,
    distinct_names,
    folder_settings,
    is_config,
    place_settings,
)
from layerfusion.config.check import load
from layerfusion.config.imports import import_from
from layerfusion.config.job import TrainConfig
from layerfusion.errors import UserError
from layerfusion.texts.dataset import TextDataset
from layerfusion.texts.from_memory import GROUP, write_parquet

log = logging.getLogger(__name__)

Names = str | Path | Sequence[str | Path]
"""One name or several."""

SETTINGS = ("cache", "config_dir", "experiment", *(one.name for one in fields(TrainConfig)))
"""What `**settings` of a Python function may name."""
NO_DATASET = Path("no data set")
"""Stands for the data set of a command that reads none."""
OF_JOBS = ("dataset", "limit", "by_folds", "bundle", "sweep", "profile", "logger", "protocol")
"""Settings of jobs on a data set, with a folder for what they leave."""
OPTIONAL = ("layers", "fusion", "pooling", "lexical")
"""Arguments of Python functions that leave what the command line has, where they are None."""
_COMPOSING = threading.Lock()
"""Held while Hydra composes, since its state is of the whole process."""
ANY_MODEL: Names = ("the default",)
"""Stands for the model of a config that is composed for its data set alone."""


def config_of(
    dataset: TextDataset | str | Path,
    backbone: Names,
    settings: Mapping[str, Any],
    *,
    command: str = "train",
    **groups: str | Mapping[str, Any] | None,
) -> TrainConfig:
    """Compose the config of a command.

    Args:
        dataset: texts in memory, a file or folder, or a name in `conf/dataset`; `NO_DATASET` for a
            command that reads none.
        backbone: models: folders, `owner/name` on the hub, or names in `conf/backbone`; `ANY_MODEL`
            for a command that opens none.
        settings: other settings, as `train` of the Python functions takes them.
        command: name of the primary config.
        **groups: option of a group of configs, such as `fusion="gated"`. For `layers` it may be a
            mapping of model, as `backbone` names it, to its layers. What is None, as `pooling` and
            `lexical` among the settings may be, is that of the command line.

    Raises:
        UserError: for a name that does not exist, or a setting that the command does not have.
    """
    keys = dict(settings)
    if dataset is NO_DATASET:
        _refuse_of_jobs(keys)
    for name in ("experiment", "config_dir"):
        if keys.get(name, True) is None:
            del keys[name]
    for given in (keys, groups):
        for name in [name for name in OPTIONAL if name in given and given[name] is None]:
            del given[name]
    cache = Path(keys.pop("cache", None) or keys.pop("paths.cache", None) or "outputs/cache")
    folders = [Path(folder) for folder in listed("config_dir", keys.pop("config_dir", ()))]
    import_from([*folders, Path()])
    words = [f"--config-dir={folder}" for folder in folders]
    chosen, models, names = _backbone_words(backbone)
    words += chosen
    if isinstance(fixed := groups.get("layers"), Mapping):
        groups["layers"] = "fixed"
        keys["layers.fixed"] = {names.get(str(key), key): own for key, own in fixed.items()}
    for group, option in groups.items():
        if not isinstance(option, str):
            raise _no_setting(option)
        words.append(f"{group}={option}")
    for group in ("pooling", "lexical"):
        if group in keys:
            words.append(f"{group}=[{','.join(map(str, listed(group, keys.pop(group))))}]")
    words += _dataset_words(dataset, cache)
    words += [f"paths.cache={_value(str(cache))}"]
    if "logger" not in keys:
        words.append("logger=none")
    for key, value in keys.items():
        words += _setting_words(key.rstrip("_"), value)
    asked, said = as_asked(words, {name: place for place, name in names.items()})
    for line in said:
        log.info(line)
    with _COMPOSING:
        return load(compose(command, [*models, *words, *asked]))


def _refuse_of_jobs(settings: Iterable[str]) -> None:
    """Refuse settings that change nothing where rows are given and no folder is written."""
    for key in settings:
        name = key.rstrip("_")
        if name.partition(".")[0] in OF_JOBS or name == "paths.outputs":
            raise UserError(
                f"settings: {name}: it is of a job on a data set (train, profile) and would change"
                " nothing here; the rows are those that are given"
            )


def _setting_words(key: str, value: Any) -> list[str]:
    """Write a setting as overrides: one for each key inside it, however deep, where it has any.

    `{"minilm": {"max_length": 64}}` for `backbone` is `backbone.minilm.max_length=64`. As a whole
    it would be an option of the group `backbone.minilm`, of which there is none.
    """
    if not isinstance(value, Mapping) or not value:
        return [f"{key}={_value(value)}"]
    return [word for inner, own in value.items() for word in _setting_words(f"{key}.{inner}", own)]


def _dataset_words(dataset: TextDataset | str | Path, cache: Path) -> list[str]:
    if dataset is NO_DATASET:
        return ["dataset=local", "dataset.path=none"]
    if isinstance(dataset, TextDataset):
        place = write_parquet(dataset, cache / "datasets")
        names = list(dataset.label_names)
        return [
            "dataset=local",
            f"dataset.name={_value(dataset.name)}",
            f"dataset.path={_value(str(place))}",
            f"dataset.label_names={_value(names)}",
            *(["dataset.multilabel=true"] if dataset.multilabel else []),
            *([f"dataset.group={GROUP}"] if dataset.splits["train"].groups is not None else []),
        ]
    if not isinstance(dataset, str | Path):
        raise UserError(
            "dataset: what load_dataset gives, a path or a name is needed, found an object of type"
            f" {type(dataset).__name__}"
        )
    if is_config("dataset", dataset):
        return [f"dataset={dataset}"]
    return ["dataset=local", f"dataset.path={_value(str(dataset))}"]


def _backbone_words(backbone: Names) -> tuple[list[str], list[str], dict[str, str]]:
    """Select models by name, folder or id on the hub.

    A `Path` is never an id.

    Returns:
        The override that selects models by name, those that the configs of the others are made of,
        and the place of each of these to its name.

    Raises:
        UserError: for a path that is no model, and where two models would have the same name.
    """
    if backbone is ANY_MODEL:
        return [], [], {}
    models = listed("backbone", backbone)
    named = [str(model) for model in models if is_config("backbone", model)]
    places = [model for model in models if str(model) not in named]
    settings: list[dict[str, Any]] = [
        place_settings(place) if isinstance(place, str) else folder_settings(str(place))
        for place in places
    ]
    # An id is named without its commit.
    plain = [one["path"] if "path" in one else one["sources"][0]["path"] for one in settings]
    names = distinct_names(plain, named)
    words = []
    for own, one, place in zip(names, settings, places, strict=True):
        checked_place(str(place))
        words += [
            f"{'+' if key == 'sources' else ''}backbone.{own}.{key}={_value(value)}"
            for key, value in one.items()
        ]
    chosen = [f"backbone=[{','.join(named)}]"]
    return chosen, words, dict(zip(map(str, places), names, strict=True))


def listed(key: str, value: Any) -> list[str | Path]:
    """List the names that an argument holds.

    Raises:
        UserError: for anything but a name or several.
    """
    names = [value] if isinstance(value, str | Path) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str | Path) for name in names):
        raise UserError(f"{key}: a name or a list of names is needed, found {value!r}")
    return list(names)


def _value(value: Any) -> str:
    """Write a value as Hydra reads it on the command line."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, Iterable):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    if isinstance(value, int | float):
        return repr(value)
    raise _no_setting(value)


def _no_setting(value: object) -> UserError:
    return UserError(
        f"settings: an object of type {type(value).__name__} is no value of a setting; code of your"
        " own is named, 'package.module:name' (docs/extend.md)"
    )
