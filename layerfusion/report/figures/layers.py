"""Accuracy by layer: of heads trained on one layer each, or of the probes of a layer profile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from layerfusion.findings.compare import accuracy
from layerfusion.findings.groups import Curve, DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.profiles import marked_layers, sources
from layerfusion.records.job import LayerRecord, ProbeRecord
from layerfusion.records.profile import LayerProfile, Profile
from layerfusion.report.figures.canvas import (
    LINE,
    is_narrow,
    legend,
    new_axes,
    one_series,
    tell,
    width_of,
    write,
)
from layerfusion.report.figures.colors import MUTED, PAPER, SERIES, model_colors
from layerfusion.report.figures.line_ends import LineEnd, name_curves
from layerfusion.report.format import shortened

LINES = ("-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)))
"""Line styles of the curves of one model, which differ in pooling or operator."""
DASHED = (0, (6, 3))
NORM_OFFSET = 0.055
"""`norm` has the depth of the last block, but is drawn this far to the right of it."""
LEAST_POINTS = 3
"""Fewer layers make no curve."""
NAME_LETTERS = 34
"""Most characters of a model's name above a small curve; two shorter ones share a line."""
LABEL = 22
"""Characters of a source's name beside a figure."""


@dataclass(frozen=True)
class Series:
    """The layers of one source of a profile and how they are drawn."""

    name: str
    places: tuple[int, ...]
    """Positions in `Profile.layers`, bottom up."""
    color: str
    """Colour of the model."""
    line: Any
    """Line style, which tells apart the poolings of a model and models of the same colour."""

    def label(self, most: int = LABEL) -> str:
        """Cut the name to some characters, but keep the pooling, which tells sources apart."""
        if len(self.name) <= most:
            return self.name
        model, space, pooling = self.name.rpartition(" (")
        room = most - len(space + pooling)
        if not model or room < 4:
            return shortened(self.name, most)
        return f"{shortened(model, room)}{space}{pooling}"


def series_of(profile: Profile) -> list[Series]:
    """List the sources of a profile in order, each with its colour and line."""
    backbones = list(dict.fromkeys(layer.backbone for layer in profile.layers))
    seen: Counter[str] = Counter()
    found = []
    for name, places in sources(profile).items():
        backbone = profile.layers[places[0]].backbone
        again, color = divmod(backbones.index(backbone), len(SERIES))
        line = LINES[(seen[backbone] + 2 * again) % len(LINES)]
        seen[backbone] += 1
        found.append(Series(name, tuple(places), SERIES[color], line))
    return found


# -- curves -------------------------------------------------------------------------------------


class _Point(NamedTuple):
    """A layer on a curve; accuracies are in per cent."""

    layer: str
    x: float
    """Its place on the axis of depths."""
    y: float
    low: float
    high: float
    """95 % interval; y twice where there is none."""
    ringed: bool
    """True for a layer that is chosen or used."""


@dataclass(frozen=True)
class _Line:
    """The layers of one model, bottom up, in a curve of accuracy by depth."""

    name: str
    model: str
    color: str
    style: Any
    points: Sequence[_Point]
    rank: float = 0.0
    """The best accuracy on the rows that choose, by which curves of a model are ranked."""
    choosing: Sequence[float] = ()
    """Accuracy of each layer on the rows that choose, in per cent, where it is drawn too."""

    @property
    def end(self) -> LineEnd:
        """The last point, with the name."""
        return LineEnd(self.name, self.points[-1].x, self.points[-1].y, self.color)


def _point(
    layer: LayerProfile | LayerRecord | ProbeRecord, share: Sequence[float], *, ringed: bool
) -> _Point:
    """Place a layer on the axis; `share` is its accuracy, or that with the ends of its interval."""
    y, low, high = (100 * value for value in (share if len(share) > 1 else (*share,) * 3))
    x = layer.depth + (NORM_OFFSET if layer.layer == "norm" else 0)
    return _Point(layer.layer, x, y, low, high, ringed)


def _depth_axes(ax: Axes | None, wide: float, narrow: float, measure: str = "accuracy") -> Axes:
    ax = new_axes(ax, wide, narrow, grid="y")
    ax.set_xlim(-0.02, 1.02 + NORM_OFFSET)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    meaning = "" if is_narrow(ax) else ": 0 enters the first block, 1 leaves the last; ◇ final norm"
    ax.set(xlabel=f"relative depth{meaning}", ylabel=f"{measure}, %")
    return ax


