"""`layerfusion reproduce` compares single layers with fused ones, and writes a report."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layerfusion.commands.arguments import say
from layerfusion.commands.reproduce_check import (
    RESULTS,
    differences,
    expected_by,
    figures,
    replayed,
    write_results,
)
from layerfusion.composing.hydra import compose, split_config_dirs
from layerfusion.config.check import load
from layerfusion.config.commands import ReproduceCommand
from layerfusion.config.identity import job_id
from layerfusion.config.job import STACKED, FusionConfig, LayersConfig, TrainConfig
from layerfusion.config.rules import check_name
from layerfusion.config.secrets import redact_line
from layerfusion.embeddings.shape import ModelShape
from layerfusion.errors import UserError
from layerfusion.progress import counted, duration, shown
from layerfusion.records.format import percent
from layerfusion.records.job import METRICS, RunRecord
from layerfusion.report import write_report
from layerfusion.runs.job import run_job
from layerfusion.runs.job_sources import extract_all
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.plan import make_plan, plan_lines, together


@dataclass(frozen=True)
class Job:
    """One row of the comparison."""

    name: str
    config: TrainConfig
    sources: int
    """Number of layers that it fuses."""

    @property
    def weight(self) -> float:
        """Relative training time, which grows with the numbers of seeds and sources."""
        return self.config.seeds * (3 + self.sources)


@dataclass(frozen=True)
class Base:
    """What the rows of a data set have in common."""

    config: TrainConfig
    """With all backbones of the profile."""
    auto: TrainConfig | None
    """The same with `experiment=auto`; None if the profile goes without."""


def main(arguments: Sequence[str]) -> int:
    """Compose the profile, extract, train every row, and write the report.

    Data sets and models that are not available here are left out, with a line that says so.

    Returns:
        0, or 1 if a row failed or differs from the figures that it is checked against.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    expected = expected_by(arguments)
    if expected:
        arguments = replayed(arguments, expected)
    command = _command(arguments)
    profile, words = command.reproduce, [redact_line(word) for word in arguments]
    check_name("reproduce.profile", profile.profile)
    folder = Path(command.paths.outputs) / "reproduce"
    started = time.perf_counter()
    skipped: list[str] = []
    failed: list[str] = []

    data, models = ", ".join(profile.dataset), ", ".join(profile.backbone)
    say(f"profile {profile.profile}: {models} on {data}")
    bases = _bases(command, skipped, split_config_dirs(arguments)[1])
    passes = [base.auto or base.config for base in bases]  # auto pools in more ways
    if command.plan:
        return _plan(passes)
    say("1 of 3: every text once through every model")
    shapes = _extract(passes, skipped)
    jobs = [job for base in bases for job in rows(base, shapes[base.config.dataset.name], command)]
    if not jobs:
        raise UserError(f"reproduce: nothing could be extracted: {'; '.join(skipped)}")
    say(f"2 of 3: {len(jobs)} rows, a small head each")
    finished = _train(jobs, folder / "jobs" / profile.profile, failed)
    say("3 of 3: the report")
    page = write_report(
        folder / "jobs" / profile.profile,
        folder,
        title=f"LayerFusion: layers and fusion, profile {profile.profile}",
        facts=_facts(words, profile.profile, [*skipped, *failed]),
        only=[record.job for _, record in finished],
    )
    found = figures(finished)
    write_results(folder / RESULTS, words, found)
    for line in (*skipped, *failed):
        say(f"left out: {line}")
    say(f"done in {duration(time.perf_counter() - started)}; open {page}")
    changed = expected is not None and _changed(found, expected.data, str(command.check))
    return 1 if failed or changed else 0


