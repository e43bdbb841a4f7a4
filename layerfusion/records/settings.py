"""The settings of a finished job, as it keeps them beside its record."""

from __future__ import annotations

from pathlib import Path

import yaml

from layerfusion.config.check import load
from layerfusion.config.job import TrainConfig
from layerfusion.errors import UserError, one_line
from layerfusion.records.job import CONFIG

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


PROFILED = ".hydra/config.yaml"
"""The settings that a layer profile keeps; those of a trained job are in `CONFIG`."""


def config_of_job(folder: Path, name: str = CONFIG) -> TrainConfig:
    """Read the settings of a job again.

    Args:
        folder: of the job.
        name: file with the settings, in that folder.

    Raises:
        UserError: if the file is gone or damaged.
    """
    file = folder / name
    if not file.is_file():
        raise UserError(f"{file}: missing, so the settings of the job cannot be found")
    try:
        settings = yaml.load(file.read_text("utf-8"), Loader=LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: it cannot be read ({one_line(error)})") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file}: it is damaged, as it holds no settings")
    return load(settings)


def is_of_job(folder: Path) -> bool:
    """Tell whether a folder is that of a job, of this version or another: by its settings."""
    try:
        settings = yaml.load((folder / CONFIG).read_text("utf-8"), Loader=LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(settings, dict) and {"dataset", "backbone", "layers"} <= settings.keys()
