"""Jobs of a sweep in several processes of this machine.

Ours, since `hydra-joblib-launcher` 1.2 takes all cores unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from layerfusion.launching import Shared, run_elsewhere


class JoblibLauncher(Launcher):
    """Runs jobs in loky's processes, which live on from job to job.

    Args:
        n_jobs: processes; each gets its share of the cores (loky sets OMP_NUM_THREADS and the like
            where the environment does not).
    """

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands to launchers."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs and wait for all of them."""
        from joblib import Parallel, delayed

        shared = Shared.of(self.hydra_context, self.config, self.task_function)
        pool = Parallel(n_jobs=min(self.n_jobs, len(job_overrides)), backend="loky")
        results: Any = pool(
            delayed(run_elsewhere)(shared, list(overrides), number)
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        )
        return list(results)
