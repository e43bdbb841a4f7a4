"""From a composed Hydra config to a checked `TrainConfig`."""

from __future__ import annotations

import json
import math
import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from layerfusion.config.imports import import_object
from layerfusion.config.job import (
    AUTO,
    BUNDLE_UPLOAD,
    CLASS_WEIGHTS,
    HONEST,
    LOGGERS,
    LONG_TEXTS,
    OBJECTIVES,
    STACKS,
    UNSET,
    UPLOADS,
    WANDB_MODES,
    BackboneConfig,
    DatasetConfig,
    ExtractConfig,
    FusionConfig,
    LayersConfig,
    TrainConfig,
    TrainerConfig,
)
from layerfusion.config.operators import gather_arguments, operator_names, settle
from layerfusion.config.options import as_option
from layerfusion.config.registry import PROTOCOL_SETTINGS, PROTOCOLS, SELECTIONS, require_known
from layerfusion.config.rules import RULE, a_seed, check_inside, check_name, check_rules
from layerfusion.config.secrets import redact, shown
from layerfusion.errors import UserError, short, unknown

OF_ENDPOINT = ("model", "dimensions", "token_variable", "batch", "timeout", "template")
OF_VECTORS = ("column", "rows")
OF_PIPELINE = ("dimensions", "batch", "template")
KINDS = {"vectors": OF_VECTORS, "pipeline": OF_PIPELINE, "endpoint": OF_ENDPOINT}
"""Kinds of backbones whose vectors are computed elsewhere, and the keys that go with each."""
TYPES = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
"""Types of values by OmegaConf's words for them."""
JOINTS = ":+"
"""Join the names of a model, a layer and a pooling, and those of several models."""
COMMIT = re.compile(r"[0-9a-f]{40}")
"""A commit, as opposed to a branch or a tag."""


def load(composed: Any) -> TrainConfig:
    """Turn a composed Hydra config into a checked `TrainConfig`.

    Raises:
        UserError: for a key that does not exist, a value of the wrong type or out of range.
    """
    from omegaconf import Container, OmegaConf
    from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

    try:
        if not isinstance(composed, Container):
            composed = OmegaConf.create(composed)
        settings: Any = OmegaConf.to_container(composed, resolve=True)
        _refuse_unnamed(settings)
        _hand_down(settings)
        if isinstance(settings.get("fusion"), dict):
            settings["fusion"] = gather_arguments(settings["fusion"])
        # A sweep names its jobs before it runs them, so each config is asked for twice.
        return deepcopy(_typed(json.dumps(settings)))
    except OmegaConfBaseException as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        where = f"{error.full_key}: " if error.full_key else ""
        way_out = ""
        if isinstance(error, InterpolationResolutionError):
            way_out = "; ${…} reads another key; a file whose own name has it needs another name"
        why = of_value(lines[0] if lines else str(error))
        raise UserError(f"{where}{why}{way_out}") from error


def of_value(why: str) -> str:
    """Say in plain words what OmegaConf has against a value; its own words where none are known."""
    if "is not Optional" in why or "Non optional field cannot be assigned None" in why:
        return "null is no value for it; without the key it has its default"
    if match := re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", why):
        return f"{TYPES.get(match[2], match[2])} is needed, found {shown(short(match[1]))}"
    if match := re.search(r"Value '(.*)' is not a valid (\w+)", why):
        return f"{TYPES.get(match[2], match[2])} is needed, found {shown(short(match[1]))}"
    if "is not a ListConfig, list or tuple" in why:
        return "a list is needed, in square brackets"
    if match := re.search(r"is not a subclass of \w+\. value: (.*)", why):
        return f"it has keys of its own, and no value; found {shown(short(match[1]))}"
    if match := re.search(r"Cannot convert '\w+' to string: '(.*)'", why):
        return f"one string is needed, found {shown(short(match[1]))}"
    return why


