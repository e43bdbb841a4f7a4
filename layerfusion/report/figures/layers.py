"""Accuracy by layer: of heads trained on one layer each, or of the probes of a layer profile."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from layerfusion.findings.curves import Line, answer_lines, chosen_lines, probe_lines, profile_lines
from layerfusion.findings.groups import Curve, DataGroup
from layerfusion.findings.profiles import sources
from layerfusion.records.profile import Profile
from layerfusion.report.figures import axes
from layerfusion.report.figures.colors import MUTED, PAPER, SERIES, model_colors
from layerfusion.report.figures.line_ends import LineEnd, name_curves
from layerfusion.report.sentences import shortened

LINES = ("-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)))
"""Line styles of the curves of one model, which differ in pooling or operator."""
DASHED = (0, (6, 3))
NORM_OFFSET = 0.055
"""`norm` has the depth of the last block, but is drawn this far to the right of it."""
NAME_LETTERS = 34
"""Most characters of a model's name above a small curve; two shorter ones share a line."""
LABEL = 22
"""Characters of a source's name beside a figure."""


def source_label(name: str, most: int = LABEL) -> str:
    """Cut the name of a source to some characters, but keep the pooling, which tells it apart."""
    if len(name) <= most:
        return name
    model, space, pooling = name.rpartition(" (")
    room = most - len(space + pooling)
    if not model or room < 4:
        return shortened(name, most)
    return f"{shortened(model, room)}{space}{pooling}"


def source_looks(profile: Profile) -> dict[str, tuple[str, Any]]:
    """Map each source of a profile to its colour, that of its model, and its line style.

    The style tells apart the poolings of a model, and models of the same colour.
    """
    models = list(dict.fromkeys(layer.backbone for layer in profile.layers))
    looks = {}
    for line in profile_lines(profile):
        again, color = divmod(models.index(line.model), len(SERIES))
        looks[line.name] = SERIES[color], LINES[(line.variant + 2 * again) % len(LINES)]
    return looks


# -- parts of every figure ----------------------------------------------------------------------


def _depth_axes(ax: Axes | None, wide: float, narrow: float, measure: str = "accuracy") -> Axes:
    ax = axes.new_axes(ax, wide, narrow, grid="y")
    ax.set_xlim(-0.02, 1.02 + NORM_OFFSET)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    meaning = ": 0 enters the first block, 1 leaves the last; ◇ final norm"
    ax.set(xlabel=f"relative depth{meaning * (not axes.is_narrow(ax))}", ylabel=f"{measure}, %")
    return ax


def _across(layer: str, depth: float) -> float:
    """Place a layer on the axis of depths."""
    return depth + (NORM_OFFSET if layer == "norm" else 0)


def _draw(
    ax: Axes, line: Line, color: str, style: Any, *, label: str = "", named: bool = False
) -> LineEnd:
    """Draw a curve with its 95 % band, a diamond for the final norm, and rings.

    Args:
        ax: the axes.
        line: the curve.
        color: its colour.
        style: its line style.
        label: the name beside it, if that is shorter than its own.
        named: True to write the number of each ringed layer above it.
    """
    x = [_across(point.layer, point.depth) for point in line.points]
    y = [100 * point.accuracy for point in line.points]
    low, high = ([100 * getattr(point, end) for point in line.points] for end in ("low", "high"))
    label = label or line.name
    with axes.one_series(ax, label):
        if low != high:
            ax.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
        if line.choosing:
            choosing = [100 * value for value in line.choosing]
            ax.plot(x, choosing, color=color, linewidth=0.9, linestyle=(0, (1, 1.6)))
        ax.plot(x, y, color=color, linewidth=1.8, linestyle=style, label=label)
        for point, *place in zip(line.points, x, y, strict=True):
            dot: dict[str, Any] = {"marker": "o", "markersize": 3.6}
            if point.layer == "norm":
                dot = {"marker": "D", "markersize": 6, "markeredgewidth": 1.5}
                dot["markerfacecolor"] = PAPER
            ax.plot(*place, zorder=4, color=color, **dot)
            if point.ringed:
                ring = {"markersize": 12, "markerfacecolor": "none", "markeredgewidth": 1.8}
                ax.plot(*place, marker="o", zorder=5, markeredgecolor=color, **ring)
                if named:
                    around = [withStroke(linewidth=2.5, foreground=PAPER)]
                    look: dict[str, Any] = {"color": color, "path_effects": around, "fontsize": 10}
                    look |= {"ha": "center", "fontweight": "bold", "zorder": 6}
                    axes.write(ax, point.layer, (place[0], place[1]), (0, 13), **look)
    for point, across, up, *ends in zip(line.points, x, y, low, high, strict=True):
        interval = " [{:.1f}, {:.1f}]".format(*ends) if low != high else ""
        axes.tell(ax, across, up, f"{line.name}, layer {point.layer}: {up:.1f} %{interval}")
    return LineEnd(label, x[-1], y[-1], color)


