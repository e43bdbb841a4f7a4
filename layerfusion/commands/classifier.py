"""Arguments of the commands that use the classifier of a job, and how they open it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerfusion.config.imports import import_from
from layerfusion.config.job import DEVICE
from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.runs.bundle import Bundle


def add_classifier(parser: ArgumentParser, *, device: bool = True) -> None:
    """Add the arguments that name a classifier and the places of its models."""
    parser.add_argument("bundle", metavar="JOB", help="folder of the job, or of its classifier")
    if device:
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--cache", metavar="FOLDER", help="folder of downloaded models")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="folder of a language model's files, if they are not where the job found them",
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
    from layerfusion.runs.bundle import load_bundle

    DEVICE.check("--device", device)
    return load_bundle(
        options.bundle,
        device=device,
        cache=options.cache,
        models=_models(options.model),
        modules=modules,
    )


def user_modules(folders: Sequence[str]) -> list[str]:
    """Let the modules of some folders be imported, and return their names."""
    places = [Path(folder) for folder in folders]
    import_from(places)
    return [path.stem for place in places for path in place.iterdir() if path.stem.isidentifier()]


def _models(given: Sequence[str]) -> dict[str, str]:
    models = {}
    for word in given:
        name, equals, folder = word.partition("=")
        if not equals:
            raise UserError(f"--model {word}: NAME=FOLDER is needed, such as minilm=models/minilm")
        models[name] = folder
    return models