def rows(base: Base, shapes: dict[str, ModelShape], command: ReproduceCommand) -> list[Job]:
    """List the rows of the comparison for one data set.

    They are every layer of each model alone; for each model, all layers fused, and the layers of
    greedy selection stacked; the same two for all models together, with their last layers; and
    what `experiment=auto` makes of all models.

    Args:
        base: configs of the data set.
        shapes: shape of each model that was extracted.
        command: config of the command.
    """
    profile = command.reproduce
    greedy, stack = LayersConfig("greedy"), FusionConfig(STACKED)
    jobs = []
    for name, shape in shapes.items():
        alone = replace(base.config, backbone={name: base.config.backbone[name]})
        jobs += [
            Job(
                f"{name} layer {layer}",
                replace(
                    alone, layers=LayersConfig("fixed", {name: [layer]}), seeds=profile.layer_seeds
                ),
                sources=1,
            )
            for layer in shape.layers
        ]
        jobs.append(
            Job(
                f"{name} all layers",
                replace(alone, layers=LayersConfig("all"), seeds=profile.fusion_seeds),
                sources=len(shape.layers),
            )
        )
        stacked = replace(alone, seeds=profile.fusion_seeds, layers=greedy, fusion=stack)
        jobs.append(Job(f"{name} chosen layers, stacked", stacked, greedy.max_layers))
    extracted = {name: base.config.backbone[name] for name in shapes}
    if len(shapes) > 1:
        together = replace(base.config, backbone=extracted, seeds=profile.fusion_seeds)
        models = "+".join(shapes)
        counts = {"last": len(shapes), "all": sum(len(x.layers) for x in shapes.values())}
        jobs += [
            Job(f"{models} {kind} layers", replace(together, layers=LayersConfig(kind)), count)
            for kind, count in counts.items()
        ]
        jobs.append(
            Job(
                f"{models} chosen layers, stacked",
                replace(together, layers=greedy, fusion=stack),
                greedy.max_layers,
            )
        )
    if base.auto is not None and shapes:
        auto = replace(base.auto, backbone=extracted)
        count = len(auto.pooling) * sum(len(shape.layers) for shape in shapes.values())
        jobs.append(Job(f"{'+'.join(shapes)} auto", auto, count))
    return jobs


# -- steps --------------------------------------------------------------------------------------


def _command(arguments: Sequence[str]) -> ReproduceCommand:
    from omegaconf import OmegaConf

    command = OmegaConf.to_object(compose("reproduce", arguments))
    assert isinstance(command, ReproduceCommand)
    return command


def _bases(command: ReproduceCommand, skipped: list[str], folders: Sequence[Path]) -> list[Base]:
    """Compose the configs of each data set, with all backbones; skip unavailable data sets."""
    bases = []
    for name, limit in command.reproduce.dataset.items():
        overrides = [f"dataset={name}", f"backbone=[{','.join(command.reproduce.backbone)}]"]
        overrides.append(f"dataset.validation_size={command.reproduce.validation_size}")
        overrides.append(f"trainer.batch_size={command.reproduce.batch_size}")
        passes = {"max_length": command.reproduce.max_length, "dtype": command.reproduce.dtype}
        overrides += [
            f"backbone.{backbone}.{key}={value}"
            for backbone in command.reproduce.backbone
            for key, value in passes.items()
            if value is not None
        ]
        overrides += [f"--config-dir={folder}" for folder in folders]
        budget = command.extract.token_budget or command.reproduce.token_budget
        own: dict[str, Any] = {
            "limit": limit,
            "logger": command.logger,
            "paths": command.paths,
            "extract": replace(command.extract, token_budget=budget),
            "sweep": f"reproduce-{command.reproduce.profile}",
            "by_folds": False,  # the pages on its results choose by validation alone
        }
        base = replace(load(compose("train", overrides)), **own)
        try:
            dataset = dataset_of(base)
        except UserError as error:
            skipped.append(f"data set {name}: {error}")
            say(skipped[-1])
            continue
        counts = ", ".join(f"{len(split.texts)} {name}" for name, split in dataset.splits.items())
        say(f"  {name}: {counts} rows, {dataset.origin}")
        auto = None
        if command.reproduce.auto:
            # Cut as for the layers alone, so that no text passes through a model twice.
            words = [*overrides, "experiment=auto", "long_texts=truncate"]
            auto = replace(load(compose("train", words)), **own)
        bases.append(Base(base, auto))
    return bases


