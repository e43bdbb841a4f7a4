"""Names of jobs, layers and baselines in the report."""

from __future__ import annotations

from collections.abc import Mapping

from layerfusion.findings.grouping import grouped, told_apart
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.settings import with_settings
from layerfusion.records.format import capital, layers_words, listing
from layerfusion.records.job import BaselineRecord, LayerRecord, RunRecord

READING = ("max_length", "truncation_side", "template", "long_texts", "window_overlap", "dtype")
"""Settings of a model that change what it reads of a text, and how exactly."""

NAMED = ("last", "all", "fixed")
"""Selections that the words on the layers say already."""


def layer_name(layer: str) -> str:
    """Name a layer in a sentence: layer 5, or the final norm."""
    return "the final norm" if layer == "norm" else f"layer {layer}"


def source_name(layer: LayerRecord) -> str:
    """Name a source in few words: minilm 5 mean."""
    return f"{layer.backbone} {layer.layer} {layer.pooling}"


def single_name(group: DataGroup, job: FinishedJob) -> str:
    """Name a single layer in a sentence: layer 5 of minilm."""
    return f"{layer_name(job.layer.layer)} of {group.curve_of(job).label}"


def all_names(group: DataGroup) -> dict[FinishedJob, str]:
    """Name every job of a group in a sentence."""
    return {job: single_name(group, job) for job in group.singles} | job_names(group)


def baseline_name(baseline: BaselineRecord) -> str:
    """Say what the baseline is made of."""
    return f"TF-IDF ({baseline.features}) + logistic regression"


def job_names(group: DataGroup) -> dict[FinishedJob, str]:
    """Give a distinct name to every job of a group that is not a point of a curve."""
    names = {job: job_name(job.record) for job in (*group.fused, *group.repeats)}
    # A layer with one setting is no point of a curve, and with another one it is.
    every = with_settings({job: job_name(job.record) for job in group.jobs}, lambda x: x.record)
    read = _told_by_reading(names)
    told = {job: every[job] + read[job].removeprefix(names[job]) for job in names}
    return told_apart(told_apart(told, _among), job_mark)


def job_name(record: RunRecord) -> str:
    """Name a job by what it is made of: `layers 0–4 of minilm (adaptive), gated`.

    Several jobs may have this name; `job_names` tells them apart.
    """
    fusion = f"{record.fusion} ({record.chosen_by})" if record.chosen_by else record.fusion
    return f"{selected_name(record)}, {fusion}"


def selected_name(record: RunRecord) -> str:
    """Name the layers of a job, and how they were selected unless the words say it already."""
    plain = record.chosen_by or record.selection in NAMED
    return layers_words(record) + ("" if plain else f" ({record.selection})")


def _told_by_reading(names: Mapping[FinishedJob, str]) -> dict[FinishedJob, str]:
    """Add how texts are read, and layers selected, to names that differ in nothing else."""
    told = dict(names)
    for jobs in grouped(names, names.__getitem__).values():
        settings = {job: read_settings(job) for job in jobs}
        for job in jobs:
            apart = {
                key: value
                for key, value in settings[job].items()
                if any(other.get(key) != value for other in settings.values())
            }
            if apart:
                told[job] = f"{names[job]} ({', '.join(settings_marks(apart))})"
    return told


def read_settings(job: FinishedJob) -> dict[tuple[str, str], object]:
    """Return what may tell a job from others of its name, by model and setting.

    These are how each model reads texts and, of all models at once, selection and poolings.
    """
    record = job.record
    poolings = dict.fromkeys(x.pooling for x in record.layers if x.backbone not in record.lexical)
    reading: dict[tuple[str, str], object] = {
        (name, key): backbone.spec[key]
        for name, backbone in record.backbones.items()
        for key in READING
        if backbone.spec.get(key) is not None
    }
    return {("", "layers"): record.selection, ("", "pooling"): "+".join(poolings)} | reading


def settings_marks(settings: Mapping[tuple[str, str], object]) -> list[str]:
    """Write settings of models, once where all models have the same value: `long_texts=windows`."""
    by_key = grouped(settings, lambda place: place[1])
    marks = []
    for key, places in by_key.items():
        values = {str(settings[place]) for place in places}
        if len(values) == 1:
            marks.append(f"{key}={values.pop()}")
        else:
            marks += [f"{name}.{key}={settings[name, key]}" for name, _ in places]
    return marks


def _among(job: FinishedJob) -> str:
    """Tell a job from others that ended in the same layers by the models it could choose from."""
    return (
        f"among {listing(list(job.record.considered))}" if job.record.considered else job_mark(job)
    )


def job_mark(job: FinishedJob) -> str:
    """Tell a job from others of the same name."""
    return f"job {job.record.job[:6]}"


def shown_names(group: DataGroup) -> dict[FinishedJob, str]:
    """Name all that is compared with the chosen single layer, in the order of the tables.

    These are the last and the best layer of each model, and all jobs that are not a point of a
    curve.
    """
    named: dict[FinishedJob, str] = {}
    for curve in group.curves:
        if curve.last is not None:
            also = ", also its best" if curve.last is curve.best and len(curve.points) > 1 else ""
            top = layer_name(curve.last.layer.layer)
            named[curve.last] = f"{curve.label}: last layer ({top}){also}"
    for curve in group.curves:
        best = layer_name(curve.best.layer.layer)
        judge = "probe" if group.probed else group.judge.name
        named.setdefault(curve.best, f"{curve.label}: best layer by {judge} ({best})")
    names = job_names(group)
    rank = {"last": 0, "all": 1}
    others = sorted(
        names,
        key=lambda job: (
            job.sources == 1,
            rank.get(job.record.selection, 2),
            len(job.record.backbone_names),
            job.sources,
            names[job],
        ),
    )
    return named | {job: sentence_case(names[job], job) for job in others}


def sentence_case(name: str, job: FinishedJob) -> str:
    """Begin a job's name with a capital, unless it starts with the name of a model."""
    return name if name.startswith(job.record.backbone_names) else capital(name)
