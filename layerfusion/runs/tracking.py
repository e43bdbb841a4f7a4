"""Weights & Biases: one run a job, which shows the job and never fails it.

The job's folder is the record; nothing is ever read back from W&B.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
from lightning.pytorch.loggers import Logger, WandbLogger

from layerfusion.config import LoggerConfig
from layerfusion.runs.record import LayerRecord, RunRecord

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)

Confusion = tuple[np.ndarray, np.ndarray, Sequence[str]]
"""Target and predicted class index of every row, shapes (rows,), and the names of the classes."""

MAX_CONFUSION_CLASSES = 100
"""W&B keeps 10,000 cells of a table."""
Mode = Literal["online", "offline", "disabled", "shared"]
_MAX_NAME = 128
_MAX_TAG = 64
_SYNC_TOLD: set[str] = set()


class Tracker(Protocol):
    """Where a job shows its progress and result."""

    def lightning_logger(self, prefix: str) -> Logger | None:
        """A logger for one training run, whose metrics are named `prefix/…`."""
        ...

    def finish_with(self, record: RunRecord, confusion: Confusion | None = None) -> None:
        """Show the result of the job."""
        ...


class NullTracker:
    """Shows nothing."""

    def lightning_logger(self, prefix: str) -> None:
        """None: the Trainer logs nothing."""

    def finish_with(self, record: RunRecord, confusion: Confusion | None = None) -> None:
        """Do nothing."""


class WandbTracker:
    """Shows a job as one W&B run."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def lightning_logger(self, prefix: str) -> WandbLogger:
        """A logger on the same run; its charts are drawn over the epochs of its training run."""
        with _never_failing():
            self.run.define_metric(f"{prefix}/*", step_metric=f"{prefix}/epoch")
        return _PrefixedLogger(experiment=self.run, prefix=prefix)

    def finish_with(self, record: RunRecord, confusion: Confusion | None = None) -> None:
        """Show summary figures, the layers with their gates, the confusion matrix and the cost."""
        import wandb

        with _never_failing():
            self.run.summary.update(summary(record))
            columns, rows = layer_table(record)
            shown: dict[str, Any] = {"layers": wandb.Table(columns=columns, data=rows)}
            if confusion is not None and len(confusion[2]) <= MAX_CONFUSION_CLASSES:
                target, preds, label_names = confusion
                shown["confusion"] = wandb.plot.confusion_matrix(
                    y_true=target.tolist(), preds=preds.tolist(), class_names=list(label_names)
                )
            self.run.log(shown)


class _PrefixedLogger(WandbLogger):
    """Lightning's logger with `seed0/val/log_loss` for `seed0-val/log_loss`."""

    LOGGER_JOIN_CHAR = "/"

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with _never_failing():
            super().log_metrics(metrics, step)


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

    A `mode` of the config goes before the environment's WANDB_MODE; `auto` is online where W&B
    finds an API key, else offline. What W&B cannot do is told in one line, and the job goes on.

    Args:
        logger: the group `logger`.
        folder: the job's folder, in which W&B's own files lie.
        name: what the run is called.
        group: what the runs of the sweep share, unless the config names a group.
        job_type: for example train.
        tags: added to those of the config.
        config: the whole config of the job, nested; shown under dotted keys.
    """
    disabled = logger.mode == "auto" and os.environ.get("WANDB_MODE") == "disabled"
    if logger.name != "wandb" or disabled:
        yield NullTracker()
        return
    with _data_in(folder / "wandb"):
        run = _start(
            logger,
            dir=str(folder),
            name=name[:_MAX_NAME],
            group=(logger.group or group or "")[:_MAX_NAME] or None,
            job_type=job_type,
            tags=[tag for tag in dict.fromkeys([*logger.tags, *tags]) if 0 < len(tag) <= _MAX_TAG],
            config=flatten(config),
        )
        if run is None:
            yield NullTracker()
            return
        exit_code = 1
        try:
            yield WandbTracker(run)
            exit_code = 0
        finally:
            with _never_failing():
                run.finish(exit_code=exit_code)
            if run.offline:
                _tell_sync(Path(run.dir).parent)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config under dotted keys; lists of plain values stay lists."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def summary(record: RunRecord) -> dict[str, float | int | str]:
    """The figures of a job that a table of jobs is sorted by; what is not known is left out."""
    figures: dict[str, float | int | str | None] = {"job": record.job, "protocol": record.protocol}
    for split, estimates in (("validation", record.validation), ("test", record.test)):
        for metric, estimate in estimates.items():
            figures[f"{split}/{metric}"] = estimate.mean
            for part in ("sd", "low", "high"):
                figures[f"{split}/{metric}_{part}"] = getattr(estimate, part)
    figures |= {f"floor/{metric}": value for metric, value in record.floor.test.items()}
    figures |= {f"cost/{name}": value for name, value in asdict(record.cost).items()}
    for name, backbone in record.backbones.items():
        for cost in ("parameters", "flops_per_text", "milliseconds_per_text", "store_bytes"):
            figures[f"cost/{name}/{cost}"] = getattr(backbone, cost)
        figures[f"cost/{name}/highest_layer"] = backbone.highest_layer
        figures[f"cost/{name}/cut_texts"] = backbone.cut_texts
    return {name: value for name, value in figures.items() if value is not None}


def layer_table(record: RunRecord) -> tuple[list[Any], list[Any]]:
    """Columns and rows of the selected layers, as the record has them."""
    columns = [field.name for field in fields(LayerRecord)]
    return columns, [list(astuple(layer)) for layer in record.layers]


def _start(logger: LoggerConfig, **arguments: Any) -> Run | None:
    """Start a run in the wanted mode, else offline, else not at all."""
    with _never_failing("going on offline"):
        return _init(logger, _mode(logger), arguments)
    with _never_failing():
        return _init(logger, "offline", arguments)
    return None


def _mode(logger: LoggerConfig) -> Mode:
    """The mode asked for by the config, else by the environment, else by whether there is a key."""
    import wandb

    if logger.mode != "auto":
        return cast(Mode, logger.mode)
    if mode := os.environ.get("WANDB_MODE"):
        return cast(Mode, {"dryrun": "offline", "run": "online"}.get(mode, mode))
    wandb.setup(wandb.Settings(silent=True))
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def _init(logger: LoggerConfig, mode: Mode, arguments: dict[str, Any]) -> Run:
    import wandb

    # The list of installed packages costs .3 s a job; code and git are nobody's business here.
    quiet = {
        "silent": True,
        "console": "off",
        "init_timeout": 60,
        "disable_code": True,
        "disable_git": True,
        "x_save_requirements": False,
    }
    known = {key: value for key, value in quiet.items() if key in wandb.Settings.model_fields}
    run = wandb.init(
        project=logger.project,
        entity=logger.entity,
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
    """Tell what W&B could not do in one line; the job goes on."""
    import wandb

    try:
        yield
    except (wandb.Error, OSError, TimeoutError, ValueError, TypeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        log.warning("W&B: %s; %s", lines[0].rstrip("."), outcome)


@contextmanager
def _data_in(folder: Path) -> Iterator[None]:
    """Keep W&B's copies of tables beside the run, not in the home folder, unless set otherwise."""
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
