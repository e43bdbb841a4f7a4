from __future__ import annotations

from pathlib import Path

from layerfusion.errors import UserError
from layerfusion.findings.results import Results
from layerfusion.report.blocks.provenance import provenance_sections
from layerfusion.report.page import write_report
from layerfusion.runs.sweep import write_failure, write_plan
from tests.report.fabricate import dataset, write_job


def skipped(folder: Path) -> list[tuple[str, ...]]:
    """What the report on a folder says of jobs that it lacks."""
    (section,) = provenance_sections(Results(folder))
    tables = [x for x in section.tables if x.title == "Jobs that are not in this report"]
    return [row.texts for table in tables for row in table.rows]


def test_what_failed_and_what_was_never_begun_is_listed_with_its_reason(tmp_path: Path) -> None:
    data = dataset(rows=40)
    write_job(tmp_path, data, [("minilm", "6")], 0.7, 0.7, seeds=1)
    (done,) = [path.name for path in tmp_path.iterdir()]
    write_plan(tmp_path, "train", {done: ["k=1"], "second": ["k=2"], "third": ["k=3"]})
    write_failure(tmp_path / "second", "train", ["k=2"], UserError("backbone <b>: no memory"))
    write_failure(tmp_path / "alone", "train", ["k=9"], ValueError("odd"))
    assert skipped(tmp_path) == [
        ("k=2", "failed", "UserError: backbone <b>: no memory"),
        ("k=3", "missing", ""),
        ("layerfusion train k=9", "failed", "ValueError: odd"),
    ]
    page = write_report(tmp_path, tmp_path / "out", title="t").read_text()
    assert "backbone &lt;b&gt;: no memory" in page


def test_a_job_that_failed_once_and_then_finished_is_none(tmp_path: Path) -> None:
    write_job(tmp_path, dataset(rows=40), [("minilm", "6")], 0.7, 0.7, seeds=1)
    (folder,) = tmp_path.iterdir()
    write_failure(folder, "train", [], ValueError("earlier"))
    assert skipped(tmp_path) == []
