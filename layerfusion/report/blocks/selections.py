"""Page on ways of choosing layers: selections and scores over judged layer profiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerfusion.assets.files import write_atomically
from layerfusion.findings.grouping import grouped
from layerfusion.findings.judged import (
    PROBE,
    NamedProfile,
    ScoreRow,
    SelectionRow,
    is_judged,
    score_rows,
    selection_rows,
)
from layerfusion.findings.results import Results
from layerfusion.records.format import listing, plural
from layerfusion.report.block import Block, Bullets, Folded
from layerfusion.report.blocks.summary import says
from layerfusion.report.figures.canvas import Drawing, drawing
from layerfusion.report.figures.selections import plot_regret
from layerfusion.report.format import COUNT, DURATION, PERCENT, POINTS, REGRET, bracket, decimals
from layerfusion.report.render.files import table_csv
from layerfusion.report.render.markdown import block_markdown
from layerfusion.report.table import Cell, Column, Table
from layerfusion.statistics.intervals import Difference
from layerfusion.statistics.significance import ALPHA

MEANING = (
    "Regret is the test accuracy of the best single layer in hindsight, which nobody has when"
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
NEGLIGIBLE = 0.01
"""Largest loss of a score that counts as good as the probe. Its interval has to exclude more."""
NO_LOSS = (
    "Worth their price here, at no more than the probe's and with a loss of more than"
    f" {100 * NEGLIGIBLE:.0f} point ruled out"
)
BEST_LAYER = "best layer in hindsight, test %"
GAINS = "Worth their price here, as they gain"
UNDECIDED = "Undecided, as no loss shows but one is not ruled out either"
AT_A_LOSS = "Cheaper than the probe, at a loss"
NOTHING_GAINED = "Not worth their price here, as no gain shows"


def write_profiles_report(folder: Path, out: Path) -> Path | None:
    """Write `selections.md`, `selections.csv` and `regret.png` on all judged profiles of a folder.

    Args:
        folder: folder with profiles, at any depth.
        out: folder to write to.

    Returns:
        Path of `selections.md`; None where no profile that can be read was judged on test.
    """
    judged = [x for x in Results(folder).profiles if is_judged(x)]
    if not judged:
        return None
    found = regret_block(judged)
    block = Block(found.title, (*found.parts, _origins(judged)))
    (figure,) = block.figures
    write_atomically(out / f"{figure.key}.png", figure.png)
    _write_csv(judged, out / "selections.csv")
    path = out / "selections.md"
    text = "\n\n".join(block_markdown(block, level=1, figures=""))
    write_atomically(path, f"{text}\n".encode())
    return path


def regret_block(judged: Sequence[NamedProfile], key: str = "") -> Block:
    """Show what each selection loses to the best layer in hindsight, and what each score brings.

    Args:
        judged: profiles that were judged on test, at least one.
        key: anchor of the section.
    """
    rows = selection_rows(judged)
    scores = score_rows(judged, rows)
    data = list(dict.fromkeys(x.data for x in judged))
    extent = (
        f"{plural(len(rows), 'selection')} in {plural(len(judged), 'profile')} of"
        f" {plural(len(data), 'data set')}: {listing(data)}."
    )
    return Block(
        "Which way of choosing layers loses least",
        (
            f"{extent} {MEANING} {INTERVALS}",
            _figure(judged, rows),
            Bullets(price_sentences(judged, scores)),
            mean_table(judged, rows),
            score_table(judged, scores),
            *(Folded((table,)) for table in regret_tables(judged, rows)),
        ),
        key,
        key,
    )


def _figure(judged: Sequence[NamedProfile], rows: Sequence[SelectionRow]) -> Drawing:
    return drawing(
        "regret",
        lambda ax: plot_regret(judged, rows, ax),
        alt="Regret of each selection in points, mean over profiles. "
        + "; ".join(f"{row.name}: {REGRET(row.regret.mean)}" for row in rows),
        caption="Points behind the best single layer in hindsight, in"
        f" {plural(len(judged), 'profile')} (a data set with some models and poolings). Small"
        " marks: profiles, by data set. Diamond and bar: their mean with its 95 % interval. Left of"
        " 0: better than every single layer.",
    )


# -- tables -------------------------------------------------------------------------------------


def mean_table(judged: Sequence[NamedProfile], rows: Sequence[SelectionRow]) -> Table:
    """List every selection with its means over the profiles that have it."""

    def behind(row: SelectionRow) -> Cell:
        return Cell(row.behind[0], note=f"of {row.behind[1]}") if row.behind else Cell()

    return Table(
        "Selections over all profiles",
        (
            Column("Selection", lambda row: row.name),
            Column("Profiles", lambda row: Cell(row.count, note=f"of {len(judged)}"), COUNT),
            Column("Layers", lambda row: row.layers, decimals(1)),
            Column("Regret, points", lambda row: row.regret, REGRET),
            Column("Cross-fitted regret, points", lambda row: row.cross_fitted, REGRET),
            Column("Profiles ▼", behind, COUNT),
            Column("Gain over last, points", lambda row: row.over_last, POINTS),
        ),
        rows,
        "Means over profiles. Selections that every profile has come first, as means over different"
        " profiles do not compare. Cross-fitted: with the layer in hindsight chosen on one half of"
        " test and judged on the other, which removes the luck of the best of many. ▼: profiles in"
        " which some single layer is more accurate beyond that luck and the noise of test (max-t"
        f" test over all layers of the profile, p < {ALPHA:g}).",
    )


def regret_tables(
    judged: Sequence[NamedProfile], rows: Sequence[SelectionRow]
) -> tuple[Table, ...]:
    """List the regret of every selection in every profile, one table a data set."""

    def cell(row: SelectionRow | None, place: int) -> object:
        if row is None:  # the best layer in hindsight
            profile = judged[place].profile
            test = None if profile.hindsight is None else profile.layers[profile.hindsight].test
            return replace(Cell.of(test), format=PERCENT)
        regret = getattr(row.by_profile[place], "regret", None)
        behind = regret is not None and regret.p is not None and regret.p < ALPHA
        return Cell.of(regret, mark="▼" if behind else "")

    tables = []
    for data, places in grouped(range(len(judged)), lambda n: judged[n].data).items():
        columns = [Column(judged[n].sources, lambda row, n=n: cell(row, n), REGRET) for n in places]
        shown = [row for row in rows if any(row.by_profile[n] for n in places)]
        tables.append(
            Table(
                f"{data}: regret in points",
                (Column("Selection", lambda row: row.name if row else BEST_LAYER), *columns),
                [None, *shown],
                mark=lambda row: "" if row else "baseline",
            )
        )
    return tuple(tables)


def score_table(judged: Sequence[NamedProfile], scores: Sequence[ScoreRow]) -> Table:
    """List what each score agrees with, what its best layer loses, and what it costs."""
    return Table(
        "What each score agrees with, loses and costs",
        (
            Column("Score", lambda row: row.name),
            Column("Profiles", lambda r: Cell(r.choice.count, note=f"of {len(judged)}"), COUNT),
            Column(
                "Rank correlation with probe accuracy",
                lambda row: row.spearman and row.spearman[0],
                decimals(2),
            ),
            Column("Lowest", lambda row: row.spearman and row.spearman[1], decimals(2)),
            Column("Regret of its best layer, points", lambda row: row.choice.regret, REGRET),
            Column("Against the probe's choice, points", lambda row: row.against, POINTS),
            Column("Time", lambda row: row.seconds, DURATION),
        ),
        scores,
        "Rank correlation (Spearman) over the layers of one model under one pooling, 1 being the"
        " same order: mean over these and the data sets, and the lowest. Time: for all layers of a"
        f" profile, beyond the extraction, mean; in seconds in the CSV. The probe is {PROBE};"
        " accuracy comes with it.",
    )


def _origins(judged: Sequence[NamedProfile]) -> Table:
    return Table(
        "Profiles",
        (
            Column("Data set", lambda x: x.data),
            Column("Models", lambda x: x.sources),
            Column("Layers", lambda x: len(x.profile.layers), COUNT),
            Column("Rows of train", lambda x: x.profile.rows, COUNT),
            Column("Test rows", lambda x: x.profile.dataset.rows.get("test", 0), COUNT),
            Column("Held out", lambda x: x.profile.held_out),
            Column("Job", lambda x: x.profile.job),
        ),
        judged,
    )


def _write_csv(judged: Sequence[NamedProfile], path: Path) -> None:
    """Write one row for each selection and profile, accuracies and regrets as shares."""
    rows = selection_rows(judged)
    shown = [(named, row.by_profile[n]) for n, named in enumerate(judged) for row in rows]
    ends = enumerate(("", "_low", "_high"))
    table = Table(
        "",
        (
            Column("dataset", lambda e: e[0].data),
            Column("models", lambda e: e[0].sources),
            Column("job", lambda e: e[0].profile.job),
            Column("selection", lambda e: e[1].name),
            Column("number_of_layers", lambda e: len(e[1].layers)),
            Column("layers", lambda e: "; ".join(e[0].profile.layers[n].name for n in e[1].layers)),
            *accuracy_columns(lambda e: e[1].test),
            Column("regret", lambda e: e[1].regret.mean),
            Column("regret_low", lambda e: e[1].regret.low),
            Column("regret_high", lambda e: e[1].regret.high),
            Column("regret_cross_fitted", lambda e: e[1].regret.cross_fitted),
            Column("regret_p", lambda e: e[1].regret.p),
            *(
                Column(f"over_last{end}", lambda e, n=n: e[1].over_last and e[1].over_last[n])
                for n, end in ends
            ),
        ),
        [(named, selection) for named, selection in shown if selection and selection.regret],
    )
    write_atomically(path, table_csv(table).encode())


def accuracy_columns(test: Callable[[Any], object]) -> list[Column]:
    """Make the columns of an accuracy on test in the CSV files of profiles."""
    parts = {"test_accuracy": "mean", "test_low": "low", "test_high": "high"}
    return [
        Column(title, lambda entry, name=name: getattr(test(entry), name, None))
        for title, name in parts.items()
    ]


# -- sentences ----------------------------------------------------------------------------------


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
    brings = f", and against the last layer {_verdict(over)}" if over else ""
    sentences = [
        f"The probe ({PROBE}){cost} its choice is {REGRET(regret.mean)} points"
        f" {bracket(regret, REGRET)} behind the best layer in hindsight{brings}."
    ]
    worth: dict[str, list[str]] = {}
    for row in scores:
        if row.against:
            few = row.choice.count < len(judged)
            where = f" ({row.choice.count} of {plural(len(judged), 'profile')})" if few else ""
            sentences.append(f"{row.name} {_price(row.dearer)} and {_brings(row.against)}{where}.")
            if row.dearer is not None:
                words = _worth(row.dearer, row.against)
                risk = f" (up to {REGRET(-row.against.low)} points)" if words == UNDECIDED else ""
                worth.setdefault(words, []).append(row.name + risk)
    return (*sentences, *(f"{words}: {listing(names)}." for words, names in worth.items()))


def _price(dearer: float | None) -> str:
    if dearer is None:
        return "has no known price"
    if dearer == 0:
        return "costs what the probe does"
    return f"costs {DURATION(abs(dearer))} {'more' if dearer > 0 else 'less'} than the probe"


def _brings(against: Difference) -> str:
    return "takes the same layer" if against.low == against.high == 0 else _verdict(against)


def _verdict(difference: Difference) -> str:
    words = says(difference, gain="gains", loss="loses")
    return f"makes {words}" if difference.verdict == "open" else words


def _worth(dearer: float, against: Difference) -> str:
    if dearer > 0:
        return GAINS if against.verdict == "gain" else NOTHING_GAINED
    if against.verdict == "loss":
        return AT_A_LOSS if dearer < 0 else NOTHING_GAINED
    return NO_LOSS if against.low >= -NEGLIGIBLE else UNDECIDED
