"""Runs a grid of jobs like Hydra's own sweeper, and adds a plan on disk and a list of failures.

It extends `BasicSweeper`, which is in a private module of Hydra and may change in any release.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from layerfusion.config.rules import check_inside
from layerfusion.errors import UserError
from layerfusion.progress import Count, within

log = logging.getLogger(__name__)

Overrides = tuple[str, ...]
KEPT = 500
"""Number of composed jobs kept in memory, about a megabyte each. Others are composed twice."""


class ComposedOnce:
    """A config loader that keeps the jobs composed for the plan until the launcher needs them.

    The sweep needs the name of every job first, and composing a short job takes most of its time.
    """

    def __init__(self, plain: Any) -> None:
        self.plain = plain
        self._kept: dict[Overrides, DictConfig] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the kept jobs, since other processes compose their own."""
        return {"plain": self.plain, "_kept": {}}

    def keep(self, master_config: DictConfig, overrides: Overrides) -> DictConfig:
        """Compose a job, and keep it for the next `load_sweep_config`."""
        config = self.plain.load_sweep_config(master_config, list(overrides))
        OmegaConf.set_struct(config, False)
        OmegaConf.set_readonly(config.hydra, False)
        if len(self._kept) < KEPT:
            self._kept[overrides] = config
        return config

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: Sequence[str]
    ) -> DictConfig:
        """Return a kept job, or else compose it with Hydra's own loader."""
        kept = self._kept.pop(tuple(sweep_overrides), None)
        return kept or self.plain.load_sweep_config(master_config, list(sweep_overrides))


class WithoutConfigs(Callback):
    """Takes the configs out of what a job returns, which a long sweep would keep to its end."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Drop the configs of a job that has ended."""
        job_return.cfg = job_return.hydra_cfg = None


def for_selected_backbones(grid: Sequence[Overrides]) -> list[Overrides]:
    """Remove from each job the keys of backbones that only other jobs of the grid select.

    With `backbone=[a],[b] backbone.a.dtype=bfloat16`, the dtype applies only to jobs that select
    `a`, and `layers.fixed.a=[3]` works in the same way. A key of a backbone that no job selects is
    kept, so that it is reported as a mistake.
    """
    selected = [_backbones(overrides) for overrides in grid]
    anywhere = set().union(*selected)
    return [
        tuple(word for word in overrides if _backbone_of(word) not in anywhere - own)
        for overrides, own in zip(grid, selected, strict=True)
    ]


def _backbones(overrides: Overrides) -> set[str]:
    lists = [word.partition("=")[2] for word in overrides if word.startswith("backbone=")]
    return {name.strip() for name in lists[-1].strip("[]").split(",")} if lists else set()


def _backbone_of(word: str) -> str | None:
    match = re.match(r"\+*(?:backbone|layers\.fixed)\.([^.=]+)[.=]", word)
    return match[1] if match else None


