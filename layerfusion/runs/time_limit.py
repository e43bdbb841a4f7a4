"""Chooses the models whose extraction fits into the `time_limit` of a job.

The plan of the job says what each model would take on this machine. The cheapest models come first,
so that as many as possible are kept. As a plan can be wrong, each model is looked at once more
before its turn, with the speed that was measured until then. Nobody knows what a server of vectors
takes: it comes last, and is asked for as long as there is time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.given import LAYER, GivenSource
from layerfusion.errors import OutOfTime, UserError
from layerfusion.fusion.deadline import Deadline
from layerfusion.progress import duration
from layerfusion.runs.inputs import check_inputs
from layerfusion.runs.job_sources import open_sources
from layerfusion.runs.plan import BackbonePlan, Plan, plan_texts
from layerfusion.runs.preflight import require_possible
from layerfusion.texts import TextDataset
from layerfusion.texts.table import SPLITS

DOWNLOAD_SPEED = 10e6
"""Bytes that a download is assumed to bring in a second. Nobody knows before it begins."""


def keep_in_time(config: TrainConfig, dataset: TextDataset, deadline: Deadline) -> TrainConfig:
    """Leave out the models for which there is no time, and extract the others.

    After a pilot not all texts pass through the models, so that this is left to the pilot.

    Returns:
        The config with the models that are kept; as it is if there is no limit.

    Raises:
        UserError: if not even the cheapest model fits, or if `layers.fixed` needs one that does
            not.
    """
    if deadline.limit is None:
        return config
    return extract_in_time(config, dataset, models_in_time(config, dataset, deadline), deadline)


def models_in_time(
    config: TrainConfig, dataset: TextDataset, deadline: Deadline
) -> list[BackbonePlan]:
    """Plan the models, and keep the largest set of them that fits into the time, cheapest first."""
    return plans_in_time(plan_texts(config, dataset), config, deadline)


def plans_in_time(plan: Plan, config: TrainConfig, deadline: Deadline) -> list[BackbonePlan]:
    """Return the plans of the models that fit, the cheapest first; the others are left out.

    Servers of vectors come last. Where not all models fit, those that would read long texts whole
    of their own accord cut them instead.
    """
    backbones, time = plan.backbones, deadline.for_extraction()
    if sum(_seconds(one, plan) for one in backbones) > time:
        for one in backbones:
            if one.truncated is not None:
                work = _work(one, _seconds(one, plan), time)
                deadline.leave_out(f"{one.name} cuts long texts: in windows {work}")
        backbones = tuple(one.truncated or one for one in backbones)
    ordered = sorted(backbones, key=lambda one: (_is_asked(one, config), _seconds(one, plan)))
    kept: list[BackbonePlan] = []
    for one in ordered:
        seconds = _seconds(one, plan)
        if seconds <= time or seconds == 0:
            kept.append(one)
            time -= seconds
        elif not kept and not _is_asked(ordered[-1], config):
            raise UserError(
                f"{deadline.key}: there is no time for any model, {one.name} is the cheapest:"
                f" {_work(one, seconds, time)}; ways out: more time, fewer texts (of a job:"
                f" limit.train), shorter ones (backbone.{one.name}.max_length), or a choice on a"
                " sample (layers.pilot)"
            )
        else:
            _leave_out(config, one, _work(one, seconds, time), deadline)
    return kept


def extract_in_time(
    config: TrainConfig,
    dataset: TextDataset,
    plans: Sequence[BackbonePlan],
    deadline: Deadline,
) -> TrainConfig:
    """Extract one planned model after the other, as long as there is time.

    Args:
        config: the job, with all its models.
        dataset: its texts.
        plans: of the models that fit by their plan, the cheapest first.
        deadline: end of the time.

    Returns:
        The config with the models that were extracted.
    """
    config = _with(config, [plan.name for plan in plans])
    models = {plan.name: plan.reads for plan in plans if plan.reads is not None}
    config = replace(config, backbone={**config.backbone, **models})
    check_inputs(config)
    if config.layers.pilot is not None:
        return config
    reserve = deadline.left() - deadline.for_extraction()
    sources = open_sources(config, dataset)
    require_possible(config, dataset, sources)
    splits = [dataset.splits[split].texts for split in SPLITS]
    hashes = [text_hash(text) for texts in splits for text in texts]
    extracted: list[str] = []
    planned = measured = 0.0
    for plan in plans:
        seconds = plan.seconds * (measured / planned if planned else 1)
        time = max(0.0, deadline.left() - reserve)
        if extracted and plan.missing and seconds > time:
            _leave_out(config, plan, _work(plan, seconds, time), deadline)
            continue
        source = sources[plan.name]
        if isinstance(source, GivenSource):
            try:
                source.extract(splits, config.extract, left=lambda: deadline.left() - reserve)
            except OutOfTime:
                _leave_out(config, plan, _unfinished(source, hashes), deadline, alone=not extracted)
                continue
        else:
            source.extract(splits, config.extract)
        extracted.append(plan.name)
        store = next(iter(source.stores.values()))
        each = store.seconds_per_text(hashes, source.shape.layers[-1])
        if plan.seconds and each is not None:  # the time of vectors from elsewhere is not planned
            planned, measured = planned + plan.seconds, measured + plan.missing * each
    return _with(config, extracted)


def _is_asked(one: BackbonePlan, config: TrainConfig) -> bool:
    """Tell whether vectors come from a server or a pipeline, whose time cannot be foreseen."""
    backbone = config.backbone[one.name]
    return one.missing > 0 and not (backbone.endpoint is None and backbone.pipeline is None)


def _seconds(one: BackbonePlan, plan: Plan) -> float:
    """Estimate what a model takes at least; a pilot passes only its sample through all blocks."""
    texts = sum(plan.rows.values())
    share = 1.0 if plan.pilot is None else min(1.0, plan.pilot / texts)
    return share * one.seconds + (one.download_bytes or 0) / DOWNLOAD_SPEED


def _work(plan: BackbonePlan, seconds: float, time: float) -> str:
    work = "its download and extraction" if plan.download_bytes else "its extraction"
    takes = duration(math.ceil(seconds))
    return f"{work} would take about {takes}, and {duration(time)} are left for it"


def _unfinished(source: GivenSource, hashes: Sequence[bytes]) -> str:
    """Say how far a server or pipeline came."""
    texts = list(set(hashes))
    lacks = int(source.store.missing(texts, [LAYER]).sum())
    return (
        f"there were vectors of {len(texts) - lacks:,} of {len(texts):,} texts when the time for it"
        " was over; they are kept"
    )


def _leave_out(
    config: TrainConfig, plan: BackbonePlan, why: str, deadline: Deadline, *, alone: bool = False
) -> None:
    """Leave out a model.

    Args:
        config: the job.
        plan: of the model.
        why: there is no time for it.
        deadline: end of the time.
        alone: whether no other model is left.

    Raises:
        UserError: if the job needs it: its layers are fixed, or there is no other model.
    """
    if config.layers.name == "fixed":
        raise UserError(
            f"layers.fixed.{plan.name}: there is no time for this model: {why} ({deadline.key});"
            f" take {plan.name} out of backbone and layers.fixed, or give more time"
        )
    if alone:
        raise UserError(
            f"{deadline.key}: there is no time for any model: {plan.name}: {why}, and the same"
            " command goes on from there"
        )
    deadline.leave_out(f"{plan.name} is left out: {why}")


def _with(config: TrainConfig, names: Sequence[str]) -> TrainConfig:
    """Keep some of the models, in the order in which the user named them."""
    kept = {name: backbone for name, backbone in config.backbone.items() if name in names}
    return replace(config, backbone=kept)
