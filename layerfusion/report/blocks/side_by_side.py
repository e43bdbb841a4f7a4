"""Sections on several sweeps side by side: what each chose, and who leads over the data sets."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.axes import Axes

from layerfusion.errors import UserError
from layerfusion.findings.choice import rule_words
from layerfusion.findings.compare import best_chosen
from layerfusion.findings.grouping import file_names, grouped, told_apart
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob, numbered_as
from layerfusion.findings.results import Results
from layerfusion.findings.tests import Finding, between_sweeps, same_system
from layerfusion.records.format import capital, listing, plural
from layerfusion.records.job import DataRecord
from layerfusion.report.block import Block, Bullets, Folded, Part
from layerfusion.report.blocks.summary import all_names, told
from layerfusion.report.figures.canvas import drawing, is_narrow, new_axes
from layerfusion.report.figures.colors import INK, MUTED
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.format import (
    COUNT,
    GFLOPS,
    P_VALUE,
    PERCENT,
    POINTS,
    SHARE,
    decimals,
    p_value,
    percent,
)
from layerfusion.report.metrics import SETS, drawn_words, measure_of, set_columns, titled
from layerfusion.report.table import Cell, Column, Table
from layerfusion.statistics.ranks import (
    LEAST_DATA_SETS,
    Ranking,
    first_shares,
    rank_systems,
    smallest_p,
)
from layerfusion.statistics.significance import ALPHA

MS = decimals(1)
SETTINGS = "settings"
MOST_SETTINGS = 30
"""Most settings of a leaderboard: those with the highest mean accuracy on test."""


@dataclass(frozen=True, eq=False)
class Shared:
    """A data set that several sweeps have with the same texts, labels and splits."""

    label: str
    key: str
    """The label as part of a file name or anchor."""
    groups: Mapping[str, DataGroup]
    """Name of each sweep that has it to its jobs there."""

    @property
    def chosen(self) -> dict[str, FinishedJob]:
        """What each sweep chose."""
        return {name: group.best for name, group in self.groups.items()}

    @property
    def rows(self) -> int:
        """Rows of all splits together."""
        return sum(next(iter(self.groups.values())).data.rows.values())


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Several sweeps, and the data sets that they have in common."""

    sweeps: Mapping[str, Results]
    """Name of each sweep to its results."""

    @cached_property
    def shared(self) -> tuple[Shared, ...]:
        """The data sets that at least two sweeps have with the same rows."""
        found = [groups for groups in self._by_data.values() if len(groups) > 1]
        for groups in found:
            _require_same_labels(groups)
        data = {n: next(iter(groups.values())).data for n, groups in enumerate(found)}
        labels = told_apart(
            {n: one.name for n, one in data.items()}, lambda n: f"data {data[n].fingerprint[:8]}"
        )
        keys = file_names(labels.values(), "data")
        return tuple(
            Shared(labels[n], key, found[n])
            for n, key in sorted(zip(labels, keys, strict=True), key=lambda pair: labels[pair[0]])
        )

    @cached_property
    def alone(self) -> dict[str, list[tuple[str, DataGroup]]]:
        """Name of each data set to the sweeps whose rows of it no other sweep has."""
        found = [
            (data[0], *pair)
            for data, groups in self._by_data.items()
            if len(groups) == 1
            for pair in groups.items()
        ]
        by_name = grouped(sorted(found, key=lambda one: one[:2]), lambda one: one[0])
        return {name: [one[1:] for one in own] for name, own in by_name.items()}

    @cached_property
    def findings(self) -> dict[tuple[Shared, str, str], Finding]:
        """Every comparison of two choices on a data set, by the two sweeps, the later one first."""
        pairs = [
            (data, later, earlier)
            for data in self.shared
            for earlier, later in itertools.combinations(data.groups, 2)
        ]
        found = between_sweeps([(data.chosen[a], data.chosen[b]) for data, a, b in pairs])
        return dict(zip(pairs, found, strict=True))

    @cached_property
    def _by_data(self) -> dict[tuple[str, str], dict[str, DataGroup]]:
        found: dict[tuple[str, str], dict[str, DataGroup]] = {}
        for name, results in self.sweeps.items():
            for group in _whole(results.groups):
                key = group.data.name, group.data.fingerprint
                found.setdefault(key, {})[name] = group
        return found


