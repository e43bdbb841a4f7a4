"""The data and the protocol behind a section."""

from __future__ import annotations

from collections import Counter

from layerfusion.findings.groups import DataGroup
from layerfusion.findings.tests import Findings
from layerfusion.records.format import plural
from layerfusion.report.block import Block, Bullets
from layerfusion.report.format import COUNT, PERCENT, decimals
from layerfusion.report.sentences import percent
from layerfusion.report.table import Column, Table


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
    several, table = _labels(group) if data.multilabel else ((), None)
    lines = (
        f"Rows used: {rows}; {COUNT(classes)} {data.kind if classes == 1 else data.kinds}.",
        *several,
        "The rows are a seeded, stratified sample." if data.sampled else "All rows were used.",
        f"{plural(data.overlap, 'test row')} also {'occurs' if data.overlap == 1 else 'occur'} in"
        " train with the same text."
        if data.overlap
        else "No text of test occurs in train.",
        *data.lines,
        *dict.fromkeys(f"{line}." for job in group.jobs for line in job.record.reading),
        *missing,
        "Protocol honest: layer, operator and epoch are chosen on train and validation, and test is"
        f" evaluated once, at the end. Between jobs {group.judge.chooses}{group.judge.reason}.",
        f"Seeds: {written}.",
    )
    return Block("Data and protocol", (Bullets(lines), table), folded=True)


def _labels(group: DataGroup) -> tuple[tuple[str], Table]:
    """Say how many labels the test rows have, and list how frequent each is."""
    counts, rows = (group.jobs[0].target.sum(axis=axis) for axis in (1, 0))
    without = int((counts == 0).sum())
    words = (
        f"A row has any number of the labels: {decimals(2)(float(counts.mean()))} on average in"
        f" test, at most {COUNT(int(counts.max()))}; {plural(without, 'row')} without any"
        f" ({percent(without / len(counts))})."
    )
    return (words,), Table(
        "How frequent each label is",
        sorted(range(len(rows)), key=lambda k: -rows[k]),
        Column("Label", lambda k: group.data.label_names[k]),
        Column("Test rows", lambda k: int(rows[k]), COUNT),
        Column("Of all %", lambda k: float(rows[k] / group.rows), PERCENT),
    )