def _draw(ax: Axes, line: _Line, *, named: bool = False) -> None:
    """Draw a curve with its 95 % band, a diamond for the final norm, and rings.

    Args:
        ax: the axes.
        line: the curve.
        named: True to write the number of each ringed layer above it.
    """
    color = line.color
    _, x, y, low, high, _ = zip(*line.points, strict=True)
    with one_series(ax, line.name):
        if low != high:
            ax.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
        if line.choosing:
            ax.plot(x, line.choosing, color=color, linewidth=0.9, linestyle=(0, (1, 1.6)))
        ax.plot(x, y, color=color, linewidth=1.8, linestyle=line.style, label=line.name)
        for point in line.points:
            dot: dict[str, Any] = {"marker": "o", "markersize": 3.6}
            if point.layer == "norm":
                dot = {"marker": "D", "markersize": 6, "markeredgewidth": 1.5}
                dot["markerfacecolor"] = PAPER
            ax.plot(point.x, point.y, zorder=4, color=color, **dot)
            if point.ringed:
                ring = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.8}
                ax.plot(point.x, point.y, marker="o", zorder=5, markeredgecolor=color, **ring)
                if named:
                    around = [withStroke(linewidth=2.5, foreground=PAPER)]
                    look: dict[str, Any] = {"color": color, "path_effects": around, "fontsize": 10}
                    look |= {"ha": "center", "fontweight": "bold", "zorder": 6}
                    write(ax, point.layer, (point.x, point.y), (0, 13), **look)
    for point in line.points:
        ends = f" [{point.low:.1f}, {point.high:.1f}]" if low != high else ""
        tell(ax, point.x, point.y, f"{line.name}, layer {point.layer}: {point.y:.1f} %{ends}")


# -- jobs on one layer each ---------------------------------------------------------------------


def _job_lines(group: DataGroup, ringed: Callable[[Curve, FinishedJob], bool]) -> list[_Line]:
    """Take the layers that were run alone, a curve for each model and pooling."""
    colors = model_colors(group.models)
    return [
        _Line(
            curve.label,
            curve.backbone,
            colors[curve.backbone],
            LINES[curve.variant % len(LINES)],
            [_point(job.layer, accuracy(job), ringed=ringed(curve, job)) for job in curve.points],
            curve.best.choosing["accuracy"].mean,
            [100 * job.choosing["accuracy"].mean for job in curve.points],
        )
        for curve in group.curves
    ]


