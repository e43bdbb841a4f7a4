"""A job that newer code has run again, in the same folder under another name, counts once."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from layerfusion.composing.hydra import compose
from layerfusion.config.check import load
from layerfusion.config.secrets import redacted
from layerfusion.findings import renewed
from layerfusion.findings.frame import results
from layerfusion.findings.renewed import older_records
from layerfusion.findings.results import Results
from layerfusion.records.job import CONFIG, RunRecord, find_records, write_record
from layerfusion.records.profile import write_profile
from layerfusion.records.settings import PROFILED
from layerfusion.report.contents import build_report
from layerfusion.report.ranking import ranking_lines
from layerfusion.runs.sweep import status_lines, write_plan
from tests.report.fabricate import dataset, write_job
from tests.report.fabricate_profiles import profile
from tests.report.reading import section_of

SOURCES = [("minilm", "3"), ("minilm", "5")]
WIDTHS = {"a": "fusion.width=64", "b": "fusion.width=65"}
"""Two jobs whose records do not tell that their settings differ."""


def write(
    runs: Path, settings: str, salt: str, created: str, *, fingerprint: str = "", keep: bool = True
) -> RunRecord:
    record = write_job(
        runs, dataset(fingerprint=fingerprint), SOURCES, 0.8, 0.8, salt=salt, seeds=1
    )
    folder = next(path for path, found in find_records(runs) if found.job == record.job)
    write_record(replace(record, created=created), folder)
    if keep:
        config = load(compose("train", ["dataset=mr", settings, f"paths.outputs=/{salt}"]))
        (folder / CONFIG).write_text(yaml.safe_dump(redacted(asdict(config))))
    return record


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jobs under old code, and one of them again under new code."""
    runs = tmp_path_factory.mktemp("renewed")
    write(runs, WIDTHS["a"], "old a", "2026-01-01T00:00:00+00:00")
    write(runs, WIDTHS["b"], "old b", "2026-01-02T00:00:00+00:00")
    write(runs, WIDTHS["a"], "new a", "2026-02-01T00:00:00+00:00")
    return runs


def jobs(results: Results) -> set[str]:
    return {job.record.job for group in results.groups for job in group.jobs}


def test_the_newest_record_of_each_job_counts(runs: Path) -> None:
    by_date = {record.created[:10]: record.job for _, record in find_records(runs)}
    assert jobs(Results(runs)) == {by_date["2026-01-02"], by_date["2026-02-01"]}
    assert jobs(Results(runs, keep_older=True)) == {*by_date.values()}
    ((folder, newer),) = Results(runs).older.items()
    assert (folder.name, newer.job) == (f"toy-{by_date['2026-01-01']}", by_date["2026-02-01"])
    assert len(list(runs.glob("*/metrics.json"))) == 3  # none is deleted


def test_page_table_and_frame_say_or_show_it(runs: Path) -> None:
    words = "Left out: 1 older record of the same jobs, which newer code has run again."
    report = build_report(Results(runs), title="t")
    assert report.intro[0].startswith("2 jobs on 1 data set")
    assert report.intro[1].startswith(words)
    (table,) = [x for x in section_of(report, "provenance").tables if x.title.startswith("Jobs th")]
    assert [row.texts[1] for row in table.rows] == ["older"]
    assert words in " ".join(ranking_lines(runs))
    assert len(results(runs)) == 2
    whole = build_report(Results(runs, keep_older=True), title="t")
    assert whole.intro[0].startswith("3 jobs on 1 data set")
    assert len(whole.intro) == 1
    assert "Left out" not in " ".join(ranking_lines(runs, older=True))
    assert len(results(runs, older=True)) == 3


def test_other_data_and_unknown_settings_are_other_jobs(tmp_path: Path) -> None:
    write(tmp_path, WIDTHS["a"], "one", "2026-01-01T00:00:00+00:00")
    write(tmp_path, WIDTHS["a"], "two", "2026-02-01T00:00:00+00:00", fingerprint="f" * 64)
    write(tmp_path, WIDTHS["a"], "three", "2026-03-01T00:00:00+00:00", keep=False)
    assert older_records(find_records(tmp_path)) == {}


def test_config_files_are_read_only_where_records_are_alike(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: Path) -> None:
        raise AssertionError

    monkeypatch.setattr(renewed, "config_of_job", never)
    found = find_records(runs)
    told = [
        (path, replace(record, settings={"fusion.width": place, f"new.{place}": 1}))
        for place, (path, record) in enumerate(found)
    ]
    assert older_records(told) == {}
    with pytest.raises(AssertionError):
        older_records([(path, replace(record, settings={})) for path, record in told])


def test_the_newest_profile_of_the_same_settings_counts(tmp_path: Path) -> None:
    made = {"old": ("a", 1), "new": ("a", 2), "other": ("b", 3), "damaged": ("c", 4)}
    for name, (settings, day) in made.items():
        folder = tmp_path / name
        (folder / PROFILED).parent.mkdir(parents=True)
        found = profile("toy", {"minilm": ["0", "1", "2"]}, judged=True)
        write_profile(replace(found, job=name, created=f"2026-01-0{day}"), folder)
        config = load(compose("profile", ["dataset=mr", f"limit.train={ord(settings)}"]))
        text = yaml.safe_dump(redacted(asdict(config))) if settings != "c" else "{"
        (folder / PROFILED).write_text(text)
    found = Results(tmp_path)
    assert {one.profile.job for one in found.profiles} == {"new", "other", "damaged"}
    assert len(Results(tmp_path, keep_older=True).profiles) == 4
    report = build_report(found, title="t")
    assert "1 older record" in report.intro[-1]
    assert sum(one.title.startswith("Layer profile of") for one in report.sections) == 3


def test_status_counts_what_the_report_counts(runs: Path) -> None:
    older, other, newer = (
        folder.name for folder, _ in sorted(find_records(runs), key=lambda x: x[1].created)
    )
    write_plan(runs, "train", {older: ["w=64"], other: ["w=65"], "begun": ["w=66"], "no": ["w=67"]})
    (runs / "begun").mkdir()
    (runs / "begun/failed.txt").write_text("UserError: why")
    newest = {newer: ["w=64"], "again": ["w=66", "hydra.run.dir=x"]}
    write_plan(runs, "train", newest)
    assert "4 jobs: 2 done, 0 failed, 0 running, 2 missing" in status_lines(runs)[0]
    assert {folder.name for folder in Results(runs).skipped} == {"again", "no"}
