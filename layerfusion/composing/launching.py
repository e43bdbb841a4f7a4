"""The function that Hydra calls for each job, in this process or in one of a launcher."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerfusion.assets.files import in_one_line, write_atomically
from layerfusion.composing.orphans import end_with_parent, job_running
from layerfusion.composing.registration import VERSION_BASE, register
from layerfusion.config.check import load
from layerfusion.config.imports import import_from
from layerfusion.config.job import TrainConfig
from layerfusion.config.secrets import redact_line, shown
from layerfusion.errors import UserError
from layerfusion.progress import share_terminal
from layerfusion.progress import shown as shown_progress

log = logging.getLogger(__name__)

BUSY = "another process runs this job"
"""Return value of a job of a sweep that was skipped because another process runs it."""


class JobFailed(Exception):
    """A job of a sweep failed; its folder says why. Only the message is sent between processes."""


class JobsFailed(Exception):
    """Some jobs of a sweep failed, and the others are done.

    Args:
        failed: number of failed jobs.
        jobs: number of all jobs.
        folder: the sweep's folder.
        planned: True if the folder has a plan, which `layerfusion status` reads.
    """

    def __init__(self, failed: int, jobs: int, folder: Path, *, planned: bool) -> None:
        status = f"`layerfusion status {folder}` says which and why"
        where = status if planned else f"failed.txt in their folders under {folder} says why"
        super().__init__(
            f"{failed} of {jobs} jobs failed; {where}, the same command runs them again"
        )


class LauncherFailed(Exception):
    """A launcher stopped, for example because one of its processes was killed."""

    def __init__(self, error: Exception) -> None:
        reason = " ".join(str(error).split()) or "no reason given"
        reason = f"{type(error).__name__}: {reason}"
        if isinstance(error, OSError):
            reason = in_one_line(error)
        super().__init__(
            f"the launcher stopped: {reason}; what was finished is kept, the same command goes on"
        )


class PlainFormatter(logging.Formatter):
    """Formats the message alone. Tracebacks go to the job's log, not to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message of a log record."""
        return shown(record.getMessage())


class DatedFormatter(logging.Formatter):
    """Formats a line, with its traceback if it has one, for the job's log, without keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return redact_line(super().format(record))


SHOWN = {"shown": True}
"""The `extra` of lines that are shown as they stand, such as those of a table."""


OF_INPUTS = ("layerfusion.assets", "layerfusion.texts", "layerfusion.embeddings")
"""Loggers that tell of texts and models, which the jobs of a sweep mostly share."""


class Once(logging.Filter):
    """Lets each line of a job pass once; what a job looks up again it would say again.

    Lines that belong together, logged with `extra=SHOWN`, all pass.

    Args:
        standing: lines of texts and models, and those logged with `extra=STANDING`, that other jobs
            have said; this job's are added. None where the job says them all.
    """

    def __init__(self, standing: set[str] | None = None) -> None:
        super().__init__()
        self._said: set[str] = set()
        self._standing = self._said if standing is None else standing

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a line that has passed before."""
        if hasattr(record, "shown"):
            return True
        line, said = record.getMessage(), self._said
        if hasattr(record, "standing") or record.name.startswith(OF_INPUTS):
            said = self._standing
        new = line not in said
        said.add(line)
        return new


@contextmanager
def each_line_once(standing: set[str] | None = None) -> Iterator[None]:
    """Keep the handlers of the log from writing a line of a job again.

    Args:
        standing: lines that the terminal need not show again, though each job's own log has them.
    """
    filters = [
        (handler, Once(None if isinstance(handler, logging.FileHandler) else standing))
        for handler in logging.getLogger().handlers
    ]
    for handler, once in filters:
        handler.addFilter(once)
    try:
        yield
    finally:
        for handler, once in filters:
            handler.removeFilter(once)


def _remove_empty(folder: Path) -> None:
    """Remove the folder of a job that was refused before it left anything, and empty ones above.

    It then has what Hydra and the lock put there. The folder that one works in stays.
    """
    from hydra.core.hydra_config import HydraConfig

    from layerfusion.records.sweep import LOCK

    hydra = HydraConfig.get()
    own = {LOCK, f"{hydra.job.name}.log", hydra.output_subdir}
    here = Path.cwd()
    if folder.is_symlink() or folder in (here, *here.parents):
        return
    if not {one.name for one in folder.iterdir()} <= own:
        return
    shutil.rmtree(folder)
    for above in folder.parents:
        if here not in above.parents or any(above.iterdir()):
            return
        above.rmdir()


