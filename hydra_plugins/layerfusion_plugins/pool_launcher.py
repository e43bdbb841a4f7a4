"""Base class of the launchers that run the jobs of a sweep in several other processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from layerfusion.composing.launching import Shared

Job = tuple[list[str], int]
"""Overrides of a job and its number in the sweep: the last two arguments of `run_elsewhere`."""


class PoolLauncher(Launcher):
    """A launcher whose processes get the shared state once, and then run one job after another."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Store the objects that Hydra gives to launchers."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs and wait for all of them."""
        shared = Shared.of(self.hydra_context, self.config, self.task_function)
        jobs = [(list(job), number) for number, job in enumerate(job_overrides, initial_job_idx)]
        return self.run_jobs(shared, jobs)

    @abstractmethod
    def run_jobs(self, shared: Shared, jobs: Sequence[Job]) -> Sequence[JobReturn]:
        """Call `run_elsewhere` for each job, in the jobs' order."""
