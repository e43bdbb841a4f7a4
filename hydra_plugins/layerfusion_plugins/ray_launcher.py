"""Runs the jobs of a sweep as tasks on a Ray cluster.

It replaces `hydra-ray-launcher` 1.2, which requires an older cloudpickle than other packages.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from hydra.core.utils import JobReturn

from hydra_plugins.layerfusion_plugins.pool_launcher import Job, PoolLauncher
from layerfusion.composing.launching import Shared, run_elsewhere
from layerfusion.errors import UserError


class RayLauncher(PoolLauncher):
    """Runs each job as one Ray task.

    Args:
        init: keyword arguments of `ray.init`, such as the `address` of a cluster, or `num_cpus` of
            a local one that is started here and stops with the sweep.
        remote: keyword arguments of `ray.remote`, which set the resources of one job.
    """

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]) -> None:
        self.init, self.remote = dict(init), dict(remote)

    def run_jobs(self, shared: Shared, jobs: Sequence[Job]) -> Sequence[JobReturn]:
        """Run the jobs and wait for all of them.

        Raises:
            UserError: if Ray cannot be imported.
        """
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(
                f"hydra/launcher=ray: Ray cannot be imported ({error}); pip install"
                " 'layerfusion[ray]'"
            ) from error
        ours = not ray.is_initialized()
        if ours:
            terminate = signal.getsignal(signal.SIGTERM)
            ray.init(**self.init)
            with suppress(ValueError):  # in a thread Ray sets none
                signal.signal(signal.SIGTERM, terminate)  # its own ends the sweep without a word
        try:
            run = ray.remote(**self.remote)(run_elsewhere)
            sent = ray.put(shared)
            return ray.get([run.remote(sent, *job) for job in jobs])
        finally:
            if ours:
                ray.shutdown()
