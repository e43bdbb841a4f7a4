"""How many jobs fit, and a GPU for each, with made-up machines."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import joblib
import pytest

from layerfusion.runs import machine
from layerfusion.runs.machine import GIB, free_gpu, processes_that_fit


@pytest.mark.parametrize(
    ("cores", "gib", "gpus", "device", "fit"),
    [
        (16, 64, 0, "auto", 16),  # cores
        (16, 9, 0, "auto", 4),  # memory
        (16, 64, 3, "auto", 3),  # a GPU each
        (16, 64, 3, "cpu", 16),
        (1, 1, 0, "cpu", 1),  # never none
    ],
)
def test_as_many_as_fit(
    monkeypatch: pytest.MonkeyPatch, cores: int, gib: int, gpus: int, device: str, fit: int
) -> None:
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    monkeypatch.setattr(machine, "_free_memory", lambda: gib * GIB)
    monkeypatch.setattr(machine, "gpu_names", lambda: [f"gpu{n}" for n in range(gpus)])
    assert processes_that_fit(2, device, "cpu") == fit


def test_gpus_are_handed_out_one_a_job(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    with ExitStack() as stack:
        held = [stack.enter_context(free_gpu(names, tmp_path)) for _ in names]
        assert sorted(held) == [0, 1, 2]
    with free_gpu(names, tmp_path) as again:
        assert again == held[-1]  # the one held last, where its models lie


def test_a_job_waits_for_a_gpu(tmp_path: Path) -> None:
    got = Event()

    def job() -> int:
        with free_gpu(["only"], tmp_path, seconds=0.01) as index:
            got.set()
            return index

    with ThreadPoolExecutor(1) as pool:
        with free_gpu(["only"], tmp_path):
            waiting = pool.submit(job)
            assert not got.wait(0.1)
        assert waiting.result(timeout=5) == 0