def plot_job_layers(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of every single layer by depth, on test and on the rows that choose."""
    models = {curve.backbone: curve for curve in group.curves}
    below = 60 + 17 * len(models)
    wide, narrow = 340 + below, 300 + below + LINE * (len(group.curves) + 1)
    ax = _depth_axes(ax, wide, narrow, group.data.measure)
    lines = _job_lines(group, lambda curve, job: job is curve.best)
    for line in lines:
        _draw(ax, line)
    baseline = 100 * group.jobs[0].record.baseline.test["accuracy"]
    name = "TF-IDF baseline"
    ax.axhline(baseline, color=MUTED, linewidth=1.2, linestyle=DASHED, zorder=1.5, label=name)
    ends = [*(line.end for line in lines), LineEnd(name, ax.get_xlim()[1], baseline, MUTED)]
    for number, (model, curve) in enumerate(models.items()):
        _draw_ruler(ax, curve, 48 + 17 * number, model_colors(group.models)[model])
    name_curves(ax, ends, fontsize=12)
    low = ax.get_ylim()[0]
    for line in lines:
        for point in filter(lambda one: one.ringed, line.points):
            ax.vlines(point.x, low, point.y, color=line.color, linewidth=0.9, alpha=0.7)
    ax.set_ylim(bottom=low)
    return ax


def _draw_ruler(ax: Axes, curve: Curve, below: float, color: str) -> None:
    """Number the layers of a model in a row under the axis, the chosen one in bold."""
    narrow = is_narrow(ax)
    look: dict[str, Any] = {"color": color, "fontsize": 10.5}
    name = shortened(curve.backbone, 8 if narrow else 20)
    write(ax, name, (-0.012, 0), (0, -below), xycoords="axes fraction", ha="right", **look)
    room = (20 if narrow else 19) * 1.08 / (width_of(ax) - (80 if narrow else 230))
    placed: list[float] = []
    for job in sorted(curve.points, key=lambda job: (job is not curve.best, job.level % 5 != 0)):
        x = _point(job.layer, (0,), ringed=False).x
        wide = room * (1.3 if job.layer.layer == "norm" else 1.0)
        if all(abs(x - other) >= wide for other in placed):
            placed.append(x)
            weight = "bold" if job is curve.best else "normal"
            where = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontweight": weight}
            write(ax, job.layer.layer, (x, 0), (0, -below), **where, **look)


# -- what is used, among single layers or probes ------------------------------------------------


def answer_lines(group: DataGroup) -> tuple[list[_Line], str]:
    """Take the layers that were run alone or, where these are few, the probes of selections.

    Returns:
        The models with enough layers for a curve, and what the accuracy is of.
    """
    used = _used(group)
    lines = _job_lines(group, lambda _, job: _key(job.layer) in used)
    lines = [replace(line, choosing=()) for line in lines if len(line.points) >= LEAST_POINTS]
    if lines:
        return lines, "head on one layer, test"
    return probe_lines(group), f"probe, {group.probed_on}"


def probe_lines(group: DataGroup) -> list[_Line]:
    """Take the probes of selections; none where they are too few for a curve."""
    curves = [curve for curve in group.probe_curves if len(curve.points) >= LEAST_POINTS]
    several, used = len({curve.pooling for curve in group.probe_curves}) > 1, _used(group)
    # Models in use have the first colours, those that were only probed the others.
    probed = dict.fromkeys(curve.backbone for curve in group.probe_curves)
    colors = model_colors(list(dict.fromkeys([*group.models, *probed])))
    return [
        _Line(
            f"{curve.backbone} {curve.pooling}" if several else curve.backbone,
            curve.backbone,
            colors[curve.backbone],
            LINES[[one.backbone for one in curves[:place]].count(curve.backbone) % len(LINES)],
            [
                _point(one, (one.accuracy, one.low, one.high), ringed=_key(one) in used)
                for one in curve.points
            ],
            max(one.accuracy for one in curve.points),
        )
        for place, curve in enumerate(curves)
    ]


def plot_answer_curve(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw a small curve of each model, and ring the layers of the job that is chosen.

    Of several poolings it is the one with a layer that is used, or else the one that is best on
    validation or held-out rows. Test has no part in that.
    """
    found, judged = answer_lines(group)
    best: dict[str, _Line] = {}
    for line in sorted(found, key=lambda one: (any(x.ringed for x in one.points), one.rank)):
        best[line.model] = replace(line, name=shortened(line.name, NAME_LETTERS))
    lines = [best[model] for model in dict.fromkeys(line.model for line in found)]
    columns = 1 + (len(lines) > 1 and max(len(line.name) for line in lines) <= NAME_LETTERS // 2)
    ax = _depth_axes(ax, 200, 180 + LINE * math.ceil(len(lines) / columns))
    for line in lines:
        _draw(ax, line)
    ax.set(xlabel="relative depth of the layer", ylabel="")
    legend(ax, columns=columns, title=f"% right: {judged}", alignment="left", title_fontsize=11)
    box = ax.get_legend()
    if box is not None:
        box.get_title().set_color(MUTED)
    return ax


def plot_probe_curves(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw the held-out accuracy of the probes that selections fitted, and ring what is used."""
    lines = probe_lines(group)
    ax = _depth_axes(ax, 360, 320 + LINE * len(lines), group.data.measure)
    for line in lines:
        _draw(ax, line)
    name_curves(ax, [line.end for line in lines])
    return ax


def _used(group: DataGroup) -> set[tuple[str, str, str]]:
    return {_key(layer) for layer in group.best.record.layers}


def _key(layer: LayerRecord | ProbeRecord) -> tuple[str, str, str]:
    return layer.backbone, layer.layer, layer.pooling


# -- layer profiles -----------------------------------------------------------------------------


def plot_profile_layers(profile: Profile, ax: Axes | None = None) -> Axes:
    """Draw the held-out accuracy of each layer's probe against its depth, one curve a source."""
    ax = _depth_axes(ax, 390, 340 + LINE * len(sources(profile)), profile.dataset.measure)
    chosen, ends = marked_layers(profile), []
    for one in series_of(profile):
        points = [
            _point(profile.layers[place], (value,), ringed=place in chosen)
            for place in one.places
            if (value := profile.layers[place].scores.get("accuracy")) is not None
        ]
        if points:
            line = _Line(one.label(), one.name, one.color, one.line, points)
            _draw(ax, line, named=True)
            ends.append(line.end)
    name_curves(ax, ends, fontsize=12)
    return ax
