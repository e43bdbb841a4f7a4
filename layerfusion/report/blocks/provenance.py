"""Where a report comes from: jobs that it lacks, versions, data, models and jobs."""

from __future__ import annotations

from collections.abc import Sequence

from layerfusion.findings import provenance
from layerfusion.findings.results import Results
from layerfusion.records.job import METRICS
from layerfusion.records.sweep import FAILED
from layerfusion.report.block import Block, Bullets, Folded, Text
from layerfusion.report.table import Column, Table

FILES = (
    "Every table lies as CSV and LaTeX in tables/, every figure as PNG and PDF in figures/, beside"
    " this page."
)
SKIPPED = (
    f"Failed: the reason is the last line of the job's {FAILED}. Missing: planned, and not begun."
    f" Running: the job has no {METRICS} yet. Damaged: a file cannot be read. Older: newer code has"
    " run the same job again; its record is untouched."
)


def provenance_sections(results: Results) -> list[Block]:
    """Make the section on where the report comes from."""
    jobs = [job for group in results.groups for job in group.jobs]
    skipped = provenance.left_out(results)
    tables = (
        text_table("Jobs that are not in this report", "Job, State, Why", skipped, SKIPPED),
        text_table("Versions", "Package, Version", provenance.versions_of(jobs)),
        text_table("Data", "Data set, Origin, Fingerprint", [
            (group.label, group.data.origin, group.data.fingerprint) for group in results.groups
        ]),
        text_table("Models", "Model, Origin, Spec hash, Spec", provenance.models_of_jobs(jobs)),
        text_table("Jobs", "Data set, What, Job, Made", provenance.jobs_of(results)),
        text_table("Jobs with a time limit", "Data set, Job, What was left out",
                   provenance.time_notes_of(results)),
    )  # fmt: skip
    folded = (Folded((table,)) for table in tables)
    parts = (Bullets(tuple(results.facts)), Text(FILES, "note"), *folded)
    return [Block("Where it comes from", parts, "provenance")]


def text_table(title: str, titles: str, rows: Sequence[tuple[str, ...]], note: str = "") -> Table:
    """Make a table of texts, a row of which is a tuple with one text for each title."""
    columns = (
        Column(name, lambda row, place=place: row[place])
        for place, name in enumerate(titles.split(", "))
    )
    return Table(title, rows, *columns, note=note)
