"""Files from the Hugging Face hub, pinned to the commit of a revision when it was first fetched."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from layerfusion.assets.memo import read_facts, write_facts
from layerfusion.assets.models import INDEX, MODULES, missing_weights
from layerfusion.assets.source import SourceUnavailable
from layerfusion.assets.staging import build_once
from layerfusion.config.assets import SourceConfig
from layerfusion.errors import UserError, one_line

log = logging.getLogger(__name__)

WANTED = ("model*.safetensors", "*.json", "*.txt", "*.model", "*.py", "README.md")
"""Files to download. *.bin is left out, since a pickle may run code. *.py is run only with
`trust_remote_code`. README.md is the model's card, which states its licence."""
OF_PIPELINE = ("*.safetensors", "*.json", "*.txt", "*.model", "README.md")
"""Files of a pipeline to download, in folders too; no code."""
OTHER_FORMS = ("onnx/*", "openvino/*")
UNREACHABLE = "the hub cannot be reached"
REVISIONS = "commits of revisions"
_WHOLE = " with all folders"
"""Follows a revision whose folders were fetched too."""
TIMEOUT_SECONDS = 10.0
"""Longest wait for an answer of the hub."""
_CONVERTER = "SFconvertbot"
"""The hub's own account. It offers safetensors for repositories that have only pickles."""


def fetch_hub_model(source: SourceConfig, *, key: str, cache: Path) -> tuple[Path, str]:
    """Download a model into the cache that Hugging Face programs share.

    Returns:
        The model's folder, and its commit.

    Raises:
        SourceUnavailable: without network or access, or if the repository or revision does not
            exist.
        UserError: if the repository has only pickled weights.
    """
    fetched = fetched_hub_model(source, cache=cache)
    if fetched is not None:
        return fetched
    from huggingface_hub import snapshot_download

    repo = _repo(source)
    with hub_errors():
        # A branch may move; we stay with the commit that was fetched first.
        revision = _remembered(source, cache) or source.revision
        commit, files = commit_and_files(repo, revision, "model")
        if not any(name.endswith(".safetensors") and "/" not in name for name in files):
            commit = _converted(repo, files, key)
        folder = snapshot_download(
            repo,
            revision=commit,
            allow_patterns=list(WANTED),
            ignore_patterns=["*/*"],
            etag_timeout=TIMEOUT_SECONDS,
        )
    _remember(source, cache, commit)
    return Path(folder), commit


