"""The files of a sweep: its plan, and the state of each of its jobs.

A sweep writes its plan before its first job. All else is read off the jobs' own folders, so that
any number of processes, launchers and later sweeps agree about it without talking to each other.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from layerfusion.assets.files import find_named, parse_json
from layerfusion.assets.memo import unseal
from layerfusion.errors import UserError
from layerfusion.records.job import CONFIG, METRICS
from layerfusion.records.json_files import Damaged, damaged_told, read_json
from layerfusion.records.profile import PROFILE
from layerfusion.records.search import HISTORY

RECORDS = {"train": METRICS, "profile": PROFILE}
"""File that marks a finished job, by command. Other commands have no record and no plan."""
FAILED = "failed.txt"
"""File in the folder of a failed job, with its command line and traceback."""
PLANS = ".plans"
LOCK = ".lock"
STARTED = (CONFIG, ".hydra/config.yaml")
"""Files that a job may write when it starts. The first one that exists dates the start."""

FolderName = Annotated[str, Field(pattern=r"^[^/\x00]+$")]
State = Literal["done", "failed", "running", "missing"]


@dataclass(frozen=True)
class SweepJob:
    """A job of a sweep and its state."""

    folder: Path
    label: str
    """Overrides of the job that not all jobs of the sweep share."""
    state: State
    reason: str = ""
    """Last line of the traceback, if the job failed."""
    seconds: float | None = None
    """Running time, if the job has finished."""


@dataclass(frozen=True)
class _Plan:
    """A plan as it is read."""

    command: Literal["train", "profile"]
    jobs: dict[FolderName, list[str]]
    """Name of each job's folder to its overrides."""


