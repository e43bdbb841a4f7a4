"""Which way of choosing layers loses least: tables, sentences and a figure of judged profiles."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from layerfusion.assets.files import write_atomically
from layerfusion.records.format import plural
from layerfusion.report.blocks import Block
from layerfusion.report.markdown import markdown_table, plain
from layerfusion.report.names import NONE, count, listing, point_interval, points
from layerfusion.report.profile_words import between, number, percentage, seconds, unsigned
from layerfusion.report.regret_figure import regret_figure
from layerfusion.report.regret_rows import (
    PROBE,
    Cell,
    ScoreRow,
    SelectionRow,
    judged_cells,
    score_rows,
    selection_rows,
)
from layerfusion.report.tables import Column, Row, Table
from layerfusion.report.words import says
from layerfusion.statistics.intervals import Difference
from layerfusion.statistics.significance import ALPHA

TITLE = "Which way of choosing layers loses least"
MEANING = (
    "Regret is the test accuracy of the best single layer in hindsight, which nobody has when"
    " choosing, less that of a selection, in points; below 0, several layers together beat every"
    " single one. Everything was chosen on train, and test was looked at once all choices were"
    " made. All figures are of linear probes."
)
INTERVALS = (
    "Square brackets are 95 % intervals. Of one cell (a data set with some models and poolings):"
    " paired bootstrap over test rows, the layer in hindsight being fixed (▼ counts in that it is"
    " the best of many). Of a mean: the cells'"
    " errors put together, as one where cells share a data set's test rows and as independent"
    " between data sets; it says nothing of other data sets."
)
NEGLIGIBLE = 0.01
"""A loss that an interval must leave out before a score passes for as good as the probe."""
NO_LOSS = (
    "Worth their price here, at no more than the probe's and with a loss of more than"
    f" {100 * NEGLIGIBLE:.0f} point ruled out"
)
GAINS = "Worth their price here, as they gain"
UNDECIDED = "Undecided, as no loss shows but one is not ruled out either"
AT_A_LOSS = "Cheaper than the probe, at a loss"
NOTHING_GAINED = "Not worth their price here, as no gain shows"


def write_profiles_report(folder: Path, out: Path) -> Path | None:
    """Write `selections.md`, `selections.csv` and `regret.png` on all judged profiles of a folder.

    Args:
        folder: with profiles at any depth.
        out: folder to write to.

    Returns:
        Path of `selections.md`; none where no profile was judged on test.

    Raises:
        UserError: for a profile that cannot be read.
    """
    cells = judged_cells(folder)
    if not cells:
        return None
    rows = selection_rows(cells)
    scores = score_rows(cells, rows)
    figure = regret_figure(cells, rows)
    parts = [
        f"# {TITLE}",
        plain(f"{_extent(cells, rows)} {MEANING}"),
        INTERVALS,
        f"![{plain(figure.alt)}]({figure.key}.png)",
        f"*{plain(figure.caption)}*",
        "## Selections",
        *markdown_table(mean_table(cells, rows)),
        *(part for table in regret_table(cells, rows) for part in markdown_table(table)),
    ]
    if scores:
        sentences = "\n".join(f"- {plain(line)}" for line in price_sentences(cells, scores))
        parts += ["## Scores", *markdown_table(score_table(cells, scores)), sentences]
    parts += ["## Where it comes from", *markdown_table(_origins(cells))]
    write_atomically(out / f"{figure.key}.png", figure.png)
    _write_csv(cells, rows, out / "selections.csv")
    path = out / "selections.md"
    write_atomically(path, ("\n\n".join(part for part in parts if part) + "\n").encode())
    return path


def regret_block(cells: Sequence[Cell]) -> Block | None:
    """The same for the page; none where no profile was judged on test."""
    if not cells:
        return None
    rows = selection_rows(cells)
    scores = score_rows(cells, rows)
    return Block(
        TITLE,
        f"{_extent(cells, rows)} {MEANING} {INTERVALS}",
        (regret_figure(cells, rows),),
        (mean_table(cells, rows), *([score_table(cells, scores)] if scores else [])),
        regret_table(cells, rows),
        price_sentences(cells, scores),
    )


def _extent(cells: Sequence[Cell], rows: Sequence[SelectionRow]) -> str:
    data = dict.fromkeys(cell.data for cell in cells)
    return (
        f"{plural(len(rows), 'selection')} in {plural(len(cells), 'cell')} of"
        f" {plural(len(data), 'data set')}: {listing(list(data))}."
    )


# -- tables -------------------------------------------------------------------------------------


def mean_table(cells: Sequence[Cell], rows: Sequence[SelectionRow]) -> Table:
    """Every selection, mean over the cells that have it."""
    return Table(
        "Selections over all cells",
        (
            Column("Selection", numeric=False),
            Column("Cells"),
            Column("Layers"),
            Column("Regret, points"),
            Column("Cross-fitted regret, points"),
            Column("Cells ▼"),
            Column("Gain over last, points"),
        ),
        tuple(
            Row(
                (
                    row.name,
                    f"{row.cells} of {len(cells)}",
                    f"{row.layers:.1f}",
                    f"{unsigned(row.regret.mean)} {between(row.regret, unsigned)}",
                    unsigned(row.cross_fitted),
                    f"{row.behind[0]} of {row.behind[1]}" if row.behind else NONE,
                    f"{points(row.over_last.mean)} {point_interval(row.over_last)}"
                    if row.over_last
                    else NONE,
                )
            )
            for row in rows
        ),
        "Means over cells; first the selections that every cell has, as means over other cells do"
        " not compare. Cross-fitted: with the layer in hindsight chosen on one half of test and"
        " judged on the other, free of the luck that the best of many has. ▼: cells in which some"
        " single layer is more accurate beyond that luck and the noise of test (max-t test over all"
        f" layers of the cell, p < {ALPHA:g}).",
    )


def regret_table(cells: Sequence[Cell], rows: Sequence[SelectionRow]) -> tuple[Table, ...]:
    """Regret of every selection in every cell, a table a data set so that each can be read."""
    tables = []
    for data in dict.fromkeys(cell.data for cell in cells):
        places = [n for n, cell in enumerate(cells) if cell.data == data]
        hindsight = ["best layer in hindsight, test %", *(_hindsight(cells[n]) for n in places)]
        tables.append(
            Table(
                f"{data}: regret in points",
                (
                    Column("Selection", numeric=False),
                    *(Column(cells[n].sources) for n in places),
                ),
                (
                    Row(tuple(hindsight), "baseline"),
                    *(
                        Row((row.name, *(_regret(row, n) for n in places)))
                        for row in rows
                        if any(row.by_cell[n] for n in places)
                    ),
                ),
            )
        )
    return tuple(tables)


def score_table(cells: Sequence[Cell], scores: Sequence[ScoreRow]) -> Table:
    """Every score: what it agrees with, what its best layer loses, and what it costs."""
    return Table(
        "What each score agrees with, loses and costs",
        (
            Column("Score", numeric=False),
            Column("Cells"),
            Column("Rank correlation with probe accuracy"),
            Column("Lowest"),
            Column("Regret of its best layer, points"),
            Column("Against the probe's choice, points"),
            Column("Seconds"),
        ),
        tuple(
            Row(
                (
                    row.name,
                    f"{row.choice.cells} of {len(cells)}",
                    number(row.spearman[0] if row.spearman else None, ".2f"),
                    number(row.spearman[1] if row.spearman else None, ".2f"),
                    f"{unsigned(row.choice.regret.mean)} {between(row.choice.regret, unsigned)}",
                    f"{points(row.against.mean)} {point_interval(row.against)}"
                    if row.against
                    else NONE,
                    seconds(row.seconds),
                )
            )
            for row in scores
        ),
        "Rank correlation (Spearman) over the layers of one model under one pooling, 1 being the"
        " same order: mean over these and the data sets, and the lowest. Seconds: for all layers of"
        f" a cell, beyond the extraction, mean. The probe is {PROBE}; accuracy comes with it.",
    )


def _hindsight(cell: Cell) -> str:
    place = cell.profile.hindsight
    best = None if place is None else cell.profile.layers[place].test
    return NONE if best is None else f"{percentage(best.mean)} {between(best, percentage)}"


def _regret(row: SelectionRow, place: int) -> str:
    one = row.by_cell[place]
    if one is None or one.regret is None:
        return NONE
    mark = " ▼" if one.regret.p is not None and one.regret.p < ALPHA else ""
    return f"{unsigned(one.regret.mean)} {between(one.regret, unsigned)}{mark}"


def _origins(cells: Sequence[Cell]) -> Table:
    return Table(
        "Profiles",
        (
            Column("Data set", numeric=False),
            Column("Models", numeric=False),
            Column("Layers"),
            Column("Rows of train"),
            Column("Test rows"),
            Column("Held out", numeric=False),
            Column("Job", numeric=False),
        ),
        tuple(
            Row(
                (
                    cell.data,
                    cell.sources,
                    count(len(cell.profile.layers)),
                    count(cell.profile.rows),
                    count(cell.profile.dataset.rows.get("test", 0)),
                    cell.profile.held_out,
                    cell.profile.job,
                )
            )
            for cell in cells
        ),
    )


def _write_csv(cells: Sequence[Cell], rows: Sequence[SelectionRow], path: Path) -> None:
    """One row a selection and cell; accuracies and regrets as shares."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(
        (
            *("dataset", "models", "job", "selection", "number_of_layers", "layers"),
            *("test_accuracy", "test_low", "test_high"),
            *("regret", "regret_low", "regret_high", "regret_cross_fitted", "regret_p"),
            *("over_last", "over_last_low", "over_last_high"),
        )
    )
    for place, cell in enumerate(cells):
        for row in rows:
            one = row.by_cell[place]
            if one is not None and one.regret is not None:
                names = "; ".join(cell.profile.layers[n].name for n in one.layers)
                test, regret = one.test, one.regret
                table.writerow(
                    (
                        *(cell.data, cell.sources, cell.profile.job, one.name),
                        *(len(one.layers), names),
                        *((test.mean, test.low, test.high) if test else (None,) * 3),
                        *(regret.mean, regret.low, regret.high, regret.cross_fitted),
                        regret.p,
                        *(one.over_last or (None,) * 3),
                    )
                )
    write_atomically(path, text.getvalue().encode())