def fetched_hub_model(source: SourceConfig, *, cache: Path) -> tuple[Path, str] | None:
    """Find a model that was downloaded before, and its commit; none unless all of it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    commit = _remembered(source, cache)
    if commit is None:
        return None
    try:
        folder = Path(snapshot_download(_repo(source), revision=commit, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    whole = (folder / "config.json").is_file() and not missing_weights(folder)
    return (folder, commit) if whole else None


def fetch_hub_pipeline(source: SourceConfig, *, cache: Path) -> tuple[Path, str]:
    """Download a pipeline of sentence-transformers, with the folders of its parts.

    Returns:
        The folder, and the commit.

    Raises:
        SourceUnavailable: without network or access, or if the repository or revision does not
            exist.
    """
    fetched = fetched_hub_pipeline(source, cache=cache)
    if fetched is not None:
        return fetched
    from huggingface_hub import snapshot_download

    repo = _repo(source)
    with hub_errors():
        revision = _remembered(source, cache) or source.revision
        commit, _ = commit_and_files(repo, revision, "model")
        folder = snapshot_download(
            repo,
            revision=commit,
            allow_patterns=list(OF_PIPELINE),
            ignore_patterns=list(OTHER_FORMS),
            etag_timeout=TIMEOUT_SECONDS,
        )
    _remember(source, cache, commit, _WHOLE)
    return Path(folder), commit


def fetched_hub_pipeline(source: SourceConfig, *, cache: Path) -> tuple[Path, str] | None:
    """Find a pipeline that was downloaded before, and its commit; none unless all of it is there.

    A folder of the hub's cache does not tell whether all was fetched, so that this is remembered.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    commit = _known(source, cache, _WHOLE)
    if commit is None:
        return None
    try:
        folder = Path(snapshot_download(_repo(source), revision=commit, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return (folder, commit) if (folder / MODULES).is_file() else None


def fetch_hub_dataset(source: SourceConfig, *, cache: Path) -> tuple[Path, str]:
    """Download a data set, and save it under `cache/assets` with `save_to_disk`.

    Returns:
        The folder, and the commit.

    Raises:
        SourceUnavailable: without network or access, or if the repository, revision or
            configuration does not exist.
    """
    fetched = fetched_hub_dataset(source, cache=cache)
    if fetched is not None:
        return fetched
    repo = _repo(source)
    with hub_errors():
        # Without a network this fails immediately, whereas `datasets` would retry for long.
        revision = _remembered(source, cache) or source.revision
        commit, _ = commit_and_files(repo, revision, "dataset")

    def build(staging: Path) -> Path:
        import datasets
        from datasets.exceptions import DatasetsError

        with hub_errors(DatasetsError):
            loaded: Any = datasets.load_dataset(repo, name=source.inside, revision=commit)
        loaded.save_to_disk(staging / "dataset")
        return staging / "dataset"

    folder = build_once(_dataset_folder(source, commit, cache), build)
    _remember(source, cache, commit)
    return folder, commit


def fetched_hub_dataset(source: SourceConfig, *, cache: Path) -> tuple[Path, str] | None:
    """Find a data set that was downloaded before, and its commit; none if it was not."""
    commit = _remembered(source, cache)
    if commit is None:
        return None
    folder = _dataset_folder(source, commit, cache)
    return (folder, commit) if folder.is_dir() else None


def hub_identity(source: SourceConfig, commit: str) -> str:
    """Compute the sha256 of repository, commit and configuration."""
    pinned = f"{source.hub}@{commit}" + (f"/{source.inside}" if source.inside else "")
    return hashlib.sha256(pinned.encode()).hexdigest()


# -- the hub ------------------------------------------------------------------------------------


def commit_and_files(
    repo: str, revision: str, repo_type: Literal["model", "dataset"]
) -> tuple[str, list[str]]:
    """Ask the hub for the commit of a revision, and the names of its files."""
    from huggingface_hub import HfApi

    ask = HfApi().model_info if repo_type == "model" else HfApi().dataset_info
    info = ask(repo, revision=revision, timeout=TIMEOUT_SECONDS)
    if info.sha is None:
        raise SourceUnavailable(f"the hub names no commit for {revision}")
    return info.sha, [file.rfilename for file in info.siblings or []]


def _converted(repo: str, files: list[str], key: str) -> str:
    """Find the commit of the hub's own conversion to safetensors, for a repository without them."""
    from huggingface_hub import HfApi

    offers = HfApi().get_repo_discussions(
        repo, author=_CONVERTER, discussion_type="pull_request", discussion_status="open"
    )
    for offer in offers:
        if offer.git_reference is None:
            continue
        commit, offered = commit_and_files(repo, offer.git_reference, "model")
        if "model.safetensors" in offered or INDEX in offered:
            log.info("%s holds pickles only; taking the safetensors of the hub's converter", repo)
            return commit
    pickles = ", ".join(name for name in files if name.endswith(".bin")) or "no weights"
    raise UserError(f"{key}: hub {repo} holds no safetensors ({pickles}): refused")


@contextlib.contextmanager
def hub_errors(*more: type[Exception]) -> Iterator[None]:
    """Turn errors of the hub and the network into one short reason."""
    from huggingface_hub import errors

    # The hub's client has changed its HTTP library more than once. Its errors without a network
    # derive from the same class as the hub's own errors, so we look that class up.
    http_error: type[Exception] = next(
        base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"
    )
    try:
        yield
    except errors.GatedRepoError as error:
        raise SourceUnavailable(
            "access is restricted: accept the model's terms on its page, then `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise SourceUnavailable("no such repository, or it is private") from error
    except errors.RevisionNotFoundError as error:
        raise SourceUnavailable("no such revision") from error
    except errors.OfflineModeIsEnabled as error:
        raise SourceUnavailable("offline mode is on (HF_HUB_OFFLINE)") from error
    except (errors.HfHubHTTPError, errors.HFValidationError, ValueError, *more) as error:
        if isinstance(error, UserError):
            raise
        raise SourceUnavailable(one_line(error)) from error
    except (errors.LocalEntryNotFoundError, ConnectionError, TimeoutError, http_error) as error:
        raise SourceUnavailable(UNREACHABLE) from error


def _repo(source: SourceConfig) -> str:
    return source.hub or ""


# -- commits of revisions -----------------------------------------------------------------------


def _memory(cache: Path) -> Path:
    return cache / "assets" / "hub.json"


def _remembered(source: SourceConfig, cache: Path) -> str | None:
    """The commit of a revision when it was first fetched, or the revision itself if it is one."""
    known = _known(source, cache)
    if known is None and re.fullmatch(r"[0-9a-f]{40}", source.revision):
        return source.revision
    return known


def _known(source: SourceConfig, cache: Path, part: str = "") -> str | None:
    known = read_facts(_memory(cache), REVISIONS) or {}
    return known.get(f"{source.hub}@{source.revision}{part}")


def _remember(source: SourceConfig, cache: Path, commit: str, part: str = "") -> None:
    known = read_facts(_memory(cache), REVISIONS) or {}
    write_facts(_memory(cache), {**known, f"{source.hub}@{source.revision}{part}": commit})


def _dataset_folder(source: SourceConfig, commit: str, cache: Path) -> Path:
    name = _repo(source).replace("/", "--")
    return cache / "assets" / f"{name}-{hub_identity(source, commit)[:12]}"
