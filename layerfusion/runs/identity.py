"""The name of a job: the hash of what changes its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from layerfusion.config import TrainConfig, load

IRRELEVANT = ("paths", "logger", "extract", "sweep")
"""Groups that change where and how fast a result is made, not the result."""
IRRELEVANT_KEYS = frozenset({"description", "num_layers", "accelerator", "devices", "bytes"})


def job_id(config: TrainConfig) -> str:
    """The first 12 hex digits of the sha256 of the settings that change a job's result."""
    settings = {key: value for key, value in asdict(config).items() if key not in IRRELEVANT}
    for backbone in settings["backbone"].values():
        backbone.pop("width")  # a hint for the plan, unlike the width of the fusion
    canonical = json.dumps(_without(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _without(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without(v) for k, v in value.items() if k not in IRRELEVANT_KEYS}
    if isinstance(value, list):
        return [_without(item) for item in value]
    return value


def register_resolver() -> None:
    """Let configs say `${layerfusion.job:}` for the name of the job that they compose."""
    from omegaconf import DictConfig, OmegaConf

    def name(*, _root_: DictConfig) -> str:
        tree = OmegaConf.to_container(_root_)
        assert isinstance(tree, dict)
        tree.pop("hydra", None)
        return job_id(load(tree))

    OmegaConf.register_new_resolver("layerfusion.job", name, replace=True)
