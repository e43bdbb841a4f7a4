"""Where figures come from: what was left out, and the versions, models and jobs behind them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from layerfusion.findings.grouping import grouped
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.results import Results
from layerfusion.records.sweep import SkippedJob


def left_out(results: Results) -> list[SkippedJob]:
    """List every job that failed, is running or was never begun, and every damaged file."""
    found = {**results.skipped}
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
