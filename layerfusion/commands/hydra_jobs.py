"""The commands that run the jobs which Hydra composes: train, extract, profile and plan."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from layerfusion.commands.guesses import with_data
from layerfusion.composing.hydra import MULTIRUN, run_hydra
from layerfusion.composing.launching import SHOWN
from layerfusion.config.check import refuse_time_limit
from layerfusion.config.job import TrainConfig
from layerfusion.progress import STANDING

log = logging.getLogger(__name__)


def train(arguments: Sequence[str]) -> int:
    """Run `layerfusion train`: one job, or a sweep with `-m`.

    The `time_limit` of a single job counts from here, and that of a sweep's job from its own start.
    """
    run = _train_job
    if not MULTIRUN & {*arguments}:
        run = partial(_train_job, begun=time.monotonic())
    return run_hydra("train", run, with_data("train", arguments))


def _train_job(config: TrainConfig, folder: Path, begun: float | None = None) -> float | None:
    from layerfusion.records.format import made_of, result_lines
    from layerfusion.runs.job import run_job
    from layerfusion.runs.protocol import protocol_of

    record = run_job(config, folder, begun=begun)
    protocol = protocol_of(config)
    result, *others = result_lines(record, protocol.result_line(record, made_of(record)))
    log.info(result)
    for line in others:
        log.info(line, extra=STANDING)
    log.info("record: %s", folder)
    return protocol.objective(record)


def extract(arguments: Sequence[str]) -> int:
    """Run `layerfusion extract`, which only fills the stores."""
    return run_hydra("extract", _extract_job, with_data("extract", arguments))


def _extract_job(config: TrainConfig, _folder: Path) -> None:
    from layerfusion.embeddings.store import EmbeddingStore
    from layerfusion.runs.job_texts import dataset_of
    from layerfusion.runs.protocol import protocol_of

    refuse_time_limit(config, "`layerfusion extract`")
    for name, source in protocol_of(config).extract(config, dataset_of(config)).items():
        for pooling, store in source.stores.items():
            if isinstance(store, EmbeddingStore):
                log.info("%s (%s): %d texts in %s", name, pooling, len(store), store.folder)


def profile(arguments: Sequence[str]) -> int:
    """Run `layerfusion profile`: every score of every layer, as table, JSON and figure."""
    return run_hydra("profile", _profile_job, with_data("profile", arguments))


def _profile_job(config: TrainConfig, folder: Path) -> None:
    from layerfusion.report.profile_files import profile_lines, write_csv, write_profile_figure
    from layerfusion.runs.profile import run_profile

    made = run_profile(config, folder)
    write_csv(made, folder / "profile.csv")
    write_profile_figure(made, folder / "profile.png")
    for line in profile_lines(made):
        log.info(line, extra=SHOWN)
    log.info("profile: %s (profile.json, profile.csv, profile.png)", folder)


def plan(arguments: Sequence[str]) -> int:
    """Run `layerfusion plan`, which shows what a job would cost."""
    return run_hydra("plan", _plan_job, with_data("plan", arguments))


def _plan_job(config: TrainConfig, _folder: Path) -> None:
    from layerfusion.fusion.deadline import Deadline
    from layerfusion.runs.plan import make_plan, plan_lines
    from layerfusion.runs.time_limit import plans_in_time

    made = make_plan(config)
    for line in plan_lines(made):
        log.info(line, extra=SHOWN)
    if config.time_limit is not None:
        plans_in_time(made, config, Deadline(config.time_limit))
