"""Accuracy by layer: of heads trained on one layer each, or of the probes of a layer profile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from layerfusion.records.profile import LayerProfile, Profile
from layerfusion.report.figures.canvas import LINE, PIXEL, figure_of, is_narrow, legend, new_axes
from layerfusion.report.figures.colors import GRID, MUTED, PAPER, SERIES
from layerfusion.report.figures.line_ends import LineEnd, name_lines
from layerfusion.report.findings.compare import accuracy
from layerfusion.report.findings.profiles import marked_layers, sources
from layerfusion.report.format import shortened
from layerfusion.report.load import Curve, DataGroup

LINES = ("-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)))
"""Line styles of the curves of one model, which differ in pooling or operator."""
DASHED = (0, (6, 3))
NORM_OFFSET = 0.055
"""`norm` has the depth of the last block, but is drawn this far to the right of it."""
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
    seen: dict[str, int] = {}
    found = []
    for name, places in sources(profile).items():
        backbone = profile.layers[places[0]].backbone
        again, color = divmod(backbones.index(backbone), len(SERIES))
        line = LINES[(seen.get(backbone, 0) + 2 * again) % len(LINES)]
        seen[backbone] = seen.get(backbone, 0) + 1
        found.append(Series(name, tuple(places), SERIES[color], line))
    return found


# -- jobs on one layer each ---------------------------------------------------------------------


def plot_job_layers(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw test and validation accuracy of every single layer of a data set against its depth."""
    below = 60 + 17 * len({curve.backbone for curve in group.curves})
    ax = _depth_axes(ax, 340 + below, 300 + below + LINE * (len(group.curves) + 1))
    ends: list[LineEnd] = []
    for curve in group.curves:
        color, style = group.colors[curve.backbone], LINES[curve.variant % len(LINES)]
        test = [[100 * x for x in accuracy(job)] for job in curve.points]
        x = [_position(job.layer) for job in curve.points]
        validation = [100 * job.record.validation["accuracy"].mean for job in curve.points]
        _, low, high = zip(*test, strict=True)
        ax.fill_between(x, low, high, color=color, alpha=0.13, linewidth=0)
        ax.plot(x, validation, color=color, linewidth=0.9, linestyle=(0, (1, 1.6)))
        ax.plot(x, [y[0] for y in test], color=color, linewidth=1.8, linestyle=style,
                label=curve.label)  # fmt: skip
        for place, y, job in zip(x, test, curve.points, strict=True):
            _draw_point(ax, place, y[0], color, norm=job.layer.layer == "norm")
        _draw_ring(ax, _position(curve.best.layer), 100 * accuracy(curve.best)[0], color)
        ends.append(LineEnd(curve.label, x[-1], test[-1][0], color))
    baseline = 100 * group.jobs[0].record.baseline.test["accuracy"]
    name = "TF-IDF baseline"
    ax.axhline(baseline, color=MUTED, linewidth=1.2, linestyle=DASHED, zorder=1.5, label=name)
    ends.append(LineEnd(name, ax.get_xlim()[1], baseline, MUTED))
    rulers = list({curve.backbone: curve for curve in group.curves}.values())
    _draw_rulers(ax, rulers, group)
    _name(ax, ends)
    low = ax.get_ylim()[0]
    for curve in group.curves:
        x, top = _position(curve.best.layer), 100 * accuracy(curve.best)[0]
        ax.vlines(x, low, top, color=group.colors[curve.backbone], linewidth=0.9, alpha=0.7)
    ax.set_ylim(bottom=low)
    return ax


