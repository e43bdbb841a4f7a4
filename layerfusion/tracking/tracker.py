"""Shows each job as a run in Weights & Biases. An error of W&B never makes the job fail.

The record is in the job's folder; nothing is ever read back from W&B.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from lightning.pytorch.loggers import Logger, WandbLogger
from pydantic import ValidationError

from layerfusion.config.job import BUNDLE_UPLOAD, LoggerConfig
from layerfusion.config.secrets import redact_line, redacted
from layerfusion.errors import UserError
from layerfusion.findings.mistakes import Answers
from layerfusion.findings.set_mistakes import SetAnswers
from layerfusion.records.job import RunRecord
from layerfusion.records.profile import Profile
from layerfusion.tracking.columns import ROWS
from layerfusion.tracking.curves import EPOCH, EpochFigures, hide_seed, log_mean_curves
from layerfusion.tracking.lineage import Ingredient, log_code, log_result, log_use
from layerfusion.tracking.media import (
    define_result_metrics,
    job_media,
    profile_media,
    profile_summary,
    summary,
)
from layerfusion.tracking.variables import asked_mode, files_of, run_arguments

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled", "shared"]
GiveAnswers = Callable[[], Answers | SetAnswers]
"""Reads the answers of a job, where they are shown."""
_MAX_REASON = 500
_INTERRUPTED = 255
"""Exit code that W&B uses for a run that the user interrupted."""
_SYNC_TOLD: set[str] = set()
_CODE_KEPT: set[tuple[str, str | None]] = set()
"""Projects and groups in which this process has already saved its source files."""


STARTED_AGAIN = "Started again after it had failed or was killed."


class EndedEarly(Exception):
    """Ends a job that need not continue. Its run counts as finished and is tagged `pruned`."""


class Tracker(Protocol):
    """Interface through which a job shows its progress and result."""

    def uses(self, inputs: Sequence[Ingredient]) -> None:
        """Show the inputs of the job."""
        ...

    def lightning_logger(self, prefix: str) -> Logger | None:
        """Return a logger for one training run, whose metrics are named `prefix/…`."""
        ...

    def finish_with(self, record: RunRecord, answers: GiveAnswers | None = None) -> None:
        """Show the result of the job, after its files have been written."""
        ...

    def finish_with_profile(self, profile: Profile) -> None:
        """Show a layer profile, after its file has been written."""
        ...


class NullTracker:
    """A tracker that shows nothing."""

    def uses(self, inputs: Sequence[Ingredient]) -> None:
        """Do nothing."""

    def lightning_logger(self, prefix: str) -> None:
        """Return None, with which the Trainer logs nothing."""

    def finish_with(self, record: RunRecord, answers: GiveAnswers | None = None) -> None:
        """Do nothing."""

    def finish_with_profile(self, profile: Profile) -> None:
        """Do nothing."""


class WandbTracker:
    """Shows a job as one W&B run.

    Args:
        run: the W&B run.
        folder: the job's folder, which has the files of its result.
        upload: True if the files of the classifier are uploaded, not only referred to.
    """

    def __init__(self, run: Run, folder: Path, *, upload: bool = False) -> None:
        self.run = run
        self.folder = folder
        self.upload = upload
        self.seeds: dict[str, EpochFigures] = {}
        """The curves of each training run so far, by its prefix."""

    def uses(self, inputs: Sequence[Ingredient]) -> None:
        """Declare the inputs of the job, with which its lineage begins, and the rows it has."""
        with _never_failing():
            log_use(self.run, inputs)
            rows = next((x.description["rows"] for x in inputs if x.kind == "dataset"), {})
            self.run.config.update({key: rows[split] for key, split in ROWS.items() if rows})

    def lightning_logger(self, prefix: str) -> WandbLogger:
        """Return a logger on the same run for the epochs of one training run, which are hidden.

        What is shown is their mean over all training runs, at the end.
        """
        with _never_failing():
            hide_seed(self.run, prefix)
        return _PrefixedLogger(self.run, prefix, self.seeds.setdefault(prefix, {}))

    def finish_with(self, record: RunRecord, answers: GiveAnswers | None = None) -> None:
        """Show the mean curves, summary figures, tables and charts, and the result's files."""
        # What fails in one step is not missing in the others.
        with _never_failing():
            define_result_metrics(self.run)
            self.run.summary.update(summary(record))
        with _never_failing():
            test = {name: estimate.mean for name, estimate in record.test.items()}
            metadata = {"fingerprint": record.dataset.fingerprint, "test": test}
            log_result(self.run, record.job, self.folder, metadata, upload=self.upload)
        with _never_failing():
            log_mean_curves(self.run, self.seeds)
        with _never_failing():
            self.run.log(job_media(record, answers() if answers else None))

    def finish_with_profile(self, profile: Profile) -> None:
        """Show the best layers, accuracy by depth, all scores, and the profile's file."""
        with _never_failing():
            self.run.summary.update(profile_summary(profile))
        with _never_failing():
            self.run.log(profile_media(profile))
        with _never_failing():
            fingerprint = {"fingerprint": profile.dataset.fingerprint}
            log_result(self.run, profile.job, self.folder, fingerprint)


