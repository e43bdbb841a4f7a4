"""The data and the protocol behind a section."""

from __future__ import annotations

from collections import Counter

from layerfusion.findings.groups import DataGroup
from layerfusion.findings.tests import Findings
from layerfusion.records.format import plural
from layerfusion.report.block import Block, Bullets
from layerfusion.report.format import COUNT


def data_block(group: DataGroup, findings: Findings) -> Block:
    """Tell which rows, labels and seeds were used, and what a reader has to know of them."""
    data = group.data
    rows = ", ".join(
        f"{split} {COUNT(used)}"
        + (f" of {COUNT(data.available[split])}" if split in data.available else "")
        for split, used in data.rows.items()
    )
    classes = len(data.label_names)
    seeds = Counter(tuple(seed.seed for seed in job.record.seeds) for job in group.jobs)
    written = "; ".join(
        f"{', '.join(map(str, used))} ({plural(jobs, 'job')})"
        for used, jobs in sorted(seeds.items())
    )
    missing = [
        f"{curve.label}: {len(curve.points)} of {len(curve.layers)} layers"
        f" {'was' if len(curve.points) == 1 else 'were'} run alone."
        for curve in group.curves
        if len(curve.points) < len(curve.layers)
    ]
    lines = (
        f"Rows used: {rows}; {COUNT(classes)} {'class' if classes == 1 else 'classes'}.",
        "The rows are a seeded, stratified sample." if data.sampled else "All rows were used.",
        f"{plural(data.overlap, 'test row')} also {'occurs' if data.overlap == 1 else 'occur'} in"
        " train with the same text."
        if data.overlap
        else "No text of test occurs in train.",
        *data.notes,
        *missing,
        "Protocol honest: layer, operator and epoch are chosen on validation, and test is evaluated"
        " once, at the end.",
        f"Seeds: {written}.",
    )
    return Block("Data and protocol", (Bullets(lines),), folded=True)
