"""Jobs of a sweep as tasks on a Ray cluster.

Ours, since `hydra-ray-launcher` 1.2 asks for a cloudpickle older than that of the other packages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from layerfusion.errors import UserError
from layerfusion.launching import Shared, run_elsewhere


class RayLauncher(Launcher):
    """Runs each job as one Ray task.

    Args:
        init: keyword arguments of `ray.init`: `address` of a cluster, or `num_cpus` of one that is
            started here and ends with the sweep.
        remote: what one job takes: keyword arguments of `ray.remote`.
    """

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]) -> None:
        self.init, self.remote = dict(init), dict(remote)

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands to launchers."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs and wait for all of them.

        Raises:
            UserError: where Ray is not installed.
        """
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(
                "hydra/launcher=ray: Ray is not installed, pip install 'layerfusion[ray]'"
            ) from error
        ours = not ray.is_initialized()
        if ours:
            ray.init(**self.init)
        try:
            run = ray.remote(**self.remote)(run_elsewhere)
            shared = ray.put(Shared.of(self.hydra_context, self.config, self.task_function))
            pending = [
                run.remote(shared, list(overrides), number)
                for number, overrides in enumerate(job_overrides, initial_job_idx)
            ]
            return ray.get(pending)
        finally:
            if ours:
                ray.shutdown()
