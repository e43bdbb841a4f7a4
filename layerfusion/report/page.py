"""The report on the finished jobs of a folder: one HTML page, one Markdown file, figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from layerfusion.assets.files import write_atomically
from layerfusion.report.blocks import Block
from layerfusion.report.canvas import Colors, Drawing
from layerfusion.report.choices import choice_tables
from layerfusion.report.costs import job_cost_table, model_cost_table
from layerfusion.report.draws import find_over_draws
from layerfusion.report.exports import find_parts, named_tables, write_exports
from layerfusion.report.figures import fusion_figure, model_colors
from layerfusion.report.findings import Findings, find_all
from layerfusion.report.gates import GateView, gate_views
from layerfusion.report.jobs import Job
from layerfusion.report.layer_curves import layer_figure
from layerfusion.report.learning_curves import curve_block
from layerfusion.report.lexical import lexical_block
from layerfusion.report.load import DataGroup, load_groups
from layerfusion.report.markdown import FILES, GATES, markdown
from layerfusion.report.model_counts import count_block
from layerfusion.report.names import count, job_names, listing, plural
from layerfusion.report.operators import operator_block
from layerfusion.report.pairs import pair_block
from layerfusion.report.pareto import pareto_block
from layerfusion.report.profile_blocks import profile_blocks
from layerfusion.report.published import PublishedReport, load_published, published_report
from layerfusion.report.search_history import search_blocks
from layerfusion.report.skipped import skipped_table
from layerfusion.report.tables import (
    Column,
    Row,
    Table,
    comparisons,
    finding_table,
    fusion_table,
    layer_table,
)
from layerfusion.report.trials import trials
from layerfusion.report.words import Summary, summarise
from layerfusion.runs.record import METRICS, RunRecord

PROFILES_ONLY = (
    "Each text was passed once through frozen language models; the vectors of every layer were"
    " pooled, and each layer was judged on its own. No head was trained here beyond the probes."
)


@dataclass(frozen=True)
class Section:
    """All about one data set."""

    label: str
    key: str
    summary: Summary
    layer_figure: Drawing | None
    layer_table: Table | None
    fusion_figure: Drawing | None
    fusion_table: Table
    finding_table: Table | None
    experiments: tuple[Block, ...]
    choices: tuple[Table, ...]
    gates: tuple[GateView, ...]
    costs: tuple[Table, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What both pages show."""

    title: str
    intro: tuple[str, ...]
    sections: tuple[Section, ...]
    curves: tuple[Block, ...]
    """Learning curves, over samples of the same data."""
    provenance: tuple[Table, ...]
    facts: tuple[str, ...]
    published: PublishedReport | None = None
    """On jobs under the published protocol, which nothing else here is about."""
    profiles: tuple[Block, ...] = ()
    """Layer profiles, and the study of those that were judged on test."""
    searches: tuple[Block, ...] = ()

    @property
    def figures(self) -> tuple[Drawing, ...]:
        """Every figure of the report, in order."""
        return tuple(find_parts(self, Drawing))

    @property
    def tables(self) -> dict[str, Table]:
        """Every table of the report by its file's name, that of a section ahead."""
        rest = replace(self, sections=(), profiles=())
        groups = [(section.key, find_parts(section, Table)) for section in self.sections]
        groups += [
            (f"profile-{number}", find_parts(block, Table))
            for number, block in enumerate(self.profiles, start=1)
        ]
        return named_tables([*groups, ("", find_parts(rest, Table))])


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


def build_report(
    groups: Sequence[DataGroup],
    *,
    title: str,
    facts: Sequence[str] = (),
    published: Sequence[RunRecord] = (),
    profiles: Sequence[Block] = (),
    searches: Sequence[Block] = (),
) -> Report:
    """Gather what the pages show.

    A sample of few rows a class has no section of its own where it is part of a learning curve.

    Args:
        groups: the honest jobs.
        title: of the report.
        facts: printed with the provenance.
        published: jobs under the published protocol.
        profiles: what there is on layer profiles.
        searches: the same of searches.
    """
    colors = model_colors(groups)
    over_draws = find_over_draws(trials(groups))
    curves = {trial: curve_block(trial, colors, own) for trial, own in over_draws.items()}
    joined = {
        group
        for trial, block in curves.items()
        for group in trial.groups
        if block is not None and group.data.per_class is not None
    }
    shown = [group for group in groups if group not in joined]
    findings = find_all(shown)
    return Report(
        title,
        _intro(groups) if groups or published else (PROFILES_ONLY,),
        tuple(_section(group, findings[group], colors) for group in shown),
        tuple(block for block in curves.values() if block is not None),
        _provenance(groups),
        tuple(facts),
        published_report(published, groups),
        tuple(profiles),
        tuple(searches),
    )


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


# -- parts --------------------------------------------------------------------------------------


