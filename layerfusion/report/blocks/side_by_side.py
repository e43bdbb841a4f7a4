"""Sections on several sweeps side by side: what each chose, and who leads over the data sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from layerfusion.findings.choice import metric_words, rule_words
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.measures import SETS, drawn_words, measure_of, tests_words
from layerfusion.findings.names import all_names
from layerfusion.findings.results import Results
from layerfusion.findings.sweeps import (
    MOST_SETTINGS,
    Leaderboard,
    Shared,
    SideBySide,
    common_settings,
    of_one_folder,
    seeds_of,
)
from layerfusion.findings.tests import same_system
from layerfusion.records.format import capital, listing, plural
from layerfusion.report.block import Block, Bullets, Folded, Part
from layerfusion.report.figures.axes import row_axes
from layerfusion.report.figures.canvas import drawing
from layerfusion.report.figures.colors import INK, MUTED
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.format import COUNT, GFLOPS, NONE, P_VALUE, PERCENT, POINTS, SHARE, decimals
from layerfusion.report.metrics import set_columns, titled
from layerfusion.report.sentences import MARKS, p_value, percent, told
from layerfusion.report.table import Cell, Column, Table
from layerfusion.statistics.ranks import LEAST_DATA_SETS, Ranking, first_shares, smallest_p
from layerfusion.statistics.significance import ALPHA

MS = decimals(1)
ONE_SEED = (
    "It says nothing of other test rows, and nothing at all for a job with one seed, or one whose"
    " seeds all agree."
)


def side_by_side_sections(sides: SideBySide) -> list[Block]:
    """Make the sections of a page on several sweeps."""
    several = [SETS] if any(one.multilabel for one in sides.data) else []
    found = (
        Block("What each sweep chose", _overview(sides), "summary"),
        *(_data_section(sides, data) for data in sides.shared),
        Block("Who leads over the data sets", _leaders(sides), "leaderboard"),
        Block("What cannot be compared", (Bullets(tuple(_apart(sides))),), "apart"),
        Block("What the figures mean", (Bullets((*_method(sides), *several)),), "method"),
    )
    return list(filter(None, found))


def _method(sides: SideBySide) -> tuple[str, ...]:
    measure, metrics = measure_of(sides.shared), [one.metric for one in sides.shared]
    return (
        f"Each sweep chooses by its own rows alone: {rule_words(measure_of(sides.chosen_by))}."
        " Test says what the choice is worth.",
        f"Differences are those of the mean {measure} over seeds, on the same test rows,"
        f" with a paired 95 % interval (bootstrap, {drawn_words(sides.data)}) and"
        f" {tests_words(metrics)}. The comparisons of two sweeps on a data set are corrected"
        " together (Holm), and the pairs of each leaderboard among themselves. Samples of a"
        " learning curve (limit.per_class) are left out.",
        "Better or worse: the test shows it at 5 % after the correction. Probably: only without it."
        " Cannot be told: not even so; then the difference is named that as many rows would show.",
        "A sweep that tried more jobs could choose among more: that is part of what it cost.",
    )


# -- what was chosen ----------------------------------------------------------------------------


def _overview(sides: SideBySide) -> list[Part | None]:
    """Sum up the comparisons, and show them in one figure."""
    if not sides.shared:
        names = listing([f"“{name}”" for name in sides.sweeps])
        return [f"{names} have no data set with the same rows, so nothing here can be compared."]
    several = len(sides.sweeps) > 2
    rows = [
        ForestRow(f"{data.label}: {later} against {earlier}" if several else data.label, finding)
        for (data, later, earlier), finding in sides.findings.items()
    ]
    measure = measure_of(sides.shared)
    what, ahead = "of the sweep named first against the other", "the sweep named first"
    if not several:
        earlier, ahead = sides.sweeps
        what = f"of {ahead} against {earlier}"
    figure = forest_drawing(
        "side-by-side",
        rows,
        f"Difference in test {measure} {what}, points",
        alt=f"Differences in test {measure} {what}.",
        caption=f"Points to the right of zero are in favour of {ahead}.",
    )
    return [_counts(sides), _answer_table(sides), figure if len(rows) > 1 else None]


def _answer_table(sides: SideBySide) -> Table:
    """List the accuracy and the cost of each choice, and its lead over that of the first sweep."""
    names, measure = list(sides.sweeps), capital(measure_of(sides.shared))

    def of(sweep: str, what: Callable[[FinishedJob], object]) -> Callable[[Shared], object]:
        return lambda data: what(data.chosen[sweep]) if sweep in data.groups else None

    def lead(sweep: str) -> Callable[[Shared], object]:
        return lambda data: sides.findings.get((data, sweep, names[0]))

    return Table(
        f"{measure} and cost of what each sweep chose",
        sides.shared,
        Column("Data set", lambda data: data.label),
        *(Column(f"{x} %", of(x, lambda job: job.score.mean), PERCENT) for x in names),
        *(Column(f"{x} over {names[0]}, points", lead(x), POINTS) for x in names[1:]),
        *(
            Column(f"{x}, ms a text", of(x, lambda y: y.record.milliseconds_one), MS, later=True)
            for x in names
        ),
        *(Column(f"{x}, GFLOPs", of(x, lambda job: job.flops), GFLOPS, later=True) for x in names),
        note=f"{measure} on test; {MARKS} The cost of a text is that of the models up"
        " to the highest layer used.",
    )


def _counts(sides: SideBySide) -> str:
    """Count the data sets on which one choice is better, and those where it cannot be told."""
    found, words = list(sides.findings.values()), []
    for sweep in sides.sweeps:
        sure, lean = sides.wins(sweep)
        if sure or lean:
            also = f" and probably better in {COUNT(lean)}" if lean else ""
            words.append(f"{sweep} is better in {COUNT(sure)}{also}")
    if unsure := sum(finding.lean == "open" for finding in found):
        words.append(f"{COUNT(unsure)} cannot be told")
    return f"Of {plural(len(found), 'comparison')} on the same test rows: {'; '.join(words)}."


def _data_section(sides: SideBySide, data: Shared) -> Block:
    lines = []
    names = {name: all_names(group)[group.best] for name, group in data.groups.items()}
    for (own, later, earlier), finding in sides.findings.items():
        if own is data:
            a, b = names[later], names[earlier]
            if same_system(data.chosen[later], data.chosen[earlier]):
                lines.append(f"{later} and {earlier} chose the same: {a}.")
            else:
                cost = _cost_words(data.chosen[later], data.chosen[earlier])
                lines.append(f"{later} ({a}) against {earlier} ({b}): {told(finding)}{cost}.")
    same = f"The same {plural(data.group.rows, 'test row')} for all."
    parts = (same, Bullets(tuple(lines)), _choice_table(data, names), _seed_table(data))
    return Block(data.label, parts, f"data-{data.key}", data.key)


def _cost_words(job: FinishedJob, other: FinishedJob) -> str:
    """Say how many operations a text takes, compared with another choice."""
    if not (job.flops and other.flops):
        return ""
    times = job.flops / other.flops
    if round(times, 2) == 1:
        return ". A text costs the same operations"
    more, what = (times, "as many") if times > 1 else (1 / times, "fewer")
    return (
        f". A text costs {decimals(1)(more)} times {what} operations ({GFLOPS(job.flops)} against"
        f" {GFLOPS(other.flops)} GFLOPs)"
    )


def _choice_table(data: Shared, names: Mapping[str, str]) -> Table:
    sweeps, measure = {job: name for name, job in data.chosen.items()}, data.measure
    judges = {name: group.judge for name, group in data.groups.items()}
    doubts = [f"{name}: chosen by {x.name}{x.reason}." for name, x in judges.items() if x.doubt]

    def chosen_by(job: FinishedJob) -> Cell:
        judge = judges[sweeps[job]]
        own = metric_words(judge.metric, data.data)
        measured = f", {own}" if own != measure else ""
        return Cell.of(judge.figure(job.record), note=f"({judge.name}{measured})")

    return Table(
        f"What each sweep chose on {data.label}",
        list(sweeps),
        Column("Sweep", sweeps.get),
        Column("Use", lambda job: names[sweeps[job]]),
        Column(titled("Chosen by", measure), chosen_by, PERCENT),
        Column(titled("Test", measure), lambda job: job.score, PERCENT),
        *set_columns(lambda job: job.record.test),
        Column("Baseline %", lambda job: job.baseline_score.mean, PERCENT, later=True),
        Column("ms a text", lambda job: job.record.milliseconds_one, MS, later=True),
        Column("GFLOPs a text", lambda job: job.flops, GFLOPS, later=True),
        Column("Head parameters", lambda job: job.record.cost.head_parameters, COUNT, later=True),
        Column("Jobs tried", lambda job: len(data.groups[sweeps[job]].jobs), COUNT, later=True),
        note=" ".join(["The cost is that of the models up to the highest layer used.", *doubts]),
    )


def _seed_table(data: Shared) -> Table:
    """Say how often each choice would have been first with other seeds."""
    jobs = data.chosen
    shares = first_shares([[seeds_of(job) for job in jobs.values()]]).tolist()
    return Table(
        f"Whether other seeds would change the order on {data.label}",
        list(jobs),
        Column("Sweep", lambda name: name),
        Column(titled("Test", data.measure), lambda name: jobs[name].score.mean, PERCENT),
        Column("Seeds", lambda name: len(jobs[name].record.seeds), COUNT),
        Column("First %", dict(zip(jobs, shares, strict=True)).get, SHARE),
        note=f"How often each is first when its seeds are resampled; ties are shared. {ONE_SEED}",
    )


# -- over data sets -----------------------------------------------------------------------------


def leader_sections(results: Results) -> list[Block]:
    """Rank the settings of one folder that were run on each of its data sets."""
    common = of_one_folder(results.sections)
    settings = common_settings(common) if len(common) >= LEAST_DATA_SETS else {}
    board = _board(settings, common, "Setting")
    return [Block("Who leads over the data sets", board, "leaderboard")] if board else []


def _leaders(sides: SideBySide) -> list[Part | None]:
    """Rank the choices of the sweeps, then the settings, over the data sets that all have."""
    common = sides.in_all
    if len(common) < LEAST_DATA_SETS:
        return [
            f"A leaderboard takes {LEAST_DATA_SETS} data sets that all sweeps have with the same"
            f" rows; here {'is' if len(common) == 1 else 'are'} {COUNT(len(common))}."
        ]
    chosen = {name: [data.chosen[name] for data in common] for name in sides.sweeps}
    settings = _board(common_settings(common), common, "Setting")
    settings_block = Block("Settings that were run on all of them", settings)
    return [*_board(chosen, common, "Sweep"), settings_block]


def _board(
    systems: Mapping[str, Sequence[FinishedJob]], data: Sequence[Shared], head: str
) -> list[Part | None]:
    """Say which of several systems leads, draw the mean ranks, and list them and every pair."""
    if len(systems) < 2:
        return []
    board = Leaderboard(systems, data)
    names, ranking, order = board.names, board.ranking, board.ranking.order
    data_sets, key = plural(len(board.data), "data set"), f"{head.lower()}s"

    def clique(one: int) -> str:
        return " ".join(str(n) for n, run in enumerate(ranking.cliques, 1) if one in run) or NONE

    note = ""
    if head == "Setting":
        note = (
            "By test, so that whoever is first owes it partly to luck: choose by validation or"
            " folds of train. Settings of one name are told apart by what differs. "
        )
        if len(names) == MOST_SETTINGS:
            note += f"At most {MOST_SETTINGS}, those with the highest mean. "
    figure = drawing(
        f"leaderboard-{key}",
        lambda ax: plot_ranks(names, ranking, ax),
        alt=f"Mean rank of the {key}: "
        + "; ".join(f"{names[one]}: {ranking.mean_ranks[one]:.2f}" for one in order),
        caption="Bars join those that cannot be told apart.",
    )
    table = Table(
        f"Leaderboard of the {key} over {data_sets}",
        order,
        Column(head, lambda one: names[one]),
        Column("Mean rank", lambda one: ranking.mean_ranks[one], decimals(2)),
        Column("Mean test %", lambda one: float(board.scores[:, one].mean()), PERCENT),
        Column("Not told apart", clique),
        Column("First with other seeds %", lambda one: float(board.first[one]), SHARE),
        *(
            Column(f"{data.label} %", lambda one, n=n: float(board.scores[n, one]), PERCENT)
            for n, data in enumerate(board.data)
        ),
        note=f"{note}Of each data set it is the largest sample. Those that share a number cannot be"
        " told apart. Other seeds: how often each has the best mean rank when the seeds are"
        f" resampled. {ONE_SEED}",
    )
    place = {one: n for n, one in enumerate(order)}
    pairs = [(*sorted(pair, key=place.__getitem__), p) for pair, p in ranking.adjusted.items()]
    pair_table = Table(
        f"Pairs of {key} over the data sets",
        sorted(pairs, key=lambda pair: (place[pair[0]], place[pair[1]])),
        Column("Better rank", lambda pair: names[pair[0]]),
        Column("Worse rank", lambda pair: names[pair[1]]),
        Column("p, corrected", lambda pair: pair[2], P_VALUE),
        note="Exact signed-rank test of Wilcoxon over data sets, corrected for all pairs (Holm).",
    )
    return [_rank_words(names, ranking, len(board.data)), figure, table, Folded((pair_table,))]


def _rank_words(names: Sequence[str], ranking: Ranking, data_sets: int) -> str:
    """Say who leads, and whether so few data sets could have shown it."""
    pairs = plural(len(ranking.adjusted), "pair")
    least = smallest_p(data_sets, len(ranking.adjusted))
    first = ranking.order[0]
    ties = sum(abs(rank - ranking.mean_ranks[first]) < 1e-9 for rank in ranking.mean_ranks)
    lead = f"{names[first]} has the best mean rank, {ranking.mean_ranks[first]:.2f}"
    words = f"{lead} of {len(names)}." if ties == 1 else f"{plural(ties, 'system')} tie in front."
    if ranking.friedman is not None:
        words += f" Friedman's test that all are equal: p {p_value(ranking.friedman)}."
    if least >= ALPHA:
        return (
            f"{words} {plural(data_sets, 'data set')} cannot tell any two apart: if all agreed, the"
            f" signed-rank test of {pairs} would give p {p_value(least)} at best. The comparisons"
            " on each data set above say more."
        )
    if len(ranking.adjusted) == 1:
        (p,) = ranking.adjusted.values()
        can = "can" if p < ALPHA else "cannot"
        return f"{words} The two {can} be told apart over the data sets (p {p_value(p)})."
    sure = sum(p < ALPHA for p in ranking.adjusted.values())
    return f"{words} {COUNT(sure)} of {pairs} can be told apart over the data sets."


def plot_ranks(names: Sequence[str], ranking: Ranking, ax: Axes) -> None:
    """Draw the mean ranks, the best on top, with a bar for those that cannot be told apart."""
    order = ranking.order
    row_axes(ax, [names[one] for one in order])
    ranks = [ranking.mean_ranks[one] for one in order]
    ax.plot(ranks, range(len(order)), "o", color=INK, markersize=8, zorder=3)
    room = 0.06 * max(len(order) - 1, 1)
    for n, run in enumerate(ranking.cliques):
        x = len(order) + room * (n + 1)
        ends = [order.index(run[0]) - 0.2, order.index(run[-1]) + 0.2]
        ax.plot([x, x], ends, color=MUTED, linewidth=4, solid_capstyle="round")
    ax.set_xlim(1 - room, len(order) + room * (len(ranking.cliques) + 1))
    ax.set_xticks(np.unique(np.linspace(1, len(order), min(len(order), 8)).round().astype(int)))
    ax.set_xlabel("Mean rank over the data sets, 1 is best")


# -- what is not compared -----------------------------------------------------------------------


def _apart(sides: SideBySide) -> list[str]:
    """Name the data sets that are not compared, and say why."""
    lines, shared = [], {data.data.name for data in sides.shared}

    def score(group: DataGroup) -> str:
        name = metric_words(group.best.metric, group.data)
        return percent(group.best.score.mean) + ("" if name == "accuracy" else f" {name}")

    for name, own in sides.alone.items():
        found = [
            f"{sweep} (fingerprint {group.data.fingerprint[:8]}, {COUNT(group.rows)} test rows,"
            f" {score(group)} by {all_names(group)[group.best]})"
            for sweep, group in own
        ]
        if len({sweep for sweep, _ in own}) > 1 or name in shared:
            lines.append(
                f"{name} has other texts, splits or samples in {listing(found)}: figures on"
                " other rows cannot be compared. Run both with the same limit.* and dataset.*"
                " settings."
            )
        else:
            lines.append(f"{name} is in one sweep only: {listing(found)}.")
    return lines