def finished_job(folder: Path, command: str) -> str | None:
    """Read from a job's folder the name of the job that finished in it.

    Returns:
        None where none did, or the record is damaged.
    """
    try:
        record = unseal(parse_json((folder / RECORDS[command]).read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None
    return record.get("job")


def is_held(folder: Path) -> bool:
    """Return True if some process runs the job of this folder now. Read access is enough.

    Takes a shared lock, so that several observers do not mistake each other for the running job.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


# -- status ---------------------------------------------------------------------------------------


def read_jobs(folder: Path) -> list[SweepJob]:
    """Return every job that was ever planned for a sweep's folder, in the order of the grids.

    Raises:
        UserError: where the folder has no plan.
    """
    jobs = _jobs(folder)
    if not jobs:
        if (folder / HISTORY).exists():
            raise UserError(
                f"{folder}: this is a search, not a sweep; `layerfusion report {folder}` shows it"
            )
        raise UserError(f"{folder}: no sweep was started here; give a folder outputs/sweeps/NAME")
    return jobs


def _jobs(folder: Path, damaged: Damaged | None = None) -> list[SweepJob]:
    """Return every planned job, without those that newer code has planned again in their place.

    A job of the same words has another name under newer code. What the older one has finished, or
    does now, still counts.
    """
    planned = _read_plans(folder, damaged)
    labels = short_labels({name: words for name, (_, words) in planned.items()})
    newest = {_asked(*plan): name for name, plan in planned.items()}
    jobs = {name: _job(folder / name, labels[name], plan[0]) for name, plan in planned.items()}
    return [
        job
        for name, job in jobs.items()
        if job.state in ("done", "running") or newest[_asked(*planned[name])] == name
    ]


def _asked(command: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return what tells apart jobs that were planned by the same code."""
    return command, *sorted(_own(words))


def _own(words: Sequence[str]) -> list[str]:
    """Return the overrides that are not Hydra's."""
    return [word for word in words if not word.lstrip("+").startswith("hydra")]


class SkippedJob(NamedTuple):
    """A job that has no result."""

    label: str
    state: str
    reason: str


def skipped_jobs(folder: Path, damaged: Damaged | None = None) -> dict[Path, SkippedJob]:
    """Return every job under a folder that failed, is running, or was planned and never begun.

    Args:
        folder: holds sweeps and jobs, at any depth.
        damaged: takes the plans and notes that cannot be read; None if that is an error.
    """
    found: dict[Path, SkippedJob] = {}
    planned: set[Path] = set()
    for plans in find_named(folder, PLANS):
        with damaged_told(plans, damaged):
            planned |= {plans.parent / name for name in _read_plans(plans.parent, damaged)}
            for job in _jobs(plans.parent, damaged):
                if job.state != "done":
                    found[job.folder] = SkippedJob(job.label, job.state, job.reason)
    for failed in find_named(folder, FAILED):
        own = failed.parent
        if own not in planned and not any((own / name).exists() for name in RECORDS.values()):
            with damaged_told(failed, damaged):
                command = failed.read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
                found[own] = SkippedJob(command, "failed", last_line(failed))
    return found


def label_of(job: Path) -> str:
    """Return the label of a job of a sweep from the plan beside it, or its folder without one."""
    planned = {name: words for name, (_, words) in _read_plans(job.parent).items()}
    return short_labels(planned).get(job.name, str(job))


def _read_plans(folder: Path, damaged: Damaged | None = None) -> dict[str, tuple[str, list[str]]]:
    """Return the command and the overrides of each planned job, by the name of its folder."""
    plans = sorted((folder / PLANS).glob("*.json"), key=lambda path: path.lstat().st_mtime_ns)
    found: dict[str, tuple[str, list[str]]] = {}
    for path in plans:
        with damaged_told(path, damaged):
            plan = _read_plan(path)
            found |= {name: (plan.command, words) for name, words in plan.jobs.items()}
    return found


def _read_plan(path: Path) -> _Plan:
    try:
        if plan_name(path.read_bytes()) != path.name:
            raise UserError(
                f"{path}: not the plan of a sweep (its content does not match its name)"
            )
        return read_json(path, _Plan, "the plan of a sweep")
    except UserError as error:
        raise UserError(f"{error}; delete it, and the same command writes it again") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: not the plan of a sweep, but a folder") from error


def plan_name(content: bytes) -> str:
    """Return the name of a plan's file, which is a hash of its content."""
    return f"{hashlib.sha256(content).hexdigest()[:12]}.json"


def short_labels(planned: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return each job's overrides without Hydra's own and without those that all jobs share."""
    own = {name: _own(words) for name, words in planned.items()}
    shared = set.intersection(*(set(words) for words in own.values())) if len(own) > 1 else set()
    return {
        name: " ".join(word for word in words if word not in shared) or " ".join(words)
        for name, words in own.items()
    }


def _job(folder: Path, label: str, command: str) -> SweepJob:
    finished, failed = folder / RECORDS[command], folder / FAILED
    if is_held(folder):  # first: a job that runs again still has what it left before
        return SweepJob(folder, label, "running")
    if failed.exists():  # also of a job that was done before and can no longer be looked at
        return SweepJob(folder, label, "failed", reason=last_line(failed))
    if finished.exists():
        if finished_job(folder, command) is None:
            reason = f"{finished.name} is damaged; the same command runs the job again"
            return SweepJob(folder, label, "failed", reason=reason)
        return SweepJob(folder, label, "done", seconds=_seconds(folder, finished))
    return SweepJob(folder, label, "missing")


def _seconds(folder: Path, finished: Path) -> float | None:
    """Return the time from the file that a job writes at its start to the record at its end."""
    begun = next((folder / name for name in STARTED if (folder / name).exists()), None)
    if begun is None:
        return None
    seconds = finished.stat().st_mtime - begun.stat().st_mtime
    return seconds if seconds >= 0 else None  # a sweep that looked in later has touched the config


def last_line(path: Path) -> str:
    """Return the last line of a failed job's traceback."""
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("layerfusion.errors.") if lines else ""