class JobTask:
    """Runs the job that Hydra composed.

    Args:
        command: name of the command.
        run: function that gets the checked config and the job's folder.
        sweep: True if the job is part of a sweep. It then skips a folder that another process
            uses, and writes a failure to its folder.
        modules: folders with Python modules of the user.
    """

    def __init__(
        self,
        command: str,
        run: Callable[[TrainConfig, Path], Any],
        *,
        sweep: bool,
        modules: Sequence[Path] = (),
    ) -> None:
        self.command, self.run, self.sweep = command, run, sweep
        self.modules = [folder.resolve() for folder in modules]
        self._said: set[str] = set()
        """Lines of the terminal that hold for all jobs of a sweep."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the task in a launcher's process, where the schemas are not registered yet."""
        from hydra import version

        self.__dict__.update(state)
        version.setbase(VERSION_BASE)
        register()
        import_from(self.modules)
        end_with_parent()

    def __call__(self, composed: Any) -> Any:
        """Run one job.

        Raises:
            JobFailed: for any failure in a sweep.
        """
        with job_running():
            return self._call(composed)

    def _call(self, composed: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig

        from layerfusion.records.sweep import RECORDS
        from layerfusion.runs.sweep import JobBusy, held

        folder = Path(HydraConfig.get().runtime.output_dir)
        _hide_keys(folder / (HydraConfig.get().output_subdir or ""))
        run = self._run_kept if self.sweep else self._run
        said = self._said if self.sweep else None
        if self.command not in RECORDS:  # such jobs share a folder and may run at the same time
            with each_line_once(said), shown_progress():
                return run(composed, folder)
        try:
            with each_line_once(said), held(folder, wait=not self.sweep), shown_progress():
                return run(composed, folder)
        except JobBusy:
            log.info("%s: skipped for now, as another process runs this job", folder)
            return BUSY

    def _run(self, composed: Any, folder: Path) -> Any:
        from layerfusion.records.sweep import RECORDS

        try:
            return self.run(load(composed), folder)
        except UserError:
            if self.command in RECORDS:  # the folder is this job's own, which holds its lock
                _remove_empty(folder)
            raise

    def _run_kept(self, composed: Any, folder: Path) -> Any:
        """Run a job of a sweep, and write a failure to its folder."""
        from hydra.core.hydra_config import HydraConfig

        from layerfusion.records.sweep import FAILED, label_of
        from layerfusion.runs.resources import own_gpu
        from layerfusion.runs.sweep import clear_failure, write_failure

        clear_failure(folder)
        try:
            config = load(composed)
            with own_gpu(config):
                return self.run(config, folder)
        except Exception as error:  # the other jobs continue, whatever the error is
            overrides = list(HydraConfig.get().overrides.task)
            write_failure(folder, self.command, overrides, error)
            line = " ".join(str(error).split())
            if isinstance(error, OSError):
                line = f"{in_one_line(error)}; traceback in {folder / FAILED}"
            elif not isinstance(error, UserError):
                line = f"{type(error).__name__}: {line}; traceback in {folder / FAILED}"
            log.error("failed: %s: %s", label_of(folder), line, exc_info=True)
            raise JobFailed(line) from None


def _hide_keys(folder: Path) -> None:
    """Hide keys in what Hydra wrote before the job, and in the words that W&B keeps."""
    sys.argv = [redact_line(word) for word in sys.argv]
    for path in folder.glob("*.yaml") if folder.name == ".hydra" else ():
        content = path.read_text(encoding="utf-8")
        if (hidden := redact_line(content)) != content:
            write_atomically(path, hidden.encode())


@dataclass(frozen=True)
class Shared:
    """State that all jobs of a sweep need in another process. The names are those of Hydra."""

    hydra_context: Any
    config: Any
    task_function: Any
    singletons: Any

    @classmethod
    def of(cls, hydra_context: Any, config: Any, task_function: Any) -> Shared:
        """Collect the state in the process that launches the jobs."""
        from hydra.core.singleton import Singleton

        return cls(hydra_context, config, task_function, Singleton.get_state())


def run_elsewhere(shared: Shared, overrides: Sequence[str], number: int) -> Any:
    """Compose and run one job of a sweep in a launcher's process; return Hydra's `JobReturn`."""
    from hydra.core.singleton import Singleton
    from hydra.core.utils import run_job, setup_globals
    from omegaconf import open_dict

    Singleton.set_state(shared.singletons)
    setup_globals()
    share_terminal()
    loader = shared.hydra_context.config_loader
    config = loader.load_sweep_config(shared.config, list(overrides))
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    return run_job(
        hydra_context=shared.hydra_context,
        task_function=shared.task_function,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )
