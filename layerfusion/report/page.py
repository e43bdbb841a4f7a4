"""The report on a folder: one HTML page, one Markdown file, figures and tables."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from layerfusion.assets.files import write_atomically
from layerfusion.config.secrets import shown
from layerfusion.errors import UserError
from layerfusion.findings.grouping import file_names
from layerfusion.findings.results import Results
from layerfusion.report.contents import (
    PageSections,
    Report,
    SectionBlock,
    build_comparison,
    build_report,
)
from layerfusion.report.format import utf8
from layerfusion.report.render.files import PAGES, write_exports
from layerfusion.report.render.markdown import markdown


def write_report(
    runs: Path,
    out: Path,
    *,
    title: str,
    facts: Sequence[str] = (),
    only: Collection[str] | None = None,
    blocks: Sequence[SectionBlock] = (),
    sections: Sequence[PageSections] = (),
    texts: Mapping[str, Sequence[str]] | None = None,
    older: bool = False,
) -> Path:
    """Write `report.html`, `report.md`, `figures/` and `tables/` on every job under a folder.

    The same jobs give the same files, wherever their folders lie. Figures and tables of an earlier
    report that this one lacks are removed. What cannot be read is left out, and named on stderr
    and on the page.

    Args:
        runs: folder with the jobs, at any depth.
        out: folder to write to.
        title: title of the report.
        facts: sentences or commands for the section on where the report comes from.
        only: hashes of the jobs to show; None for all.
        blocks: further blocks for the section of each data set: see `contents.SECTION_BLOCKS`.
        sections: further sections for the page: see `contents.PAGE_SECTIONS`.
        texts: texts of the test rows by the fingerprint of their data; else mistakes are rows only.
        older: True to show every record of a job that newer code has run again; else the newest.

    Returns:
        Path of the HTML page, which needs no other file.

    Raises:
        UserError: where there is neither a finished job nor a profile that can be read.
    """
    results = _told(Results(runs, only, facts, texts or {}, keep_older=older))
    return _write(build_report(results, title=title, blocks=blocks, sections=sections), out)


def write_comparison(sweeps: Mapping[str, Path], out: Path, *, title: str) -> Path:
    """Write `report.html`, `report.md`, `figures/` and `tables/` on several sweeps side by side.

    Args:
        sweeps: name of each sweep to the folder with its jobs.
        out: folder to write to.
        title: title of the page.

    Returns:
        Path of the HTML page, which needs no other file.

    Raises:
        UserError: where a folder has no finished job of the honest protocol.
    """
    found = {name: _told(Results(folder)) for name, folder in sweeps.items()}
    for results in found.values():
        if not results.groups:
            raise UserError(
                f"{results.folder}: no finished job of the honest protocol, so there is nothing to"
                " compare; leave it out"
            )
    return _write(build_comparison(found, title=title), out)


def _told(results: Results) -> Results:
    """Make sure that there is something to report, and name on stderr what cannot be read."""
    results.require_some()
    for line in results.damaged.values():
        print(f"layerfusion: left out: {shown(line)}", file=sys.stderr)
    return results


def _write(report: Report, out: Path) -> Path:
    write_exports(out, report.tables, report.figures)
    page, plain = (out / name for name in PAGES)
    write_atomically(plain, utf8(markdown(report.title, report.intro, report.sections)))
    write_atomically(page, utf8(html(report)))
    return page


def html(report: Report) -> str:
    """Render the page, which is self-contained and sends no request to anywhere."""
    environment = Environment(
        loader=PackageLoader("layerfusion.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Only the SVG of the figures is not escaped; its texts were escaped when it was drawn.
    environment.filters["svg"] = Markup
    titles: list[str] = []

    def anchor(title: str) -> str:
        """Give a part an address that no part before it has."""
        titles.append(title)
        return file_names(titles, "part")[-1]

    environment.globals["anchor"] = anchor
    return environment.get_template("template.html").render(report=report)
