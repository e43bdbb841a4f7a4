"""The folder of a sweep while it runs: locks, plan, failures, and its status in words."""

from __future__ import annotations

import json
import statistics
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from layerfusion.assets.files import write_atomically
from layerfusion.config.secrets import redact_line
from layerfusion.progress import duration
from layerfusion.records.format import plural
from layerfusion.records.sweep import (
    FAILED,
    LOCK,
    PLANS,
    State,
    SweepJob,
    is_held,
    plan_name,
    read_jobs,
)


class JobBusy(Exception):
    """Raised if another process runs the job."""


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
    plan = {
        "command": command,
        "jobs": {name: [redact_line(word) for word in words] for name, words in jobs.items()},
    }
    content = json.dumps(plan, indent=1, ensure_ascii=False).encode()
    write_atomically(folder / PLANS / plan_name(content), content)


def write_failure(folder: Path, command: str, overrides: Sequence[str], error: Exception) -> None:
    """Write a failed job's command line and traceback to its folder."""
    lines = [" ".join(["layerfusion", command, *overrides]), *traceback.format_exception(error)]
    write_atomically(folder / FAILED, redact_line("\n".join(lines)).encode())


def clear_failure(folder: Path) -> None:
    """Remove the file of an earlier failure, since the job runs again."""
    (folder / FAILED).unlink(missing_ok=True)


# -- status ---------------------------------------------------------------------------------------


def status_lines(folder: Path) -> list[str]:
    """Describe the state of a sweep: counts, time left, and each failure with its reason.

    Jobs that newer code has run again count once, as in the report.
    """
    jobs = read_jobs(folder)
    if len(list((folder / PLANS).glob("*.json"))) > 1:  # one plan holds the jobs of one code
        from layerfusion.findings.renewed import older_folders

        older = older_folders(folder)
        jobs = [job for job in jobs if job.folder not in older]
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


def wait_until_free(folders: Sequence[Path], seconds: float = 0.5) -> None:
    """Wait until another process has finished at least one of these jobs."""
    while folders and all(is_held(folder) for folder in folders):
        time.sleep(seconds)
