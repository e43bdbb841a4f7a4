"""Names that tell jobs apart which differ in how their models read texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from layerfusion.findings.groups import load_groups
from layerfusion.findings.names import job_names
from layerfusion.records.job import RunRecord, write_record
from tests.report.fabricate import dataset, write_job

SOURCES = [("minilm", "3"), ("smollm2", "4")]


def read_otherwise(runs: Path, record: RunRecord, **settings: object) -> None:
    """Change how all models of a job read texts."""
    backbones = {
        name: replace(backbone, spec=backbone.spec | settings)
        for name, backbone in record.backbones.items()
    }
    (folder,) = runs.glob(f"*-{record.job}")
    write_record(replace(record, backbones=backbones), folder)


def test_jobs_that_read_texts_otherwise_are_told_apart_by_that(tmp_path: Path) -> None:
    data = dataset(rows=400)
    for salt, reading in (("a", "truncate"), ("b", "windows")):
        record = write_job(tmp_path, data, SOURCES, 0.8, 0.8, salt=salt)
        read_otherwise(tmp_path, record, long_texts=reading)
    (group,) = load_groups(tmp_path)
    assert sorted(job_names(group).values()) == [
        "minilm 3 + smollm2 4, gated (long_texts=truncate)",
        "minilm 3 + smollm2 4, gated (long_texts=windows)",
    ]


def test_jobs_that_differ_in_nothing_that_is_read_have_their_numbers(tmp_path: Path) -> None:
    data = dataset(rows=400)
    jobs = [write_job(tmp_path, data, SOURCES, 0.8, 0.8, salt=salt).job for salt in "ab"]
    (group,) = load_groups(tmp_path)
    assert sorted(job_names(group).values()) == sorted(
        f"minilm 3 + smollm2 4, gated (job {job[:6]})" for job in jobs
    )
