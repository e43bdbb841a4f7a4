"""`layerfusion results`, `report` and `dashboard`: tables and pages of finished jobs."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from layerfusion.assets.paths import real_path
from layerfusion.commands.arguments import ArgumentParser


def report(arguments: Sequence[str]) -> int:
    """`layerfusion report DIR`: tables, figures and one page; of several folders, side by side."""
    parser = ArgumentParser(
        "layerfusion report",
        description="Tables, figures and one self-contained page: report.html in the folder. Of"
        " several folders it compares what each chose, on the same test rows.",
    )
    parser.add_argument("folders", metavar="DIR", nargs="+", help="holds finished jobs or profiles")
    parser.add_argument(
        "-o",
        "--out",
        metavar="FOLDER",
        help="write here; without it, to DIR, or for several to A-B-… beside the first of them",
    )
    parser.add_argument(
        "--block",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION",
        help="a block of your own for every data set (docs/extend.md); may be given several times",
    )
    parser.add_argument(
        "--texts", action="store_true", help="show the texts of the worst mistakes, not just rows"
    )
    _add_older(parser)
    options = parser.parse_args(arguments)
    folders = [Path(folder) for folder in options.folders]
    out = None if options.out is None else Path(options.out)
    if len(folders) > 1:
        if options.block or options.texts or options.older:
            parser.error("--block, --texts and --older go with one DIR; give each its own page")
        print(_write_comparison(folders, out))
    else:
        print(
            _write_page(
                folders[0], options.block, texts=options.texts, out=out, older=options.older
            )
        )
    return 0


def _write_comparison(folders: Sequence[Path], out: Path | None) -> Path:
    """Write the page on several folders, each named by what tells it from the others.

    Raises:
        UserError: where two of them are the same, or one lies in the other.
    """
    from layerfusion.errors import UserError
    from layerfusion.records.job import find_records
    from layerfusion.report import write_comparison

    places = [real_path(folder) for folder in folders]
    for one, other in itertools.permutations(range(len(places)), 2):
        if places[one].is_relative_to(places[other]):
            what = "is the same as" if places[one] == places[other] else "lies in"
            raise UserError(
                f"report: {folders[one]} {what} {folders[other]}; their jobs would be compared with"
                " themselves"
            )
    depth = 1
    while len({place.parts[-depth:] for place in places}) < len(places):
        depth += 1
    names = ["/".join(part.strip("/") for part in place.parts[-depth:]) for place in places]
    if out is None:
        out = places[0].parent / "-".join(name.replace("/", "_") for name in names)
        if next(iter(find_records(out)), None) is not None:
            raise UserError(f"report: {out} has jobs, and a page of its own; choose -o FOLDER")
    return write_comparison(dict(zip(names, folders, strict=True)), out, title=" and ".join(names))


def results(arguments: Sequence[str]) -> int:
    """`layerfusion results DIR`: the finished jobs, ranked as they are chosen."""
    parser = ArgumentParser(
        "layerfusion results",
        description="The finished jobs under a folder, ranked by their accuracy on validation,"
        " or on folds of train where validation has fewer than 200 independent rows.",
    )
    parser.add_argument("folder", metavar="DIR", help="of a sweep, a search, or several")
    parser.add_argument(
        "--csv", action="store_true", help="print every column as CSV, with all digits"
    )
    parser.add_argument(
        "--mteb",
        metavar="FOLDER",
        help="write the figures of jobs on MTEB's tasks there, in the JSON of its library",
    )
    _add_older(parser)
    options = parser.parse_args(arguments)
    folder = Path(options.folder)
    if options.mteb:
        from layerfusion.findings.mteb import write_mteb

        for path in write_mteb(folder, Path(options.mteb)):
            print(path)
        print(
            "note: the classifiers were not trained as MTEB trains its own, so that the figures do"
            " not compare with its leaderboard",
            file=sys.stderr,
        )
        return 0
    if options.csv:
        from layerfusion.findings.frame import results as frame_of
        from layerfusion.report.render.files import disarmed

        print(frame_of(folder, older=options.older).map(disarmed).to_csv(index=False), end="")
        return 0
    from layerfusion.report.ranking import ranking_lines

    for line in ranking_lines(folder, older=options.older):
        print(line)
    return 0


def _add_older(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--older",
        action="store_true",
        help="show older records too, of jobs that newer code has run again",
    )


def _write_page(
    folder: Path,
    blocks: Sequence[str] = (),
    *,
    texts: bool = False,
    out: Path | None = None,
    older: bool = False,
) -> Path:
    from layerfusion.commands.blocks import find_blocks
    from layerfusion.config.imports import import_from, import_object
    from layerfusion.config.registry import REPORT_SECTIONS
    from layerfusion.report import write_report

    if blocks:
        import_from([Path()])
    found = find_blocks("--block", blocks)
    return write_report(
        folder,
        out or folder,
        title=real_path(folder).name or "LayerFusion report",
        blocks=found,
        texts=_test_texts(folder) if texts else None,
        older=older,
        sections=[import_object("report", path) for path in REPORT_SECTIONS],
    )


def _test_texts(folder: Path) -> dict[str, tuple[str, ...]]:
    """Read the test texts of the data sets of finished jobs, by the fingerprint of the data.

    Raises:
        UserError: where they cannot be read, or are no longer those of the job.
    """
    from layerfusion.errors import UserError
    from layerfusion.records.job import find_records
    from layerfusion.records.settings import config_of_job
    from layerfusion.runs.job_texts import texts_of

    found: dict[str, tuple[str, ...]] = {}
    for place, record in find_records(folder):
        if record.dataset.fingerprint in found:
            continue
        try:
            dataset = texts_of(config_of_job(place), record)
        except UserError as error:
            raise UserError(f"--texts: job {place}: {error}; leave out --texts") from error
        found[dataset.fingerprint] = tuple(dataset.splits["test"].texts)
    return found


def dashboard(arguments: Sequence[str]) -> int:
    """`layerfusion dashboard [DIR]`: W&B workspace and report; without a key, the local page."""
    from layerfusion.config.job import LoggerConfig, PathsConfig

    parser = ArgumentParser(
        "layerfusion dashboard",
        description="Build a W&B workspace and report; without a key, open the local report.",
    )
    parser.add_argument("folder", nargs="?", metavar="DIR", default=PathsConfig().outputs)
    parser.add_argument("--project", help="without it, WANDB_PROJECT or layerfusion")
    parser.add_argument("--entity", help="user or team; without it, WANDB_ENTITY or the key's own")
    options = parser.parse_args(arguments)

    from layerfusion.tracking.tracker import goes_online
    from layerfusion.tracking.variables import entity_of, project_of

    if goes_online():
        from layerfusion.tracking.dashboard import publish

        chosen = LoggerConfig(project=options.project, entity=options.entity)
        for address in publish(project_of(chosen), entity_of(chosen)):
            print(address)
        return 0
    import webbrowser

    page = _write_page(Path(options.folder))
    print(page)
    webbrowser.open(page.resolve().as_uri())
    return 0
