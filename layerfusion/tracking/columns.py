"""The config of a W&B run: the columns that a reader groups and filters by, then every setting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from layerfusion.config.identity import HEAD
from layerfusion.config.job import TrainConfig
from layerfusion.config.secrets import redacted

LEFT_OUT = re.compile(
    r"logger|paths|dataset/(train|validation|test|files)|.+/(sources|path|description)"
    r"|.+/(vectors|rows|pipeline|endpoint|batch|timeout|token_variable)"
)
"""Keys of the config that say where files come from or go to, and how a server is asked. The origin
of the texts and of each model is in the lineage."""
ROWS = {"n_train": "train", "n_validation": "validation", "n_test": "test"}
"""Columns with the rows of a split, which are known once the texts have been read."""


def run_config(config: TrainConfig, *, of_profile: bool = False) -> dict[str, Any]:
    """Return the flat config of a run, keys and passwords left out.

    It begins with `models`, `layers`, `pooling`, `fusion` and `dataset`, each one word. A name is
    the value of the option, as in `layers=last`, so that a sweep of W&B over these options has the
    same columns; layers that are fixed by name stand for themselves. Then comes every setting that
    is set, such as `fusion/width`. A layer profile trains no head and takes every layer, so that it
    has neither `layers` and `fusion` nor any setting of heads.
    """
    layers = config.layers.name
    if layers == "fixed":
        chosen = ((model, config.layers.fixed.get(model, [])) for model in config.backbone)
        layers = "+".join(f"{model}:{layer}" for model, own in chosen for layer in own)
    first = {
        "models": "+".join([*config.backbone, *config.lexical]),
        "layers": layers,
        "pooling": "+".join(config.pooling),
        "fusion": config.fusion.name,
        "dataset": config.dataset.title,
    }
    settings = asdict(config)
    for key in (*HEAD, "layers") if of_profile else ():
        first.pop(key, None)
    for key in HEAD if of_profile else ():
        settings.pop(key)
    return {**redacted(first), **flatten(redacted(settings))}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested config to keys like `fusion/name`; lists of plain values stay lists.

    Dots would not work, since W&B reads a dot as a path when it groups and filters. What is not
    set, as null or empty, is left out, and so are the keys of `LEFT_OUT`.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if LEFT_OUT.fullmatch(name) or value is None or value in ([], {}):
            continue
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}/"))
        else:
            flat[name] = value
    return flat
