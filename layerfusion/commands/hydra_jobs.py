"""The commands that Hydra composes (train, extract, profile, plan), and those that read results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from layerfusion.commands.arguments import ArgumentParser
from layerfusion.composing.hydra import run_hydra
from layerfusion.config.job import TrainConfig
from layerfusion.errors import unknown

log = logging.getLogger(__name__)


def train(arguments: Sequence[str]) -> int:
    """Run `layerfusion train`: one job, or a sweep with `-m`."""
    return run_hydra("train", _train_job, arguments)


def _train_job(config: TrainConfig, folder: Path) -> float | None:
    from layerfusion.records.format import result_lines
    from layerfusion.runs.job import run_job

    record = run_job(config, folder)
    for line in result_lines(record):
        log.info(line)
    log.info("record: %s", folder)
    # Objective for Hydra sweepers. None under as_published, which has test figures only.
    return None if record.published else record.validation["accuracy"].mean


def extract(arguments: Sequence[str]) -> int:
    """Run `layerfusion extract`, which only fills the stores."""
    return run_hydra("extract", _extract_job, arguments)


def _extract_job(config: TrainConfig, _folder: Path) -> None:
    from layerfusion.embeddings.store import EmbeddingStore
    from layerfusion.runs.inputs import dataset_of, extract_all

    for name, source in extract_all(config, dataset_of(config)).items():
        for pooling, store in source.stores.items():
            if isinstance(store, EmbeddingStore):
                log.info("%s (%s): %d texts in %s", name, pooling, len(store), store.folder)


def profile(arguments: Sequence[str]) -> int:
    """Run `layerfusion profile`: every score of every layer, as table, JSON and figure."""
    return run_hydra("profile", _profile_job, arguments)


def _profile_job(config: TrainConfig, folder: Path) -> None:
    from layerfusion.report.profile_figure import write_profile_figure
    from layerfusion.report.profile_tables import profile_lines, write_csv
    from layerfusion.runs.profile import run_profile

    made = run_profile(config, folder)
    write_csv(made, folder / "profile.csv")
    write_profile_figure(made, folder / "profile.png")
    for line in profile_lines(made):
        log.info(line)
    log.info("profile: %s (profile.json, profile.csv, profile.png)", folder)


def plan(arguments: Sequence[str]) -> int:
    """Run `layerfusion plan`, which shows what a job would cost."""
    return run_hydra("plan", _plan_job, arguments)


def _plan_job(config: TrainConfig, _folder: Path) -> None:
    from layerfusion.runs.plan import make_plan, plan_lines

    for line in plan_lines(make_plan(config)):
        log.info(line)


def report(arguments: Sequence[str]) -> int:
    """Run `layerfusion report DIR`: tables, figures and one page, and a page about profiles."""
    parser = ArgumentParser(
        "layerfusion report",
        description="Tables, figures and one self-contained page: report.html in the folder.",
    )
    parser.add_argument("folder", metavar="DIR", help="folder of finished jobs or profiles")
    for page in _write_pages(Path(parser.parse_args(arguments).folder)):
        print(page)
    return 0


def _write_pages(folder: Path) -> list[Path]:
    from layerfusion.report import write_report
    from layerfusion.report.regret import write_profiles_report

    judged = write_profiles_report(folder, folder) if folder.is_dir() else None
    pages = [] if judged is None else [judged]
    pages.append(write_report(folder, folder, title="LayerFusion report"))
    return pages


def dashboard(arguments: Sequence[str]) -> int:
    """Run `layerfusion dashboard [DIR]`: W&B pages or, without a key, the local page."""
    from layerfusion.config.job import LoggerConfig, PathsConfig
    from layerfusion.tracking.tracker import goes_online

    parser = ArgumentParser(
        "layerfusion dashboard",
        description="Build a W&B workspace and report; without a key, open the local report.",
    )
    parser.add_argument("folder", nargs="?", metavar="DIR", default=PathsConfig().outputs)
    parser.add_argument("--project", default=LoggerConfig().project)
    parser.add_argument("--entity", help="W&B user or team; the default of the API key if omitted")
    options = parser.parse_args(arguments)
    if goes_online():
        from layerfusion.tracking.dashboard import publish

        for address in publish(options.project, options.entity):
            print(address)
        return 0
    import webbrowser

    for page in _write_pages(Path(options.folder)):
        print(page)
        webbrowser.open(page.resolve().as_uri())
    return 0


def status(arguments: Sequence[str]) -> int:
    """Run `layerfusion status DIR`, which shows the state of a sweep, also while it runs."""
    from layerfusion.runs.sweep import status_lines

    parser = ArgumentParser(
        "layerfusion status",
        description="Which jobs of a sweep are done, failed, running or missing; the time left.",
    )
    parser.add_argument("folder", metavar="DIR", help="folder of the sweep: outputs/sweeps/NAME")
    for line in status_lines(Path(parser.parse_args(arguments).folder)):
        print(line)
    return 0


def cache(arguments: Sequence[str]) -> int:
    """Run `layerfusion cache ls|verify [--delete] [FOLDER]`: list or check cached embeddings."""
    from layerfusion.config.job import PathsConfig
    from layerfusion.embeddings.inspect import list_stores, verify_stores

    parser = ArgumentParser(
        "layerfusion cache",
        description="ls: list what is cached; verify: compare every shard with its checksum.",
    )
    parser.add_argument("action", metavar="ls|verify")
    parser.add_argument("folder", nargs="?", default=PathsConfig().cache, metavar="FOLDER")
    parser.add_argument("--delete", action="store_true", help="remove the shards that are damaged")
    options = parser.parse_args(arguments)
    if options.action not in ("ls", "verify"):
        raise unknown("layerfusion cache", options.action, ("ls", "verify [--delete]"))
    if options.action == "ls":
        for line in list_stores(Path(options.folder)):
            print(line)
        return 0
    return verify_stores(Path(options.folder), delete=options.delete)
