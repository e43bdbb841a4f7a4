"""Everything that a report is made of: the jobs, profiles and searches under a folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from layerfusion.config.job import HONEST
from layerfusion.errors import UserError
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup, group_jobs, no_job
from layerfusion.findings.judged import NamedProfile, named_profiles
from layerfusion.findings.learning import (
    DrawFinding,
    LearningCurve,
    find_over_draws,
    learning_curves,
)
from layerfusion.findings.renewed import older_profiles, older_records
from layerfusion.findings.tests import Findings, find_all
from layerfusion.records.format import plural
from layerfusion.records.job import RunRecord, find_records
from layerfusion.records.json_files import Damaged
from layerfusion.records.profile import Profile, find_profiles
from layerfusion.records.search import SearchHistory, find_histories
from layerfusion.records.sweep import SkippedJob, skipped_jobs


@dataclass(frozen=True, eq=False)
class Results:
    """The jobs, profiles and searches under a folder. Each is read when it is first asked for."""

    folder: Path
    only: Collection[str] | None = None
    """Hashes of the jobs and profiles to read; None for all."""
    facts: Sequence[str] = ()
    """Sentences or commands for the section on where the report comes from."""
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Texts of the test rows by the fingerprint of their data, as far as they may be shown."""
    keep_older: bool = False
    """True to show every record of a job that newer code has run again: see `findings.renewed`."""
    found_damaged: Damaged = field(default_factory=dict, init=False)
    """What could not be read so far."""

    @cached_property
    def profiles(self) -> tuple[NamedProfile, ...]:
        """Every layer profile."""
        kept = [pair for pair in self._found_profiles if pair[0] not in self.older]
        copies = grouped(kept, lambda pair: (pair[1].job, pair[1].dataset.fingerprint))
        return named_profiles([profile for (_, profile), *_ in copies.values()])

    @cached_property
    def _found_profiles(self) -> list[tuple[Path, Profile]]:
        found = find_profiles(self.folder, self.found_damaged)
        return [pair for pair in found if self.only is None or pair[1].job in self.only]

    @cached_property
    def _found(self) -> list[tuple[Path, RunRecord]]:
        found = find_records(self.folder, self.found_damaged)
        return [pair for pair in found if self.only is None or pair[1].job in self.only]

    @cached_property
    def older(self) -> dict[Path, RunRecord | Profile]:
        """Folder of each record that is left out to the newer record of the same job."""
        if self.keep_older:
            return {}
        return {**older_records(self._found), **older_profiles(self._found_profiles)}

    @property
    def copies(self) -> list[tuple[Path, RunRecord]]:
        """Folder and record of every finished job, of any protocol, with copies of a job."""
        return [pair for pair in self._found if pair[0] not in self.older]

    @property
    def jobs(self) -> list[tuple[Path, RunRecord]]:
        """Folder and record of every finished job, of any protocol and each once."""
        copies = grouped(self.copies, lambda pair: pair[1].job)
        return [first for first, *_ in copies.values()]

    @cached_property
    def groups(self) -> tuple[DataGroup, ...]:
        """The jobs of the honest protocol, by the rows that they saw."""
        groups = group_jobs(self.copies, self.found_damaged)
        return tuple(
            replace(group, test_texts=tuple(self.texts.get(group.data.fingerprint, ())))
            for group in groups
        )

    @property
    def lexical(self) -> list[str]:
        """Names of the lexical sources that some job could choose."""
        return sorted(
            {name for group in self.groups for x in group.jobs for name in x.record.lexical}
        )

    @property
    def models(self) -> list[str]:
        """Every model that some job fused, without the lexical sources."""
        names = {x for group in self.groups for x in group.models}
        return sorted(names - {*self.lexical})

    @property
    def given(self) -> list[str]:
        """Every model whose vectors were computed elsewhere."""
        jobs = [job for group in self.groups for job in group.jobs]
        return sorted(
            {x for job in jobs for x, one in job.record.backbones.items() if one.is_given}
        )

    @cached_property
    def searches(self) -> list[SearchHistory]:
        """Every search."""
        return find_histories(self.folder, self.found_damaged)

    @cached_property
    def skipped(self) -> dict[Path, SkippedJob]:
        """Every job that failed, is running, or was planned and never begun, by its folder."""
        return skipped_jobs(self.folder, self.found_damaged)

    @cached_property
    def damaged(self) -> Damaged:
        """Every file that cannot be read and so is left out, to the line that says why."""
        _ = self.groups, self.profiles, self.searches, self.skipped
        return {
            path: " ".join(line.split())
            for path, line in sorted(self.found_damaged.items())
            if self.only is None or path.parent.name in self.only
        }

    def require_some(self) -> None:
        """Make sure that there is something to report.

        Raises:
            UserError: where there is neither a finished job nor a profile that can be read.
        """
        others = any(record.protocol != HONEST for _, record in self.jobs)
        if self.groups or self.profiles or others:
            return
        lines = list(self.damaged.values())
        if not lines:
            raise no_job(self.folder)
        more = f" (and {plural(len(lines) - 1, 'file')} more)" if len(lines) > 1 else ""
        raise UserError(f"nothing here can be read: {lines[0]}{more}")

    @cached_property
    def curves(self) -> dict[LearningCurve, tuple[DrawFinding, ...]]:
        """Every learning curve, with the comparisons over its draws."""
        found = find_over_draws(learning_curves(self.groups))
        return {curve: findings for curve, findings in found.items() if curve.scores}

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
