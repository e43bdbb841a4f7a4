"""Runs the jobs of a sweep in several processes on this machine.

It replaces `hydra-joblib-launcher` 1.2, which uses all cores unless it is configured otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn

from hydra_plugins.layerfusion_plugins.pool_launcher import Job, PoolLauncher
from layerfusion.composing.launching import Shared, run_elsewhere


class JoblibLauncher(PoolLauncher):
    """Runs jobs in processes of loky, each of which runs several jobs.

    Args:
        n_jobs: number of processes. Each gets its share of the cores, since loky sets variables
            like OMP_NUM_THREADS unless the environment does.
    """

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs

    def run_jobs(self, shared: Shared, jobs: Sequence[Job]) -> Sequence[JobReturn]:
        """Run the jobs and wait for all of them."""
        from joblib import Parallel, delayed

        pool = Parallel(n_jobs=min(self.n_jobs, len(jobs)), backend="loky")
        results: Any = pool(delayed(run_elsewhere)(shared, *job) for job in jobs)
        return list(results)
