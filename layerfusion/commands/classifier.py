"""Arguments of the commands that use the classifier of a job, and how they open it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerfusion.assets.hub_folders import HUB
from layerfusion.commands.arguments import add_models, model_folders, pairs
from layerfusion.config.imports import import_from
from layerfusion.config.job import DEVICE
from layerfusion.records.job import BUNDLE

if TYPE_CHECKING:
    from layerfusion.runs.bundle import Bundle


def add_classifier(parser: ArgumentParser, *, device: bool = True) -> None:
    """Add the arguments that name a classifier and the places of its models."""
    parser.add_argument(
        "bundle",
        metavar="JOB",
        help=f"folder of the job, or of its classifier; or {HUB}OWNER/NAME",
    )
    if device:
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add_models(parser)
    parser.add_argument(
        "--endpoint",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="server to ask for the vectors of a source that come from one",
    )
    parser.add_argument(
        "--token",
        action="append",
        default=[],
        metavar="NAME=VARIABLE",
        help="environment variable that holds the token of that server",
    )
    parser.add_argument(
        "--config-dir",
        action="append",
        default=[],
        metavar="FOLDER",
        help="a folder of yours with the operator that the job was trained with",
    )


def open_classifier(options: Namespace, modules: Sequence[str], device: str) -> Bundle:
    """Open the classifier that arguments of `add_classifier` name.

    Args:
        options: the arguments.
        modules: modules of the user's that its parts may come from.
        device: device that its models run on.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    from layerfusion.runs.bundle_loading import load_bundle

    DEVICE.check("--device", device)
    return load_bundle(
        options.bundle,
        device=device,
        cache=options.cache,
        models=model_folders(options.model),
        modules=modules,
        endpoints=pairs(
            "--endpoint", options.endpoint, "NAME=URL", "paid=http://localhost:8000/v1"
        ),
        tokens=pairs("--token", options.token, "NAME=VARIABLE", "paid=OPENAI_API_KEY"),
    )


def job_folder(classifier: Path | str) -> Path | None:
    """Return the folder of a job, from what the user named as its classifier.

    Args:
        classifier: folder of the job, or of its classifier; or `hub:OWNER/NAME`.

    Returns:
        None for a classifier of the hub, whose job is elsewhere.

    Example:
        >>> job_folder("outputs/spam/bundle").as_posix(), job_folder("hub:ada/spam")
        ('outputs/spam', None)
    """
    if str(classifier).startswith(HUB):
        return None
    place = Path(classifier)
    return place.parent if place.name == BUNDLE else place


def user_modules(folders: Sequence[str]) -> list[str]:
    """Let the modules of some folders be imported, and return their names."""
    places = [Path(folder) for folder in folders]
    import_from(places)
    return [path.stem for place in places for path in place.iterdir() if path.stem.isidentifier()]