def _draw_all(ax: Axes, lines: list[Line], colors: Mapping[str, str]) -> list[LineEnd]:
    return [_draw(ax, x, colors[x.model], LINES[x.variant % len(LINES)]) for x in lines]


def _colors(group: DataGroup) -> Mapping[str, str]:
    """Map models to their colours: first those in use, then those that were only probed."""
    probed = [curve.backbone for curve in group.probe_curves]
    return model_colors(list(dict.fromkeys([*group.models, *probed])))


# -- jobs ---------------------------------------------------------------------------------------


def plot_job_layers(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of every single layer by depth, on test and on the rows that choose."""
    models = {curve.backbone: curve for curve in group.curves}
    below = 60 + 17 * len(models)
    wide, narrow = 340 + below, 300 + below + axes.LINE * (len(group.curves) + 1)
    ax = _depth_axes(ax, wide, narrow, group.measure)
    lines, colors, name = chosen_lines(group), model_colors(group.models), "TF-IDF baseline"
    ends = _draw_all(ax, lines, colors)
    baseline = 100 * group.jobs[0].baseline_score.mean
    ax.axhline(baseline, color=MUTED, linewidth=1.2, linestyle=DASHED, zorder=1.5, label=name)
    for number, (model, curve) in enumerate(models.items()):
        _draw_ruler(ax, curve, 48 + 17 * number, colors[model])
    name_curves(ax, [*ends, LineEnd(name, ax.get_xlim()[1], baseline, MUTED)], fontsize=12)
    low = ax.get_ylim()[0]
    for line in lines:
        for point in filter(lambda one: one.ringed, line.points):
            drop = _across(point.layer, point.depth), low, 100 * point.accuracy
            ax.vlines(*drop, color=colors[line.model], linewidth=0.9, alpha=0.7)
    ax.set_ylim(bottom=low)
    return ax


def _draw_ruler(ax: Axes, curve: Curve, below: float, color: str) -> None:
    """Number the layers of a model in a row under the axis, the chosen one in bold."""
    narrow = axes.is_narrow(ax)
    look: dict[str, Any] = {"color": color, "fontsize": 10.5}
    name = shortened(curve.backbone, 8 if narrow else 20)
    axes.write(ax, name, (-0.012, 0), (0, -below), xycoords="axes fraction", ha="right", **look)
    room = (20 if narrow else 19) * 1.08 / (axes.width_of(ax) - (80 if narrow else 230))
    placed: list[float] = []
    for job in sorted(curve.points, key=lambda job: (job is not curve.best, job.level % 5 != 0)):
        x = _across(job.layer.layer, job.layer.depth)
        wide = room * (1.3 if job.layer.layer == "norm" else 1.0)
        if all(abs(x - other) >= wide for other in placed):
            placed.append(x)
            weight = "bold" if job is curve.best else "normal"
            where = {"xycoords": ("data", "axes fraction"), "ha": "center", "fontweight": weight}
            axes.write(ax, job.layer.layer, (x, 0), (0, -below), **where, **look)


def plot_answer_curve(group: DataGroup, ax: Axes) -> None:
    """Draw a small curve of each model, and ring the layers of the job that is chosen.

    Of several poolings it is the one with a layer that is used, or else the one that is best on
    validation or held-out rows. Test has no part in that.
    """
    found, judged, measure = answer_lines(group)
    best: dict[str, Line] = {}
    for line in sorted(found, key=lambda one: (one.is_used, one.rank)):
        best[line.model] = replace(line, name=shortened(line.name, NAME_LETTERS), choosing=())
    lines = [best[model] for model in dict.fromkeys(line.model for line in found)]
    columns = 1 + (len(lines) > 1 and max(len(line.name) for line in lines) <= NAME_LETTERS // 2)
    _depth_axes(ax, 200, 180 + axes.LINE * math.ceil(len(lines) / columns))
    _draw_all(ax, lines, _colors(group))
    ax.set(xlabel="relative depth of the layer", ylabel="")
    what = "% right" if measure == group.data.measure else f"{measure}, %"
    title = {"title": f"{what}: {judged}", "title_fontsize": 11, "alignment": "left"}
    axes.legend(ax, columns=columns, **title).get_title().set_color(MUTED)


def plot_probe_curves(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw the held-out accuracy of the probes that selections fitted, and ring what is used."""
    lines = probe_lines(group)
    ax = _depth_axes(ax, 360, 320 + axes.LINE * len(lines), group.data.measure)
    name_curves(ax, _draw_all(ax, lines, _colors(group)))
    return ax


# -- layer profiles -----------------------------------------------------------------------------


def plot_profile_layers(profile: Profile, ax: Axes | None = None) -> Axes:
    """Draw the held-out accuracy of each layer's probe against its depth, one curve a source."""
    ax = _depth_axes(ax, 390, 340 + axes.LINE * len(sources(profile)), profile.dataset.measure)
    looks, lines = source_looks(profile), [line for line in profile_lines(profile) if line.points]
    ends = [_draw(ax, x, *looks[x.name], label=source_label(x.name), named=True) for x in lines]
    name_curves(ax, ends, fontsize=12)
    return ax
