"""Make the classifier of a job from its inputs and heads, and save it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerfusion.assets import Asset
from layerfusion.assets.paths import content_identity
from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.given import GivenSource
from layerfusion.embeddings.lexical import LexicalFit, LexicalSource
from layerfusion.embeddings.pipeline import Pipeline
from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.fusion.head_files import Head, StackHead
from layerfusion.layers.lexical_regression import LexicalRegression
from layerfusion.runs.bundle import Bundle
from layerfusion.runs.bundle_files import (
    Model,
    write_bundle,
)
from layerfusion.runs.trust import own_code

if TYPE_CHECKING:
    from layerfusion.runs.inputs import Inputs


def save_bundle(
    folder: Path, config: TrainConfig, inputs: Inputs, heads: Sequence[Head], facts: dict[str, Any]
) -> None:
    """Save a job's classifier.

    Args:
        folder: folder of the bundle, created if it is missing.
        config: config of the job.
        inputs: inputs of the job.
        heads: trained heads, one for each seed.
        facts: facts for a reader.

    Raises:
        UserError: if a lexical source cannot be fitted again.
    """
    write_bundle(make_bundle(config, inputs, heads, facts), folder)


def make_bundle(
    config: TrainConfig, inputs: Inputs, heads: Sequence[Head], facts: Mapping[str, Any]
) -> Bundle:
    """Put a classifier together in memory, from the arguments of `save_bundle`.

    Raises:
        UserError: if a lexical source cannot be fitted again.
    """
    used = dict.fromkeys(layer.backbone for layer in inputs.selection.layers)
    sources = {name: inputs.sources[name] for name in used}
    # As they were read, where the job left it open how long texts are.
    models = {name: x.config for name, x in sources.items() if isinstance(x, EmbeddingSource)}
    config = replace(config, backbone={**config.backbone, **models})
    return Bundle(
        None,
        inputs.dataset.label_names,
        tuple(inputs.selection.layers),
        config,
        _models(sources),
        tuple(heads),
        {
            name: _lexical_part(name, one, heads[0])
            for name, one in sources.items()
            if isinstance(one, LexicalSource)
        },
        facts,
        own_code(config, inputs.selection.layers, heads),
    )


def _models(sources: Mapping[str, Source]) -> dict[str, Model]:
    """Identify the files of the language models and pipelines among the sources."""
    found: dict[str, Model] = {}
    for name, one in sources.items():
        if isinstance(one, EmbeddingSource):
            content = content_identity(one.asset.path, one.cache)
            found[name] = Model(one.origin, one.asset.identity, content, _own_folder(one.asset))
        elif isinstance(one, GivenSource) and isinstance(one.giver, Pipeline):
            asset, content = one.giver.asset, one.giver.content
            found[name] = Model(one.origin, asset.identity, content, _own_folder(asset))
    return found


def _own_folder(asset: Asset) -> str:
    """Return the absolute path of files that lie in a folder of the user's; empty for others."""
    return str(asset.path.resolve()) if asset.origin.startswith("path ") else ""


def _lexical_part(name: str, source: LexicalSource, head: Head) -> LexicalFit | LexicalRegression:
    """Return what turns texts into features of a head: a regression in a stack, else vectors."""
    if isinstance(head, StackHead):
        return head.regressions[name]
    return source.refitted()
