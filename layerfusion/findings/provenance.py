"""Where figures come from: what was left out, and the versions, models and jobs behind them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from layerfusion.findings.grouping import grouped
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import job_names
from layerfusion.findings.results import Results
from layerfusion.records.profile import Profile
from layerfusion.records.sweep import SkippedJob


def left_out(results: Results) -> list[SkippedJob]:
    """List every job that failed, is running or was never begun, is older, or is damaged."""
    found = {**results.skipped}
    for path, newer in results.older.items():
        place, why = path.relative_to(results.folder).as_posix(), f"run again as {newer.job}"
        found[path] = SkippedJob(place, "older", why)
    for path, line in results.damaged.items():
        place = path.relative_to(results.folder).as_posix()
        label = found.pop(path.parent)[0] if path.parent in found else place
        found[path] = SkippedJob(label, "damaged", line.replace(f"{path}", place))
    return sorted(found.values())


def versions_of(jobs: Iterable[FinishedJob]) -> list[tuple[str, str]]:
    """List each package with the versions that jobs were run with."""
    pairs = {pair for job in jobs for pair in job.record.versions.items()}
    by_name = grouped(sorted(pairs), lambda pair: pair[0])
    return [(name, ", ".join(version for _, version in own)) for name, own in by_name.items()]


def models_of_jobs(jobs: Iterable[FinishedJob]) -> list[tuple[str, str, str, str]]:
    """List each model with its origin, the hash of its spec and the spec as JSON."""
    rows = set()
    for job in jobs:
        for name in job.record.backbone_names:
            backbone = job.record.backbones[name]
            spec = json.dumps(backbone.spec, sort_keys=True, ensure_ascii=False)
            rows.add((name, backbone.origin, backbone.spec_hash, spec))
    return sorted(rows)


def jobs_of(results: Results) -> list[tuple[str, str, str, str]]:
    """List every job with its data set, its name, its hash and the time when it was made."""
    rows = []
    for group in results.groups:
        names = job_names(group)
        for job in group.jobs:
            point = f"{job.layer.backbone} {job.layer.layer}, {job.record.fusion_label}"
            rows.append((group.label, names.get(job, point), job.record.job, job.record.created))
    return rows


def time_notes_of(results: Results) -> list[tuple[str, str, str]]:
    """List what jobs with a time limit left out, with their data set and their hash."""
    return [
        (group.label, job.record.job, note)
        for group in results.groups
        for job in group.jobs
        for note in job.record.time_notes
    ]


def facts_of(profile: Profile) -> list[tuple[str, str]]:
    """List where a layer profile comes from, each fact with its name."""
    data = profile.dataset
    models = {
        name: f"{x.origin}; " + ", ".join(f"{pool} {spec}" for pool, spec in x.spec_hashes.items())
        for name, x in profile.backbones.items()
    }
    return [
        ("Job", profile.job),
        ("Made", profile.created),
        ("Data", f"{data.origin}, fingerprint {data.fingerprint}"),
        *models.items(),
        ("Versions", ", ".join(f"{name} {version}" for name, version in profile.versions.items())),
        *(("Note", note) for note in data.notes),
    ]
