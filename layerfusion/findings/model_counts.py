"""Ways of fusing on different numbers of models: all jobs of each, from few models to many."""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.identities import by_identity, recipe_names
from layerfusion.findings.jobs import FinishedJob

LEAST = 3
"""Fewest jobs of a way of fusing that is shown, over at least two numbers of models."""


@dataclass(frozen=True)
class Step:
    """All jobs of one way of fusing on one number of models."""

    models: int
    jobs: tuple[FinishedJob, ...]
    possible: int
    """Number of subsets of so many models."""

    @property
    def scores(self) -> list[float]:
        """Test accuracy or F1 of each job, mean over its seeds."""
        return [job.score.mean for job in self.jobs]

    @property
    def mean(self) -> float:
        """Mean of the jobs."""
        return float(np.mean(self.scores))

    @property
    def seed_sds(self) -> list[float]:
        """Standard deviation over the seeds of each job that has several."""
        return [sd for job in self.jobs if (sd := job.score.sd) is not None]

    @property
    def seed_sd(self) -> float | None:
        """Root of the mean variance over seeds."""
        return float(np.sqrt(np.mean(np.square(self.seed_sds)))) if self.seed_sds else None


def ways_of_fusing(group: DataGroup) -> dict[str, list[Step]]:
    """Map each way of fusing, by name, to its steps from few to many models.

    Jobs whose layers are fixed by name are left out: a model would count as often as different
    layers of it were tried.
    """
    known = by_identity(job for job in group.jobs if job.record.selection != "fixed")
    recipes = recipe_names(known)
    ways: dict[str, list[Step]] = {}
    for way, own in grouped(known, lambda identity: identity.way).items():
        models = {model for identity in own for model in identity.models}
        steps = [
            Step(size, tuple(known[identity] for identity in alike), comb(len(models), size))
            for size, alike in sorted(grouped(own, lambda one: len(one.models)).items())
        ]
        if len(steps) > 1 and len(own) >= LEAST:
            ways[way.way_name(recipes)] = steps
    return ways