def _hand_down(settings: Any) -> None:
    """Give the models the `long_texts` of the job where they have none of their own.

    Vectors that are computed elsewhere have no windows.
    """
    models, usual = settings.get("backbone"), settings.get("long_texts")
    for model in models.values() if isinstance(models, dict) and usual is not None else ():
        if isinstance(model, dict) and not any(model.get(key) for key in KINDS):
            model.setdefault("long_texts", usual)


def _refuse_unnamed(settings: Any) -> None:
    """Refuse keys that do not stand under the name of their option, where a group takes several.

    A selection of layers without a name is refused too.
    """
    if (settings.get("layers") or {}).get("name") == UNSET:
        raise UserError(
            f"layers.name: there is none; a file of yours in layers/ says which selection it sets:"
            f" `name: top_k`, another of {', '.join(SELECTIONS)}, or `name: my_module:my_selection`"
        )
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
    for key in ("label_names", "label_columns"):
        setattr(config.dataset, key, _names_of_labels(key, getattr(config.dataset, key)))
    check_dataset(config.dataset)
    # Before the models, which have it from the job.
    _choice("long_texts", config.long_texts, LONG_TEXTS)
    groups: dict[str, Any] = {
        "limit": config.limit,
        **{f"backbone.{name}": backbone for name, backbone in config.backbone.items()},
        **{f"lexical.{name}": lexical for name, lexical in config.lexical.items()},
        **{f"pooling.{name}": pooling for name, pooling in config.pooling.items()},
        "layers": config.layers,
        "extract": config.extract,
        "profile": config.profile,
    }
    for key, group in groups.items():
        check_rules(group, key)
    check_inside("sweep", config.sweep)
    for kind in ("backbone", "lexical", "pooling"):
        for name in getattr(config, kind):
            check_name(kind, name)
            if set(name) & set(JOINTS):
                raise UserError(
                    f"{kind}: a name must have none of {' '.join(JOINTS)}, which join names in the"
                    f" columns of results and answers; found {short(name)}"
                )
    for name, backbone in config.backbone.items():
        check_backbone(name, backbone)
    _check_sources(config)
    _check_layers(config.layers)
    _choice("objective", config.objective, OBJECTIVES)
    _choice("class_weights", config.class_weights, CLASS_WEIGHTS)
    _choice("protocol", config.protocol, tuple(PROTOCOLS))
    if config.protocol in PROTOCOL_SETTINGS:
        check_settings = import_object("protocol", PROTOCOL_SETTINGS[config.protocol])
        check_settings(config, TrainConfig(config.dataset))
    else:
        _check_fusion(config.fusion)
    check_rules(config.trainer, "trainer")
    check_devices(config.trainer)
    _choice("logger", config.logger.name, LOGGERS)
    _choice("logger.mode", config.logger.mode, WANDB_MODES)
    _choice("logger.upload", config.logger.upload, UPLOADS)
    if config.logger.upload == BUNDLE_UPLOAD and config.bundle is False:
        raise UserError(
            "logger.upload=bundle: bundle=false keeps no classifier that could be uploaded; leave"
            " one of the two out"
        )
    if config.by_folds:
        for key, is_set in (
            ("layers.pilot", config.layers.pilot is not None),
            ("time_limit", config.time_limit is not None),
            ("protocol", config.protocol != HONEST),
        ):
            if is_set:
                raise UserError(f"by_folds=true: a job with {key} cannot be judged on folds")
    _check_extract(config.extract)
    if config.time_limit is not None and not 0 < config.time_limit < math.inf:
        raise UserError(f"time_limit={config.time_limit}: it must be a number of seconds above 0")
    _at_least("seeds", config.seeds, 1)
    for key, seed in (("seed", config.seed), ("seed + seeds - 1", config.seed + config.seeds - 1)):
        a_seed()[RULE].check(key, seed)