def _whole(groups: Iterable[DataGroup]) -> list[DataGroup]:
    """Leave out the samples of a learning curve, which are many of one data set."""
    return [group for group in groups if group.data.per_class is None]


def _one_sample_each(data: Iterable[Shared]) -> list[Shared]:
    """Keep one sample of each data set, the largest: ranks take data sets as independent."""
    found: dict[str, Shared] = {}
    for one in sorted(data, key=lambda one: (one.rows, one.key)):
        found[next(iter(one.groups.values())).data.name] = one
    return sorted(found.values(), key=lambda one: one.label)


def _require_same_labels(groups: Mapping[str, DataGroup]) -> None:
    """Refuse predictions that cannot be paired although their data have the same fingerprint.

    Raises:
        UserError: where the test labels of two sweeps differ.
    """
    first, *others = groups.values()
    for group in others:
        if not np.array_equal(
            numbered_as(group.jobs[0], first.jobs[0]).target, first.jobs[0].target
        ):
            raise UserError(
                f"{group.jobs[0].folder}: other test labels of {group.label} than"
                f" {first.jobs[0].folder}, with the same fingerprint of the data; one of the two is"
                " damaged, run it again"
            )


def side_by_side_sections(sides: SideBySide) -> list[Block]:
    """Make the sections of a page on several sweeps."""
    data = _data_of(sides)
    several = [SETS] if any(one.multilabel for one in data) else []
    found = [
        Block("What each sweep chose", _overview(sides), "summary"),
        *(_data_section(sides, data) for data in sides.shared),
        Block("Who leads over the data sets", _leaders(sides), "leaderboard"),
        Block("What cannot be compared", (Bullets(tuple(_apart(sides))),), "apart"),
        Block("What the figures mean", (Bullets((*_method(data), *several)),), "method"),
    ]
    return [block for block in found if block]


def _data_of(sides: SideBySide) -> list[DataRecord]:
    """List the data that the sweeps share."""
    return [one.data for data in sides.shared for one in data.groups.values()]


