"""The settings that the published protocol fixes, and what it fixes them to.

`as_published` is what the scripts behind the papers do, kept so that its claim can be held against
what is true: the last hidden state, pooled over all positions of a batch of two with the padding
counted, a fixed head, and the best test accuracy over the epochs as the figure to report.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from layerfusion.config.job import TRUNCATE, TrainConfig
from layerfusion.errors import UserError

AS_PUBLISHED = "as_published"
PUBLISHED_OPERATORS = (
    "published_concat",
    "published_hadamard",
    "published_sum",
    "published_matmul",
    "published_quaternion",
    "published_moe",
)
PUBLISHED_MAX_LENGTH = 512
PUBLISHED_BATCH = 2
"""Texts that pass through the model together, in the data's order."""
PUBLISHED_TRAINER: dict[str, float] = {
    "max_epochs": 100,
    "batch_size": 1024,
    "learning_rate": 1e-4,
    "weight_decay": 0.0,
}
"""Adam, without a schedule and without early stopping."""
MOST_SOURCES = 2


def check_settings(config: TrainConfig, default: TrainConfig) -> None:
    """Check that a job's settings belong to the protocol; nothing is overruled in silence.

    Args:
        config: the job.
        default: a job whose groups have their defaults.

    Raises:
        UserError: naming the setting that the protocol does not leave open.
    """
    if config.fusion.name not in PUBLISHED_OPERATORS:
        raise UserError(
            f"fusion={config.fusion.name}: protocol={AS_PUBLISHED} has operators of its own:"
            f" {', '.join(PUBLISHED_OPERATORS)}"
        )
    if len(config.backbone) > MOST_SOURCES:
        raise UserError(
            f"backbone=[{','.join(config.backbone)}]: the operators of protocol={AS_PUBLISHED} take"
            f" one or two backbones, found {len(config.backbone)}"
        )
    if config.fusion.residual and config.fusion.name == "published_concat":
        raise UserError("fusion.residual: published_concat is [x1; x2] and has no residual form")
    if config.dataset.has_several_labels:
        key = "multilabel=true" if config.dataset.multilabel else "label_columns"
        raise UserError(
            f"dataset.{key}: protocol={AS_PUBLISHED} has a softmax over classes, of which a text"
            " has one; protocol=honest takes texts with several labels"
        )
    _check_fixed(config, default)


def _check_fixed(config: TrainConfig, default: TrainConfig) -> None:
    """Refuse what a user changed and the protocol fixes."""
    if list(map(asdict, config.pooling.values())) != [{"pool": "mean", "skip_first": False}]:
        raise _fixed(
            f"pooling=[{','.join(config.pooling)}]",
            "it takes the mean over all positions, padding included; leave pooling=[mean]",
        )
    given = [name for name, backbone in config.backbone.items() if backbone.is_given]
    if given:
        raise _fixed(f"backbone.{given[0]}", "it pools the vectors of tokens, and has none here")
    if config.lexical:
        raise _fixed(f"lexical=[{','.join(config.lexical)}]", "it has no lexical sources")
    if changed := _changed(config.layers, default.layers):
        raise _fixed(f"layers.{changed}", "it takes the last hidden state; leave layers=last")
    operator = replace(default.fusion, name=config.fusion.name, residual=config.fusion.residual)
    if changed := _changed(config.fusion, operator):
        raise _fixed(f"fusion.{changed}", "its operators have no setting but fusion.residual")
    for key in ("objective", "class_weights"):
        if getattr(config, key) != getattr(default, key):
            raise _fixed(f"{key}={getattr(config, key)}", "it takes the best test accuracy")
    if config.time_limit is not None:
        raise _fixed(f"time_limit={config.time_limit:g}", "it leaves nothing out")
    for key, value in asdict(config.trainer).items():
        free = key in ("accelerator", "devices") or value == getattr(default.trainer, key)
        if not free and value != PUBLISHED_TRAINER.get(key):
            fixed = ", ".join(f"{name}={number:g}" for name, number in PUBLISHED_TRAINER.items())
            raise _fixed(f"trainer.{key}={value}", f"it trains with {fixed} and stops at the end")
    for name, backbone in config.backbone.items():
        fixed = {
            "max_length": PUBLISHED_MAX_LENGTH,
            "long_texts": TRUNCATE,
            "truncation_side": "right",
        }
        for key, value in fixed.items():
            if getattr(backbone, key) != value:
                raise _fixed(
                    f"backbone.{name}.{key}={getattr(backbone, key)}", f"it has {key}={value}"
                )


def _changed(group: Any, default: Any) -> str | None:
    """The first setting of a group that differs from its default, as `key=value`."""
    usual = asdict(default)
    return next((f"{key}={v}" for key, v in asdict(group).items() if v != usual[key]), None)


def _fixed(found: str, why: str) -> UserError:
    return UserError(f"{found}: protocol={AS_PUBLISHED} does not leave this open: {why}")
