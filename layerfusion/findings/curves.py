"""Curves of accuracy by depth: of layers that were run alone, of probes, and of layer profiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from layerfusion.findings.compare import score_ends
from layerfusion.findings.groups import Curve, DataGroup, ProbeCurve
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.profiles import marked_layers, sources
from layerfusion.records.job import LayerRecord, ProbeRecord
from layerfusion.records.profile import LayerProfile, Profile

LEAST_POINTS = 3
"""Fewer layers make no curve."""


class Point(NamedTuple):
    """A layer on a curve."""

    layer: str
    depth: float
    accuracy: float
    low: float
    high: float
    """95 % interval; the accuracy twice where there is none."""
    ringed: bool
    """True for a layer that is chosen or used."""


@dataclass(frozen=True)
class Line:
    """The layers of one model under one pooling, bottom up."""

    name: str
    model: str
    variant: int
    """Number of the curve among those of its model."""
    points: Sequence[Point]
    rank: float = 0.0
    """The best accuracy on the rows that choose, by which curves of a model are ranked."""
    choosing: Sequence[float] = ()
    """Accuracy of each layer on the rows that choose, where it is shown too."""

    @property
    def is_used(self) -> bool:
        """True where a layer of it is ringed."""
        return any(point.ringed for point in self.points)


def chosen_lines(group: DataGroup) -> list[Line]:
    """Take the layers that were run alone, and ring the one that is chosen of each model."""
    return _job_lines(group, lambda curve, job: job is curve.best)


def answer_lines(group: DataGroup) -> tuple[list[Line], str, str]:
    """Take the layers that were run alone or, where these are few, the probes of selections.

    Ringed are the layers of the job that is used.

    Returns:
        The models with enough layers for a curve, what the figure is of, and its name.
    """
    used = used_layers(group)
    lines = _job_lines(group, lambda _, job: layer_key(job.layer) in used)
    long = [line for line in lines if len(line.points) >= LEAST_POINTS]
    if long:
        return long, "head on one layer, test", group.measure
    return probe_lines(group), f"probe, {group.probed_on}", group.data.measure


def probe_lines(group: DataGroup) -> list[Line]:
    """Take the probes of selections, with the layers in use ringed; none where they are too few."""
    used, several = used_layers(group), len({curve.pooling for curve in group.probe_curves}) > 1
    lines: list[Line] = []
    for curve in group.probe_curves:
        if len(curve.points) < LEAST_POINTS:
            continue
        ends = [((x.accuracy, x.low, x.high), layer_key(x) in used) for x in curve.points]
        lines.append(
            Line(
                f"{curve.backbone} {curve.pooling}" if several else curve.backbone,
                curve.backbone,
                sum(line.model == curve.backbone for line in lines),
                [_point(x, *end) for x, end in zip(curve.points, ends, strict=True)],
                max(one.accuracy for one in curve.points),
            )
        )
    return lines


def best_probe(group: DataGroup) -> tuple[ProbeCurve, ProbeRecord] | None:
    """Find the layer of a model with the best probe, and its curve; None where none was probed."""
    found = ((curve, one) for curve in group.model_probes for one in curve.points)
    # The first of equals is the lowest layer.
    return min(
        found,
        key=lambda pair: (-round(pair[1].accuracy, 9), round(pair[1].log_loss, 9)),
        default=None,
    )


def profile_lines(profile: Profile) -> list[Line]:
    """Take the probes of a layer profile; ringed are the layers that figures mark."""
    marked, lines = marked_layers(profile), []
    for name, places in sources(profile).items():
        layers = [(place, profile.layers[place]) for place in places]
        known = [(n, x, y) for n, x in layers if (y := x.scores.get("accuracy")) is not None]
        points = [
            _point(layer, (value, value, value), place in marked) for place, layer, value in known
        ]
        model = profile.layers[places[0]].backbone
        lines.append(Line(name, model, sum(line.model == model for line in lines), points))
    return lines


def _job_lines(group: DataGroup, ringed: Callable[[Curve, FinishedJob], bool]) -> list[Line]:
    return [
        Line(
            curve.label,
            curve.backbone,
            curve.variant,
            [_point(job.layer, score_ends(job), ringed(curve, job)) for job in curve.points],
            curve.best.choosing_score.mean,
            [job.choosing_score.mean for job in curve.points],
        )
        for curve in group.curves
    ]


def _point(
    layer: LayerProfile | LayerRecord | ProbeRecord,
    ends: tuple[float, float, float],
    ringed: bool,
) -> Point:
    return Point(layer.layer, layer.depth, *ends, ringed)


def used_layers(group: DataGroup) -> set[tuple[str, str, str]]:
    """Identify the layers of the job that is used."""
    return {layer_key(layer) for layer in group.best.record.layers}


def layer_key(layer: LayerRecord | ProbeRecord) -> tuple[str, str, str]:
    """Identify a layer by its model, its name and its pooling."""
    return layer.backbone, layer.layer, layer.pooling