def _method(data: Sequence[DataRecord]) -> tuple[str, ...]:
    return (
        f"Each sweep chooses by its own rows alone: {rule_words(measure_of(data))}. Test says"
        " what the choice is worth.",
        f"Differences are those of the mean {measure_of(data)} over seeds, on the same test rows,"
        f" with a paired 95 % interval (bootstrap, {drawn_words(data)}) and the exact sign-flip"
        " test. The comparisons of two sweeps on a data set are corrected together (Holm), and"
        " the pairs of each leaderboard among themselves. Samples of a learning curve"
        " (limit.per_class) are left out.",
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
    measure = measure_of(_data_of(sides))
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
    names, measure = list(sides.sweeps), capital(measure_of(_data_of(sides)))

    def of(sweep: str, what: Callable[[FinishedJob], object]) -> Callable[[Shared], object]:
        return lambda data: what(data.chosen[sweep]) if sweep in data.groups else None

    def lead(sweep: str) -> Callable[[Shared], object]:
        return lambda data: sides.findings.get((data, sweep, names[0]))

    return Table(
        f"{measure} and cost of what each sweep chose",
        (
            Column("Data set", lambda data: data.label),
            *(Column(f"{x} %", of(x, lambda job: job.accuracy.mean), PERCENT) for x in names),
            *(Column(f"{x} over {names[0]}, points", lead(x), POINTS) for x in names[1:]),
            *(
                Column(f"{x}, ms a text", of(x, lambda job: job.record.milliseconds_one), MS)
                for x in names
            ),
            *(Column(f"{x}, GFLOPs", of(x, lambda job: job.flops), GFLOPS) for x in names),
        ),
        sides.shared,
        f"{measure} on test; ▲ ▼ better or worse; △ ▽ probably, but not after correction; no mark:"
        " cannot be told. The cost of a text is that of the models up to the highest layer used.",
    )


def _counts(sides: SideBySide) -> str:
    """Count the data sets on which one choice is better, and those where it cannot be told."""
    found = list(sides.findings.items())
    words = []
    for sweep in sides.sweeps:
        verdicts = [
            ("gain" if sweep == later else "loss", finding)
            for (_, later, earlier), finding in found
            if sweep in (later, earlier)
        ]
        sure = sum(finding.verdict == wins for wins, finding in verdicts)
        lean = sum(finding.lean == wins != finding.verdict for wins, finding in verdicts)
        if sure or lean:
            also = f" and probably better in {COUNT(lean)}" if lean else ""
            words.append(f"{sweep} is better in {COUNT(sure)}{also}")
    unsure = sum(finding.lean == "open" for _, finding in found)
    if unsure:
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
    rows = plural(next(iter(data.groups.values())).rows, "test row")
    same = f"The same {rows} for all."
    parts = (same, Bullets(tuple(lines)), _choice_table(data, names), _seed_table(data))
    return Block(data.label, parts, f"data-{data.key}", data.key)


def _cost_words(job: FinishedJob, other: FinishedJob) -> str:
    """Say how many operations a text takes, compared with another choice."""
    if not (job.flops and other.flops):
        return ""
    if round(job.flops / other.flops, 2) == 1:
        return ". A text costs the same operations"
    more, what = job.flops / other.flops, "as many"
    if more < 1:
        more, what = 1 / more, "fewer"
    return (
        f". A text costs {decimals(1)(more)} times {what} operations ({GFLOPS(job.flops)} against"
        f" {GFLOPS(other.flops)} GFLOPs)"
    )


def _choice_table(data: Shared, names: Mapping[str, str]) -> Table:
    jobs, record = data.chosen, next(iter(data.groups.values())).data
    judges = {name: group.judge for name, group in data.groups.items()}
    doubts = [f"{name}: chosen by {x.name}{x.reason}." for name, x in judges.items() if x.doubt]
    return Table(
        f"What each sweep chose on {data.label}",
        (
            Column("Sweep", lambda name: name),
            Column("Use", lambda name: names[name]),
            Column(
                titled("Chosen by", record),
                lambda x: Cell.of(jobs[x].choosing["accuracy"], note=f"({judges[x].name})"),
                PERCENT,
            ),
            Column(titled("Test", record), lambda x: jobs[x].accuracy, PERCENT),
            *set_columns(list(jobs), lambda x: jobs[x].record.test),
            Column("Baseline %", lambda x: jobs[x].record.baseline.test["accuracy"], PERCENT),
            Column("ms a text", lambda x: jobs[x].record.milliseconds_one, MS),
            Column("GFLOPs a text", lambda x: jobs[x].flops, GFLOPS),
            Column("Head parameters", lambda x: jobs[x].record.cost.head_parameters, COUNT),
            Column("Jobs tried", lambda x: len(data.groups[x].jobs), COUNT),
        ),
        list(jobs),
        " ".join(["The cost is that of the models up to the highest layer used.", *doubts]),
    )


def _seed_table(data: Shared) -> Table:
    """Say how often each choice would have been first with other seeds."""
    jobs = data.chosen
    shares = first_shares([[_by_seed(job) for job in jobs.values()]])
    entries = list(zip(jobs, shares.tolist(), strict=True))
    record = next(iter(data.groups.values())).data
    return Table(
        f"Whether other seeds would change the order on {data.label}",
        (
            Column("Sweep", lambda entry: entry[0]),
            Column(titled("Test", record), lambda x: Cell.of(jobs[x[0]].accuracy.mean), PERCENT),
            Column("Seeds", lambda entry: len(jobs[entry[0]].record.seeds), COUNT),
            Column("First %", lambda entry: entry[1], SHARE),
        ),
        entries,
        f"How often each is first when its seeds are resampled; ties are shared. {ONE_SEED}",
    )


ONE_SEED = (
    "It says nothing of other test rows, and nothing at all for a job with one seed, or one whose"
    " seeds all agree."
)


def _by_seed(job: FinishedJob) -> list[float]:
    return [seed.test["accuracy"] for seed in job.record.seeds]


# -- over data sets -----------------------------------------------------------------------------


def leader_sections(results: Results) -> list[Block]:
    """Rank the settings of one folder that were run on each of its data sets."""
    groups = _whole(results.sections)
    common = _one_sample_each(Shared(group.label, group.key, {"": group}) for group in groups)
    settings = _settings(common) if len(common) >= LEAST_DATA_SETS else {}
    if len(settings) < 2:
        return []
    board = _leaderboard(settings, common, SETTINGS, "Setting")
    return [Block("Who leads over the data sets", board, "leaderboard")]


def _leaders(sides: SideBySide) -> list[Part | None]:
    """Rank the choices of the sweeps, then the settings, over the data sets that all have."""
    in_all = (data for data in sides.shared if len(data.groups) == len(sides.sweeps))
    common = _one_sample_each(in_all)
    if len(common) < LEAST_DATA_SETS:
        return [
            f"A leaderboard takes {LEAST_DATA_SETS} data sets that all sweeps have with the same"
            f" rows; here {'is' if len(common) == 1 else 'are'} {COUNT(len(common))}."
        ]
    chosen = {name: [data.chosen[name] for data in common] for name in sides.sweeps}
    settings = _settings(common)
    parts: list[Part | None] = _leaderboard(chosen, common, "sweeps", "Sweep")
    if len(settings) > 1:
        board = _leaderboard(settings, common, SETTINGS, "Setting")
        parts.append(Block("Settings that were run on all of them", board))
    return parts


def _settings(common: Sequence[Shared]) -> dict[str, list[FinishedJob]]:
    """Find the settings that some sweep ran on every data set, with their jobs.

    Of several jobs with the same name, such as with heads of two widths, it is the chosen one.
    """
    by_data = [
        grouped((job for group in data.groups.values() for job in group.jobs), _setting)
        for data in common
    ]
    everywhere = [name for name in by_data[0] if all(name in jobs for jobs in by_data)]
    found = {name: [best_chosen(jobs[name]) for jobs in by_data] for name in everywhere}
    means = {name: float(np.mean([x.accuracy.mean for x in jobs])) for name, jobs in found.items()}
    kept = sorted(found, key=lambda name: (-means[name], name))[:MOST_SETTINGS]
    return {name: found[name] for name in kept}


def _setting(job: FinishedJob) -> str:
    """Name the models, the selection and the fusion of a job, whatever its data set."""
    record = job.record
    models = list(record.considered) or list(record.backbone_names)
    what = record.selection
    if what == "fixed":
        what = ", ".join(f"{layer.backbone} {layer.layer}" for layer in record.layers)
    else:
        what = f"{what} of {listing(models)}"
    poolings = list(dict.fromkeys(layer.pooling for layer in record.layers))
    pooled = "" if poolings == ["mean"] else f", {listing(poolings)}"
    fusion = record.chosen_by or record.fusion
    return f"{what}{pooled}, {fusion}"


def _leaderboard(
    jobs: Mapping[str, Sequence[FinishedJob]], common: Sequence[Shared], key: str, head: str
) -> list[Part | None]:
    names = list(jobs)
    accuracy = np.array([[job.accuracy.mean for job in own] for own in jobs.values()]).T
    ranking = rank_systems(accuracy)
    shares = first_shares([[_by_seed(own[n]) for own in jobs.values()] for n in range(len(common))])
    order = ranking.order

    def clique(one: int) -> str:
        found = [str(n) for n, run in enumerate(ranking.cliques, 1) if one in run]
        return " ".join(found) or "–"

    note = ""
    if key == SETTINGS:
        note = (
            "By test, so that whoever is first owes it partly to luck: choose by validation or"
            " folds of train, as is done here among jobs of one name. "
        )
        if len(names) == MOST_SETTINGS:
            note += f"At most {MOST_SETTINGS}, those with the highest mean. "
    table = Table(
        f"Leaderboard of the {key} over {plural(len(common), 'data set')}",
        (
            Column(head, lambda one: names[one]),
            Column("Mean rank", lambda one: ranking.mean_ranks[one], decimals(2)),
            Column("Mean test %", lambda one: float(accuracy[:, one].mean()), PERCENT),
            Column("Not told apart", clique),
            Column("First with other seeds %", lambda one: float(shares[one]), SHARE),
            *(
                Column(f"{data.label} %", lambda one, n=n: float(accuracy[n, one]), PERCENT)
                for n, data in enumerate(common)
            ),
        ),
        order,
        f"{note}Of each data set it is the largest sample. Those that share a number cannot be told"
        " apart. Other seeds: how often each has the best mean rank when the seeds are resampled."
        f" {ONE_SEED}",
    )
    figure = drawing(
        f"leaderboard-{key}",
        lambda ax: plot_ranks(names, ranking, ax),
        alt=f"Mean rank of the {key}: "
        + "; ".join(f"{names[one]}: {ranking.mean_ranks[one]:.2f}" for one in order),
        caption="Bars join those that cannot be told apart.",
    )
    return [
        _rank_words(names, ranking, len(common)),
        figure,
        table,
        _pair_table(names, ranking, key),
    ]


def _rank_words(names: Sequence[str], ranking: Ranking, data_sets: int) -> str:
    """Say who leads, and whether so few data sets could have shown it."""
    pairs = len(ranking.adjusted)
    least = smallest_p(data_sets, pairs)
    first = ranking.order[0]
    ties = sum(abs(rank - ranking.mean_ranks[first]) < 1e-9 for rank in ranking.mean_ranks)
    lead = f"{names[first]} has the best mean rank, {ranking.mean_ranks[first]:.2f}"
    words = f"{lead} of {len(names)}." if ties == 1 else f"{plural(ties, 'system')} tie in front."
    if ranking.friedman is not None:
        words += f" Friedman's test that all are equal: p {p_value(ranking.friedman)}."
    if least >= ALPHA:
        return (
            f"{words} {plural(data_sets, 'data set')} cannot tell any two apart: if all agreed, the"
            f" signed-rank test of {plural(pairs, 'pair')} would give p {p_value(least)} at best."
            " The comparisons on each data set above say more."
        )
    if pairs == 1:
        (p,) = ranking.adjusted.values()
        can = "can" if p < ALPHA else "cannot"
        return f"{words} The two {can} be told apart over the data sets (p {p_value(p)})."
    sure = sum(p < ALPHA for p in ranking.adjusted.values())
    return f"{words} {COUNT(sure)} of {plural(pairs, 'pair')} can be told apart over the data sets."


def _pair_table(names: Sequence[str], ranking: Ranking, key: str) -> Folded:
    place = {one: n for n, one in enumerate(ranking.order)}
    entries = [(*sorted(pair, key=place.__getitem__), p) for pair, p in ranking.adjusted.items()]
    table = Table(
        f"Pairs of {key} over the data sets",
        (
            Column("Better rank", lambda entry: names[entry[0]]),
            Column("Worse rank", lambda entry: names[entry[1]]),
            Column("p, corrected", lambda entry: entry[2], P_VALUE),
        ),
        sorted(entries, key=lambda entry: (place[entry[0]], place[entry[1]])),
        "Exact signed-rank test of Wilcoxon over data sets, corrected for all pairs (Holm).",
    )
    return Folded((table,))


def plot_ranks(names: Sequence[str], ranking: Ranking, ax: Axes | None = None) -> Axes:
    """Draw the mean ranks, the best on top, with a bar for those that cannot be told apart."""
    order = ranking.order
    ax = new_axes(ax, 27.0 * len(order) + 62, 38.0 * len(order) + 62, grid="x")
    ax.set_ylim(len(order) - 0.4, -0.6)
    width, lines = (20, 2) if is_narrow(ax) else (48, 1)
    shown = [textwrap.fill(names[x], width, max_lines=lines, placeholder="…") for x in order]
    ax.set_yticks(range(len(order)), shown, fontsize=11)
    for label in ax.get_yticklabels():
        label.set_color(INK)
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
    return ax


# -- what is not compared -----------------------------------------------------------------------


def _apart(sides: SideBySide) -> list[str]:
    """Name the data sets that are not compared, and say why."""
    lines = []
    for name, own in sides.alone.items():
        shared = [
            data for data in sides.shared if next(iter(data.groups.values())).data.name == name
        ]
        found = listing(
            [
                f"{sweep} (fingerprint {group.data.fingerprint[:8]}, {COUNT(group.rows)} test rows,"
                f" {percent(group.best.accuracy.mean)} by {all_names(group)[group.best]})"
                for sweep, group in own
            ]
        )
        if len({sweep for sweep, _ in own}) > 1 or shared:
            lines.append(
                f"{name} has other texts, splits or samples in {found}: accuracies on other rows"
                " cannot be compared. Run both with the same limit.* and dataset.* settings."
            )
        else:
            lines.append(f"{name} is in one sweep only: {found}.")
    return lines
