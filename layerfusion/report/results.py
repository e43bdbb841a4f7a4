"""Everything that a report is made of: the jobs, profiles and searches under a folder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from layerfusion.records.job import METRICS, RunRecord
from layerfusion.records.search import SearchHistory, find_histories
from layerfusion.report.findings.judged import NamedProfile, named_profiles, read_profiles
from layerfusion.report.findings.learning import (
    DrawFinding,
    LearningCurve,
    find_over_draws,
    learning_curves,
)
from layerfusion.report.findings.tests import Findings, find_all
from layerfusion.report.load import DataGroup, finished, group_jobs


@dataclass(frozen=True, eq=False)
class Results:
    """The jobs, profiles and searches under a folder. Each is read when it is first asked for."""

    folder: Path
    only: Collection[str] | None = None
    """Hashes of the jobs and profiles to read; None for all."""
    facts: Sequence[str] = ()
    """Sentences or commands for the section on where the report comes from."""

    @cached_property
    def profiles(self) -> tuple[NamedProfile, ...]:
        """Every layer profile."""
        found = read_profiles(self.folder) if self.folder.is_dir() else []
        return named_profiles([x for x in found if self.only is None or x.job in self.only])

    @cached_property
    def jobs(self) -> list[tuple[Path, RunRecord]]:
        """Folder and record of every finished job, of any protocol.

        Raises:
            UserError: where there is neither a finished job nor a profile.
        """
        if self.profiles and not any(self.folder.rglob(METRICS)):
            return []
        return finished(self.folder, self.only)

    @cached_property
    def groups(self) -> tuple[DataGroup, ...]:
        """The jobs of the honest protocol, by the rows that they saw."""
        return group_jobs(self.jobs)

    @cached_property
    def searches(self) -> list[SearchHistory]:
        """Every search."""
        return find_histories(self.folder)

    @cached_property
    def curves(self) -> dict[LearningCurve, tuple[DrawFinding, ...]]:
        """Every learning curve, with the comparisons over its draws."""
        found = find_over_draws(learning_curves(self.groups))
        return {curve: findings for curve, findings in found.items() if curve.accuracies}

    @cached_property
    def sections(self) -> tuple[DataGroup, ...]:
        """The groups with a section of their own: all but the draws of a learning curve."""
        joined = {
            group
            for curve in self.curves
            for group in curve.groups
            if group.data.per_class is not None
        }
        return tuple(group for group in self.groups if group not in joined)

    @cached_property
    def findings(self) -> dict[DataGroup, Findings]:
        """The comparisons of each group that has a section."""
        return find_all(self.sections)