def _draw_rulers(ax: Axes, rulers: Sequence[Curve], group: DataGroup) -> None:
    """Number the layers of each model in a row under the axis, the chosen one in bold."""
    narrow = is_narrow(ax)
    ax.set_xlabel(_depth(narrow=narrow))
    room = 20 if narrow else 19
    width = figure_of(ax).get_figwidth() / PIXEL - (80 if narrow else 230)
    for index, curve in enumerate(rulers):
        below, color = 48 + 17 * index, group.colors[curve.backbone]
        name = shortened(curve.backbone, 8 if narrow else 20)
        _write_below(ax, (-0.012, below), name, color, coords="axes fraction", ha="right")
        placed: list[float] = []
        points = sorted(curve.points, key=lambda job: (job is not curve.best, job.level % 5 != 0))
        for job in points:
            x = _position(job.layer)
            wide = room * (1.3 if job.layer.layer == "norm" else 1.0)
            if all(abs(x - other) * width / 1.08 >= wide for other in placed):
                placed.append(x)
                weight = "bold" if job is curve.best else "normal"
                _write_below(ax, (x, below), job.layer.layer, color, weight=weight)


def _write_below(
    ax: Axes, place: tuple[float, float], text: str, color: str, *, coords: str = "data",
    ha: str = "center", weight: str = "normal",
) -> None:  # fmt: skip
    ax.annotate(
        text,
        (place[0], 0),
        (0, -place[1]),
        xycoords=(coords, "axes fraction"),
        textcoords="offset points",
        ha=ha,
        va="center",
        color=color,
        fontsize=10.5,
        fontweight=weight,
        annotation_clip=False,
    )


# -- layer profiles -----------------------------------------------------------------------------


def plot_profile_layers(profile: Profile, ax: Axes | None = None) -> Axes:
    """Draw the held-out accuracy of each layer's probe against its depth, one curve a source."""
    ax = _depth_axes(ax, 390, 340 + LINE * len(sources(profile)))
    chosen = marked_layers(profile)
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
        ax.plot(x, y, color=one.color, linewidth=1.7, linestyle=one.line, label=one.label())
        for place, across, up in points:
            layer = profile.layers[place].layer
            _draw_point(ax, across, up, one.color, norm=layer == "norm")
            if place in chosen:
                _draw_ring(ax, across, up, one.color)
                ax.annotate(
                    layer,
                    (across, up),
                    (0, 13),
                    textcoords="offset points",
                    ha="center",
                    va="center",
                    color=one.color,
                    fontsize=10,
                    fontweight="bold",
                    path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
                    zorder=6,
                )
        ends.append(LineEnd(one.label(), x[-1], y[-1], one.color))
    ax.set_xlabel(_depth(narrow=is_narrow(ax)))
    _name(ax, ends)
    return ax


# -- parts --------------------------------------------------------------------------------------


def _depth_axes(ax: Axes | None, wide: float, narrow: float) -> Axes:
    ax = new_axes(ax, wide, narrow)
    ax.set_xlim(-0.02, 1.02 + NORM_OFFSET)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    ax.set_ylabel("accuracy, %")
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    return ax


def _depth(*, narrow: bool) -> str:
    meaning = ": 0 enters the first block, 1 leaves the last; ◇ final norm"
    return "relative depth" + ("" if narrow else meaning)


def _position(layer: LayerProfile | Any) -> float:
    """Place a layer on the depth axis."""
    return layer.depth + (NORM_OFFSET if layer.layer == "norm" else 0)


def _draw_point(ax: Axes, x: float, y: float, color: str, *, norm: bool) -> None:
    style: dict[str, Any] = {"marker": "o", "markersize": 3.6, "color": color}
    if norm:
        style = {"marker": "D", "markersize": 6, "markerfacecolor": PAPER, "markeredgewidth": 1.5}
        style["markeredgecolor"] = color
    ax.plot(x, y, zorder=4, **style)


def _draw_ring(ax: Axes, x: float, y: float, color: str) -> None:
    style = {"markerfacecolor": "none", "markeredgecolor": color, "markeredgewidth": 1.8}
    ax.plot(x, y, marker="o", markersize=12, zorder=5, **style)


def _name(ax: Axes, ends: Iterable[LineEnd]) -> None:
    """Name curves at their ends, or above the axes where the screen is narrow."""
    ends = list(ends)
    if is_narrow(ax) and ends:
        legend(ax)
    elif ends:
        name_lines(ax, ends, fontsize=12)
