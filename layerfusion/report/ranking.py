"""The finished jobs under a folder as ranked tables for a terminal, one for each data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from layerfusion.findings.measures import SETS
from layerfusion.findings.names import selected_name
from layerfusion.findings.ranking import RankedJobs, rank_jobs
from layerfusion.findings.renewed import Found, older_words
from layerfusion.findings.settings import settings_words
from layerfusion.records.format import capital, plural
from layerfusion.records.job import Estimate, RunRecord
from layerfusion.records.json_files import Damaged
from layerfusion.report.format import COUNT, GFLOPS, PERCENT, REGRET, decimals
from layerfusion.report.metrics import set_columns, titled
from layerfusion.report.render.terminal import table_lines, width, wrapped
from layerfusion.report.table import Column, Table

SHOWN = 10
"""Jobs of a data set that a sweep and a search show at their end, the best first."""
BESIDE = 47
"""Characters of a line that rank, accuracies and fusion take, beside which layers are named."""


def ranking_lines(folder: Path, *, most: int | None = None, older: bool = False) -> list[str]:
    """Rank the finished jobs under a folder, and name the command that compares them.

    Args:
        folder: of a sweep, of a search, or one that holds such folders.
        most: most jobs of a data set that are shown; all if None.
        older: True to rank every record of a job that newer code has run again.

    Raises:
        UserError: where the folder does not exist, or no record in it can be read.
    """
    damaged: Damaged = {}
    lines = []
    left_out: dict[Path, RunRecord] = {}
    for ranked in rank_jobs(folder, damaged, None if older else left_out):
        lines += ["", *_lines(ranked, most)]
    lines += ["", *(f"left out: {' '.join(line.split())}" for line in damaged.values())]
    if left_out:
        lines += wrapped(older_words(len(left_out)))
    return [*lines[1:], f"next: layerfusion report {folder}"]


def _lines(ranked: RankedJobs, most: int | None) -> list[str]:
    jobs, judge, data = ranked.jobs, ranked.judge, ranked.data
    title = f"{ranked.label}: {plural(len(jobs), 'job')}"
    if len(jobs) > 1:
        title += f" by {ranked.measure} on {judge.rows_words}"
    title += f" ({ranked.ties})" if ranked.ties else ""
    baseline = ranked.best.baseline
    note = (
        f"{titled('Test', ranked.measure)}: {data.rows['test']:,} rows, with the 95 % interval over"
        f" them. Baseline {100 * baseline.test[judge.metric]:.1f} % (TF-IDF of"
        f" {baseline.features} and logistic regression)."
    )
    note += f" {SETS}" if data.multilabel else ""
    if len(jobs) > 1:
        note = f"{_sure(ranked)} {note}"
    table = Table(title, jobs[:most], *_columns(ranked))
    left = len(jobs) - len(table.entries)
    more = [f"and {left:,} more: layerfusion results shows all"] if left else []
    return [*table_lines(table, first=width() - BESIDE), *more, *wrapped(note)]


def _sure(ranked: RankedJobs) -> str:
    """Say what chose and why, and the smallest difference that the rows of test could show."""
    chosen = f"{capital(ranked.judge.chooses)}{ranked.judge.reason}."
    if ranked.smallest_shown is None:
        return chosen
    return (
        f"{chosen} {plural(ranked.data.rows['test'], 'test row')} would show a difference of"
        f" {REGRET(ranked.smallest_shown)} points between two jobs, and a smaller one where the"
        " report compares them row by row."
    )


def _columns(ranked: RankedJobs) -> tuple[Column, ...]:
    """Make the columns; those that are the same for all jobs are left to the report."""
    jobs = ranked.jobs
    by, test = "Folds %" if ranked.judge.by_folds else "Valid. %", titled("Test", ranked.measure)

    def means(pair: Found) -> Mapping[str, Estimate]:
        return {x: Estimate(y.mean, None) for x, y in pair[1].test.items()}

    f1 = set_columns(means)
    words = settings_words([record for _, record in jobs])
    settings = {path: own for (path, _), own in zip(jobs, words, strict=True)}
    always = {"#", "Fusion", "Layers", by, test, "ms", "GFLOPs", "Job", *(x.title for x in f1)}
    accuracies = [ranked.choosing(record) for _, record in jobs]
    columns = (
        Column("#", lambda pair: 1 + sum(x > ranked.choosing(pair[1]) for x in accuracies), COUNT),
        Column(by, lambda pair: ranked.choosing(pair[1]), PERCENT),
        # There is no room for the spread over seeds.
        Column(test, lambda pair: replace(pair[1].test[ranked.judge.metric], sd=None), PERCENT),
        Column("Fusion", lambda pair: pair[1].fusion_label),
        Column("Layers", lambda pair: selected_name(pair[1])),
        Column("Pooling", lambda pair: "+".join(dict.fromkeys(x.pooling for x in pair[1].layers))),
        Column("Settings", lambda pair: settings[pair[0]]),
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