class _PrefixedLogger(WandbLogger):
    """Adds a prefix such as `seed0/` to the names of all metrics but the epoch, and keeps them."""

    def __init__(self, run: Run, prefix: str, epochs: EpochFigures) -> None:
        super().__init__(experiment=run)
        self._own = prefix
        self._epochs = epochs

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        own = {key: value for key, value in metrics.items() if key != EPOCH}
        named = {f"{self._own}/{key}": value for key, value in own.items()}
        if EPOCH in metrics:
            named[EPOCH] = metrics[EPOCH]
            self._epochs.setdefault(int(metrics[EPOCH]), {}).update(own)
        with _never_failing():
            self.experiment.log(named)


@contextmanager
def open_tracker(
    logger: LoggerConfig,
    *,
    folder: Path,
    name: str,
    group: str | None,
    job_type: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
) -> Iterator[Tracker]:
    """Open the tracker of one job and close it with the job's exit code.

    What the config leaves open is taken from the variables of W&B, such as WANDB_PROJECT: see
    `variables`. The mode `auto` is online if W&B finds an API key, else offline. If W&B fails, one
    line says so and the job continues.

    Args:
        logger: config group `logger`.
        folder: the job's folder, which also gets the files of W&B.
        name: name of the run.
        group: group of all runs of a sweep, used unless the config names another one.
        job_type: type of the run, for example `train`.
        tags: tags in addition to those of the config.
        config: flat config of the whole job: see `columns.run_config`.
    """
    if logger.name != "wandb" or asked_mode(logger.mode) == "disabled":
        yield NullTracker()
        return
    with _data_in(files_of(folder) / "wandb"):
        arguments = run_arguments(
            logger, folder=folder, name=name, group=group, job_type=job_type, tags=tags
        )
        shown = {key: redacted(arguments.pop(key)) for key in ("name", "group", "notes", "tags")}
        with _never_failing():
            Path(arguments["dir"]).mkdir(parents=True, exist_ok=True)  # for the id of the run
        run = _start(logger.mode, {**arguments, **shown, "config": dict(config)})
        if run is None:
            yield NullTracker()
            return
        exit_code = 1
        try:
            if run.resumed:
                with _never_failing():
                    _forget_failure(run, shown["notes"])
            if logger.code:
                _keep_code(run)
            yield WandbTracker(run, folder, upload=logger.upload == BUNDLE_UPLOAD)
            exit_code = 0
        except EndedEarly:
            exit_code = 0
            with _never_failing():
                run.tags = (*(run.tags or ()), "pruned")
            raise
        except BaseException as error:
            exit_code = _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
            with _never_failing():
                _show_failure(run, error)
            raise
        finally:
            with _never_failing():
                run.finish(exit_code=exit_code)
            if run.offline:
                _tell_sync(Path(run.dir).parent)