def _intro(groups: Sequence[DataGroup]) -> tuple[str, ...]:
    jobs = [job for group in groups for job in group.jobs]
    if not jobs:
        return ("No job here followed the honest protocol: this page has no result.",)
    models = sorted({name for job in jobs for name in job.record.backbone_names})
    return (
        f"Each text was passed once through {'the' if len(models) == 1 else 'each of the'} frozen"
        f" language model{'s' if len(models) > 1 else ''} {listing(models)}; the vectors of every"
        " layer were pooled and kept. On them small heads were trained, on one layer alone or on"
        " several fused. No language model was changed."
        f" This page reports {plural(len(jobs), 'job')} on {plural(len(groups), 'data set')}.",
        "Every choice is made on validation, and test only says what the choice is worth. Square"
        " brackets are 95 % bootstrap intervals over test rows, drawn class by class; ± is the"
        " standard deviation over training seeds. A difference is called a gain or a loss only if"
        " its interval leaves zero out and the exact test of McNemar still shows it once adjusted"
        " for the number of comparisons (Holm), at 5 %; otherwise these rows show no difference,"
        " whatever the sign of the figure. Intervals themselves are not widened for the number of"
        " comparisons: of twenty, one may miss by chance. The floor is a bag-of-words classifier"
        " without any language model; a model that does not beat it earns nothing here.",
    )


def _section(group: DataGroup, findings: Findings, colors: Colors) -> Section:
    rows = comparisons(group, findings)
    compared = any(row.finding is not None for row in rows)
    names = job_names(group)
    shown = [row.job for row in rows if row.job is not None and row.job.sources > 1]
    gated = [job for job in shown if job.record.layers[0].mean_gate is not None]
    experiments = (
        operator_block(group, findings),
        pair_block(group, findings),
        count_block(group),
        lexical_block(group, findings),
        pareto_block(group, colors),
    )
    return Section(
        group.label,
        group.key,
        summarise(group, findings),
        layer_figure(group, colors) if group.curves else None,
        layer_table(group) if group.curves else None,
        fusion_figure(group, rows, colors) if compared else None,
        fusion_table(rows, group.chosen or group.jobs[0]),
        finding_table(rows, findings),
        tuple(block for block in experiments if block is not None),
        choice_tables(group),
        gate_views(group, gated, names, colors),
        (model_cost_table(group), job_cost_table(rows)),
        _notes(group),
    )


def _notes(group: DataGroup) -> tuple[str, ...]:
    data = group.data
    rows = ", ".join(
        f"{split} {count(used)}"
        + (f" of {count(data.available[split])}" if split in data.available else "")
        for split, used in data.rows.items()
    )
    seeds = Counter(tuple(seed.seed for seed in job.record.seeds) for job in group.jobs)
    written = "; ".join(
        f"{', '.join(map(str, used))} ({plural(jobs, 'job')})"
        for used, jobs in sorted(seeds.items())
    )
    missing = [
        f"{curve.label}: {len(curve.points)} of {len(curve.layers)} layers were run alone."
        for curve in group.curves
        if len(curve.points) < len(curve.layers)
    ]
    return (
        f"Rows used: {rows}; {plural(len(data.label_names), 'class')}.".replace(
            "classs", "classes"
        ),
        "The rows are a seeded, stratified sample." if data.sampled else "All rows were used.",
        f"{plural(data.overlap, 'test row')} also occur in train with the same text."
        if data.overlap
        else "No text of test occurs in train.",
        *data.notes,
        *missing,
        "Protocol honest: layer, operator and epoch are chosen on validation, test is evaluated"
        " once at the end.",
        f"Seeds: {written}.",
    )


# -- provenance ---------------------------------------------------------------------------------


def _provenance(groups: Sequence[DataGroup]) -> tuple[Table, ...]:
    tables = (_versions(groups), _data(groups), _models(groups), _jobs(groups))
    return tuple(table for table in tables if table.rows)


def _versions(groups: Sequence[DataGroup]) -> Table:
    found: dict[str, dict[str, None]] = {}
    for job in _all(groups):
        for package, version in job.record.versions.items():
            found.setdefault(package, {})[version] = None
    rows = [Row((package, ", ".join(sorted(found[package])))) for package in sorted(found)]
    return Table("Versions", _texts("Package", "Version"), tuple(rows))


def _data(groups: Sequence[DataGroup]) -> Table:
    rows = [Row((g.label, g.data.origin, g.data.fingerprint)) for g in groups]
    return Table("Data", _texts("Data set", "Origin", "Fingerprint"), tuple(rows))


def _models(groups: Sequence[DataGroup]) -> Table:
    rows: dict[tuple[str, str], Row] = {}
    for job in _all(groups):
        for name in job.record.backbone_names:
            backbone = job.record.backbones[name]
            spec = json.dumps(backbone.spec, sort_keys=True, ensure_ascii=False)
            cells = (name, backbone.origin, backbone.spec_hash, spec)
            rows[name, backbone.spec_hash] = Row(cells)
    ordered = tuple(rows[key] for key in sorted(rows))
    return Table("Models", _texts("Model", "Origin", "Spec hash", "Spec"), ordered)


def _jobs(groups: Sequence[DataGroup]) -> Table:
    rows = []
    for group in groups:
        names = job_names(group)
        for job in group.jobs:
            point = f"{job.layer.backbone} {job.layer.layer}, {job.record.fusion}"
            cells = (group.label, names.get(job, point), job.record.job, job.record.created)
            rows.append(Row(cells))
    return Table("Jobs", _texts("Data set", "What", "Job", "Made"), tuple(rows))


def _texts(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, numeric=False) for title in titles)


def _all(groups: Sequence[DataGroup]) -> list[Job]:
    return [job for group in groups for job in group.jobs]
