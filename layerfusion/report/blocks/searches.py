"""Searches: how the best value came down, which settings were tried, and which mattered."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from layerfusion.findings.results import Results
from layerfusion.records.format import plural
from layerfusion.records.search import SearchHistory, TrialRecord
from layerfusion.report.block import Block, Folded
from layerfusion.report.figures.axes import is_narrow, legend, new_axes
from layerfusion.report.figures.canvas import Drawing, drawing
from layerfusion.report.figures.colors import INK, MUTED, SERIES
from layerfusion.report.figures.line_ends import LineEnd, name_lines
from layerfusion.report.figures.log_axis import number_log_axis
from layerfusion.report.format import DURATION, NAME, NONE, SHARE, decimals
from layerfusion.report.table import Cell, Column, Table

HIDDEN = ("paths.", "logger", "extract.", "--config-dir")
"""Prefixes of overrides to hide: they affect paths and speed, not results."""
LOSS = decimals(4)
STYLE: dict[str, dict[str, Any]] = {
    "complete": {"marker": "o", "color": SERIES[0], "markersize": 5, "linestyle": "none"},
    "pruned": {"marker": "|", "color": MUTED, "markersize": 9, "linestyle": "none"},
    "failed": {"marker": "x", "color": SERIES[1], "markersize": 6, "linestyle": "none"},
}
MARGIN = 0.13
"""Room above and below the values, as a share of their range."""
WIDE_RANGE = 10
"""The axis is logarithmic if the largest value is more than so many times the least."""


def search_sections(results: Results) -> list[Block]:
    """Show the course of each search, what mattered, and all trials, in a section of its own."""
    return [
        Block(
            f"Search: {history.name}",
            (
                _text(history),
                history.best and _figure(history, history.best, f"search-{place}"),
                _importance_table(history),
                Folded((_history_table(history),)),
            ),
            f"search-{place}",
        )
        for place, history in enumerate(results.searches, start=1)
    ]


def _text(history: SearchHistory) -> str:
    shown = [word for word in history.job.split(" ") if not word.startswith(HIDDEN)]
    text = (
        f"{history.counts} of {' '.join(shown) or 'the default job'}, judged by the mean validation"
        " log-loss of their seeds. Test was not looked at for any choice here."
    )
    if (best := history.best) is None:
        return f"{text} No trial has come to an end."
    drawn = ", ".join(f"{key}={_setting(value)}" for key, value in best.params.items())
    return f"{text} The best is trial {best.number}, with {LOSS(best.value or 0)}: {drawn}."


def _figure(history: SearchHistory, best: TrialRecord, key: str) -> Drawing:
    values = [trial.value for trial in history.trials if trial.value is not None]
    steps = "; ".join(f"from trial {n} {LOSS(value)}" for n, value in history.improvements)
    return drawing(
        f"{key}-history",
        lambda ax: plot_search(history, best, ax),
        alt=f"Search {history.name}: validation log-loss of {len(values)} complete trials of"
        f" {len(history.trials)}, {LOSS(min(values))} to {LOSS(max(values))}; the best is trial"
        f" {best.number}. Best so far: {steps}",
        caption="Mean validation log-loss over the seeds of each trial, in the order in which they"
        " were begun; lower is better. Line: the best so far. Ringed: the best."
        + (" At the foot: trials without a value." if len(values) < len(history.trials) else ""),
    )


def _history_table(history: SearchHistory) -> Table:
    keys = list(dict.fromkeys(key for trial in history.trials for key in trial.params))
    so_far = dict(zip((trial.number for trial in history.trials), history.best_so_far, strict=True))
    return Table(
        f"Search history: {history.name}",
        history.trials,
        Column("Trial", lambda trial: str(trial.number), NAME),
        *(Column(key, lambda trial, key=key: _setting(trial.params.get(key))) for key in keys),
        Column("Validation log-loss", _outcome, LOSS),
        Column("Best so far", lambda trial: so_far[trial.number], LOSS),
        Column("Time", lambda trial: trial.seconds, DURATION),
        Column("Job", lambda trial: trial.job),
        note="A pruned trial was behind the median of the earlier ones at the same epoch.",
        mark=lambda trial: "chosen" if trial is history.best else "",
    )


def _importance_table(history: SearchHistory) -> Table:
    return Table(
        f"What mattered: {history.name}",
        sorted(history.importance.items(), key=lambda item: -item[1]),
        Column("Setting", lambda entry: entry[0]),
        Column("Share, %", lambda entry: entry[1], SHARE),
        note="Share of the variance of the validation log-loss over the space that each setting"
        " explains by itself (fANOVA: random forests fitted to the complete trials). With few"
        " trials it is a rough guide, and it tells nothing about values outside the space.",
    )


def _outcome(trial: TrialRecord) -> Cell:
    if trial.value is not None:
        return Cell(trial.value)
    pruned = f"pruned after {plural(trial.epochs, 'epoch')}"
    return Cell(note=pruned if trial.state == "pruned" else "failed")


def _setting(value: object) -> str:
    if value is None:
        return NONE
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plot_search(history: SearchHistory, best: TrialRecord, ax: Axes) -> None:
    """Draw the validation log-loss of each trial of a search, and the best so far."""
    new_axes(ax, 352, 302, grid="y")
    ax.set(xlabel="trial", ylabel="validation log-loss")
    ax.margins(y=MARGIN)
    done = [(t.number, t.value) for t in history.trials if t.value is not None]
    values = [value for _, value in done]
    least, last = min(values), history.trials[-1].number
    if least > 0 and max(values) > WIDE_RANGE * least:
        ax.set_yscale("log")
        number_log_axis(ax.yaxis, values)
    steps = zip(*[*history.improvements, (last, least)], strict=True)
    ax.plot(*zip(*done, strict=True), zorder=4, label="complete", **STYLE["complete"])
    line = {"drawstyle": "steps-post", "color": INK, "linewidth": 1.6, "label": "best so far"}
    ax.plot(*steps, zorder=3, **line)
    ring = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.7, "color": INK}
    ax.plot(best.number, least, marker="o", zorder=5, **ring)
    ax.set_xlim(history.trials[0].number - 0.7, last + 0.7)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Trials without a value lie in the margin below all values.
    foot, height = ax.get_xaxis_transform(), MARGIN / 2 / (1 + 2 * MARGIN)
    for state, name in (("pruned", "pruned"), ("fail", "failed")):
        numbers = [trial.number for trial in history.trials if trial.state == state]
        if numbers:
            heights = [height] * len(numbers)
            ax.plot(numbers, heights, transform=foot, zorder=4, label=name, **STYLE[name])
    legend(ax, columns=4, labelcolor=MUTED)
    if not is_narrow(ax):
        name_lines(ax, [LineEnd(f"best {least:.4f}", last, least, INK)])
