"""The machine's resources: how many jobs fit at once, a GPU for each, and peak memory."""

from __future__ import annotations

import logging
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from layerfusion.config.job import SPREAD, TrainConfig

log = logging.getLogger(__name__)

NVIDIA = Path("/dev/nvidiactl")
"""Exists if an NVIDIA driver is installed. Checked first, because importing torch is slow."""
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with the memory limit of a container, for control groups of version 2 and version 1."""
GIB = 2**30
MEASURED = 0.2
"""Seconds over which the use of the cores is measured."""
FORGET_PEAK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
"""Linux files to reset, and to read, the peak memory of this process."""

_last_gpu = 0


def processes_that_fit(gib: float, device: str, accelerator: str) -> int:
    """Return how many jobs can run at once, given the cores, the memory and, if used, the GPUs.

    Args:
        gib: memory of one process, in GiB.
        device: `extract.device`.
        accelerator: `trainer.accelerator`.
    """
    import joblib

    most = [joblib.cpu_count(), int(_free_memory() / (gib * GIB))]
    if wants_gpu(device, accelerator) and (gpus := gpu_names()):
        most.append(1 if device == SPREAD else len(gpus))
    return max(1, min(most))


def wants_gpu(device: str, accelerator: str) -> bool:
    """Return True if a job takes any GPU. It does not if it names one, such as `cuda:1`."""
    return device in ("auto", "cuda", SPREAD) or accelerator in ("auto", "gpu")


def gpu_names() -> list[str]:
    """Return the UUIDs of the GPUs that this process sees, which all processes agree on."""
    if not NVIDIA.exists():
        return []
    import torch

    count = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]


@contextmanager
def own_gpu(config: TrainConfig) -> Iterator[None]:
    """Make a GPU that no other job uses the current device, if the job wants a GPU.

    A job whose models are spread over all GPUs waits until it has all of them.
    """
    names = gpu_names() if wants_gpu(config.extract.device, config.trainer.accelerator) else []
    if not names:
        yield
        return
    import torch

    folder = Path(tempfile.gettempdir()) / f"layerfusion-gpus-{os.getuid()}"
    with ExitStack() as held:
        if config.extract.device == SPREAD:
            for name in sorted(names):  # in one order, so that no two jobs wait for each other
                held.enter_context(free_gpu([name], folder))
        else:
            torch.cuda.set_device(held.enter_context(free_gpu(names, folder)))
        yield


@contextmanager
def free_gpu(names: Sequence[str], folder: Path, seconds: float = 0.5) -> Iterator[int]:
    """Lock one of the GPUs, waiting until one is free. The last one used is tried first.

    Args:
        names: UUIDs of the GPUs.
        folder: folder of the lock files.
        seconds: time between two tries.

    Yields:
        Index of the GPU in `names`.
    """
    global _last_gpu
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        # The last GPU comes first, since a model may still be in its memory.
        for index in sorted(range(len(names)), key=lambda index: (index != _last_gpu, index)):
            lock = FileLock(folder / f"{names[index]}.lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            _last_gpu = index
            try:
                yield index
            finally:
                lock.release()
            return
        time.sleep(seconds)


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


def _free_memory() -> float:
    import psutil

    free = float(psutil.virtual_memory().available)
    for path in map(Path, MEMORY_LIMITS):
        if path.exists() and (limit := path.read_text(encoding="utf-8").strip()).isdigit():
            free = min(free, float(limit))
    return free
