"""The report on the finished jobs of a folder: one HTML page, one Markdown file, figures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from layerfusion.assets.files import write_atomically
from layerfusion.records.job import METRICS
from layerfusion.report.contents import Report, build_report
from layerfusion.report.exports import write_exports
from layerfusion.report.load import load_groups
from layerfusion.report.markdown import FILES, GATES, markdown
from layerfusion.report.profile_blocks import profile_blocks
from layerfusion.report.published import load_published
from layerfusion.report.search_history import search_blocks
from layerfusion.report.skipped import skipped_table


def write_report(
    runs: Path,
    out: Path,
    *,
    title: str,
    facts: Sequence[str] = (),
    only: Collection[str] | None = None,
) -> Path:
    """Write `report.html`, `report.md`, `figures/` and `tables/` on every job under a folder.

    The same jobs give the same files, wherever their folders lie. Figures and tables of an earlier
    report that this one lacks are removed.

    Args:
        runs: folder with the jobs, at any depth.
        out: folder to write to.
        title: of the report.
        facts: sentences or commands that a reader should know, printed with the provenance.
        only: hashes of the jobs to show; all where None.

    Returns:
        Path of the HTML page, which needs no other file.

    Raises:
        UserError: where there is neither a finished job nor a profile, or a job lacks its
            predictions.
    """
    profiles = profile_blocks(runs, only)
    trained = not profiles or any(runs.rglob(METRICS))
    report = build_report(
        load_groups(runs, only) if trained else (),
        title=title,
        facts=facts,
        published=load_published(runs, only) if trained else (),
        profiles=profiles,
        searches=search_blocks(runs),
    )
    skipped = skipped_table(runs)
    if skipped.rows:
        report = replace(report, provenance=(skipped, *report.provenance))
    write_exports(out, report.tables, report.figures)
    write_atomically(out / "report.md", markdown(report).encode())
    page = out / "report.html"
    write_atomically(page, html(report).encode())
    return page


def html(report: Report) -> str:
    """The page: self-contained, without a single request to anywhere."""
    environment = Environment(
        loader=PackageLoader("layerfusion.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # SVG made by the figures is the one thing that is not escaped; its texts are, when drawn.
    environment.filters["svg"] = Markup
    template = environment.get_template("template.html")
    return template.render(report=report, gates_note=GATES, files_note=FILES)