def goes_online(mode: str = "auto") -> bool:
    """Return True if runs are sent to the W&B server under this mode of the config."""
    return _mode(mode) in ("online", "shared")


def _start(mode: str, arguments: dict[str, Any]) -> Run | None:
    """Start a run in the requested mode, or else offline; return None if both fail."""
    with _never_failing("going on offline"):
        return _init(_mode(mode), arguments)
    with _never_failing():
        return _init("offline", arguments)
    return None


def _keep_code(run: Run) -> None:
    """Save the source files once for each single job, or once for each sweep and process."""
    place = (run.project, run.group)
    if place not in _CODE_KEPT:
        with _never_failing():
            log_code(run)
        if run.group:
            _CODE_KEPT.add(place)


def _show_failure(run: Run, error: BaseException) -> None:
    """Show in the table of runs why a job failed."""
    lines = str(error).splitlines() or [""]
    kind = UserError if isinstance(error, UserError) else type(error)  # none of its own kinds
    reason = redact_line(f"{kind.__name__}: {lines[0]}".rstrip(": "))[:_MAX_REASON]
    run.summary["error"] = reason
    run.notes = f"{run.notes}\n{reason}" if run.notes else reason  # after those of WANDB_NOTES


def _forget_failure(run: Run, notes: str | None) -> None:
    """Remove from a run that goes on why it failed before."""
    if run.summary.get("error") is not None:  # a summary has no `in`
        del run.summary["error"]
    run.notes = notes or STARTED_AGAIN  # W&B would keep the earlier notes if these were empty


def _mode(mode: str) -> Mode:
    """Return the mode of the config, or of the environment, or else online if there is a key."""
    import wandb

    if asked := asked_mode(mode):
        return cast(Mode, asked)
    wandb.setup(wandb.Settings(silent=True))
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def _init(mode: Mode, arguments: dict[str, Any]) -> Run:
    import wandb

    # Listing the installed packages takes 0.3 s for each job. `_keep_code` saves the source files.
    # Git would describe whatever folder the user is in. A killed job loses the last second of its
    # data for `wandb sync`, instead of the last 15 seconds.
    quiet = {
        "x_transaction_log_flush_interval": 1.0,
        "silent": True,
        "console": "off",
        "init_timeout": 60,
        "disable_code": True,
        "disable_git": True,
        "x_save_requirements": False,
    }
    known = {key: value for key, value in quiet.items() if key in wandb.Settings.model_fields}
    run = wandb.init(
        mode=mode,
        reinit="finish_previous",
        settings=wandb.Settings(**known),
        **arguments,
    )
    if not run.offline and run.url:
        log.info("W&B: %s", run.url)
    return run


@contextmanager
def _never_failing(outcome: str = "the job goes on without it") -> Iterator[None]:
    """Turn an error of W&B into a warning of one line, so that the job continues."""
    import wandb

    try:
        yield
    except ValidationError as error:  # a value that W&B's settings do not allow
        (first, *_) = error.errors(include_url=False)
        key = ".".join(map(str, first["loc"]))
        log.warning("W&B: %s=%s: %s; %s", key, first["input"], first["msg"], outcome)
    except Exception as error:
        # Some errors of W&B, as of its service that has died, do not derive from `wandb.Error`.
        ours = not type(error).__module__.startswith("wandb.")
        if ours and not isinstance(error, (wandb.Error, OSError, ValueError, TypeError)):
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        log.warning("W&B: %s; %s", lines[0].rstrip("."), outcome)


@contextmanager
def _data_in(folder: Path) -> Iterator[None]:
    """Keep W&B's copies of tables beside the run instead of in the home folder, by default."""
    name = "WANDB_DATA_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder.absolute())
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _tell_sync(folder: Path) -> None:
    if not _SYNC_TOLD:
        log.info("W&B is offline; to upload a run: wandb sync %s", folder)
    _SYNC_TOLD.add(str(folder))
