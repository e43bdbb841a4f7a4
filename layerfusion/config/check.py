"""From a composed Hydra config to a checked `TrainConfig`."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import fields
from functools import lru_cache
from typing import Any

from layerfusion.config.job import (
    AS_PUBLISHED,
    DTYPES,
    HELD_OUT,
    LEXICAL_FEATURES,
    LOGGERS,
    LONG_TEXTS,
    POOLS,
    SCORED,
    SCORES,
    SELECTIONS,
    STACKED,
    STORE_DTYPES,
    WANDB_MODES,
    BackboneConfig,
    BudgetConfig,
    ExtractConfig,
    FusionConfig,
    LayersConfig,
    TrainConfig,
    TrainerConfig,
)
from layerfusion.config.operators import gather_arguments, settle
from layerfusion.config.protocol import check_protocol
from layerfusion.config.rules import check_rules
from layerfusion.errors import UserError, unknown


def load(composed: Any) -> TrainConfig:
    """Turn a composed Hydra config into a checked `TrainConfig`.

    Raises:
        UserError: for a key that does not exist, a value of the wrong type or out of range.
    """
    from omegaconf import Container, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        if not isinstance(composed, Container):
            composed = OmegaConf.create(composed)
        settings: Any = OmegaConf.to_container(composed, resolve=True)
        _refuse_unnamed(settings)
        if isinstance(settings.get("fusion"), dict):
            settings["fusion"] = gather_arguments(settings["fusion"])
        # A sweep names its jobs before it runs them, so each config is asked for twice.
        return deepcopy(_typed(json.dumps(settings)))
    except OmegaConfBaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = f"{error.full_key}: " if error.full_key else ""
        raise UserError(f"{where}{lines[0] if lines else error}") from error


def _refuse_unnamed(settings: Any) -> None:
    """Of groups that take several options, each option's keys have to stand under its name."""
    for group in ("backbone", "pooling", "lexical"):
        for key, value in (settings.get(group) or {}).items():
            if not isinstance(value, dict):
                raise UserError(
                    f"{group}.{key}: this is no {group}; in a file of yours every key stands"
                    f" indented under the {group}'s name: NAME: {{{key}: ...}}"
                )


@lru_cache(maxsize=1000)
def _typed(settings: str) -> TrainConfig:
    from omegaconf import OmegaConf

    config = OmegaConf.to_object(OmegaConf.merge(_schema(), json.loads(settings)))
    assert isinstance(config, TrainConfig)
    config.fusion = settle(config.fusion)
    check(config)
    return config


@lru_cache
def _schema() -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.structured(TrainConfig)


def check(config: TrainConfig) -> None:
    """Check everything that can be known before any work.

    Raises:
        UserError: naming the key, the value and what is allowed.
    """
    _share("dataset.validation_size", config.dataset.validation_size)
    _share("dataset.test_size", config.dataset.test_size)
    for name, backbone in config.backbone.items():
        _check_backbone(name, backbone)
    _check_sources(config)
    _check_layers(config.layers)
    check_protocol(config, TrainConfig(config.dataset))
    if config.protocol != AS_PUBLISHED:
        _check_fusion(config.fusion)
    check_rules(config.trainer, "trainer")
    check_devices(config.trainer)
    _choice("logger", config.logger.name, LOGGERS)
    _choice("logger.mode", config.logger.mode, WANDB_MODES)
    _check_extract(config.extract)
    for score in config.profile.scores:
        _choice("profile.scores", score, SCORES)
    for key, least in (("train", 2), ("test", 1), ("per_class", 2), ("draw", 0)):
        _at_least(f"limit.{key}", getattr(config.limit, key), least)
    _at_least("seeds", config.seeds, 1)
    _at_least("seed", config.seed, 0)


def _check_backbone(name: str, backbone: BackboneConfig) -> None:
    key = f"backbone.{name}"
    if not backbone.path and not backbone.sources:
        raise UserError(f"{key}: it has no path; is it selected, backbone=[{name}]?")
    _choice(f"{key}.dtype", backbone.dtype, DTYPES)
    _choice(f"{key}.long_texts", backbone.long_texts, LONG_TEXTS)
    _choice(f"{key}.truncation_side", backbone.truncation_side, ("right", "left"))
    _at_least(f"{key}.max_length", backbone.max_length, 4)
    _at_least(f"{key}.window_overlap", backbone.window_overlap, 0)
    if "{text}" not in backbone.template:
        raise UserError(f"{key}.template={backbone.template!r}: it must contain {{text}}")


