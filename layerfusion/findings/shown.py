"""What a page shows of the jobs on a data set, each against the single layer that is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob, baseline_estimates
from layerfusion.findings.names import baseline_name, shown_names
from layerfusion.findings.tests import Finding, Findings, layers_of, outcome_of
from layerfusion.records.job import Estimate

LEAST = 3
"""Fewest operators on the same sources that are compared; the table of fusions has all."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A job, or the baseline, and how it compares with the chosen single layer."""

    name: str
    job: FinishedJob | None
    """None for the baseline."""
    finding: Finding | None
    """None for the chosen single layer itself, and where there is none."""
    test: Mapping[str, Estimate]
    """Metrics on test."""
    is_reference: bool = False
    twins: tuple[FinishedJob, ...] = ()
    """Other jobs that ended in the same sources and gave the same predictions."""

    @property
    def label(self) -> str:
        """The name, and the jobs that are the same."""
        return f"{self.name}{''.join(f' = job {job.record.job[:6]}' for job in self.twins)}"


def comparisons(group: DataGroup, findings: Findings) -> tuple[Comparison, ...]:
    """List the baseline, single layers that stand for their model, and all fusions, in order.

    Selections may end in the same sources. Jobs that gave the same predictions share a row.
    """
    reference = group.chosen
    baseline = (reference or group.jobs[0]).record.baseline

    def against(job: FinishedJob | None) -> Finding | None:
        return None if reference in (None, job) else findings.between(job, reference)

    named = shown_names(group)
    same = grouped(named, outcome_of)
    return (
        Comparison(baseline_name(baseline), None, against(None), baseline_estimates(baseline)),
        *(
            Comparison(
                named[job], job, against(job), job.record.test, job is reference, tuple(twins)
            )
            for job, *twins in same.values()
        ),
    )


def operator_sets(group: DataGroup) -> list[list[FinishedJob]]:
    """Find the fusions of the same sources by several operators, the best on test first.

    They chose among the same models in the same way, and took the same layers.
    """

    def given(job: FinishedJob) -> tuple[object, ...]:
        record = job.record
        considered = frozenset(record.considered), frozenset(record.lexical), record.selection
        return *considered, layers_of(job)

    return [
        sorted(jobs, key=lambda job: -round(job.score.mean, 9))
        for jobs in grouped(group.fused, given).values()
        if len({job.record.fusion_label for job in jobs}) >= LEAST
    ]
