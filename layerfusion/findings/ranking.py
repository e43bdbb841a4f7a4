"""The finished jobs under a folder, ranked as they are chosen everywhere, a data set at a time.

Nothing may be chosen on test, so validation or folds of train rank them: see `findings.choice`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from layerfusion.config.job import HONEST
from layerfusion.errors import UserError
from layerfusion.findings.choice import Judge, judge_of, metric_words, order_of, ties_words
from layerfusion.findings.compare import unpaired_interval
from layerfusion.findings.grouping import data_labels, grouped
from layerfusion.findings.groups import no_job
from layerfusion.findings.renewed import Found, older_records
from layerfusion.records.job import DataRecord, RunRecord, find_records
from layerfusion.records.json_files import Damaged


@dataclass(frozen=True, eq=False)
class RankedJobs:
    """The jobs on one data set."""

    label: str
    """The data set's name; with its fingerprint where several samples share the name."""
    found: Sequence[Found]

    @property
    def data(self) -> DataRecord:
        """The data, as the best job recorded it."""
        return self.best.dataset

    @cached_property
    def judge(self) -> Judge:
        """What decides between the jobs."""
        return judge_of([record for _, record in self.found])

    @cached_property
    def jobs(self) -> list[Found]:
        """The jobs, the one that is chosen first."""
        return sorted(self.found, key=lambda x: self._order(x[1]))

    def _order(self, record: RunRecord) -> tuple[object, ...]:
        return order_of(record, self.judge.figures(record), self.judge.metric)

    @property
    def measure(self) -> str:
        """What a reader knows the figure as that ranks the jobs."""
        return metric_words(self.judge.metric, self.data)

    @property
    def best(self) -> RunRecord:
        """The job that is chosen."""
        return self.jobs[0][1]

    def choosing(self, record: RunRecord) -> float:
        """Return the figure of a job by which it is ranked."""
        return self.judge.figure(record).mean

    @property
    def ties(self) -> str:
        """How many jobs tie in front; empty where none does."""
        return ties_words([self.judge.figure(x) for _, x in self.found], self.judge.rows)

    @property
    def smallest_shown(self) -> float | None:
        """The smallest difference between two jobs that the test rows would show, unpaired.

        None where the best job has no interval, as in older records.
        """
        estimate, rows = self.best.test[self.judge.metric], self.data.rows["test"]
        if estimate.low is None or estimate.high is None:
            return None
        one = estimate.mean, estimate.low, estimate.high
        return unpaired_interval(one, one, rows).smallest_shown


def rank_jobs(
    folder: Path, damaged: Damaged, older: dict[Path, RunRecord] | None = None
) -> list[RankedJobs]:
    """Read the finished jobs of the honest protocol under a folder, and rank them.

    Args:
        folder: of a sweep, of a search, or one that holds such folders.
        damaged: takes the jobs that cannot be read.
        older: takes the records of jobs that newer code has run again; None to rank them too.

    Raises:
        UserError: where the folder does not exist, or no record in it can be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    every = find_records(folder, damaged)
    if older is not None:
        older |= older_records(every)
    kept = [pair for pair in every if older is None or pair[0] not in older]
    copies = grouped(kept, lambda pair: pair[1].job)
    found = [first for first, *_ in copies.values() if first[1].protocol == HONEST]
    if not found:
        raise UserError(next(iter(damaged.values()))) if damaged else no_job(folder)
    by_data = grouped(found, lambda pair: (pair[1].dataset.name, pair[1].dataset.fingerprint))
    drawn = [data for data, jobs in by_data.items() if jobs[0][1].dataset.per_class is not None]
    labels = data_labels(by_data, drawn)
    return [RankedJobs(labels[data], jobs) for data, jobs in by_data.items()]
