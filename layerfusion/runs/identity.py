"""The name of a job: the hash of what changes its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

from layerfusion.config import TrainConfig, load

RESULT_VERSION = 1
"""Raised when the code gives other results for the same settings."""
IRRELEVANT = ("paths", "logger", "extract", "sweep")
"""Groups that change where and how fast a result is made, not the result."""
HINTS = ("description", "num_layers", "width")
"""Keys of a backbone that are for readers and plans."""


def job_id(config: TrainConfig) -> str:
    """The first 12 hex digits of the sha256 of the settings that change a job's result."""
    settings = {key: value for key, value in asdict(config).items() if key not in IRRELEVANT}
    settings["dataset"].pop("description")
    for key in ("accelerator", "devices"):
        settings["trainer"].pop(key)
    for backbone in settings["backbone"].values():
        for key in HINTS:
            backbone.pop(key)
    settings["order"] = list(config.backbone)  # the sources' order sets the initial weights
    settings["store_dtype"] = config.extract.store_dtype
    settings["version"] = RESULT_VERSION
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def register_resolver() -> None:
    """Let configs say `${layerfusion.job:}` for the name of the job that they compose."""
    from omegaconf import DictConfig, OmegaConf

    def name(*, _root_: DictConfig) -> str:
        tree = OmegaConf.to_container(_root_)
        assert isinstance(tree, dict)
        tree.pop("hydra", None)
        return job_id(load(tree))

    OmegaConf.register_new_resolver("layerfusion.job", name, replace=True)
