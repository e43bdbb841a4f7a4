"""The figure of a search: what each trial came to, and the best so far."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from layerfusion.records.search import SearchHistory, TrialRecord
from layerfusion.report.canvas import (
    GRID,
    INK,
    MUTED,
    SERIES,
    Drawing,
    canvas,
    drawing,
)
from layerfusion.report.line_ends import LineEnd, name_lines
from layerfusion.report.log_axis import number_log_axis

POINT, FAILED = SERIES[0], SERIES[1]
LEGEND = (
    ("complete", {"marker": "o", "color": POINT, "markersize": 5, "linestyle": "none"}),
    ("best so far", {"color": INK, "linewidth": 1.6}),
    ("pruned", {"marker": "|", "color": MUTED, "markersize": 9, "linestyle": "none"}),
    ("failed", {"marker": "x", "color": FAILED, "markersize": 6, "linestyle": "none"}),
)
STYLE = dict(LEGEND)
MARGIN = 0.13
"""Room above and below the values, as a share of their range."""
WIDE_RANGE = 10
"""From this ratio of the largest to the least value on, the axis is logarithmic."""


def history_figure(history: SearchHistory, best: TrialRecord, key: str) -> Drawing:
    """Validation log-loss by trial.

    Args:
        history: the study.
        best: its best trial.
        key: what its files are named by.
    """
    values = [trial.value for trial in history.trials if trial.value is not None]
    return drawing(
        f"{key}-history",
        lambda narrow: draw_history(history, best, narrow=narrow),
        alt=f"Search {history.name}: validation log-loss of {len(values)} complete trials of"
        f" {len(history.trials)}, {min(values):.4f} to {max(values):.4f}; the best is trial"
        f" {best.number}. Best so far: "
        + "; ".join(f"from trial {n} {value:.4f}" for n, value in _steps(history)),
        caption="Mean validation log-loss over the seeds of each trial, in the order in which they"
        " were begun; lower is better. Line: the best so far. Ringed: the best."
        + (" At the foot: trials without a value." if len(values) < len(history.trials) else ""),
    )


def _steps(history: SearchHistory) -> list[tuple[int, float]]:
    """Trials that were better than all before, with what they came to."""
    found: list[tuple[int, float]] = []
    for trial, value in zip(history.trials, history.best_so_far, strict=True):
        if value is not None and (not found or value < found[-1][1]):
            found.append((trial.number, value))
    return found


def draw_history(history: SearchHistory, best: TrialRecord, *, narrow: bool) -> Figure:
    """The plot that `history_figure` shows, in one of its layouts."""
    width, plot, right = (360, 220, 14) if narrow else (760, 270, 110)
    top = 34
    figure, axes = canvas(width, top + plot + 48, 66, right, top, 48)
    axes.set_xlabel("trial")
    axes.set_ylabel("validation log-loss")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=MARGIN)
    done = [(t.number, t.value) for t in history.trials if t.value is not None]
    least = min(value for _, value in done)
    if least > 0 and max(value for _, value in done) > WIDE_RANGE * least:
        axes.set_yscale("log")
        number_log_axis(axes.yaxis, [value for _, value in done])
    last = history.trials[-1].number
    steps = [*_steps(history), (last, least)]
    axes.plot(*zip(*steps, strict=True), drawstyle="steps-post", zorder=3, **STYLE["best so far"])
    axes.plot(*zip(*done, strict=True), zorder=4, **STYLE["complete"])
    ring = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.7, "color": INK}
    axes.plot(best.number, least, marker="o", zorder=5, **ring)
    axes.set_xlim(history.trials[0].number - 0.7, last + 0.7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _draw_lane(axes, history)
    _draw_legend(figure, history, 20 if narrow else 70, width, top + plot + 48)
    if not narrow:
        name_lines(axes, [LineEnd(f"best {least:.4f}", last, least, INK)])
    return figure


def _draw_lane(axes: Axes, history: SearchHistory) -> None:
    """Trials without a value, in the margin below all values."""
    foot, height = axes.get_xaxis_transform(), MARGIN / 2 / (1 + 2 * MARGIN)
    for state, name in (("pruned", "pruned"), ("fail", "failed")):
        numbers = [trial.number for trial in history.trials if trial.state == state]
        heights = [height] * len(numbers)
        axes.plot(numbers, heights, transform=foot, zorder=4, **STYLE[name])


def _draw_legend(
    figure: Figure, history: SearchHistory, x: float, width: float, height: float
) -> None:
    states = {trial.state for trial in history.trials}
    there = {"complete", "best so far", *states, *({"failed"} if "fail" in states else ())}
    y = 1 - 14 / height
    for name, style in LEGEND:
        if name not in there:
            continue
        line = Line2D([x / width, (x + 16) / width], [y, y], transform=figure.transFigure, **style)
        if style.get("marker"):
            line.set_data([(x + 8) / width], [y])
        figure.add_artist(line)
        figure.text((x + 22) / width, y, name, color=MUTED, fontsize=11, va="center")
        x += 32 + 6.2 * len(name)
