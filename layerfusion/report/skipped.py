"""What of the planned jobs is not in the report, and why."""

from __future__ import annotations

from pathlib import Path

from layerfusion.records.job import METRICS
from layerfusion.records.sweep import FAILED, PLANS, RECORDS, last_line, read_jobs
from layerfusion.report.tables import Column, Row, Table


def skipped_table(runs: Path) -> Table:
    """Every job under a folder that failed, runs still or was planned and never begun."""
    found: dict[Path, tuple[str, str, str]] = {}
    for plans in sorted(runs.rglob(PLANS)):
        for job in read_jobs(plans.parent):
            if job.state != "done":
                found[job.folder] = job.label, job.state, job.reason
    for failed in sorted(runs.rglob(FAILED)):
        folder = failed.parent
        if folder not in found and not any((folder / name).exists() for name in RECORDS.values()):
            command = failed.read_text().split("\n", 1)[0]
            found[folder] = command, "failed", last_line(failed)
    columns = tuple(Column(title, numeric=False) for title in ("Job", "State", "Why"))
    return Table(
        "Jobs that are not in this report",
        columns,
        tuple(Row(cells) for cells in sorted(found.values())),
        f"Failed: its reason is the last line of its {FAILED}. Missing: planned, and not begun."
        f" Running: it has no {METRICS} yet.",
    )
