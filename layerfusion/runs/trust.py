"""What a bundle may not do, since it may come from someone else.

Nothing in it runs code, reads variables of this machine, is a link to other files, asks a server
or chooses a place to write to, unless the user says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yaml import YAMLError

from layerfusion.assets.paths import is_readable
from layerfusion.config.check import check_backbone
from layerfusion.config.imports import code_hash, require_named, user_folders
from layerfusion.config.job import BackboneConfig, PathsConfig, TrainConfig
from layerfusion.config.operators import config_folder
from layerfusion.config.registry import POOLINGS
from layerfusion.embeddings.endpoint import base_url
from layerfusion.embeddings.source import EMBEDDINGS
from layerfusion.errors import UserError, unknown
from layerfusion.fusion.head_files import Head, operators_of
from layerfusion.layers.layer_id import LayerId

log = logging.getLogger(__name__)


def is_given(config: TrainConfig, name: str) -> bool:
    """Tell whether a source of a job's heads is one whose vectors are computed elsewhere."""
    return name in config.backbone and config.backbone[name].is_given


def is_pipeline(config: TrainConfig, name: str) -> bool:
    """Tell whether a source of a job's heads is a pipeline of sentence-transformers."""
    return name in config.backbone and config.backbone[name].pipeline is not None


def let_ask(
    config: TrainConfig,
    used: Iterable[str],
    endpoints: Mapping[str, str] | None,
    tokens: Mapping[str, str] | None,
) -> dict[str, str]:
    """Put the user's own addresses and names of tokens in the place of those that a bundle names.

    Returns:
        Each other source whose vectors come from a server or a file, to where the bundle says so.
        It is not asked: a bundle may come from someone else. A pipeline is known by its hash, as a
        model is.
    """
    given = [name for name in used if is_given(config, name)]
    servers = [name for name in given if config.backbone[name].endpoint]
    for kind, named in (("endpoint", endpoints or {}), ("token", tokens or {})):
        for name in named:
            if name not in servers:
                raise unknown(kind, name, servers)
    for name in servers:
        own = config.backbone[name]
        address = (endpoints or {}).get(name, own.endpoint)
        variable = (tokens or {}).get(name)
        config.backbone[name] = replace(own, endpoint=address, token_variable=variable)
        check_backbone(name, config.backbone[name])
    asked = endpoints or {}
    return {
        name: base_url(str(one.endpoint)) if one.endpoint else str(one.vectors)
        for name in given
        for one in (config.backbone[name],)
        if name not in asked and one.pipeline is None
    }


def own_file(folder: Path, name: str) -> Path:
    """Return the path of a file of a bundle, which has to lie in its folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{path}: a link to a file outside the classifier's folder: refused; if you trust it,"
            " copy the folder with its files, cp -rL"
        )
    return path


def refuse_interpolation(settings: Any, folder: Path) -> None:
    """Refuse what would be replaced by a variable of this machine, such as `${oc.env:HOME}`."""
    if "${" in json.dumps(settings):
        raise UserError(
            f"{folder}: the classifier's settings hold an interpolation, ${{…}}, which would read"
            " variables of this machine: refused"
        )


def refuse_code(config: TrainConfig, modules: Sequence[str]) -> None:
    """Refuse settings that would run code which the user has not named."""
    for name, pooling in config.pooling.items():
        if pooling.pool not in POOLINGS:
            require_named(f"pooling.{name}.pool", pooling.pool, modules)
    for name, backbone in config.backbone.items():
        if backbone.trust_remote_code and not _trusted(name, backbone):
            raise UserError(
                f"backbone {name}: its model comes with code (trust_remote_code); if you trust it,"
                f" name a folder of yours, --config-dir FOLDER, with a file backbone/{name}.yaml"
                " that has the same sources and says trust_remote_code: true"
            )


def own_code(
    config: TrainConfig, layers: Iterable[LayerId], heads: Iterable[Head]
) -> dict[str, str]:
    """Hash the source of each pooling and operator that is not LayerFusion's, by import path."""
    lexical = config.lexical
    named = [
        (f"pooling.{layer.pooling}.pool", config.pooling[layer.pooling].pool)
        for layer in layers
        if layer.backbone not in lexical and not is_given(config, layer.backbone)
    ]
    paths = {path: key for key, path in named if path not in POOLINGS}
    paths |= {path: "operator" for head in heads for path in operators_of(head)}
    hashes = {path: code_hash(key, path) for path, key in paths.items()}
    return {path: source for path, source in hashes.items() if source is not None}


def warn_of_other_code(where: str, then: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    """Warn of a user's code that is another one than in training.

    Args:
        where: the classifier, for the message.
        then: import path to the hash of the source in training.
        now: the same of what runs now.

    Returns:
        The import paths that it warned of.
    """
    other = {name for name, source in now.items() if then.get(name, source) != source}
    for name in sorted(other):
        log.warning(
            "%s: the code of %s is another one than in training, so answers and probabilities may"
            " differ from those that were judged: train again, or name the folder of the file as"
            " it was",
            where,
            name,
        )
    return other


def _trusted(name: str, backbone: BackboneConfig) -> bool:
    """Return True if a file of ours or of the user's trusts the code of the same sources."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for folder in (config_folder(), *user_folders()):
        file = folder / "backbone" / f"{name}.yaml"
        if not file.is_file():
            continue
        try:
            given = OmegaConf.select(OmegaConf.load(file), name)
            merged = OmegaConf.merge(OmegaConf.structured(BackboneConfig), given)
            known: Any = OmegaConf.to_object(merged)
        except (OmegaConfBaseException, ValueError, YAMLError) as error:
            raise UserError(f"{file}: it does not describe backbone {name}: {error}") from error
        if known.trust_remote_code:
            return (known.sources, known.path) == (backbone.sources, backbone.path)
    return False


def known_cache(named: str) -> str:
    """Return the cache that a bundle names where there is one, or else the usual one.

    Someone else's bundle cannot choose a place to write to.
    """
    there = any(is_readable(Path(named) / part) for part in ("assets", EMBEDDINGS))
    return named if there else PathsConfig().cache
