"""The variables of W&B (`WANDB_…`) that a run heeds beside the keys of the config.

A key that is set wins over the variable, and the variable over our default. In a sweep, a variable
that would give every job the same run or the same name gives each job one of its own instead.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerfusion.config.job import LoggerConfig

log = logging.getLogger(__name__)

PROJECT = "layerfusion"
"""W&B project of runs for which neither the config nor the environment names one."""
MAX_NAME = 128
MAX_TAG = 64
TRUE = ("1", "on", "true", "yes")
_TOLD: set[str] = set()
"""Variables about which this process has already said what happens in a sweep."""


def project_of(logger: LoggerConfig) -> str:
    """Return the project of the config, or of WANDB_PROJECT, or else `PROJECT`."""
    return logger.project or _variable("PROJECT") or PROJECT


def entity_of(logger: LoggerConfig) -> str | None:
    """Return the entity of the config, or of WANDB_ENTITY; None means that of the API key."""
    return logger.entity or _variable("ENTITY")


def asked_mode(mode: str) -> str | None:
    """Return the mode of the config, or of WANDB_DISABLED and WANDB_MODE; None if none says."""
    if mode != "auto":
        return mode
    if (_variable("DISABLED") or "").lower() in TRUE:
        return "disabled"
    wanted = _variable("MODE")
    return {"dryrun": "offline", "run": "online"}.get(wanted, wanted) if wanted else None


def files_of(folder: Path) -> Path:
    """Return the folder for W&B's files: that of WANDB_DIR, or else the job's own."""
    wanted = _variable("DIR")
    if wanted is None:
        return folder
    try:
        place = Path(os.path.expanduser(wanted))
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if "DIR" not in _TOLD:
            log.warning("W&B: WANDB_DIR=%s: %s; its files go to the job's", wanted, error.strerror)
        _TOLD.add("DIR")
        return folder
    return place


def run_arguments(
    logger: LoggerConfig,
    *,
    folder: Path,
    name: str,
    group: str | None,
    job_type: str,
    tags: Sequence[str],
) -> dict[str, Any]:
    """Build the arguments of `wandb.init` that say what a run is called and where it belongs.

    Args:
        logger: config group `logger`.
        folder: the job's folder.
        name: our name of the run.
        group: sweep of the job; None for a job by itself.
        job_type: our type of the run.
        tags: our tags, added to those of the user.
    """
    shared = group is not None and not under_agent()
    own_tags = logger.tags or (_variable("TAGS") or "").split(",")
    every_tag = dict.fromkeys([*(tag.strip() for tag in own_tags), *tags])
    return {
        # The runs of an agent belong to the sweep of W&B, whatever the config says.
        "project": None if under_agent() else project_of(logger),
        "entity": None if under_agent() else entity_of(logger),
        "dir": str(files_of(folder)),
        "group": (logger.group or _variable("RUN_GROUP") or group or "")[:MAX_NAME] or None,
        "job_type": _variable("JOB_TYPE") or job_type,
        "notes": _variable("NOTES"),
        "tags": [tag for tag in every_tag if 0 < len(tag) <= MAX_TAG],
        **(_in_sweep(name, folder) if shared else _alone(name)),
    }


def under_agent() -> bool:
    """Return True if `wandb agent` started this process, for one job that has one run."""
    return _variable("SWEEP_ID") is not None


def _alone(name: str) -> dict[str, Any]:
    """Name the run of a job by itself, as W&B would."""
    run = _variable("RUN_ID")
    return {
        "name": (_variable("NAME") or name)[:MAX_NAME],
        "id": None if under_agent() else run,
        "resume": _variable("RESUME") or (None if run or under_agent() else _own_resume()),
    }


def _own_resume() -> str | None:
    """Let a job go on with the run that it left in its folder when it was killed or failed.

    W&B's mode `auto` keeps the id of a run beside its files until the run has succeeded. Where all
    jobs share one folder for W&B's files, that might be the run of another job.
    """
    return None if _variable("DIR") else "auto"


def _in_sweep(name: str, folder: Path) -> dict[str, Any]:
    """Name the run of a job of a sweep, which shares its environment with all the others."""
    arguments: dict[str, Any] = {"name": name[:MAX_NAME]}
    if prefix := _variable("NAME"):
        _tell("NAME", "begins the name of every run, and the job's own follows")
        own = f" {name} {folder.name}"[-MAX_NAME + 1 :]
        arguments["name"] = prefix[: MAX_NAME - len(own)] + own
    resume = _variable("RESUME")
    if _variable("RUN_ID"):
        _tell("RUN_ID", "would merge all jobs into one run; it is left out, each job has its own")
        arguments["id"] = secrets.token_hex(4)
    if resume and ("id" in arguments or resume != "auto" or _variable("DIR")):
        # `auto` finds the run that a killed job left in the job's folder, and no other job's.
        _tell("RESUME", "is left out, as each job has a run of its own")
        arguments["resume"] = "never"
    elif "id" not in arguments:
        arguments["resume"] = _own_resume()
    return arguments


def _tell(variable: str, outcome: str) -> None:
    if variable not in _TOLD:
        log.warning("W&B: in a sweep WANDB_%s %s", variable, outcome)
    _TOLD.add(variable)


def _variable(name: str) -> str | None:
    """Return the value of WANDB_NAME and the like; None where it is empty or not set."""
    return os.environ.get(f"WANDB_{name}", "").strip() or None
