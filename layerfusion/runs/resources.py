"""What this machine has for jobs: how many fit at once, one GPU for each; the memory one took."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from layerfusion.config.job import TrainConfig

NVIDIA = Path("/dev/nvidiactl")
"""There where a driver for NVIDIA's GPUs is; only then is torch asked, slow as it is to import."""
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""What a container may use, where it is limited; of the two generations of control groups."""
GIB = 2**30
FORGET_PEAK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
"""Linux alone lets a process measure its peak anew."""

_last_gpu = 0


def processes_that_fit(gib: float, device: str, accelerator: str) -> int:
    """How many jobs to run side by side: as cores, memory and, for jobs on a GPU, GPUs allow.

    Args:
        gib: memory of one process, in GiB.
        device: `extract.device`.
        accelerator: `trainer.accelerator`.
    """
    import joblib

    most = [joblib.cpu_count(), int(_free_memory() / (gib * GIB))]
    if wants_gpu(device, accelerator) and (gpus := gpu_names()):
        most.append(len(gpus))
    return max(1, min(most))


def wants_gpu(device: str, accelerator: str) -> bool:
    """Whether a job takes whatever GPU it is given; `cuda:1` is asked for by name."""
    return device in ("auto", "cuda") or accelerator in ("auto", "gpu")


def gpu_names() -> list[str]:
    """What tells the GPUs that this process sees apart, on the whole machine."""
    if not NVIDIA.exists():
        return []
    import torch

    count = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]


@contextmanager
def own_gpu(config: TrainConfig) -> Iterator[None]:
    """Make a GPU that no other job holds the current one, for a job that wants one."""
    names = gpu_names() if wants_gpu(config.extract.device, config.trainer.accelerator) else []
    if not names:
        yield
        return
    import torch

    with free_gpu(names, Path(tempfile.gettempdir()) / f"layerfusion-gpus-{os.getuid()}") as index:
        torch.cuda.set_device(index)
        yield


@contextmanager
def free_gpu(names: Sequence[str], folder: Path, seconds: float = 0.5) -> Iterator[int]:
    """Hold one of the GPUs, waiting until one is free; the last one that was held if it can be.

    Yields:
        Its index in `names`.
    """
    global _last_gpu
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        # The last one first: a model that is still in memory lies there.
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


def forget_peak_memory() -> None:
    """Let `peak_memory` count from here on, where the system can."""
    with suppress(OSError):  # elsewhere the peak stays that of the process so far
        FORGET_PEAK.write_text("5")


def peak_memory() -> int:
    """Largest resident size of this process since `forget_peak_memory`, in bytes."""
    try:
        lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    except (OSError, LookupError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _free_memory() -> float:
    import psutil

    free = float(psutil.virtual_memory().available)
    for path in map(Path, MEMORY_LIMITS):
        if path.exists() and (limit := path.read_text().strip()).isdigit():
            free = min(free, float(limit))
    return free
