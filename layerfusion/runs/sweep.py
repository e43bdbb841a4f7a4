"""The folder of a sweep: what jobs it has, which are done, failed, running or missing.

A sweep writes its plan before its first job. All else is read off the jobs' own folders, so that
any number of processes, launchers and later sweeps agree about it without talking to each other.
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
"""Command to the file that a finished job of it has; others leave no record and have no plan."""
FAILED = "failed.txt"
"""In the folder of a job that failed: its command line and its traceback."""
PLANS = ".plans"
LOCK = ".lock"
STARTED = (CONFIG, ".hydra/config.yaml")
"""Files that a job writes when it starts, the first of those that there are."""

State = Literal["done", "failed", "running", "missing"]


class JobBusy(Exception):
    """Another process runs this job."""


@dataclass(frozen=True)
class SweepJob:
    """A job of a sweep and how it stands."""

    folder: Path
    label: str
    """The overrides that not all jobs of the sweep share."""
    state: State
    reason: str = ""
    """The last line of a failed job's traceback."""
    seconds: float | None = None
    """Of a finished job."""


@contextmanager
def held(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold a job's folder while the job runs; the system frees it where the process is killed.

    Args:
        folder: the job's folder.
        wait: wait while another process holds it.

    Raises:
        JobBusy: where another process holds it and `wait` is false.
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
    """Whether some process runs the job of this folder right now; needs to read it, no more.

    A shared lock, as all who only look may have it at once and see no one but who runs the job.
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
    """Keep what jobs a sweep has: folder name to overrides.

    Each grid is a file of its own, named by its content: the same grid again changes nothing, and
    another one on the same folder adds its jobs.
    """
    plan = {"command": command, "jobs": {name: list(words) for name, words in jobs.items()}}
    content = json.dumps(plan, indent=1, ensure_ascii=False).encode()
    name = hashlib.sha256(content).hexdigest()[:12]
    write_atomically(folder / PLANS / f"{name}.json", content)


def write_failure(folder: Path, command: str, overrides: Sequence[str], error: Exception) -> None:
    """Keep a failed job's command line and traceback in its folder."""
    lines = [" ".join(["layerfusion", command, *overrides]), *traceback.format_exception(error)]
    write_atomically(folder / FAILED, "\n".join(lines).encode())


def clear_failure(folder: Path) -> None:
    """Forget that a job failed before: it runs again."""
    (folder / FAILED).unlink(missing_ok=True)


def finished_job(folder: Path, command: str) -> str | None:
    """Read from a job's folder the name of the job that finished in it; None where none did."""
    try:
        record = json.loads((folder / RECORDS[command]).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None  # not finished, or damaged: the job itself says so
    return record.get("job") if isinstance(record, dict) else None


# -- status ---------------------------------------------------------------------------------------


def read_jobs(folder: Path) -> list[SweepJob]:
    """Every job that was ever planned for a sweep's folder, in the order of the grids.

    Raises:
        UserError: where the folder has no plan.
    """
    planned = _read_plans(folder)
    if not planned:
        if (folder / HISTORY).exists():
            raise UserError(
                f"{folder}: a search, not a sweep; layerfusion report {folder} shows it"
            )
        raise UserError(f"{folder}: no sweep was started here; outputs/sweeps/NAME is one")
    labels = short_labels({name: words for name, (_, words) in planned.items()})
    return [
        _job(folder / name, labels[name], RECORDS[command])
        for name, (command, _) in planned.items()
    ]


def label_of(job: Path) -> str:
    """What a job of a sweep is called, from the plan beside it; its folder where there is none."""
    planned = {name: words for name, (_, words) in _read_plans(job.parent).items()}
    return short_labels(planned).get(job.name, str(job))


def _read_plans(folder: Path) -> dict[str, tuple[str, list[str]]]:
    """Folder name to command and overrides."""
    plans = sorted((folder / PLANS).glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    found: dict[str, tuple[str, list[str]]] = {}
    for path in plans:
        try:
            plan = json.loads(path.read_text())
            found |= {name: (plan["command"], words) for name, words in plan["jobs"].items()}
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path}: not the plan of a sweep ({error}); without it, the same command writes it"
                " anew"
            ) from error
    return found


def short_labels(planned: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Each job's overrides without those that all jobs share and those of Hydra itself."""
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
    """How a sweep stands, for the terminal: counts, time left, and each failure with its reason."""
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
    if is_held(folder):  # first: a job that runs again still has what it left before
        return SweepJob(folder, label, "running")
    if failed.exists():  # also of a job that was done before and can no longer be looked at
        return SweepJob(folder, label, "failed", reason=last_line(failed))
    if finished.exists():
        return SweepJob(folder, label, "done", seconds=_seconds(folder, finished))
    return SweepJob(folder, label, "missing")


def _seconds(folder: Path, finished: Path) -> float | None:
    """From the config that a job writes when it starts to the record that it writes at its end."""
    begun = next((folder / name for name in STARTED if (folder / name).exists()), None)
    if begun is None:
        return None
    seconds = finished.stat().st_mtime - begun.stat().st_mtime
    return seconds if seconds >= 0 else None  # a sweep that looked in later has touched the config


def _time_left(jobs: Sequence[SweepJob]) -> str:
    left = [job for job in jobs if job.state != "done"]
    if not left:
        return ""
    seconds = [job.seconds for job in jobs if job.seconds is not None]
    running = sum(job.state == "running" for job in jobs)
    if not seconds:
        return "time left: not known before the first job is done"
    mean = statistics.mean(seconds)
    about = duration(mean * len(left) / max(1, running))
    pace = f"{running} at a time" if running else "one at a time; none is running"
    return f"time left: about {about} ({duration(mean)} a job, {pace})"


def last_line(path: Path) -> str:
    """What a failed job's traceback ends in."""
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    return lines[-1].removeprefix("layerfusion.errors.") if lines else ""


def wait_until_free(folders: Sequence[Path], seconds: float = 0.5) -> None:
    """Wait until at least one of these jobs is no longer run by another process."""
    while folders and all(is_held(folder) for folder in folders):
        time.sleep(seconds)
