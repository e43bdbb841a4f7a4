"""Names of jobs, layers and baselines in the report."""

from __future__ import annotations

from collections.abc import Mapping

from layerfusion.findings.grouping import grouped, told_apart
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.records.format import capital, listing
from layerfusion.records.job import BaselineRecord, LayerRecord, RunRecord

LAYERS_NAMED = 4
"""Most layers of a job that a narrow column names."""
READING = ("max_length", "truncation_side", "template", "long_texts", "window_overlap", "dtype")
"""Settings of a model that change what it reads of a text, and how exactly."""


def layer_name(layer: str) -> str:
    """Name a layer in a sentence: layer 5, or the final norm."""
    return "the final norm" if layer == "norm" else f"layer {layer}"


def source_name(layer: LayerRecord) -> str:
    """Name a source in few words: minilm 5 mean."""
    return f"{layer.backbone} {layer.layer} {layer.pooling}"


def layers_in_short(record: RunRecord) -> str:
    """Name the layers of a job in a narrow column; of many, their number."""
    if len(record.layers) > LAYERS_NAMED:
        return f"{len(record.layers)} ({record.selection})"
    one = len(record.backbone_names) == 1
    return " ".join(x.layer if one else f"{x.backbone}:{x.layer}" for x in record.layers)


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
    names = {job: _fusion_name(job) for job in (*group.fused, *group.repeats)}
    return told_apart(told_apart(_told_by_reading(names), _among), job_mark)


def _told_by_reading(names: Mapping[FinishedJob, str]) -> dict[FinishedJob, str]:
    """Add the settings by which models read texts to names that differ in nothing else."""
    told = dict(names)
    for jobs in grouped(names, names.__getitem__).values():
        settings = {job: _reading_settings(job) for job in jobs}
        for job in jobs:
            apart = {
                key: value
                for key, value in settings[job].items()
                if any(other.get(key) != value for other in settings.values())
            }
            if apart:
                told[job] = f"{names[job]} ({', '.join(_marks(apart))})"
    return told


def _reading_settings(job: FinishedJob) -> dict[tuple[str, str], object]:
    """Return how each model of a job reads texts, by model and setting."""
    return {
        (name, key): backbone.spec[key]
        for name, backbone in job.record.backbones.items()
        for key in READING
        if backbone.spec.get(key) is not None
    }


def _marks(settings: Mapping[tuple[str, str], object]) -> list[str]:
    """Write settings, once where all models have the same value: `long_texts=windows`."""
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
            also = ", also its best" if curve.last is curve.best else ""
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


def _fusion_name(job: FinishedJob) -> str:
    record = job.record
    models = listing(record.backbone_names)
    models_only = [layer for layer in record.layers if layer.backbone not in record.lexical]
    poolings = list(dict.fromkeys(layer.pooling for layer in models_only))
    if record.selection == "last":
        what = f"last layer{'s' if len(record.backbone_names) > 1 else ''} of {models}"
    elif record.selection == "all":
        what = f"all layers of {models}"
    else:
        what = " + ".join(_layers_of(job, name) for name in record.backbone_names)
        what += "" if record.selection == "fixed" else f" ({record.selection})"
    pooled = f", poolings {listing(poolings)}" if len(poolings) > 1 else ""
    return f"{what}{pooled}, {record.fusion_label}"


def _layers_of(job: FinishedJob, backbone: str, *, most: int = 6) -> str:
    if backbone in job.record.lexical:
        return backbone
    chosen = dict.fromkeys(x.layer for x in job.record.layers if x.backbone == backbone)
    if len(chosen) > most:
        return f"{backbone} ({len(chosen)} layers)"
    return f"{backbone} {', '.join(chosen)}"
