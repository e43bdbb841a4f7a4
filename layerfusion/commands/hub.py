"""`layerfusion push` and `layerfusion pull`: the classifier of a job on the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerfusion.assets.hub_folders import HUB, parts_of_name, send_folder
from layerfusion.assets.staging import write_new_folder
from layerfusion.calls import plain_calls
from layerfusion.commands.arguments import ArgumentParser
from layerfusion.commands.classifier import (
    add_classifier,
    job_folder,
    open_classifier,
    user_modules,
)
from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.runs.bundle import Bundle


def push(arguments: Sequence[str]) -> int:
    """Send the classifier of a job to the hub, with a model card.

    Returns:
        0 for success.

    Raises:
        UserError: if there is no classifier, no token or no hub, or the repository exists.
    """
    options = push_parser().parse_args(arguments)
    _require_repo(options.repo)
    bundle = open_classifier(options, user_modules(options.config_dir), "cpu")
    print(_send(bundle, options.bundle, options.repo, options.private, options.update))
    return 0


def pull(arguments: Sequence[str]) -> int:
    """Fetch a classifier from the hub into a new folder.

    Returns:
        0 for success.

    Raises:
        UserError: if the hub cannot be reached, or holds no whole classifier under this name.
    """
    options = pull_parser().parse_args(arguments)
    repo, revision = parts_of_name(options.repo)
    folder = Path(options.output or repo.partition("/")[2])
    commits: list[str] = []

    def write(place: Path) -> None:
        from layerfusion.runs.bundle_files import require_whole
        from layerfusion.runs.fetching import fetch_shared

        commits.append(fetch_shared(repo, revision, place))
        require_whole(place)

    write_new_folder(folder, write)
    print(f"{repo}@{commits[0]}: {folder}")
    return 0


@plain_calls()
def push_to_hub(
    job: Path | str, repo: str, *, private: bool = False, update: bool = False,
    modules: Sequence[str] = (),
) -> str:  # fmt: skip
    """Send the classifier of a job to the hub, with a model card.

    Args:
        job: folder of the job, or of its classifier.
        repo: `owner/name`.
        private: make a private repository.
        update: add a commit to a repository that exists.
        modules: as for `load`.

    Returns:
        `owner/name@COMMIT`.

    Raises:
        UserError: as `push`.

    Example:
        >>> push_to_hub(outputs / "job", "films")
        Traceback (most recent call last):
        ...
        layerfusion.errors.UserError: films: OWNER/NAME is needed, such as ada/spam
    """
    from layerfusion.runs.bundle_loading import load_bundle

    _require_repo(repo)
    bundle = load_bundle(job, device="cpu", modules=modules)
    return _send(bundle, job, repo, private, update)


def _require_repo(repo: str) -> None:
    """Refuse what names no repository, or a revision of one, which the hub gives itself."""
    if parts_of_name(repo)[0] != repo:
        raise UserError(f"{repo}: OWNER/NAME is needed, such as ada/spam")


def _send(bundle: Bundle, classifier: Path | str, repo: str, private: bool, update: bool) -> str:
    """Write what is shared of a classifier into a folder, with a card, and send it."""
    from layerfusion.export import OWN
    from layerfusion.export.card import model_card
    from layerfusion.runs.shared import shareable

    with tempfile.TemporaryDirectory() as place:
        written = shareable(bundle).save(Path(place) / "bundle")
        card = model_card(bundle, job_folder(classifier), OWN, _USAGE.format(repo=repo, hub=HUB))
        (written / "README.md").write_text(card, encoding="utf-8")
        commit = send_folder(
            written, repo, private=private, update=update, message="Classifier of LayerFusion"
        )
    return f"{repo}@{commit}"


_USAGE = """
```bash
layerfusion predict {hub}{repo} new.txt
```

```python
import layerfusion as lf

classifier = lf.load("{hub}{repo}")
print(classifier.labels_of(classifier.predict_proba(["a text"])))
```
"""


def push_parser() -> ArgumentParser:
    """Make what reads the arguments of `push`."""
    parser = ArgumentParser(
        "layerfusion push",
        description="Send the classifier of a job to the Hugging Face hub, with a model card. No"
        " texts and no language models are sent.",
    )
    add_classifier(parser, device=False)
    parser.add_argument("repo", metavar="OWNER/NAME", help="repository of the hub")
    parser.add_argument("--private", action="store_true", help="make a private repository")
    parser.add_argument(
        "--update", action="store_true", help="add a commit to a repository that exists"
    )
    return parser


def pull_parser() -> ArgumentParser:
    """Make what reads the arguments of `pull`."""
    parser = ArgumentParser(
        "layerfusion pull",
        description="Fetch a classifier from the Hugging Face hub into a new folder.",
    )
    parser.add_argument("repo", metavar="OWNER/NAME", help="also OWNER/NAME@REVISION")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="a new folder; by default ./NAME")
    return parser
