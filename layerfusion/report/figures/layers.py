"""Accuracy by layer: of heads trained on one layer each, or of the probes of a layer profile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from layerfusion.findings.compare import accuracy
from layerfusion.findings.groups import Curve, DataGroup
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
LayerKey = tuple[str, str, str]
"""Model, layer and pooling."""
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


# -- jobs on one layer each ---------------------------------------------------------------------


def plot_job_layers(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of every single layer by depth, on test and on the rows that choose."""
    below = 60 + 17 * len({curve.backbone for curve in group.curves})
    wide, narrow = 340 + below, 300 + below + LINE * (len(group.curves) + 1)
    ax = _depth_axes(ax, wide, narrow, group.data.measure)
    ends: list[LineEnd] = []
    chosen: list[tuple[float, float, str]] = []
    colors = model_colors(group.models)
    for curve in group.curves:
        color, style = colors[curve.backbone], LINES[curve.variant % len(LINES)]
        x = [_position(job.layer) for job in curve.points]
        test, low, high = 100 * np.transpose([accuracy(job) for job in curve.points])
        choosing = [100 * job.choosing["accuracy"].mean for job in curve.points]
        with one_series(ax, curve.label):
            ax.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
            ax.plot(x, choosing, color=color, linewidth=0.9, linestyle=(0, (1, 1.6)))
            ax.plot(x, test, color=color, linewidth=1.8, linestyle=style, label=curve.label)
            for place, y, job in zip(x, test, curve.points, strict=True):
                _draw_point(ax, place, y, color, norm=job.layer.layer == "norm")
                if job is curve.best:
                    _draw_ring(ax, place, y, color)
                    chosen.append((place, y, color))
        for place, job, *value in zip(x, curve.points, test, low, high, strict=True):
            tell(ax, place, value[0], _words(curve.label, job.layer.layer, *value))
        ends.append(LineEnd(curve.label, x[-1], test[-1], color))
    baseline = 100 * group.jobs[0].record.baseline.test["accuracy"]
    name = "TF-IDF baseline"
    ax.axhline(baseline, color=MUTED, linewidth=1.2, linestyle=DASHED, zorder=1.5, label=name)
    ends.append(LineEnd(name, ax.get_xlim()[1], baseline, MUTED))
    for number, curve in enumerate({curve.backbone: curve for curve in group.curves}.values()):
        _draw_ruler(ax, curve, 48 + 17 * number, colors[curve.backbone])
    name_curves(ax, ends, fontsize=12)
    low = ax.get_ylim()[0]
    for place, y, color in chosen:
        ax.vlines(place, low, y, color=color, linewidth=0.9, alpha=0.7)
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
        x = _position(job.layer)
        wide = room * (1.3 if job.layer.layer == "norm" else 1.0)
        if all(abs(x - other) >= wide for other in placed):
            placed.append(x)
            weight = "bold" if job is curve.best else "normal"
            where = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontweight": weight}
            write(ax, job.layer.layer, (x, 0), (0, -below), **where, **look)


@dataclass(frozen=True)
class _Line:
    """One model in a curve of accuracy by layer, in per cent."""

    name: str
    color: str
    style: Any
    layers: tuple[LayerKey, ...]
    x: list[float]
    y: list[float]
    low: list[float]
    high: list[float]
    rank: float
    """The best accuracy on the rows that choose, by which curves of a model are ranked."""


def answer_lines(group: DataGroup) -> tuple[list[_Line], str]:
    """Take the layers that were run alone or, where these are few, the probes of selections.

    Returns:
        The models with enough layers for a curve, and what the accuracy is of.
    """
    colors = _colors(group)
    alone = [
        (
            curve.label,
            curve.backbone,
            [(job.layer, *accuracy(job)) for job in curve.points],
            curve.best.choosing["accuracy"].mean,
        )
        for curve in group.curves
    ]
    lines = _lines(alone, colors)
    if lines:
        return lines, "head on one layer, test"
    return probe_lines(group), f"probe, {group.probed_on}"


def probe_lines(group: DataGroup) -> list[_Line]:
    """Take the probes of selections; none where they are too few for a curve."""
    curves = group.probe_curves
    several = len({curve.pooling for curve in curves}) > 1
    probes = [
        (
            f"{curve.backbone} {curve.pooling}" if several else curve.backbone,
            curve.backbone,
            [(one, one.accuracy, one.low, one.high) for one in curve.points],
            max(one.accuracy for one in curve.points),
        )
        for curve in curves
    ]
    return _lines(probes, _colors(group))


def _colors(group: DataGroup) -> Mapping[str, str]:
    """Map models to their colours: first those in use, then those that were only probed."""
    probed = dict.fromkeys(curve.backbone for curve in group.probe_curves)
    return model_colors([*group.models, *(name for name in probed if name not in group.models)])


def _lines(
    curves: Sequence[tuple[str, str, Sequence[tuple[Any, float, float, float]], float]],
    colors: Mapping[str, str],
) -> list[_Line]:
    found = []
    seen: Counter[str] = Counter()
    for name, backbone, points, rank in curves:
        if len(points) >= LEAST_POINTS:
            layers, *values = zip(*points, strict=True)
            y, low, high = ([100 * value for value in part] for part in values)
            keys = tuple((one.backbone, one.layer, one.pooling) for one in layers)
            style = LINES[seen[backbone] % len(LINES)]
            x = [_position(one) for one in layers]
            found.append(_Line(name, colors[backbone], style, keys, x, y, low, high, rank))
            seen[backbone] += 1
    return found