class Told(Callback):
    """Says which job of a sweep begins, and how long all that are ahead will take.

    Jobs that were finished before cost no time, and none is estimated for them. A job in another
    process of a launcher is told without the time.
    """

    def __init__(self) -> None:
        self._common: set[str] = set()
        self._ahead: set[str] = set()
        self._jobs = 0
        self._count = Count("jobs", 0)
        self._inside = ExitStack()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what only this process has open."""
        return {**vars(self), "_inside": ExitStack()}

    def plan(self, jobs: Mapping[Overrides, Path], ahead: Collection[Path]) -> None:
        """Take over the jobs that will be launched, and those of them that are not finished."""
        self._jobs = len(jobs)
        self._common = set.intersection(*map(set, jobs)) if len(jobs) > 1 else set()
        self._ahead = {str(folder.absolute()) for folder in ahead}
        self._count = Count("jobs", len(ahead))

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Log the job's number and what sets it apart from the others."""
        if not self._jobs:
            return
        words = [word for word in config.hydra.overrides.task if word not in self._common]
        self._count.place = int(config.hydra.job.num) + 1, self._jobs
        self._count.what = " ".join(words)
        log.info(self._count.words() + self._count.more())
        self._inside.enter_context(within(self._count))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Count the job, if it took time."""
        self._inside.close()
        if str(config.hydra.runtime.output_dir) in self._ahead:
            self._count.step()


class GridSweeper(BasicSweeper):
    """Runs every combination of the values on the command line, and each result only once.

    Mistakes that show without running a job are reported before the first job. A failed job does
    not stop the others. A job that another process runs is checked again at the end.
    """

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Set up Hydra's sweeper with a loader that composes each job once."""
        self.loader = ComposedOnce(hydra_context.config_loader)
        self._inputs: dict[Overrides, str | None] = {}
        # The callbacks are told of a job's end in reverse, so that the user's own come before.
        self._told = Told()
        hydra_context.callbacks.callbacks[:0] = [self._told, WithoutConfigs()]
        launching = logging.getLogger("hydra._internal.core_plugins.basic_launcher")
        launching.setLevel(logging.WARNING)  # it numbers jobs from 0, in the log of the job before
        context = HydraContext(config_loader=self.loader, callbacks=hydra_context.callbacks)  # type: ignore[arg-type]
        super().setup(hydra_context=context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the grid.

        Returns:
            The launcher's result for each job.

        Raises:
            JobsFailed: at the end, if any job failed.
        """
        from layerfusion.composing.launching import BUSY, JobsFailed
        from layerfusion.records.sweep import RECORDS
        from layerfusion.runs.sweep import wait_until_free

        assert self.config is not None
        parser = OverridesParser.create(config_loader=self.loader.plain)
        words = [*self._parse_config(), *arguments]
        (split,) = self.split_arguments(parser.parse_overrides(words), None)
        grid = for_selected_backbones([tuple(overrides) for overrides in split])
        recognised = self._recognise(grid)
        if recognised is not None:
            self._print_ranking()
            return recognised
        todo = planned = self._plan(grid)
        results: list[JobReturn] = []
        while todo:
            command = str(self.config.hydra.job.name)
            record = RECORDS.get(command, "")
            ahead = [one for one in todo.values() if not record or not (one / record).exists()]
            self._told.plan(todo, ahead)
            said = self._launch(list(todo))
            busy = [overrides for overrides in todo if _returned(said[overrides], BUSY)]
            results += [said[overrides] for overrides in todo if overrides not in busy]
            todo = {overrides: todo[overrides] for overrides in busy}
            wait_until_free(list(todo.values()))
        self._print_ranking()
        failed = sum(result.status is JobStatus.FAILED for result in results)
        if failed:
            place = self.config.hydra.sweep.dir
            raise JobsFailed(
                failed, len(results), Path(place), planned=self.config.hydra.job.name in RECORDS
            )
        self._note(grid, planned)
        return results

    def _print_ranking(self) -> None:
        """Print the best of the sweep's finished jobs; a sweep without any has said why."""
        from layerfusion.report.ranking import SHOWN, ranking_lines

        assert self.config is not None
        if self.config.hydra.job.name != "train":
            return
        try:
            lines = ranking_lines(Path(self.config.hydra.sweep.dir), most=SHOWN)
        except UserError:
            return
        print("", *lines, sep="\n")

    # -- sweeps that were finished before -----------------------------------------------------

    def _sources(self, grid: Sequence[Overrides]) -> str:
        """Hash what the jobs are composed from."""
        from layerfusion.runs.settled import sources_id

        assert self.config is not None
        places = self.config.hydra.runtime.config_sources
        folders = [Path(place.path) for place in places if place.schema == "file"]
        return sources_id(self.config.hydra.job.name, grid, folders)

    def _recognise(self, grid: Sequence[Overrides]) -> list[JobReturn] | None:
        """Check a sweep that was finished before by one job for each set of texts and models.

        Returns:
            The launcher's results; None if the jobs have to be checked one by one.
        """
        from layerfusion.composing.launching import BUSY
        from layerfusion.runs.settled import NOTES, read_note, unchanged
        from layerfusion.runs.sweep import write_plan

        assert self.config is not None
        if self.config.hydra.job.name != "train":
            return None
        sweep = Path(str(self.config.hydra.sweep.dir))
        jobs = read_note(sweep, self._sources(grid)) if (sweep / NOTES).is_dir() else []
        if not jobs:
            return None
        first = {job.inputs: job for job in reversed(jobs)}
        for job in first.values():
            sweep_of = self.loader.keep(self.config, tuple(job.overrides)).hydra.sweep
            if str(Path(str(sweep_of.dir)) / str(sweep_of.subdir)) != job.folder:
                return None
        said = self._launch([tuple(job.overrides) for job in first.values()])
        done = [
            result.status is not JobStatus.FAILED and not _returned(result, BUSY)
            for result in said.values()
        ]
        if not all(done) or not unchanged(first.values()):
            return None
        plans: dict[Path, dict[str, Sequence[str]]] = {}
        for job in jobs:
            folder = Path(job.folder)
            plans.setdefault(folder.parent, {})[folder.name] = job.overrides
        for folder, plan in plans.items():
            write_plan(folder, "train", plan)
        log.info("all %d jobs were finished before, and nothing has changed since", len(jobs))
        return list(said.values())

    def _note(self, grid: Sequence[Overrides], planned: Mapping[Overrides, Path]) -> None:
        """Note that all jobs are finished, so that they are recognised fast the next time."""
        from layerfusion.runs.settled import SettledJob, content_of, write_note

        assert self.config is not None
        inputs = [self._inputs.get(overrides) for overrides in planned]
        if self.config.hydra.job.name != "train" or None in inputs:
            return
        jobs = [
            SettledJob(list(overrides), str(folder), str(key), content_of(folder))
            for (overrides, folder), key in zip(planned.items(), inputs, strict=True)
        ]
        write_note(Path(str(self.config.hydra.sweep.dir)), self._sources(grid), jobs)

    def _plan(self, grid: Sequence[Overrides]) -> dict[Overrides, Path]:
        """Compose every job, write the plan, and return the folder of each distinct job."""
        from layerfusion.records.sweep import RECORDS
        from layerfusion.runs.sweep import write_plan

        assert self.config is not None
        self.config.hydra.sweep.dir = str(self.config.hydra.sweep.dir)
        command = self.config.hydra.job.name
        jobs: dict[Overrides, Path] = {}
        plans: dict[Path, dict[str, Overrides]] = {}
        for overrides in grid:
            composed = self.loader.keep(self.config, overrides)
            sweep = composed.hydra.sweep
            sweep.subdir = str(sweep.subdir)  # fixes the name, so that its hash is computed once
            check_inside("sweep", str(composed.sweep))
            check_inside("hydra.sweep.subdir", sweep.subdir)
            folder = Path(sweep.dir) / sweep.subdir
            plan = plans.setdefault(folder.parent, {})
            if command in RECORDS:
                self._refuse_shared_folder(command, folder, overrides, plan.get(folder.name))
            if folder.name not in plan or command not in RECORDS:
                plan[folder.name] = overrides
                jobs[overrides] = folder
                self._inputs[overrides] = _inputs_of(composed)
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        if len(jobs) < len(grid):
            same = len(grid) - len(jobs)
            print(f"{same} of {len(grid)} jobs give the same result as another", file=sys.stderr)
        if command in RECORDS:
            for folder, plan in plans.items():
                write_plan(folder, command, plan)
        return jobs

    def _refuse_shared_folder(
        self, command: str, folder: Path, overrides: Overrides, other: Overrides | None
    ) -> None:
        """Refuse a folder that two jobs of other settings share, or that another job has filled.

        The usual folder of a job is named by the hash of its settings, and no two share it.
        """
        from layerfusion.config.identity import composed_id, refuse_other_job
        from layerfusion.records.sweep import finished_job

        finished = finished_job(folder, command)
        if other is None and finished in (None, folder.name):
            return
        ids = [
            composed_id(command, self.loader.plain.load_sweep_config(self.config, list(words)))
            for words in (overrides, other or overrides)
        ]
        if ids[0] != ids[1]:
            apart = [
                " ".join(word for word in mine if word not in theirs)
                for mine, theirs in ((other or (), overrides), (overrides, other or ()))
            ]
            raise UserError(
                f"hydra.sweep.subdir={folder.name}: jobs of different settings would share this"
                f" folder ({' and '.join(apart)}); leave it out, and each job has its own"
            )
        if finished is not None:
            refuse_other_job(folder, finished, ids[0])

    def _launch(self, jobs: Sequence[Overrides]) -> dict[Overrides, JobReturn]:
        from layerfusion.composing.launching import LauncherFailed

        assert self.launcher is not None
        said: dict[Overrides, JobReturn] = {}
        for batch in self.split_overrides_to_chunks(
            [list(job) for job in jobs], self.max_batch_size
        ):
            try:
                results = self.launcher.launch(batch, initial_job_idx=len(said))
            except UserError:
                raise
            except (
                Exception
            ) as error:  # launchers raise errors of their own, for example if a worker is killed
                raise LauncherFailed(error) from error
            said |= dict(zip((tuple(job) for job in batch), results, strict=True))
        return said


def _inputs_of(composed: DictConfig) -> str | None:
    """Hash the texts and models of a composed job."""
    from layerfusion.runs.settled import inputs_id

    plain = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    return inputs_id({str(key): value for key, value in plain.items()})


def _returned(result: JobReturn, value: str) -> bool:
    return result.status is JobStatus.COMPLETED and result.return_value == value