# -- sentences ----------------------------------------------------------------------------------


def price_sentences(cells: Sequence[Cell], scores: Sequence[ScoreRow]) -> tuple[str, ...]:
    """What each score costs and brings against the probe, and which are worth their price.

    A score is worth it that costs no more than the probe and does not lose a point, or that costs
    more and gains; the 95 % intervals decide. A score that shares no cell with the probe is not
    mentioned.
    """
    probe = next((row for row in scores if row.name == PROBE), None)
    if probe is None:
        return ()
    others = [row for row in scores if row.against]
    return (
        _probe_sentence(probe),
        *(_sentence(row, len(cells)) for row in others),
        *_verdicts(others),
    )


def _probe_sentence(probe: ScoreRow) -> str:
    cost = "" if probe.seconds is None else f" takes {seconds(probe.seconds)} a cell;"
    regret, over = probe.choice.regret, probe.choice.over_last
    brings = f", and against the last layer {_verdict(over)}" if over else ""
    return (
        f"The probe ({PROBE}){cost} its choice is {unsigned(regret.mean)} points"
        f" {between(regret, unsigned)} behind the best layer in hindsight{brings}."
    )


def _sentence(row: ScoreRow, cells: int) -> str:
    against = row.against
    if row.dearer is None:
        cost = "has no known price"
    elif row.dearer == 0:
        cost = "costs what the probe does"
    else:
        more = "more" if row.dearer > 0 else "less"
        cost = f"costs {seconds(abs(row.dearer))} {more} than the probe"
    if against is None or against.low == against.high == 0:
        brings = "takes the same layer"
    else:
        brings = _verdict(against)
    where = f" ({row.choice.cells} of {plural(cells, 'cell')})" if row.choice.cells < cells else ""
    return f"{row.name} {cost} and {brings}{where}."


def _verdict(difference: Difference) -> str:
    words = says(difference, gain="gains", loss="loses")
    return f"makes {words}" if difference.verdict == "open" else words


def _verdicts(rows: Sequence[ScoreRow]) -> list[str]:
    """Which scores are worth their price; a list without any is left out."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.dearer is not None and row.against:
            words = _worth(row.dearer, row.against)
            risk = f" (up to {unsigned(-row.against.low)} points)" if words == UNDECIDED else ""
            found.setdefault(words, []).append(row.name + risk)
    return [f"{words}: {listing(names)}." for words, names in found.items()]


def _worth(dearer: float, against: Difference) -> str:
    if dearer > 0:
        return GAINS if against.verdict == "gain" else NOTHING_GAINED
    if against.verdict == "loss":
        return AT_A_LOSS if dearer < 0 else NOTHING_GAINED
    return NO_LOSS if against.low >= -NEGLIGIBLE else UNDECIDED
