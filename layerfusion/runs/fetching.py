"""Fetching a classifier that someone has shared on the hub."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from layerfusion.assets.files import parse_json
from layerfusion.assets.hub_folders import commit_of, fetch_folder, parts_of_name
from layerfusion.assets.staging import build_once
from layerfusion.errors import UserError
from layerfusion.runs.bundle_files import DESCRIPTION, HEADS

log = logging.getLogger(__name__)

_FILE = re.compile(r"[\w.-]+\.(?:json|safetensors)")


def fetch_shared(repo: str, revision: str, folder: Path) -> str:
    """Fetch a classifier that was pushed into an empty folder, and return its commit.

    Only the files that a bundle has are fetched: JSON and safetensors.

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
