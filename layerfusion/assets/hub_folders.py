"""Folders of our own on the Hugging Face hub: sent as one commit, and fetched at one commit."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from layerfusion.assets.hub import TIMEOUT_SECONDS, commit_and_files, hub_errors
from layerfusion.assets.source import SourceUnavailable
from layerfusion.errors import UserError

HUB = "hub:"
"""Begins the name of a folder on the hub, as in `hub:owner/name` and `hub:owner/name@REVISION`."""
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^\s@]+))?")


def parts_of_name(name: str) -> tuple[str, str]:
    """Split `owner/name@REVISION`, also with `hub:` before it; without a revision, it is `main`.

    Raises:
        UserError: for another form.

    Example:
        >>> parts_of_name("hub:ada/spam@v1")
        ('ada/spam', 'v1')
    """
    found = _NAME.fullmatch(name.removeprefix(HUB))
    if found is None:
        raise UserError(f"{name}: OWNER/NAME is needed, such as ada/spam")
    return found["repo"], found["revision"] or "main"


def send_folder(folder: Path, repo: str, *, private: bool, update: bool, message: str) -> str:
    """Send all files of a folder to a repository of models, which is made if it is not there.

    Args:
        folder: the folder.
        repo: `owner/name`.
        private: make the repository one that its owner alone can see. One that exists and that
            others can see is refused, and nothing is sent.
        update: add a commit to a repository that exists.
        message: of the commit.

    Returns:
        The commit.

    Raises:
        UserError: without a token, if the hub cannot be reached or refuses, if the repository
            exists and `update` is not set, or if it is not as private as it should be.
    """
    from huggingface_hub import HfApi, errors, get_token

    if get_token() is None:
        raise UserError(
            "push: no token of the hub is here; `hf auth login` asks for one, or set HF_TOKEN"
        )
    api = HfApi()
    try:
        with hub_errors():
            try:
                api.create_repo(repo, private=private, exist_ok=update)
            except errors.HfHubHTTPError as error:
                if error.response is not None and error.response.status_code == 409:
                    raise UserError(
                        f"push: {repo} exists; --update adds a commit to it, or choose another name"
                    ) from error
                raise
            if private and not api.model_info(repo, timeout=TIMEOUT_SECONDS).private:
                raise UserError(
                    f"push: {repo} is public, and --private does not change a repository that"
                    " exists: nothing was sent; make it private in its settings on the hub, choose"
                    " another name, or leave --private out"
                )
            done = api.upload_folder(
                folder_path=folder, repo_id=repo, commit_message=message, delete_patterns=None
            )
    except SourceUnavailable as reason:
        raise UserError(f"push: {repo}: {_reason(reason)}") from reason
    return done.oid


def commit_of(repo: str, revision: str) -> str:
    """Ask the hub for the commit of a revision.

    Raises:
        UserError: if the hub cannot be reached, or does not have it.
    """
    try:
        with hub_errors():
            return commit_and_files(repo, revision, "model")[0]
    except SourceUnavailable as reason:
        raise UserError(f"{repo}@{revision}: {_reason(reason)}") from reason


def fetch_folder(
    repo: str, revision: str, folder: Path, first: str, others: Callable[[Path], Sequence[str]]
) -> str:
    """Fetch the wanted files of a repository into a folder, as files of its own.

    Args:
        repo: `owner/name`.
        revision: branch, tag or commit.
        folder: an empty folder.
        first: the file that is fetched first, and names the others.
        others: gives the names of the others, from the path of the first.

    Returns:
        The commit.

    Raises:
        UserError: if the hub cannot be reached, or does not have the repository, the revision or a
            file.
    """
    from huggingface_hub import hf_hub_download

    try:
        with hub_errors():
            commit, there = commit_and_files(repo, revision, "model")

            def fetch(name: str) -> Path:
                if name not in there:
                    raise UserError(
                        f"{repo}@{revision}: it holds no {name}, so that it is no classifier of"
                        " layerfusion"
                    )
                return Path(
                    hf_hub_download(
                        repo, name, revision=commit, local_dir=folder, etag_timeout=TIMEOUT_SECONDS
                    )
                )

            for name in others(fetch(first)):
                fetch(name)
    except SourceUnavailable as reason:
        raise UserError(f"{repo}@{revision}: {_reason(reason)}") from reason
    finally:
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the hub's own notes
    return commit


def _reason(reason: SourceUnavailable) -> str:
    """Say what a refusal means where the hub's own words do not."""
    said = str(reason)
    if "401" in said or "403" in said:
        return f"the token of this machine may not do that ({said})"
    return said
