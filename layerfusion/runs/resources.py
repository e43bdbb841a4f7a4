"""The machine's resources: how many jobs fit at once, a GPU for those that need it, and memory."""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from layerfusion.config.job import SPREAD, TrainConfig
from layerfusion.embeddings.gpus import ANY_GPU, gpu_names, keep_gpu, smallest_gpu, taking_turns
from layerfusion.embeddings.memory import free_host_memory

log = logging.getLogger(__name__)

GIB = 2**30
MEASURED = 0.2
"""Seconds over which the use of the cores is measured."""
FORGET_PEAK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
"""Linux files to reset, and to read, the peak memory of this process."""


def processes_that_fit(
    gib: float, device: str, accelerator: str, time_limit: float | None = None
) -> int:
    """Return how many jobs can run at once, given the cores, the memory and, if used, the GPUs.

    Jobs that have a GPU from start to end are as many as there are GPUs. Others take turns, and
    there are as many as have room for what a process keeps of a GPU's memory once it has used it.

    Args:
        gib: memory of one process, in GiB, of the machine and of a GPU.
        device: `extract.device`.
        accelerator: `trainer.accelerator`.
        time_limit: seconds that a job may take; None: as many as it needs.
    """
    import joblib

    most = [joblib.cpu_count(), int(free_host_memory() / (gib * GIB))]
    trained = _trained_on(accelerator)
    if (device in ANY_GPU or trained in ANY_GPU) and (gpus := gpu_names()):
        if device == SPREAD:
            most.append(1)
        elif trained in ANY_GPU or time_limit is not None:
            most.append(len(gpus))
        else:
            most.append(int(smallest_gpu() / (gib * GIB)))
    return max(1, min(most))


@contextmanager
def own_gpu(config: TrainConfig) -> Iterator[None]:
    """Let a job of a sweep take turns on a GPU of its own, which becomes the current device.

    A job whose models are spread over all GPUs waits until it has all of them. A job keeps its GPU
    from start to end where its heads are trained there, and where its time is limited, as waiting
    would leave less of it.
    """
    device, trained = config.extract.device, _trained_on(config.trainer.accelerator)
    with taking_turns(spread=device == SPREAD):
        if config.time_limit is not None:
            keep_gpu(device)
        keep_gpu(trained)
        yield


def _trained_on(accelerator: str) -> str:
    """Return the device that an accelerator of Lightning stands for."""
    return {"gpu": "cuda"}.get(accelerator, accelerator)


@cache
def share_cores() -> None:
    """Take the cores that other processes leave free, and say so where these are not all.

    Threads of a matrix product wait for each other. Where another process holds one of the cores,
    all of them wait for the thread that shares it, which is much slower than one thread less.
    OMP_NUM_THREADS overrules this; launchers set it for their processes.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    import joblib
    import torch
    from threadpoolctl import threadpool_limits

    cores = min(joblib.cpu_count(), torch.get_num_threads())
    busy = busy_cores()
    threads = max(1, min(cores, round(joblib.cpu_count() - busy)))
    if threads < torch.get_num_threads():
        threadpool_limits(threads)
        torch.set_num_threads(threads)
        log.info(
            "%d of %d cores, as other processes use %.1f of them; OMP_NUM_THREADS sets another"
            " number", threads, joblib.cpu_count(), busy
        )  # fmt: skip


def busy_cores() -> float:
    """Measure how many of the cores that this process may use other processes keep busy."""
    import psutil

    shares = psutil.cpu_percent(MEASURED, percpu=True)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(shares))
    return sum(shares[core] for core in allowed if core < len(shares)) / 100


def forget_peak_memory() -> None:
    """Reset the peak that `peak_memory` returns, on systems that can do so."""
    with suppress(OSError):  # on other systems, the peak covers the whole life of the process
        FORGET_PEAK.write_text("5", encoding="utf-8")


def peak_memory() -> int:
    """Return the peak resident memory since `forget_peak_memory`, in bytes."""
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="utf-8").splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    except (OSError, LookupError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
