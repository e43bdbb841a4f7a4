"""The finished jobs under a folder as ranked tables for a terminal, one for each data set.

Jobs are ranked as they are chosen everywhere, by validation or by folds of train, as nothing may be
chosen on test: see `findings.choice`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layerfusion.config.job import HONEST
from layerfusion.errors import UserError
from layerfusion.findings.choice import Judge, judge_of, order_of, ties_words
from layerfusion.findings.compare import unpaired_interval
from layerfusion.findings.grouping import grouped, told_apart
from layerfusion.findings.groups import no_job
from layerfusion.findings.names import selected_name
from layerfusion.records.format import capital, plural
from layerfusion.records.job import Estimate, RunRecord, find_records
from layerfusion.records.json_files import Damaged
from layerfusion.report.format import (
    COUNT,
    GFLOPS,
    PERCENT,
    REGRET,
    decimals,
)
from layerfusion.report.metrics import SETS, set_columns, titled
from layerfusion.report.render.terminal import table_lines, width, wrapped
from layerfusion.report.table import Cell, Column, Table

Found = tuple[Path, RunRecord]

SHOWN = 10
"""Jobs of a data set that a sweep and a search show at their end, the best first."""
BESIDE = 47
"""Characters of a line that rank, accuracies and fusion take, beside which layers are named."""


def ranking_lines(folder: Path, *, most: int | None = None) -> list[str]:
    """Rank the finished jobs under a folder, and name the command that compares them.

    Args:
        folder: of a sweep, of a search, or one that holds such folders.
        most: most jobs of a data set that are shown; all if None.

    Raises:
        UserError: where the folder does not exist, or no record in it can be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    damaged: Damaged = {}
    copies = grouped(find_records(folder, damaged), lambda pair: pair[1].job)
    found = [first for first, *_ in copies.values() if first[1].protocol == HONEST]
    if not found:
        raise UserError(next(iter(damaged.values()))) if damaged else no_job(folder)
    by_data = grouped(found, lambda pair: (pair[1].dataset.name, pair[1].dataset.fingerprint))
    labels = told_apart({data: data[0] for data in by_data}, lambda data: f"data {data[1][:8]}")
    lines = []
    for data, jobs in by_data.items():
        lines += ["", *_ranked(labels[data], jobs, most)]
    lines += ["", *(f"left out: {' '.join(line.split())}" for line in damaged.values())]
    return [*lines[1:], f"next: layerfusion report {folder}"]


def _ranked(label: str, jobs: Sequence[Found], most: int | None) -> list[str]:
    judge = judge_of([record for _, record in jobs])
    ranked = sorted(jobs, key=lambda pair: order_of(pair[1], judge.figures(pair[1])))
    data = ranked[0][1].dataset
    title = f"{label}: {plural(len(jobs), 'job')}"
    if len(jobs) > 1:
        title += f" by {data.measure} on {judge.rows_words}"
    ties = ties_words([judge.figures(x)["accuracy"].mean for _, x in jobs], judge.rows)
    title += f" ({ties})" if ties else ""
    baseline = ranked[0][1].baseline
    note = (
        f"{titled('Test', data)}: {data.rows['test']:,} rows, with the 95 % interval over them."
        f" Baseline {100 * baseline.test['accuracy']:.1f} % (TF-IDF of {baseline.features} and"
        " logistic regression)."
    )
    note += f" {SETS}" if data.multilabel else ""
    if len(jobs) > 1:
        note = f"{_sure(judge, ranked[0][1])} {note}"
    table = Table(title, _columns(ranked, judge), ranked[:most])
    left = len(ranked) - len(table.entries)
    more = [f"and {left:,} more: layerfusion results shows all"] if left else []
    return [*table_lines(table, first=width() - BESIDE), *more, *wrapped(note)]


def _sure(judge: Judge, best: RunRecord) -> str:
    """Say what chose and why, and the smallest difference that the rows of test could show."""
    chosen = f"{capital(judge.chooses)}{judge.reason}."
    estimate, rows = best.test["accuracy"], best.dataset.rows["test"]
    if estimate.low is None or estimate.high is None:
        return chosen
    one = estimate.mean, estimate.low, estimate.high
    smallest = unpaired_interval(one, one, rows).smallest_shown
    return (
        f"{chosen} {plural(rows, 'test row')} would show a difference of {REGRET(smallest)} points"
        " between two jobs, and a smaller one where the report compares them row by row."
    )


def _columns(jobs: Sequence[Found], judge: Judge) -> tuple[Column, ...]:
    """Make the columns; those that are the same for all jobs are left to the report."""
    data, by = jobs[0][1].dataset, "Folds %" if judge.by_folds else "Valid. %"

    def choosing(pair: Found) -> float:
        return judge.figures(pair[1])["accuracy"].mean

    test = titled("Test", data)
    f1 = set_columns(
        jobs, lambda pair: {x: Estimate(y.mean, None) for x, y in pair[1].test.items()}
    )
    always = {"#", "Fusion", "Layers", by, test, "Job", *(x.title for x in f1)}
    accuracies = [choosing(pair) for pair in jobs]
    columns = (
        Column("#", lambda pair: 1 + sum(x > choosing(pair) for x in accuracies), COUNT),
        Column(by, choosing, PERCENT),
        Column(test, lambda pair: _interval(pair[1].test["accuracy"]), PERCENT),
        Column("Fusion", lambda pair: pair[1].fusion_label),
        Column("Layers", lambda pair: selected_name(pair[1])),
        Column("Pooling", lambda pair: "+".join(dict.fromkeys(x.pooling for x in pair[1].layers))),
        *f1,
        Column("ms", lambda pair: pair[1].milliseconds_one, decimals(1)),
        Column("GFLOPs", lambda pair: pair[1].flops_per_text, GFLOPS),
        Column("Job", lambda pair: pair[0].name),
    )
    return tuple(
        column
        for column in columns
        if column.title in always or len({column.cell(job).text for job in jobs}) > 1
    )


def _interval(estimate: Estimate) -> Cell:
    return Cell(estimate.mean, None, estimate.low, estimate.high)
