"""Classifiers on the hub: what of a bundle is shared, and fetching one that someone has shared."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from layerfusion.assets.files import parse_json
from layerfusion.assets.hub_folders import commit_of, fetch_folder, parts_of_name
from layerfusion.assets.staging import build_once
from layerfusion.config.check import load as load_settings
from layerfusion.config.job import PathsConfig
from layerfusion.errors import UserError
from layerfusion.runs.bundle import DESCRIPTION, HEADS, Bundle

log = logging.getLogger(__name__)

_PLACE = re.compile(r"(?:~|/)[^\n]*/([^/\n]+)/?")
"""A folder or file of this machine."""
_FILE = re.compile(r"[\w.-]+\.(?:json|safetensors)")


def shareable(bundle: Bundle) -> Bundle:
    """Give a classifier without the places of this machine: of each, the last part stays."""
    settings = asdict(bundle.config)
    for part in ("dataset", "backbone"):
        settings[part] = without_places(settings[part])
    config = replace(load_settings(settings), paths=PathsConfig())
    models = {
        name: replace(model, origin=without_places(model.origin))
        for name, model in bundle.models.items()
    }
    return replace(
        bundle, folder=None, config=config, models=models, facts=without_places(bundle.facts)
    )


def without_places(value: Any) -> Any:
    """Leave the last part of each path of this machine, in strings and in what holds them."""
    if isinstance(value, Mapping):
        return {key: without_places(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(part) for part in value]
    if not isinstance(value, str):
        return value
    if (found := _PLACE.fullmatch(value)) and os.path.isabs(os.path.expanduser(value)):
        return found[1]
    # Where files came from is said in words, such as `folder /home/ada/reviews.csv`.
    return re.sub(r"(?<!\S)/(?:[^/\s]+/)+([^/\s]+)", r"\1", value)


def fetch_shared(repo: str, revision: str, folder: Path) -> str:
    """Fetch a classifier that was pushed into an empty folder, and return its commit.

    Only the files that a bundle has are fetched: JSON and safetensors, and its card.

    Raises:
        UserError: as `fetch_folder` does; for a description that is damaged.
    """

    def others(description: Path) -> list[str]:
        try:
            files = parse_json(description.read_bytes())["files"]
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{repo}@{revision}: {DESCRIPTION} is no classifier's") from error
        names = [*files] if isinstance(files, dict) else []
        if HEADS not in names or not all(_FILE.fullmatch(name) for name in names):
            raise UserError(f"{repo}@{revision}: {DESCRIPTION} is no classifier's")
        return names

    return fetch_folder(repo, revision, folder, DESCRIPTION, others)


def shared_folder(name: str, cache: Path) -> Path:
    """Fetch a classifier from the hub into the cache, unless this commit was fetched before.

    Args:
        name: `hub:owner/name`, or with `@REVISION`.
        cache: the folder of what is downloaded.

    Raises:
        UserError: as `fetch_shared` does.
    """
    repo, revision = parts_of_name(name)
    commit = revision if re.fullmatch(r"[0-9a-f]{40}", revision) else commit_of(repo, revision)
    log.info("%s is commit %s", name, commit)

    def build(staging: Path) -> Path:
        folder = staging / "bundle"
        folder.mkdir()
        fetch_shared(repo, commit, folder)
        return folder

    return build_once(cache / "assets" / f"{repo.replace('/', '--')}-{commit[:12]}", build)
