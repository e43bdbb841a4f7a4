"""Computes the name of a job: a hash of the settings that change its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layerfusion.config.check import load
from layerfusion.config.imports import code_hash, is_import_path
from layerfusion.config.job import (
    AUTO,
    GATED_STACK,
    HONEST,
    LOG_LOSS,
    REGRESSION,
    STACKED,
    STACKS,
    UNWEIGHTED,
    ProfileConfig,
    TrainConfig,
)
from layerfusion.config.operators import FORMER, OF_AUTO, among_of, find_operator
from layerfusion.errors import UserError

RESULT_VERSION = 5
"""Raise it when the code gives other results for the same settings."""
HEAD_VERSION = 2
"""Raise it when trained heads alone come out otherwise."""
STACK_VERSION = 12
"""Raise it when stacks alone, or the choice of `fusion=auto`, come out otherwise."""
PROBE_VERSION = 4
"""Raise it when probes come out otherwise: they choose layers, and are what profiles show."""
WEIGHTED_VERSION = 1
"""Raise it when jobs with `class_weights` alone come out otherwise."""
IRRELEVANT = ("paths", "logger", "extract", "sweep", "profile", "bundle", "by_folds", "long_texts")
"""Settings that change where or how fast a result is computed, or what is kept beside it, but not
the result; and `long_texts`, which each model has among its own."""
LATER_KEYS = ("files", "reader", "multilabel", "label_separator", "label_columns", "group")
"""Keys of a data set that are left out where they are not set, as in the names of jobs from before
there were such keys."""
HINTS = ("description", "num_layers", "width")
"""Keys of a backbone that only readers and plans use."""
OF_REQUESTS = ("token_variable", "batch", "timeout")
"""Keys of a backbone that say how an endpoint is asked, and change no vector."""
GIVEN_KEYS = ("endpoint", "model", "dimensions", "vectors", "column", "rows", "pipeline")
"""Keys of a backbone whose vectors are computed elsewhere."""
UNSCORED = {
    "last": ("name", "budget"),
    "all": ("name", "budget"),
    "fixed": ("name", "fixed", "budget"),
}
"""Keys that affect each selection that uses no scores."""
CHOICE = ("name", "fixed", "score", "pilot")
"""Selection settings that do not affect a layer profile, since it computes every selection."""
HEAD = ("fusion", "trainer", "seeds", "objective", "class_weights", "time_limit")
"""Settings that do not affect a layer profile, since it trains no head."""


def job_id(config: TrainConfig) -> str:
    """Return the first 12 hex digits of the sha256 of the settings that change a job's result."""
    return _hash(_settings(config))


def recipe_id(config: TrainConfig) -> str:
    """Hash a job's settings without its models, its lexical sources and its sample of each class.

    Jobs with the same recipe treat their models and rows in the same way. Layers that are fixed by
    name count as part of a model.
    """
    settings = _settings(config)
    if config.layers.name == "fixed":
        settings["layers"].pop("fixed")
    for key in ("backbone", "lexical"):
        settings.pop(key)
    settings["order"] = list(config.pooling)
    for key in ("per_class", "draw"):
        settings["limit"].pop(key)
    return _hash(settings)


