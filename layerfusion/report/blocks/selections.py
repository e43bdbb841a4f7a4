"""Block on ways of choosing layers: selections and scores over judged layer profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from layerfusion.findings.grouping import grouped
from layerfusion.findings.judged import (
    PROBE,
    UNDECIDED,
    NamedProfile,
    ScoreRow,
    SelectionRow,
    score_rows,
    selection_rows,
)
from layerfusion.findings.measures import measure_of
from layerfusion.records.format import listing, plural
from layerfusion.report.block import Block, Bullets, Folded
from layerfusion.report.blocks.pareto import MARKERS
from layerfusion.report.figures.axes import LINE, is_narrow, legend, new_axes, write
from layerfusion.report.figures.canvas import drawing
from layerfusion.report.figures.colors import INK, MUTED, PAPER, SERIES
from layerfusion.report.format import COUNT, DURATION, P_VALUE, PERCENT, POINTS, REGRET, decimals
from layerfusion.report.sentences import bracket, says, shortened
from layerfusion.report.table import Cell, Column, Table
from layerfusion.statistics.significance import ALPHA

MEANING = (
    "Regret is the test {measure} of the best single layer in hindsight, which nobody has when"
    " choosing, less that of a selection, in points. Below 0, several layers together beat every"
    " single one. Everything was chosen on train, and test was looked at once all choices were"
    " made. All figures are of linear probes."
)
INTERVALS = (
    "Square brackets are 95 % intervals. For one profile (a data set with some models and poolings)"
    " they come from a paired bootstrap over test rows with the layer in hindsight fixed; ▼ takes"
    " into account that this layer is the best of many. For a mean, the errors of profiles are"
    " added up where they share the test rows of a data set, and are independent between data sets."
    " Nothing is said here about other data sets."
)
BEST_LAYER = "best layer in hindsight, test %"
WORTH = (
    Column("Test %", lambda x: x.test, PERCENT),
    Column("Regret, points", lambda x: x.regret, REGRET),
    Column("Cross-fitted regret, points", lambda x: x.regret and x.regret.cross_fitted, REGRET),
    Column("p", lambda x: x.regret and x.regret.p, P_VALUE),
    Column("Gain over last, points", lambda x: x.over_last, POINTS),
)
"""What a judged selection, or probe of several layers, is worth on test."""
LINEAR = 4.0
"""Points to either side of 0 that are drawn about evenly. Without a limit, a single score that
fails would press all others together."""
TICKS = (-40, -20, -10, -5, -2, 0, 2, 5, 10, 20, 40, 80)


def regret_block(judged: Sequence[NamedProfile], key: str) -> Block:
    """Show what each selection loses to the best layer in hindsight, and what each score brings."""
    rows = selection_rows(judged)
    scores = score_rows(judged, rows)
    data = list(dict.fromkeys(x.data for x in judged))
    extent = (
        f"{plural(len(rows), 'selection')} in {plural(len(judged), 'profile')} of"
        f" {plural(len(data), 'data set')}: {listing(data)}."
    )
    figure = drawing(
        "regret",
        lambda ax: plot_regret(judged, rows, ax),
        alt="Regret of each selection in points, mean over profiles. "
        + "; ".join(f"{row.name}: {REGRET(row.regret.mean)}" for row in rows),
        caption="Points behind the best single layer in hindsight, in"
        f" {plural(len(judged), 'profile')} (a data set with some models and poolings). Small"
        " marks: profiles, by data set. Diamond and bar: their mean with its 95 % interval. Left of"
        " 0: better than every single layer.",
    )
    return Block(
        "Which way of choosing layers loses least",
        (
            f"{extent} {MEANING.format(measure=_measure(judged))} {INTERVALS}",
            figure,
            Bullets(price_sentences(judged, scores)),
            mean_table(judged, rows),
            score_table(judged, scores),
            *(Folded((table,)) for table in (*regret_tables(judged, rows), _origins(judged))),
        ),
        key,
        key,
    )


def mean_table(judged: Sequence[NamedProfile], rows: Sequence[SelectionRow]) -> Table:
    """List every selection with its means over the profiles that have it."""

    def behind(row: SelectionRow) -> Cell:
        return Cell(row.behind[0], note=f"of {row.behind[1]}") if row.behind else Cell()

    return Table(
        "Selections over all profiles",
        rows,
        Column("Selection", lambda row: row.name),
        Column("Profiles", lambda row: Cell(row.count, note=f"of {len(judged)}"), COUNT),
        Column("Layers", lambda row: row.layers, decimals(1)),
        Column("Regret, points", lambda row: row.regret, REGRET),
        Column("Cross-fitted regret, points", lambda row: row.cross_fitted, REGRET),
        Column("Profiles ▼", behind, COUNT),
        Column("Gain over last, points", lambda row: row.over_last, POINTS),
        note="Means over profiles. Selections that every profile has come first, as means over"
        " different profiles do not compare. Cross-fitted: with the layer in hindsight chosen on"
        " one half of test and judged on the other, which removes the luck of the best of many. ▼:"
        " profiles in which some single layer is more accurate beyond that luck and the noise of"
        f" test (max-t test over all layers of the profile, p < {ALPHA:g}).",
    )


def regret_tables(judged: Sequence[NamedProfile], rows: Sequence[SelectionRow]) -> Iterator[Table]:
    """List the regret of every selection in every profile, one table a data set."""

    def cell(row: SelectionRow | None, place: int) -> object:
        if row is None:
            return replace(Cell.of(judged[place].hindsight), format=PERCENT)
        regret = getattr(row.by_profile[place], "regret", None)
        behind = regret is not None and regret.p is not None and regret.p < ALPHA
        return Cell.of(regret, mark="▼" if behind else "")

    for data, places in grouped(range(len(judged)), lambda n: judged[n].data).items():
        columns = [Column(judged[n].sources, lambda row, n=n: cell(row, n), REGRET) for n in places]
        shown = [row for row in rows if any(row.by_profile[n] for n in places)]
        yield Table(
            f"{data}: regret in points",
            [None, *shown],
            Column("Selection", lambda row: row.name if row else BEST_LAYER),
            *columns,
            mark=lambda row: "" if row else "baseline",
        )


def score_table(judged: Sequence[NamedProfile], scores: Sequence[ScoreRow]) -> Table:
    """List what each score agrees with, what its best layer loses, and what it costs."""
    correlation = f"Rank correlation with probe {_measure(judged)}"
    return Table(
        "What each score agrees with, loses and costs",
        scores,
        Column("Score", lambda row: row.name),
        Column("Profiles", lambda r: Cell(r.choice.count, note=f"of {len(judged)}"), COUNT),
        Column(correlation, lambda row: row.spearman and row.spearman[0], decimals(2)),
        Column("Lowest", lambda row: row.spearman and row.spearman[1], decimals(2)),
        Column("Regret of its best layer, points", lambda row: row.choice.regret, REGRET),
        Column("Against the probe's choice, points", lambda row: row.against, POINTS),
        Column("Time", lambda row: row.seconds, DURATION),
        note="Rank correlation (Spearman) over the layers of one model under one pooling, 1 being"
        " the same order: mean over these and the data sets, and the lowest. Time: for all layers"
        f" of a profile, beyond the extraction, mean; in seconds in the CSV. The probe is {PROBE};"
        " accuracy comes with it.",
    )


def _origins(judged: Sequence[NamedProfile]) -> Table:
    return Table(
        "Profiles",
        judged,
        Column("Data set", lambda x: x.data),
        Column("Models", lambda x: x.sources),
        Column("Layers", lambda x: len(x.profile.layers), COUNT),
        Column("Rows of train", lambda x: x.profile.rows, COUNT),
        Column("Test rows", lambda x: x.profile.dataset.rows.get("test", 0), COUNT),
        Column("Held out", lambda x: x.profile.held_out),
        Column("Job", lambda x: x.profile.job),
    )


def _measure(judged: Sequence[NamedProfile]) -> str:
    return measure_of(entry.profile.dataset for entry in judged)


def price_sentences(judged: Sequence[NamedProfile], scores: Sequence[ScoreRow]) -> tuple[str, ...]:
    """Tell what each score costs and brings against the probe, and which are worth their price.

    A score is worth its price if it costs no more than the probe and does not lose a point, or if
    it costs more and gains; the 95 % intervals decide. A score that shares no profile with the
    probe is not mentioned.
    """
    probe = next((row for row in scores if row.name == PROBE), None)
    if probe is None:
        return ()
    cost = "" if probe.seconds is None else f" takes {DURATION(probe.seconds)} a profile;"
    regret, over = probe.choice.regret, probe.choice.over_last
    ahead = f", and against the last layer {says(over)}" if over else ""
    sentences = [
        f"The probe ({PROBE}){cost} its choice is {REGRET(regret.mean)} points"
        f" {bracket(regret, REGRET)} behind the best layer in hindsight{ahead}."
    ]
    worth: dict[str, list[str]] = {}
    for row in scores:
        if row.against:
            few = row.choice.count < len(judged)
            where = f" ({row.choice.count} of {plural(len(judged), 'profile')})" if few else ""
            same = row.against.low == row.against.high == 0
            brings = "takes the same layer" if same else says(row.against)
            sentences.append(f"{row.name} {_price(row.dearer)} and {brings}{where}.")
            if words := row.worth:
                risk = f" (up to {REGRET(-row.against.low)} points)" if words == UNDECIDED else ""
                worth.setdefault(words, []).append(row.name + risk)
    return (*sentences, *(f"{words}: {listing(names)}." for words, names in worth.items()))


def _price(dearer: float | None) -> str:
    if not dearer:
        return "has no known price" if dearer is None else "costs what the probe does"
    return f"costs {DURATION(abs(dearer))} {'more' if dearer > 0 else 'less'} than the probe"


def plot_regret(judged: Sequence[NamedProfile], rows: Sequence[SelectionRow], ax: Axes) -> None:
    """Draw the regret of every selection: a mark for each profile, and the mean with its interval.

    The first row is on top.
    """
    data = list(dict.fromkeys(entry.data for entry in judged))
    keys = [LINE * -(-len(data) // columns) + 52 for columns in (5, 2)]
    new_axes(ax, 36 * len(rows) + keys[0], 56 * len(rows) + keys[1], grid="x")
    narrow = is_narrow(ax)
    ax.set_ylim(len(rows) - 0.4, -0.7 if narrow else -0.6)
    ax.set_yticks([])
    ax.set_xscale("asinh", linear_width=LINEAR)
    ax.set_xticks(TICKS, [f"{tick}".replace("-", "−") for tick in TICKS])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axvline(0, color=INK, linewidth=1.2)
    ax.set_xlabel(f"regret, points of test {_measure(judged)}; closer together beyond {LINEAR:g}")
    places = np.linspace(-0.26, 0.06, len(judged)) if len(judged) > 1 else np.array([-0.1])
    drawn = [100 * end for row in rows for end in (row.regret.low, row.regret.high)]
    for y, row in enumerate(rows):
        for entry, selection, offset in zip(judged, row.by_profile, places, strict=True):
            if selection is not None and selection.regret is not None:
                x, style = 100 * selection.regret.mean, _mark(data.index(entry.data))
                ax.plot(x, y + offset + 0.12 * narrow, markersize=5.5, alpha=0.8, **style)
                drawn.append(x)
        _draw_mean(ax, row, y, of=len(judged), narrow=narrow)
    ax.set_xlim(min(1.15 * min(drawn), -1.0), max(1.15 * max(drawn), 1.0))
    handles = [Line2D([], [], markersize=6.5, **_mark(number)) for number in range(len(data))]
    legend(ax, columns=5, handles=handles, labels=data, labelcolor=INK, handlelength=0.8)


def _draw_mean(ax: Axes, row: SelectionRow, y: int, *, of: int, narrow: bool) -> None:
    mean, height = row.regret, y + (0.34 if narrow else 0.24)
    ends = [100 * mean.low, 100 * mean.high]
    ax.plot(ends, [height] * 2, color=INK, linewidth=2, solid_capstyle="butt")
    ax.plot(100 * mean.mean, height, marker="D", markersize=6, color=INK)
    words = f"{REGRET(mean.mean)} {bracket(mean, REGRET)}"
    name = shortened(row.name, 30)
    few = f"{row.count} of {of} profiles" if row.count < of else ""
    around = [withStroke(linewidth=3, foreground=PAPER)]
    look = {"xycoords": ("axes fraction", "data"), "fontsize": 11, "path_effects": around}
    if narrow:
        text = f"{name}: {words}" + f" ({few})" * bool(few)
        write(ax, text, (0.0, y), (4, 20), ha="left", color=INK, **look)
    else:
        named = f"{name}\n{few}" if few else name
        write(ax, named, (0.0, y), (-12, 0), ha="right", color=INK, **look)
        write(ax, words, (1.0, y), (10, 0), ha="left", color=MUTED, **look)


def _mark(number: int) -> dict[str, Any]:
    """Give the mark of a data set."""
    return {
        "marker": MARKERS[number % len(MARKERS)],
        "color": SERIES[number % len(SERIES)],
        "linestyle": "none",
        "markeredgewidth": 0,
    }