def _check_sources(config: TrainConfig) -> None:
    """Backbones, lexical sources, poolings and the selection among them."""
    if not config.backbone:
        raise UserError("backbone: at least one is needed, for example backbone=[minilm]")
    for name, lexical in config.lexical.items():
        _choice(f"lexical.{name}.features", lexical.features, LEXICAL_FEATURES)
        for key in ("width", "max_features", "basis_rows"):
            _at_least(f"lexical.{name}.{key}", getattr(lexical, key), 2)
        if name in config.backbone:
            raise UserError(f"lexical.{name}: a backbone has the same name; rename one of them")
    if not config.pooling:
        raise UserError("pooling: at least one is needed, for example pooling=[mean]")
    for name, pooling in config.pooling.items():
        _choice(f"pooling.{name}.pool", pooling.pool, POOLS)
        if pooling.skip_first and pooling.pool not in ("mean", "max"):
            raise UserError(
                f"pooling.{name}.skip_first: it goes with mean and max, not with {pooling.pool}"
            )
    _choice("layers", config.layers.name, SELECTIONS)
    if config.layers.name == "fixed":
        for name in config.backbone:
            if not config.layers.fixed.get(name):
                raise UserError(
                    f"layers=fixed: no layer of {name} is given, layers.fixed.{name}=[…]"
                )
        for name in config.layers.fixed:
            if name not in config.backbone and name not in config.lexical:
                raise unknown("layers.fixed", name, [*config.backbone, *config.lexical])


def _check_layers(layers: LayersConfig) -> None:
    _choice("layers.score", layers.score, SCORES)
    _choice("layers.held_out", layers.held_out, HELD_OUT)
    for key, least in (("k", 1), ("max_layers", 1), ("folds", 2), ("sample", 1), ("pilot", 20)):
        _at_least(f"layers.{key}", getattr(layers, key), least)
    _at_least("layers.least_gain", layers.least_gain, 0)
    for key in ("mass", "max_similarity", "gradient_weight"):
        if not 0 <= getattr(layers, key) <= 1:
            raise UserError(f"layers.{key}={getattr(layers, key)}: it must lie in [0, 1]")
    if not layers.strengths or not all(0 < c < float("inf") for c in layers.strengths):
        raise UserError(f"layers.strengths={layers.strengths}: it must list positive numbers")
    for item in fields(BudgetConfig):
        _at_least(f"layers.budget.{item.name}", getattr(layers.budget, item.name), 0)
    if layers.pilot is not None and layers.name not in SCORED:
        raise UserError(
            f"layers.pilot: layers={layers.name} needs no pilot; it goes with {', '.join(SCORED)}"
        )
    if layers.pilot is not None and layers.held_out == "validation":
        raise UserError("layers.pilot: it is judged by folds of its own, layers.held_out=folds")


def _check_fusion(fusion: FusionConfig) -> None:
    check_rules(fusion, "fusion")
    if fusion.residual and fusion.name == STACKED:
        raise UserError(f"fusion.residual: {STACKED} ends in classes and has no residual form")
    for key in ("among", "widths"):
        if not getattr(fusion, key):
            raise UserError(f"fusion.{key}=[]: it must name at least one")


def check_devices(trainer: TrainerConfig) -> None:
    """Raise a UserError where a head is to be trained on several devices."""
    if trainer.devices != 1:
        raise UserError(
            f"trainer.devices={trainer.devices}: a head trains on 1 device; run jobs side by side"
            " instead. (DDP would start each of its processes with the command of the whole sweep,"
            " and a head is too small to share.)"
        )


def _check_extract(extract: ExtractConfig) -> None:
    _choice("extract.store_dtype", extract.store_dtype, STORE_DTYPES)
    for key in ("token_budget", "shard_tokens", "shard_texts", "num_shards"):
        _at_least(f"extract.{key}", getattr(extract, key), 1)
    if not 0 <= extract.shard < extract.num_shards:
        raise UserError(
            f"extract.shard={extract.shard}: it must lie between 0 and "
            f"extract.num_shards - 1 = {extract.num_shards - 1}"
        )


def _choice(key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise unknown(key, value, allowed)


def _at_least(key: str, value: float | None, least: float) -> None:
    if value is not None and not value >= least:
        raise UserError(f"{key}={value}: it must be at least {least}")


def _share(key: str, value: float) -> None:
    if not 0 < value < 1:
        raise UserError(f"{key}={value}: it must lie between 0 and 1")
