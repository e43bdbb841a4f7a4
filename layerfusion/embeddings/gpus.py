"""Turns on a GPU, which a job of a sweep takes where it computes on one, and gives back after it.

Two jobs must not load their models onto one GPU at the same time: there may be room for one only.
Jobs that read their vectors from the cache, and train heads on the CPU, need no turn.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from layerfusion.config.job import SPREAD

if TYPE_CHECKING:
    import torch

NVIDIA = Path("/dev/nvidiactl")
"""Exists if an NVIDIA driver is installed. Checked first, because importing torch is slow."""
ANY_GPU = ("auto", "cuda", SPREAD)
"""Devices that stand for whatever GPU is free."""
POLL_SECONDS = 0.1
"""Seconds between two looks for a free GPU."""
COLLECTED_ABOVE = 2**28
"""Bytes left on a GPU after a turn, above which Python looks for what nobody refers to any more."""


@dataclass
class _Job:
    """The job of a sweep that runs in this process."""

    spread: bool
    """Whether it takes all GPUs at once."""
    kept: ExitStack = field(default_factory=ExitStack)
    """Ends with the job, and with it a turn that was to be kept."""
    has_turn: bool = False


_job: _Job | None = None
_last_gpu = 0
_waited = 0.0


def gpu_names() -> list[str]:
    """Return the UUIDs of the GPUs that this process sees, which all processes agree on."""
    if not NVIDIA.exists():
        return []
    import torch

    count = torch.cuda.device_count()
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)]


def smallest_gpu() -> int:
    """Return the bytes of memory of the smallest GPU that this process sees; there must be one."""
    import torch

    count = torch.cuda.device_count()
    return min(torch.cuda.get_device_properties(index).total_memory for index in range(count))


@contextmanager
def taking_turns(*, spread: bool) -> Iterator[None]:
    """Run a job whose turns on a GPU, see `gpu_turn`, exclude those of other jobs of the user.

    One thread of a process takes turns.

    Args:
        spread: whether a turn is on all GPUs at once, over which the models of the job are spread.
    """
    global _job
    job, before = _Job(spread), _job
    with job.kept:
        _job = job
        try:
            yield
        finally:
            _job = before


@contextmanager
def gpu_turn(device: torch.device | str | None) -> Iterator[bool]:
    """Wait for a GPU that no other job uses, make it the current device, and give it back.

    Nothing happens outside a job that takes turns, within another turn, or for another device.
    Models and tensors on the GPU have to be gone when the turn ends. They should therefore be
    variables of a function that is called within it: if an error ends the turn, such variables are
    cleared.

    Args:
        device: where something is to be computed. `auto`, `cuda` and `spread` stand for a GPU that
            is free; one with a number, such as `cuda:1`, is used in any case.

    Yields:
        True if the turn begins here. Others may have kept in the cache meanwhile what it lacked.
    """
    job = _job
    if job is None or job.has_turn or str(device) not in ANY_GPU or not (names := gpu_names()):
        yield False
        return
    with ExitStack() as turn:
        _take(names, turn, every=job.spread)
        turn.push(_clear)
        job.has_turn = True
        try:
            yield True
        finally:
            job.has_turn = False


def keep_gpu(device: torch.device | str) -> None:
    """Begin a turn that ends with the job, unless it has a turn.

    Args:
        device: as for `gpu_turn`.
    """
    if _job is not None:
        _job.kept.enter_context(gpu_turn(device))


def clock() -> float:
    """Return `time.perf_counter` without the seconds that this process has waited for GPUs."""
    return time.perf_counter() - _waited


def _take(names: Sequence[str], turn: ExitStack, *, every: bool) -> None:
    """Wait for one of the GPUs, which becomes the current device, or for every one of them."""
    global _waited
    import torch

    begun = time.perf_counter()
    folder = Path(tempfile.gettempdir()) / f"layerfusion-gpus-{os.getuid()}"
    if every:
        for name in sorted(names):  # in one order, so that no two jobs wait for each other
            turn.enter_context(free_gpu([name], folder))
    else:
        torch.cuda.set_device(turn.enter_context(free_gpu(names, folder)))
    _waited += time.perf_counter() - begun


@contextmanager
def free_gpu(names: Sequence[str], folder: Path, seconds: float = POLL_SECONDS) -> Iterator[int]:
    """Lock one of the GPUs, waiting until one is free. The last one used is tried first.

    The system frees the lock when the process ends, for whatever reason.

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
        # The last GPU comes first, since this process keeps a part of its memory in any case.
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


def _clear(
    _kind: type[BaseException] | None,
    error: BaseException | None,
    _traceback: TracebackType | None,
) -> None:
    """Give the memory of this process on all GPUs back to them.

    An error that ended the turn refers to the functions that it came through, whose variables may
    be a model or a batch.
    """
    import torch

    cleared: set[int] = set()
    errors = [] if error is None else [error]
    while errors:
        one = errors.pop()
        if id(one) in cleared:
            continue
        cleared.add(id(one))
        traceback.clear_frames(one.__traceback__)
        errors += [x for x in (one.__cause__, one.__context__) if x is not None]
        errors += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
    if sum(map(torch.cuda.memory_allocated, range(torch.cuda.device_count()))) > COLLECTED_ABOVE:
        gc.collect()
    torch.cuda.empty_cache()