def require_honest(config: TrainConfig, command: str) -> None:
    """Refuse a command that knows the honest protocol only.

    Raises:
        UserError: under any other protocol.
    """
    if config.protocol != HONEST:
        raise UserError(
            f"protocol={config.protocol}: it goes with train and extract; `layerfusion {command}`"
            f" knows protocol={HONEST} only"
        )


def refuse_time_limit(config: TrainConfig, command: str) -> None:
    """Refuse a command that leaves nothing out to keep to a time.

    Args:
        config: of the command.
        command: how a user calls it, for the message.

    Raises:
        UserError: if the job has a `time_limit`.
    """
    if config.time_limit is not None:
        raise UserError(
            f"time_limit={config.time_limit:g}: it goes with train, plan and search;"
            f" {command} leaves nothing out"
        )


def check_dataset(dataset: DatasetConfig) -> None:
    """Check the settings of a data set, and those of its labels against each other.

    Raises:
        UserError: naming the key and what it does not go with.
    """
    check_rules(dataset, "dataset")
    columns = [str(name).strip() for name in dataset.label_columns]
    separator = dataset.label_separator
    if separator is not None and not dataset.has_several_labels:
        raise UserError(
            f"dataset.label_separator={separator}: it goes with dataset.multilabel=true, where a"
            " text has any number of labels"
        )
    if not columns:
        return
    for key in ("label", "label_names", "label_separator"):
        value = getattr(dataset, key)
        if value != getattr(DatasetConfig(dataset.name), key):
            raise UserError(
                f"dataset.{key}={value}: dataset.label_columns says which labels a text has and"
                " what they are called; leave one of the two out"
            )
    if len(columns) == 1:
        raise UserError(
            f"dataset.label_columns=[{columns[0]}]: a single column tells two classes apart, which"
            f" {as_option('dataset.label', columns[0])} reads"
        )
    if len(set(columns)) < len(columns) or dataset.text in columns:
        raise UserError(
            f"dataset.label_columns=[{','.join(columns)}]: each has to be another column, and none"
            f" that of the texts, {dataset.text!r}"
        )


def _names_of_labels(key: str, names: list[Any]) -> list[str]:
    """The names as strings. YAML reads some words as something else, which is refused."""
    for name in names:
        if name is None or isinstance(name, bool):
            words = "no, off and false" if name is False else "yes, on and true"
            words = "null and ~" if name is None else words
            raise UserError(
                f"dataset.{key}: YAML reads {words} as {name}; put the names in quotation"
                f" marks, as in ['no', 'yes']"
            )
    return [str(name) for name in names]


def check_backbone(name: str, backbone: BackboneConfig) -> None:
    """Check the settings of a model against each other.

    Raises:
        UserError: if it names no files, would run code that no commit pins, or has no place for the
            text in its template.
    """
    key = f"backbone.{name}"
    if backbone.is_given:
        _check_given(key, backbone)
    elif not backbone.path and not backbone.sources:
        raise UserError(f"{key}: it has no path; is it selected, backbone=[{name}]?")
    for source in backbone.sources if backbone.trust_remote_code and not backbone.path else ():
        if source.hub and not COMMIT.fullmatch(source.revision):
            raise UserError(
                f"{key}.trust_remote_code=true needs a commit as the revision of {source.hub}, not"
                f" {source.revision!r}, as the code behind a branch may change; name the one that"
                " you have read"
            )
    if "{text}" not in backbone.template:
        raise UserError(f"{key}.template={backbone.template!r}: it must contain {{text}}")


def _check_given(key: str, backbone: BackboneConfig) -> None:
    """Check a source whose vectors are computed elsewhere."""
    usual = BackboneConfig()
    kind = next(name for name in KINDS if getattr(backbone, name) is not None)
    allowed = {kind, *KINDS[kind]}
    for name in vars(usual):
        if name not in allowed | {"description"} and getattr(backbone, name) != getattr(
            usual, name
        ):
            raise UserError(
                f"{key}.{name}: it means nothing beside {kind}=, whose vectors are computed"
                " elsewhere; leave one of them out"
            )
    if backbone.vectors is not None:
        needed = "rows" if Path(backbone.vectors).suffix.lower() == ".npy" else "column"
        other = "column" if needed == "rows" else "rows"
        if not getattr(backbone, needed) or getattr(backbone, other):
            what = "the table whose rows it follows" if needed == "rows" else "its name"
            raise UserError(
                f"{key}.vectors={backbone.vectors}: {key}.{needed}= is needed, {what}, and no"
                f" {other}="
            )
    if backbone.endpoint is not None:
        _check_endpoint(key, backbone)