def _extract(bases: Sequence[TrainConfig], skipped: list[str]) -> dict[str, dict[str, ModelShape]]:
    """Extract one data set after another. A model that fails is left out from then on."""
    shapes: dict[str, dict[str, ModelShape]] = {base.dataset.name: {} for base in bases}
    singles = _singles(bases)
    gone: set[str] = set()
    for place, (name, single) in enumerate(singles):
        if name in gone:
            continue
        try:
            for line in plan_lines(make_plan(single))[2:-1]:
                say(f"  {single.dataset.name}, {line}")
            sources = extract_all(single, dataset_of(single))
            shapes[single.dataset.name][name] = sources[name].shape
        except UserError as error:
            skipped.append(f"backbone {name}: {error}")
            say(skipped[-1])
            gone.add(name)
            continue
        rest = [later for other, later in singles[place + 1 :] if other not in gone]
        if rest:
            say(f"  about {duration(_seconds_left(rest))} of extraction left")
    return shapes


def _seconds_left(jobs: Sequence[TrainConfig]) -> float:
    left = 0.0
    for job in jobs:
        try:
            left += together([make_plan(job)])
        except UserError:
            continue  # the error is reported when the model's turn comes
    return left


def _train(jobs: Sequence[Job], folder: Path, failed: list[str]) -> list[tuple[str, RunRecord]]:
    """Run the rows, and return the names and records of those that finished."""
    finished = []
    names = [job_id(job.config) for job in jobs]
    # Rows that an earlier run has finished are left out of the estimate of the time left.
    ahead = {
        name: job.weight
        for name, job in zip(names, jobs, strict=True)
        if not (folder / name / METRICS).exists()
    }
    trained, seconds = 0.0, 0.0
    for number, (name, job) in enumerate(zip(names, jobs, strict=True), 1):
        label = f"{job.config.dataset.name}, {job.name}"
        weight = ahead.pop(name, 0.0)
        begun = time.perf_counter()
        try:
            with shown(), counted(f"[{number}/{len(jobs)}] {label}"):
                record = run_job(job.config, folder / name)
        except UserError as error:
            failed.append(f"{label}: {error}")
            say(failed[-1])
            continue
        finished.append((job.name, record))
        line = f"  [{number}/{len(jobs)}] {label}: {percent(record.test['accuracy'])}"
        if weight:
            trained, seconds = trained + weight, seconds + time.perf_counter() - begun
        if trained:
            line += f"; about {duration(seconds / trained * sum(ahead.values()))} left"
        say(line)
    return finished


def _plan(bases: Sequence[TrainConfig]) -> int:
    """Print what it costs to pass every text through every model."""
    plans = []
    for name, single in _singles(bases):
        try:
            plans.append(make_plan(single))
        except UserError as error:
            say(f"left out: backbone {name}: {error}")
            continue
        for line in plan_lines(plans[-1])[:-1]:
            print(line)
    print(f"about {duration(together(plans))} of extraction in all, on this machine")
    return 0


def _singles(bases: Sequence[TrainConfig]) -> list[tuple[str, TrainConfig]]:
    """Return a config for each model on each data set, with the model's name."""
    return [
        (name, replace(base, backbone={name: backbone}))
        for base in bases
        for name, backbone in base.backbone.items()
    ]


def _changed(found: dict[str, Any], expected: dict[str, Any], path: str) -> bool:
    """Print the figures that have changed, and return True if there are any."""
    changed = differences(found, expected)
    for line in changed:
        say(f"changed: {line}")
    if not changed:
        say(f"the same figures as {path}")
    return bool(changed)


def _facts(arguments: Sequence[str], profile: str, skipped: Sequence[str]) -> list[str]:
    command = " ".join(["layerfusion reproduce", *arguments])
    return [
        f"Profile {profile}.",
        f"Command: {command}",
        *(f"Left out: {line}" for line in skipped),
    ]
