"""The folder of a sweep: its planned jobs, and which are done, failed, running or missing.

A sweep writes its plan before its first job. Everything else is read from the folders of the jobs,
so all processes, launchers and later sweeps agree without communicating.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import statistics
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from layerfusion.assets.files import write_atomically
from layerfusion.errors import UserError
from layerfusion.records.format import duration, plural
from layerfusion.records.job import CONFIG, METRICS
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

State = Literal["done", "failed", "running", "missing"]


class JobBusy(Exception):
    """Raised if another process runs the job."""


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


@contextmanager
def held(folder: Path, *, wait: bool) -> Iterator[None]:
    """Lock a job's folder while the job runs. The system unlocks it if the process is killed.

    Args:
        folder: the job's folder.
        wait: if True, wait while another process has the lock.

    Raises:
        JobBusy: if another process has the lock and `wait` is False.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout as error:
        raise JobBusy(str(folder)) from error
    try:
        yield
    finally:
        lock.release()


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


# -- plan and failures ----------------------------------------------------------------------------


def write_plan(folder: Path, command: str, jobs: Mapping[str, Sequence[str]]) -> None:
    """Write the jobs of a sweep to its folder.

    Each grid has its own file, named by a hash of its content. Writing the same grid again changes
    nothing, and another grid in the same folder adds its jobs.

    Args:
        folder: the sweep's folder.
        command: command that runs the jobs.
        jobs: overrides of each job, by the name of its folder.
    """
    plan = {"command": command, "jobs": {name: list(words) for name, words in jobs.items()}}
    content = json.dumps(plan, indent=1, ensure_ascii=False).encode()
    name = hashlib.sha256(content).hexdigest()[:12]
    write_atomically(folder / PLANS / f"{name}.json", content)


def write_failure(folder: Path, command: str, overrides: Sequence[str], error: Exception) -> None:
    """Write a failed job's command line and traceback to its folder."""
    lines = [" ".join(["layerfusion", command, *overrides]), *traceback.format_exception(error)]
    write_atomically(folder / FAILED, "\n".join(lines).encode())


def clear_failure(folder: Path) -> None:
    """Remove the file of an earlier failure, since the job runs again."""
    (folder / FAILED).unlink(missing_ok=True)


# -- status ---------------------------------------------------------------------------------------


def read_jobs(folder: Path) -> list[SweepJob]:
    """Return every job that was ever planned for a sweep's folder, in the order of the grids.

    Raises:
        UserError: if the folder has no plan.
    """
    planned = _read_plans(folder)
    if not planned:
        if (folder / HISTORY).exists():
            raise UserError(
                f"{folder}: this is a search, not a sweep; `layerfusion report {folder}` shows it"
            )
        raise UserError(f"{folder}: no sweep was started here; give a folder outputs/sweeps/NAME")
    labels = short_labels({name: words for name, (_, words) in planned.items()})
    return [
        _job(folder / name, labels[name], RECORDS[command])
        for name, (command, _) in planned.items()
    ]


def label_of(job: Path) -> str:
    """Return the label of a job of a sweep from the plan beside it, or its folder without one."""
    planned = {name: words for name, (_, words) in _read_plans(job.parent).items()}
    return short_labels(planned).get(job.name, str(job))


def _read_plans(folder: Path) -> dict[str, tuple[str, list[str]]]:
    """Return the command and the overrides of each planned job, by the name of its folder."""
    plans = sorted((folder / PLANS).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    found: dict[str, tuple[str, list[str]]] = {}
    for path in plans:
        try:
            plan = json.loads(path.read_text())
            found |= {name: (plan["command"], words) for name, words in plan["jobs"].items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: not the plan of a sweep ({error}); delete it, and the same command writes"
                " it again"
            ) from error
    return found


def short_labels(planned: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return each job's overrides without Hydra's own and without those that all jobs share."""
    own = {
        name: [word for word in words if not word.lstrip("+").startswith("hydra")]
        for name, words in planned.items()
    }
    shared = set.intersection(*(set(words) for words in own.values())) if len(own) > 1 else set()
    return {
        name: " ".join(word for word in words if word not in shared) or " ".join(words)
        for name, words in own.items()
    }


def status_lines(folder: Path) -> list[str]:
    """Describe the state of a sweep: counts, time left, and each failure with its reason."""
    jobs = read_jobs(folder)
    by_state: dict[State, list[SweepJob]] = {
        state: [job for job in jobs if job.state == state]
        for state in ("done", "failed", "running", "missing")
    }
    counts = ", ".join(f"{len(some)} {state}" for state, some in by_state.items())
    lines = [f"{folder}: {plural(len(jobs), 'job')}: {counts}"]
    if left := _time_left(jobs):
        lines.append(left)
    for job in by_state["running"]:
        lines.append(f"running: {job.label}  ({job.folder.name})")
    for job in by_state["failed"]:
        lines += [f"failed: {job.label}", f"  {job.reason}", f"  {job.folder / FAILED}"]
    return lines


def _job(folder: Path, label: str, record: str) -> SweepJob:
    finished, failed = folder / record, folder / FAILED
    if is_held(folder):  # checked first, since a job that runs again still has its old files
        return SweepJob(folder, label, "running")
    if failed.exists():  # even if the job has a record of an earlier run
        return SweepJob(folder, label, "failed", reason=last_line(failed))
    if finished.exists():
        return SweepJob(folder, label, "done", seconds=_seconds(folder, finished))
    return SweepJob(folder, label, "missing")


def _seconds(folder: Path, finished: Path) -> float | None:
    """Return the time from the file that a job writes at its start to the record at its end."""
    begun = next((folder / name for name in STARTED if (folder / name).exists()), None)
    if begun is None:
        return None
    seconds = finished.stat().st_mtime - begun.stat().st_mtime
    return seconds if seconds >= 0 else None  # a later sweep has written the config again


def _time_left(jobs: Sequence[SweepJob]) -> str:
    left = [job for job in jobs if job.state != "done"]
    if not left:
        return ""
    seconds = [job.seconds for job in jobs if job.seconds is not None]
    running = sum(job.state == "running" for job in jobs)
    if not seconds:
        return "time left: unknown until the first job is done"
    mean = statistics.mean(seconds)
    about = duration(mean * len(left) / max(1, running))
    pace = f"{running} at a time" if running else "one at a time; none is running"
    return f"time left: about {about} ({duration(mean)} a job, {pace})"


def last_line(path: Path) -> str:
    """Return the last line of a failed job's traceback."""
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    return lines[-1].removeprefix("layerfusion.errors.") if lines else ""


def wait_until_free(folders: Sequence[Path], seconds: float = 0.5) -> None:
    """Wait until another process has finished at least one of these jobs."""
    while folders and all(is_held(folder) for folder in folders):
        time.sleep(seconds)
