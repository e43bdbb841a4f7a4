"""What of a classifier is shared: nothing of its user's machine and accounts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from layerfusion.config.check import load as load_settings
from layerfusion.config.job import DatasetConfig, LoggerConfig, PathsConfig, TrainConfig
from layerfusion.errors import UserError
from layerfusion.runs.bundle import Bundle
from layerfusion.runs.bundle_files import ESTIMATOR

PLACES = ("path", "train", "validation", "test", "vectors", "rows")
"""Keys of a data set, a backbone and their sources that name a file or folder of the user's."""
_PATH = "path "
"""Begins the origin of files of the user's, before their places."""


def shareable(bundle: Bundle) -> Bundle:
    """Give a classifier without what is this machine's and this user's own.

    Of each file and folder the last part stays. How its job was tracked, and where it kept its
    files, is left out. Nothing that vectors depend on is changed, such as a prompt.

    Raises:
        UserError: if what an estimator kept beside the classifier is damaged.
    """
    settings = asdict(bundle.config)
    for part in ("dataset", "backbone"):
        settings[part] = _last_parts(settings[part])
    for name, own in bundle.config.backbone.items():
        origin = bundle.models[name].origin if name in bundle.models else ""
        if own.pipeline and not origin.startswith("hub "):  # one that is not used is not looked for
            settings["backbone"][name]["pipeline"] = Path(own.pipeline).name
    shared = replace(load_settings(settings), logger=LoggerConfig(), paths=PathsConfig())
    models = {
        name: replace(model, origin=shared_origin(model.origin), folder="")
        for name, model in bundle.models.items()
    }
    facts = dict(bundle.facts)
    if ESTIMATOR in facts:
        try:
            params = _shared_params(facts[ESTIMATOR]["params"], bundle.config)
        except (LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{bundle.folder}: the facts of its estimator are damaged") from error
        facts[ESTIMATOR] = {**facts[ESTIMATOR], "params": params}
    return replace(bundle, folder=None, config=shared, models=models, facts=facts)


def shared_origin(origin: str, data: DatasetConfig | None = None) -> str:
    """Say where files came from, with the last part of their places.

    Args:
        origin: `path PLACE`, where they are the user's own, or another origin, which stays.
        data: settings of the data set whose origin it is, which may name several files.

    Example:
        >>> shared_origin("path clients/acme inc/minilm"), shared_origin("hub ada/spam@5f1c")
        ('path minilm', 'hub ada/spam@5f1c')
    """
    if not origin.startswith(_PATH):
        return origin
    places = [origin.removeprefix(_PATH)]
    if data is not None and data.train:
        places = [name for name in (data.train, data.validation, data.test) if name]
    return _PATH + ", ".join(Path(place).name for place in places)


def without_places(text: str) -> str:
    """Leave the last part of each absolute path in a text.

    Example:
        >>> without_places("texts of /home/ada/reviews.csv")
        'texts of reviews.csv'
    """
    return re.sub(r"(?<!\S)[/~](?:[^/\s]*/)+([^/\s]+)", r"\1", text)


def _last_parts(settings: Any, key: str = "") -> Any:
    """Leave the last part of what `PLACES` name, and of absolute paths in descriptions."""
    key = key.rpartition(".")[2]
    if isinstance(settings, Mapping):
        own = isinstance(settings.get("path"), str)  # its files lie in a folder of the user's
        return {
            name: value if name == "files" and not own else _last_parts(value, name)
            for name, value in settings.items()
        }
    if isinstance(settings, list):
        shared = [_last_parts(entry) for entry in settings]
        if key == "sources":  # a folder may be called as the repository is
            hubs = {source["hub"] for source in settings}
            for source, kept in zip(settings, shared, strict=True):
                kept["path"] = source["path"] if source["path"] in hubs else kept["path"]
        return shared
    if isinstance(settings, str) and key in PLACES:
        return Path(settings).name
    described = isinstance(settings, str) and key == "description"
    return without_places(settings) if described else settings


def _shared_params(params: Mapping[str, Any], config: TrainConfig) -> dict[str, Any]:
    """Copy the parameters of an estimator without places and settings of tracking."""
    sources = (source for one in config.backbone.values() for source in one.sources)
    hubs = {source.hub for source in sources}

    def model(name: str) -> str:
        return name if name.partition("@")[0] in hubs else Path(name).name

    models = params["models"]
    return {
        **params,
        "cache": PathsConfig().cache,
        "models": model(models) if isinstance(models, str) else [model(one) for one in models],
        "settings": {
            name: _last_parts(value, name)
            for name, value in (params["settings"] or {}).items()
            if name.partition(".")[0] not in ("logger", "paths")
        }
        or None,
    }