def recorded_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings of a job's selection, fusion and training by their keys.

    These are the settings in its name that its record says nowhere else. Those that are not set are
    left out.
    """
    fusion = asdict(config.fusion)
    arguments = fusion.pop("arguments")
    settings = {
        "layers": _settings(config)["layers"],
        "fusion": fusion | arguments,
        "trainer": asdict(config.trainer),
        **{key: getattr(config, key) for key in ("objective", "class_weights", "time_limit")},
    }
    for group, keys in {
        "layers": ("name", "fixed"),  # the record has them
        "fusion": ("name", "target", *(() if config.fusion.name == AUTO else OF_AUTO)),
        "trainer": ("accelerator", "devices"),
    }.items():
        for key in keys:
            settings[group].pop(key, None)
    return {key: value for key, value in _flat(settings) if value is not None}


def _flat(settings: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def user_code(config: TrainConfig) -> dict[str, str]:
    """Hash the user's code that chooses layers or fuses them, by import path.

    Texts, and vectors with their poolings, have identities of their own.

    Returns:
        Import path to the hash of the source of its module, where that can be read.

    Raises:
        UserError: if the code cannot be imported.
    """
    fusion, layers = config.fusion, config.layers
    named = {"layers.name": layers.name, "layers.score": layers.score}
    paths = {path: key for key, path in named.items() if is_import_path(path)}
    entries = [] if fusion.name != AUTO else map(find_operator, fusion.among or ())
    targets = [fusion.target, *(entry.target for entry in entries if entry is not None)]
    paths |= {one: "fusion" for one in targets if one and not one.startswith("layerfusion.")}
    return _hashes(paths)


def code_of_profile(config: TrainConfig) -> dict[str, str]:
    """Hash the user's code that a layer profile runs: scores, selections, multi-layer probes.

    Returns and raises as `user_code`.
    """
    named = {
        "layers.score": [config.layers.score],
        "profile.scores": config.profile.scores,
        "profile.selections": config.profile.selections,
        "profile.multi_layer": config.profile.multi_layer,
    }
    return _hashes({x: key for key, every in named.items() for x in every if is_import_path(x)})


def _hashes(paths: Mapping[str, str]) -> dict[str, str]:
    """Hash the source of each object that an import path names, the paths given with their keys."""
    hashes = {path: code_hash(key, path) for path, key in paths.items()}
    return {path: source for path, source in hashes.items() if source is not None}


def profile_id(config: TrainConfig) -> str:
    """Hash the settings that change a layer profile."""
    settings = _settings(config)
    settings["profile"], settings["probes"] = asdict(config.profile), PROBE_VERSION
    for key in ("selections", "multi_layer"):  # as in the names of profiles before these keys
        if getattr(config.profile, key) == getattr(ProfileConfig(), key):
            settings["profile"].pop(key)
    layers = asdict(config.layers)
    settings["layers"] = {key: layers[key] for key in layers if key not in CHOICE}
    return _hash({key: value for key, value in settings.items() if key not in HEAD})


def part_id(config: TrainConfig) -> str:
    """Hash the settings of a command that leaves no result, with the settings of extraction."""
    return _hash({**_settings(config), "extract": asdict(config.extract)})


def refuse_other_job(folder: Path, finished: str, asked: str) -> None:
    """Refuse a folder that holds the result of other settings than those that are asked for.

    Args:
        folder: of the job.
        finished: name of the job whose record lies there.
        asked: name of the job that is to run there.

    Raises:
        UserError: where the two differ.
    """
    if finished != asked:
        raise UserError(
            f"{folder}: it holds the result of a job with other settings ({finished}, not {asked});"
            " choose another folder (hydra.run.dir, or hydra.sweep.dir and .subdir), or remove it"
        )


def composed_id(command: str, composed: Any) -> str:
    """Name the job of a command that Hydra composed: `job_id` of train, `profile_id` of profile."""
    config = load(without_hydra(composed))
    return profile_id(config) if command == "profile" else job_id(config)


def without_hydra(composed: Any) -> Any:
    """Leave Hydra's own settings out of a composed config."""
    from omegaconf import OmegaConf

    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def sweep_of(config: TrainConfig, folder: Path) -> str | None:
    """Return the sweep that a job belongs to, or None for a single job outside a sweep's folder.

    A sweep with a folder of its own (`hydra.sweep.dir`) has the name of that folder.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    named = config.sweep != TrainConfig.sweep
    if named or folder.parent.name == config.sweep:
        return config.sweep
    if HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir).resolve().name
    return None


def result_versions() -> dict[str, int]:
    """Return every version above by its name: with another one, some job has another result."""
    return {name: one for name, one in globals().items() if name.endswith("_VERSION")}


def _settings(config: TrainConfig) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(config).items() if key not in IRRELEVANT}
    # Stacked fusion, which auto may choose, fits probes for every kind of selection.
    probed = config.fusion.name in (*STACKS, AUTO)
    keys = settings["layers"] if probed else UNSCORED.get(config.layers.name, settings["layers"])
    if keys is settings["layers"]:
        settings["probes"] = PROBE_VERSION
    settings["layers"] = {key: settings["layers"][key] for key in keys}
    settings["dataset"].pop("description")
    for key in LATER_KEYS:
        if not getattr(config.dataset, key):
            settings["dataset"].pop(key)
    if config.objective == LOG_LOSS:
        settings.pop("objective")
    if config.class_weights == UNWEIGHTED:
        settings.pop("class_weights")
    else:
        settings["weighted"] = WEIGHTED_VERSION
    if config.time_limit is None:
        settings.pop("time_limit")
    if config.limit.per_class is None:
        settings["limit"]["draw"] = 0  # without `per_class` there is no draw
    settings["fusion"] = _fusion_settings(config)
    if config.protocol == HONEST and config.fusion.name not in (STACKED, GATED_STACK):
        settings["fusion"]["head"] = HEAD_VERSION
    for key in ("accelerator", "devices"):
        settings["trainer"].pop(key)
    for backbone in settings["backbone"].values():
        for key in (*HINTS, *OF_REQUESTS):
            backbone.pop(key)
        for key in GIVEN_KEYS:
            if backbone[key] is None:
                backbone.pop(key)  # as in the names of jobs before there were such keys
    for lexical in settings["lexical"].values():
        if lexical["learner"] == REGRESSION:
            lexical.pop("learner")  # as in the names of jobs before there were others
    # The order of the sources determines the initial weights.
    settings["order"] = [list(config.backbone), list(config.pooling)]
    settings["store_dtype"] = config.extract.store_dtype
    settings["version"] = RESULT_VERSION
    return settings


def _fusion_settings(config: TrainConfig) -> dict[str, Any]:
    """The fusion in the form that jobs have always been named by, all arguments side by side."""
    fusion = config.fusion
    settings = asdict(fusion)
    target, arguments = settings.pop("target"), settings.pop("arguments")
    if fusion.name != AUTO:
        for key in OF_AUTO:
            settings.pop(key)
    else:
        settings["among"] = among_of(fusion, multilabel=config.dataset.has_several_labels)
        entries = {name: find_operator(name) for name in settings["among"]}
        for name, entry in entries.items():
            if entry is not None and not entry.shipped:
                settings[f"among.{name}"] = [entry.target, dict(entry.arguments)]
    if fusion.name in (*STACKS, AUTO):
        settings["stack"] = STACK_VERSION
    if target and not target.startswith("layerfusion."):
        settings["target"] = target
    return {**FORMER, **settings, **arguments}


def _hash(settings: dict[str, Any]) -> str:
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def register_resolver() -> None:
    """Register `${layerfusion.job:}`, the name of the job that a config composes.

    `${layerfusion.profile:}` is the name of the layer profile, and `${layerfusion.part:}` that of a
    part of an extraction.
    """
    from omegaconf import DictConfig, OmegaConf

    def composed(root: DictConfig) -> TrainConfig:
        return load(without_hydra(root))

    def job(*, _root_: DictConfig) -> str:
        return job_id(composed(_root_))

    def profile(*, _root_: DictConfig) -> str:
        return profile_id(composed(_root_))

    def part(*, _root_: DictConfig) -> str:
        return part_id(composed(_root_))

    OmegaConf.register_new_resolver("layerfusion.job", job, replace=True)
    OmegaConf.register_new_resolver("layerfusion.part", part, replace=True)
    OmegaConf.register_new_resolver("layerfusion.profile", profile, replace=True)