def plot_answer_curve(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw a small curve of each model, and ring the layers of the job that is chosen.

    Of several poolings it is the one with a layer that is used, or else the one that is best on
    validation or held-out rows. Test has no part in that.
    """
    found, judged = answer_lines(group)
    used = _used(group)
    best: dict[str, _Line] = {}
    for line in sorted(found, key=lambda one: (not used.isdisjoint(one.layers), one.rank)):
        best[line.layers[0][0]] = replace(line, name=shortened(line.name, NAME_LETTERS))
    lines = [best[model] for model in dict.fromkeys(line.layers[0][0] for line in found)]
    columns = 1 + (len(lines) > 1 and max(len(line.name) for line in lines) <= NAME_LETTERS // 2)
    ax = _depth_axes(ax, 200, 180 + LINE * math.ceil(len(lines) / columns))
    _draw_lines(ax, lines, group)
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
    _draw_lines(ax, lines, group)
    name_curves(ax, [LineEnd(one.name, one.x[-1], one.y[-1], one.color) for one in lines])
    return ax


def _used(group: DataGroup) -> set[LayerKey]:
    return {(x.backbone, x.layer, x.pooling) for x in group.best.record.layers}


def _draw_lines(ax: Axes, lines: Sequence[_Line], group: DataGroup) -> None:
    """Draw curves with their 95 % bands, and ring the layers of the job that is chosen."""
    used = _used(group)
    for line in lines:
        with one_series(ax, line.name):
            ax.fill_between(line.x, line.low, line.high, color=line.color, alpha=0.13, linewidth=0)
            look: dict[str, Any] = {"color": line.color, "linestyle": line.style}
            ax.plot(line.x, line.y, linewidth=1.8, label=line.name, **look)
            for x, y, layer in zip(line.x, line.y, line.layers, strict=True):
                _draw_point(ax, x, y, line.color, norm=layer[1] == "norm")
                if layer in used:
                    _draw_ring(ax, x, y, line.color)
        points = zip(line.x, line.layers, line.y, line.low, line.high, strict=True)
        for x, (_, layer, _), *value in points:
            tell(ax, x, value[0], _words(line.name, layer, *value))


# -- layer profiles -----------------------------------------------------------------------------


def plot_profile_layers(profile: Profile, ax: Axes | None = None) -> Axes:
    """Draw the held-out accuracy of each layer's probe against its depth, one curve a source."""
    ax = _depth_axes(ax, 390, 340 + LINE * len(sources(profile)), profile.dataset.measure)
    chosen = marked_layers(profile)
    name = {"ha": "center", "fontsize": 10, "fontweight": "bold", "zorder": 6}
    ends: list[LineEnd] = []
    for one in series_of(profile):
        points = [
            (place, _position(profile.layers[place]), 100 * value)
            for place in one.places
            if (value := profile.layers[place].scores.get("accuracy")) is not None
        ]
        if not points:
            continue
        _, x, y = zip(*points, strict=True)
        with one_series(ax, one.label()):
            ax.plot(x, y, color=one.color, linewidth=1.7, linestyle=one.line, label=one.label())
            for place, across, up in points:
                layer = profile.layers[place].layer
                _draw_point(ax, across, up, one.color, norm=layer == "norm")
                tell(ax, across, up, f"{one.name} {layer}: {up:.1f} %")
                if place in chosen:
                    _draw_ring(ax, across, up, one.color)
                    around = [withStroke(linewidth=2.5, foreground=PAPER)]
                    look = {"color": one.color, "path_effects": around}
                    write(ax, layer, (across, up), (0, 13), **name, **look)
        ends.append(LineEnd(one.label(), x[-1], y[-1], one.color))
    name_curves(ax, ends, fontsize=12)
    return ax


def _words(name: str, layer: str, mean: float, low: float, high: float) -> str:
    """Say what a point on a curve is, in per cent."""
    return f"{name}, layer {layer}: {mean:.1f} % [{low:.1f}, {high:.1f}]"


# -- parts --------------------------------------------------------------------------------------


def _depth_axes(ax: Axes | None, wide: float, narrow: float, measure: str = "accuracy") -> Axes:
    ax = new_axes(ax, wide, narrow, grid="y")
    ax.set_xlim(-0.02, 1.02 + NORM_OFFSET)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    meaning = "" if is_narrow(ax) else ": 0 enters the first block, 1 leaves the last; ◇ final norm"
    ax.set(xlabel=f"relative depth{meaning}", ylabel=f"{measure}, %")
    return ax


def _position(layer: LayerProfile | LayerRecord | ProbeRecord) -> float:
    """Place a layer on the depth axis."""
    return layer.depth + (NORM_OFFSET if layer.layer == "norm" else 0)


def _draw_point(ax: Axes, x: float, y: float, color: str, *, norm: bool) -> None:
    filled = {"marker": "o", "markersize": 3.6, "color": color}
    diamond = {"marker": "D", "markersize": 6, "markeredgewidth": 1.5, "markeredgecolor": color}
    style: dict[str, Any] = {**diamond, "markerfacecolor": PAPER} if norm else filled
    ax.plot(x, y, zorder=4, **style)


def _draw_ring(ax: Axes, x: float, y: float, color: str) -> None:
    style = {"markerfacecolor": "none", "markeredgecolor": color, "markeredgewidth": 1.8}
    ax.plot(x, y, marker="o", markersize=12, zorder=5, **style)
