"""Read a classifier that a job left, and refuse what is damaged or would run foreign code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from layerfusion.assets.files import parse_json
from layerfusion.assets.hub_folders import HUB
from layerfusion.assets.paths import is_readable
from layerfusion.calls import plain_calls
from layerfusion.config.check import load as load_settings
from layerfusion.config.job import PathsConfig, TrainConfig
from layerfusion.embeddings.lexical import LexicalFit
from layerfusion.errors import UserError, unknown
from layerfusion.fusion.head_files import Head, head_from
from layerfusion.layers.lexical_regression import LexicalRegression
from layerfusion.records.job import BUNDLE
from layerfusion.runs.bundle import Bundle
from layerfusion.runs.bundle_files import (
    DESCRIPTION,
    HEADS,
    Description,
    Model,
    damage_told,
    read_files,
)
from layerfusion.runs.fetching import shared_folder
from layerfusion.runs.trust import (
    is_given,
    is_pipeline,
    known_cache,
    let_ask,
    own_code,
    refuse_code,
    refuse_interpolation,
    warn_of_other_code,
)


@plain_calls("load")
def load_bundle(
    folder: Path | str,
    *,
    device: str = "auto",
    cache: str | Path | None = None,
    models: Mapping[str, str | Path] | None = None,
    modules: Sequence[str] = (),
    endpoints: Mapping[str, str] | None = None,
    tokens: Mapping[str, str] | None = None,
) -> Bundle:
    """Read a classifier that a job left.

    Args:
        folder: folder of the bundle, or of its job; or `hub:owner/name`, with `@REVISION` or not,
            which is fetched once.
        device: device that the language models run on.
        cache: folder of downloaded models; None means that of the job, if there is one here, or
            else the usual one.
        models: for some backbones, a folder with their files that replaces the job's origin.
        modules: modules outside LayerFusion that its operator and its poolings may be imported
            from.
        endpoints: for some backbones whose vectors come from a server, the address to ask, which
            is needed even if the classifier names one.
        tokens: for some of these, the name of the environment variable that holds their token.

    Raises:
        UserError: if there is no bundle, or it is damaged, has another schema, links to other files
            or would run code that the user has not named.

    Example:
        >>> classifier = load_bundle(outputs / "job")
        >>> classifier.predict_proba(["a good film", "a bad plot"]).shape
        (2, 2)
    """
    place = Path(folder)
    if str(folder).startswith(HUB):
        place = shared_folder(str(folder), Path(cache or PathsConfig().cache))
    if not place.is_dir():
        raise UserError(f"{place}: there is no such folder")
    if not (place / DESCRIPTION).is_file():
        place = place / BUNDLE
    about, files = read_files(place)
    with damage_told(place):
        refuse_interpolation(about.config, place)
        config = load_settings(about.config)
        refuse_code(config, modules)
        layers = tuple(about.layers)
        for layer in layers:  # a KeyError is a description whose parts do not fit each other
            known = (about.models, config.backbone)
            if is_pipeline(config, layer.backbone):
                _ = about.models[layer.backbone]
            elif layer.backbone not in config.lexical and not is_given(config, layer.backbone):
                _ = config.pooling[layer.pooling], *(group[layer.backbone] for group in known)
        tensors = load(files[HEADS])
        heads = tuple(
            head_from(_below(tensors, f"{number}."), facts, modules)
            for number, facts in enumerate(about.heads)
        )
        _check_heads(heads, tensors, about)
        names = dict.fromkeys(layer.backbone for layer in layers)
        lexical = {
            name: _lexical_from(
                config.lexical[name].features,
                load(files[f"{name}.safetensors"]),
                parse_json(files[f"{name}.json"]),
            )
            for name in names
            if name in config.lexical
        }
        _check_regressions(lexical, heads)
    told = warn_of_other_code(str(place), about.code, own_code(config, layers, heads))
    for name in models or {}:
        if name not in about.models:
            raise unknown("model", name, about.models)
    for name, path in {**_moved_folders(config, about.models), **(models or {})}.items():
        config.backbone[name] = config.backbone[name].moved_to(str(path))
    unasked = let_ask(config, dict.fromkeys(x.backbone for x in layers), endpoints, tokens)
    config = replace(
        config,
        extract=replace(config.extract, device=device),
        paths=PathsConfig(cache=str(cache or known_cache(config.paths.cache))),
    )
    return Bundle(
        place,
        tuple(about.label_names),
        layers,
        config,
        about.models,
        heads,
        lexical,
        about.facts,
        about.code,
        unasked,
        told,
    )


def _moved_folders(config: TrainConfig, models: Mapping[str, Model]) -> dict[str, str]:
    """Find the folders of models whose relative path leads nowhere from the present directory.

    The path itself is tried first, so that a tree of folders can be moved as a whole.
    """
    found = {}
    for name, model in models.items():
        own = config.backbone[name]
        named = [own.pipeline or own.path, *(source.path for source in own.sources)]
        there = any(os.path.exists(os.path.expanduser(place)) for place in named if place)
        if model.folder and not there and is_readable(model.folder):
            found[name] = model.folder
    return found


def _check_heads(heads: Sequence[Head], tensors: Mapping[str, Tensor], about: Description) -> None:
    """Check that a description has all heads of its file, with their sources and classes.

    Raises:
        ValueError: saying what differs.
    """
    kept = {name.partition(".")[0] for name in tensors}
    if not heads or kept != {str(number) for number in range(len(heads))}:
        raise ValueError(f"it describes {len(heads)} heads, and {HEADS} holds {len(kept)}")
    for what, named, of_heads in (
        ("classes", about.label_names, {head.num_classes for head in heads}),
        ("layers", about.layers, {len(head.widths) for head in heads}),
    ):
        if wrong := of_heads - {len(named)}:
            raise ValueError(f"it names {len(named)} {what}, and a head has {wrong.pop()}")
    if len({head.multilabel for head in heads}) > 1:
        raise ValueError("some of its heads give a text one class, and others several labels")


def _check_regressions(
    lexical: Mapping[str, LexicalFit | LexicalRegression], heads: Sequence[Head]
) -> None:
    """Check that regressions give what the heads take: scores of classes, or of labels.

    Raises:
        ValueError: naming the one that does not.
    """
    for name, part in lexical.items():
        if isinstance(part, LexicalRegression) and part.multilabel != heads[0].multilabel:
            raise ValueError(f"{name} and the heads differ in whether a text has several labels")


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _lexical_from(
    features: str, tensors: Mapping[str, Tensor], vocabulary: Sequence[str]
) -> LexicalFit | LexicalRegression:
    """Rebuild what `_lexical_part` returned; in a file of a projection there is no bias."""
    kind = LexicalRegression if "bias" in tensors else LexicalFit
    return kind.from_state(features, tensors, vocabulary)