def _check_endpoint(key: str, backbone: BackboneConfig) -> None:
    """Check the address of a server, and the names of its model and of the token's variable."""
    if not _is_address(str(backbone.endpoint)):
        raise UserError(
            f"{key}.endpoint={redact(str(backbone.endpoint))}: an address is needed, such as"
            " http://localhost:8000/v1"
        )
    place = urlsplit(str(backbone.endpoint))
    if place.username or place.password or place.query or place.fragment:
        raise UserError(
            f"{key}.endpoint: the address of {place.hostname} may hold no user, password or query;"
            f" a token has its place in a variable that {key}.token_variable= names"
        )
    if not backbone.model:
        raise UserError(f"{key}.model: the name of the endpoint's model is needed")
    variable = backbone.token_variable
    if variable is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
        raise UserError(
            f"{key}.token_variable: the name of an environment variable in capitals is needed, such"
            " as OPENAI_API_KEY, and never the token itself"
        )


def _is_address(address: str) -> bool:
    """Tell whether an address is one of HTTP, with a host and a port that can be."""
    try:
        place = urlsplit(address)
        host = (place.hostname or "").encode("idna")
        return place.scheme in ("http", "https") and bool(host) and place.port != 0
    except ValueError:  # a port that is no number, a bracket that is left open, an empty label
        return False


def _check_sources(config: TrainConfig) -> None:
    """Backbones, lexical sources, poolings and the selection among them."""
    if not config.backbone:
        raise UserError("backbone: at least one is needed, for example backbone=[minilm]")
    for name in config.lexical:
        if name in config.backbone:
            raise UserError(f"lexical.{name}: a backbone has the same name; rename one of them")
    if not config.pooling:
        raise UserError("pooling: at least one is needed, for example pooling=[mean]")
    for name, pooling in config.pooling.items():
        if pooling.skip_first and pooling.pool in ("first", "last"):
            raise UserError(
                f"pooling.{name}.skip_first: it goes with mean and max, not with {pooling.pool}"
            )
    require_known("layers", config.layers.name, SELECTIONS)
    if config.layers.name == "fixed":
        for name, backbone in config.backbone.items():
            if not config.layers.fixed.get(name) and not backbone.is_given:
                raise UserError(
                    f"layers=fixed: no layer of {name} is given, layers.fixed.{name}=[…]"
                )
        for name in config.layers.fixed:
            if name not in config.backbone and name not in config.lexical:
                raise unknown("layers.fixed", name, [*config.backbone, *config.lexical])


def _check_layers(layers: LayersConfig) -> None:
    if not layers.strengths:
        raise UserError("layers.strengths=[]: it must list one number or more")
    if layers.pilot is not None and layers.held_out == "validation":
        raise UserError("layers.pilot: it is judged by folds of its own, layers.held_out=folds")


def _check_fusion(fusion: FusionConfig) -> None:
    check_rules(fusion, "fusion")
    if not fusion.target and fusion.name not in (*STACKS, AUTO):
        known = ", ".join([*operator_names(), *STACKS, AUTO])
        raise UserError(
            f"fusion={fusion.name}: it belongs to another protocol; protocol={HONEST} has: {known}"
        )
    if fusion.residual and fusion.name in STACKS:
        raise UserError(f"fusion.residual: {fusion.name} ends in classes and has no residual form")
    for key in ("among", "widths"):
        if getattr(fusion, key) == []:
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
