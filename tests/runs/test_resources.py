"""How many jobs fit, with made-up machines, and what memory and cores they have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import psutil
import pytest

from layerfusion.runs import resources as machine
from layerfusion.runs.resources import (
    GIB,
    forget_peak_memory,
    peak_memory,
    processes_that_fit,
)


@pytest.mark.parametrize(
    ("cores", "gib", "gpus", "words", "fit"),
    [
        (16, 64, [], ["auto", "cpu"], 16),  # cores
        (16, 9, [], ["auto", "cpu"], 4),  # memory
        (16, 64, [141, 141, 141], ["auto", "cpu"], 16),  # they take turns on the GPUs
        (16, 64, [141, 8], ["auto", "cpu"], 4),  # memory of the smallest GPU
        (16, 64, [8], ["cpu", "cpu"], 16),
        (16, 64, [8], ["cuda:0", "cpu"], 16),
        (16, 64, [141, 141, 141], ["auto", "gpu"], 3),  # heads: a GPU each, all the time
        (16, 64, [141, 141, 141], ["cpu", "auto"], 3),
        (16, 64, [141, 141, 141], ["auto", "cpu", 600.0], 3),
        (16, 64, [141, 141, 141], ["cpu", "cpu", 600.0], 16),
        (16, 64, [141, 141, 141], ["spread", "cpu"], 1),
        (1, 1, [], ["cpu", "cpu"], 1),  # never none
        (16, 64, [1], ["auto", "cpu"], 1),
    ],
)
def test_as_many_as_fit(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    gib: int,
    gpus: list[int],
    words: list[Any],
    fit: int,
) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    monkeypatch.setattr(machine, "free_host_memory", lambda: gib * GIB)
    monkeypatch.setattr(machine, "gpu_names", lambda: [f"gpu{n}" for n in range(len(gpus))])
    monkeypatch.setattr(machine, "smallest_gpu", lambda: min(gpus) * GIB)
    assert processes_that_fit(2, *words) == fit


def test_the_peak_of_a_job_is_not_that_of_the_one_before() -> None:
    """In a process of its own: in this one, other tests' memory comes and goes meanwhile."""
    code = """
from layerfusion.runs.resources import FORGET_PEAK, forget_peak_memory, peak_memory

start = peak_memory()
large = b"x" * 2**28
del large
with_large = peak_memory()
forget_peak_memory()
after = peak_memory()
try:
    FORGET_PEAK.write_text("5")
    forgets = True
except OSError:
    forgets = False
print(start, with_large, after, int(forgets))
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    start, with_large, after, forgets = map(int, out.stdout.split())
    assert with_large - start > 0.9 * 2**28
    if forgets:  # Linux
        assert after - start < 0.1 * 2**28
    else:
        assert after >= with_large


def test_elsewhere_the_peak_is_that_of_the_process_so_far(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "FORGET_PEAK", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(machine, "STATUS", tmp_path / "none" / "status")
    forget_peak_memory()
    assert peak_memory() >= 0.9 * psutil.Process().memory_info().rss


@pytest.mark.parametrize("given", ["", "2"])
def test_threads_leave_the_cores_that_a_busy_process_has(given: str) -> None:
    """A real busy process beside a real start; OMP_NUM_THREADS overrules what is measured."""
    code = """
import logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
import torch
from layerfusion.runs.resources import share_cores
share_cores()
print(torch.get_num_threads())
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"OMP_NUM_THREADS": given} if given else {}
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            done = subprocess.run(
                [sys.executable, "-c", code],
                env=environment, check=True, capture_output=True, text=True
            )  # fmt: skip
        finally:
            busy.kill()
    threads, cores = int(done.stdout), joblib.cpu_count()
    if given:
        assert threads == min(int(given), cores)
    elif cores > 1:
        assert threads < cores
        assert f"{threads} of {cores} cores, as other processes use" in done.stderr
