"""Numbers and jobs as people write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerfusion.records.job import BaselineRecord, Estimate, LayerRecord
from layerfusion.report.compare import Difference
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup

NONE = "–"
SPACE = "\u00a0"
MINUS = "\u2212"


# -- numbers ------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """0.8123 → 81.2 %."""
    return f"{100 * share:.1f}{SPACE}%"


def interval(low: float | None, high: float | None) -> str:
    """(0.77, 0.853) → [77.0, 85.3]; a dash where there is none."""
    if low is None or high is None:
        return NONE
    return f"[{100 * low:.1f},{SPACE}{100 * high:.1f}]"


def points(difference: float) -> str:
    """0.012 → +1.2; a second decimal where one would round a difference to nothing."""
    value = 100 * difference
    text = f"{value:+.2f}" if 0 < abs(value) < 0.05 else f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", MINUS)


def point_interval(difference: Difference) -> str:
    """[−3.0, +0.4]."""
    return f"[{points(difference.low)},{SPACE}{points(difference.high)}]"


def mean_sd(estimate: Estimate) -> str:
    """81.2 ± 0.3, in per cent; without the sd where there was one seed."""
    sd = "" if estimate.sd is None else f"{SPACE}±{SPACE}{100 * estimate.sd:.1f}"
    return f"{100 * estimate.mean:.1f}{sd}"


def p_value(p: float, *, bound: bool = False) -> str:
    """0.0123 → 0.012; 0.0001 → < 0.001; ≤ 0.012 where it is only known to be no larger."""
    if p < 0.001:
        return f"<{SPACE}0.001"
    return f"≤{SPACE}{p:.3f}" if bound else f"{p:.3f}"


def count(number: float) -> str:
    """1234567 → 1,234,567."""
    return f"{number:,.0f}"


def mega(number: int | None) -> str:
    """1234567 → 1.235; a dash where it is not known."""
    return NONE if number is None else f"{number / 1e6:,.3f}"


def listing(names: Sequence[str]) -> str:
    """[a, b, c] → a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


# -- jobs ---------------------------------------------------------------------------------------


def layer_name(layer: str) -> str:
    """What a layer is called in a sentence: layer 5, or the final norm."""
    return "the final norm" if layer == "norm" else f"layer {layer}"


def source_name(layer: LayerRecord) -> str:
    """A source in few words: minilm 5 mean."""
    return f"{layer.backbone} {layer.layer} {layer.pooling}"


def single_name(group: DataGroup, job: Job) -> str:
    """A single layer in a sentence: layer 5 of minilm."""
    return f"{layer_name(job.layer.layer)} of {group.curve_of(job).label}"


def baseline_name(baseline: BaselineRecord) -> str:
    """What the baseline is made of."""
    return f"TF-IDF ({baseline.features}) + logistic regression"


def job_names(group: DataGroup) -> dict[Job, str]:
    """A distinct name for every job of a group that is not a point of a curve."""
    jobs = [*group.fused, *group.repeats]
    plain = {job: _fusion_name(job) for job in jobs}
    seen = Counter(plain.values())
    return {
        job: name if seen[name] == 1 else f"{name} (job {job.record.job[:6]})"
        for job, name in plain.items()
    }


def shown_names(group: DataGroup) -> dict[Job, str]:
    """What is held against the chosen single layer, itself included, in the order of the tables.

    Single layers that stand for their model, and all jobs that are not a point of a curve.
    """
    named: dict[Job, str] = {}
    for curve in group.curves:
        if curve.last is not None:
            also = ", also its best" if curve.last is curve.best else ""
            top = layer_name(curve.last.layer.layer)
            named[curve.last] = f"{curve.label}: last layer ({top}){also}"
    for curve in group.curves:
        best = layer_name(curve.best.layer.layer)
        named.setdefault(curve.best, f"{curve.label}: best layer by validation ({best})")
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


def sentence_case(name: str, job: Job) -> str:
    """A job's name with a capital, unless it starts with the name of a model."""
    return name if name.startswith(job.record.backbone_names) else name[0].upper() + name[1:]


def _fusion_name(job: Job) -> str:
    record = job.record
    models = listing(record.backbone_names)
    poolings = list(dict.fromkeys(layer.pooling for layer in record.layers))
    if record.selection == "last":
        what = f"last layer{'s' if len(record.backbone_names) > 1 else ''} of {models}"
    elif record.selection == "all":
        what = f"all layers of {models}"
    else:
        what = " + ".join(_layers_of(job, name) for name in record.backbone_names)
        what += "" if record.selection == "fixed" else f" ({record.selection})"
    pooled = f", poolings {listing(poolings)}" if len(poolings) > 1 else ""
    return f"{what}{pooled}, {record.fusion}"


def _layers_of(job: Job, backbone: str, *, most: int = 6) -> str:
    chosen = dict.fromkeys(x.layer for x in job.record.layers if x.backbone == backbone)
    if len(chosen) > most:
        return f"{backbone} ({len(chosen)} layers)"
    return f"{backbone} {', '.join(chosen)}"
