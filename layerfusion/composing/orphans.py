"""Workers of a launcher that end with the process that started them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import current_process

LOOK = 1.0
"""Seconds between two looks at the parent."""
_jobs = 0
"""Jobs that run in this process."""
_watched = threading.Lock()
"""Held once a thread looks at the parent."""


def end_with_parent() -> None:
    """Let a worker of joblib end when its parent is gone, once the job that it runs is done.

    Nobody gives it another. It would hold its memory for minutes, until joblib's own time is over,
    beside the workers of the next start.
    """
    if current_process().name.startswith("LokyProcess") and _watched.acquire(blocking=False):
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


@contextmanager
def job_running() -> Iterator[None]:
    """Keep this process for as long as a job runs."""
    global _jobs
    _jobs += 1
    try:
        yield
    finally:
        _jobs -= 1


def _watch(parent: int) -> None:
    while os.getppid() == parent or _jobs:
        time.sleep(LOOK)
    os._exit(1)
