"""Rows of the tables on fabricated jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from layerfusion.findings.groups import load_groups
from layerfusion.findings.shown import comparisons
from layerfusion.findings.tests import find_all
from layerfusion.report.blocks.fusion import finding_table, fusion_table
from layerfusion.report.page import write_report
from tests.report.fabricate import dataset, write_job

ROWS = 60
BOTH = [("minilm", "4"), ("minilm", "6")]


def write(runs: Path, recipe: str, right: int, selection: str, log_loss: float = 0.5) -> str:
    """A job on two layers that is right on the first rows; returns the first digits of its name."""
    found = np.tile(np.arange(ROWS) < right, (2, 1))
    more = {"recipe": recipe, "selection": selection, "right": found, "log_loss": log_loss}
    gates = [0.4, 0.6]
    record = write_job(runs, dataset("toy", rows=ROWS), BOTH, 0, 0.6, seeds=2, gates=gates, **more)
    return record.job[:6]


def test_jobs_that_are_the_same_share_a_row(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_job(runs, dataset("toy", rows=ROWS), [("minilm", "4")], 0.6, 0.6, seeds=2)
    twins = {
        write(runs, recipe, 45, chosen) for recipe, chosen in (("a", "top_k"), ("b", "greedy"))
    }
    write(runs, "c", 44, "adaptive")  # other predictions
    write(runs, "d", 45, "adaptive", log_loss=0.4)  # the same answers, other probabilities
    (group,) = load_groups(runs)
    findings = find_all([group])[group]
    rows = comparisons(group, findings)
    assert len(group.fused) == 4
    fused = [row for row in rows if row.job is not None and row.job.sources == 2]
    assert [len(row.twins) for row in fused].count(1) == 1
    assert sum(len(row.twins) for row in fused) == 1
    (shared,) = [row for row in fused if row.twins]
    assert shared.job is not None
    assert {job.record.job[:6] for job in (shared.job, *shared.twins)} == twins
    table = fusion_table(rows)
    assert len(table.rows) == len(rows) == 1 + 1 + 3
    (marked,) = [row for row in table.rows if " = job " in row.texts[0]]
    assert marked.texts[0].endswith(f" = job {shared.twins[0].record.job[:6]}")
    assert "share a row" in table.note
    tests = finding_table(rows, findings, group)
    assert tests is not None
    assert (
        len(tests.rows) == 1 + 2 * 3
    )  # against the layer: baseline and three; the baseline: three
    page = write_report(runs, tmp_path, title="t").read_text()
    assert page.count(marked.texts[0]) == 1


def test_without_twins_the_note_says_nothing_of_them(tmp_path: Path) -> None:
    write(tmp_path, "a", 45, "top_k")
    write(tmp_path, "b", 44, "greedy")
    (group,) = load_groups(tmp_path)
    rows = comparisons(group, find_all([group])[group])
    assert len(rows) == 3
    assert "share a row" not in fusion_table(rows).note
