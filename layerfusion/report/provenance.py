"""Where a report comes from: versions, data, models and jobs, as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence

from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import job_names
from layerfusion.report.tables import Column, Row, Table


def provenance_tables(groups: Sequence[DataGroup]) -> tuple[Table, ...]:
    """What the jobs were made from and with; a table without rows is left out."""
    tables = (_versions(groups), _data(groups), _models(groups), _jobs(groups))
    return tuple(table for table in tables if table.rows)


def _versions(groups: Sequence[DataGroup]) -> Table:
    found: dict[str, dict[str, None]] = {}
    for job in _all(groups):
        for package, version in job.record.versions.items():
            found.setdefault(package, {})[version] = None
    rows = [Row((package, ", ".join(sorted(found[package])))) for package in sorted(found)]
    return Table("Versions", _texts("Package", "Version"), tuple(rows))


def _data(groups: Sequence[DataGroup]) -> Table:
    rows = [Row((g.label, g.data.origin, g.data.fingerprint)) for g in groups]
    return Table("Data", _texts("Data set", "Origin", "Fingerprint"), tuple(rows))


def _models(groups: Sequence[DataGroup]) -> Table:
    rows: dict[tuple[str, str], Row] = {}
    for job in _all(groups):
        for name in job.record.backbone_names:
            backbone = job.record.backbones[name]
            spec = json.dumps(backbone.spec, sort_keys=True, ensure_ascii=False)
            cells = (name, backbone.origin, backbone.spec_hash, spec)
            rows[name, backbone.spec_hash] = Row(cells)
    ordered = tuple(rows[key] for key in sorted(rows))
    return Table("Models", _texts("Model", "Origin", "Spec hash", "Spec"), ordered)


def _jobs(groups: Sequence[DataGroup]) -> Table:
    rows = []
    for group in groups:
        names = job_names(group)
        for job in group.jobs:
            point = f"{job.layer.backbone} {job.layer.layer}, {job.record.fusion}"
            cells = (group.label, names.get(job, point), job.record.job, job.record.created)
            rows.append(Row(cells))
    return Table("Jobs", _texts("Data set", "What", "Job", "Made"), tuple(rows))


def _texts(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, numeric=False) for title in titles)


def _all(groups: Sequence[DataGroup]) -> list[Job]:
    return [job for group in groups for job in group.jobs]
