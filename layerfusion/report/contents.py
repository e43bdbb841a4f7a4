"""What the report on finished jobs holds, before any page is made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from layerfusion.records.format import plural
from layerfusion.records.job import RunRecord
from layerfusion.report.blocks import Block
from layerfusion.report.canvas import Colors, Drawing
from layerfusion.report.choices import choice_tables
from layerfusion.report.costs import job_cost_table, model_cost_table
from layerfusion.report.draws import find_over_draws
from layerfusion.report.exports import find_parts, named_tables
from layerfusion.report.figures import fusion_figure, model_colors
from layerfusion.report.findings import Findings, find_all
from layerfusion.report.gates import GateView, gate_views
from layerfusion.report.layer_curves import layer_figure
from layerfusion.report.learning_curves import curve_block
from layerfusion.report.lexical import lexical_block
from layerfusion.report.load import DataGroup
from layerfusion.report.model_counts import count_block
from layerfusion.report.names import count, job_names, listing
from layerfusion.report.operators import operator_block
from layerfusion.report.pairs import pair_block
from layerfusion.report.pareto import pareto_block
from layerfusion.report.provenance import provenance_tables
from layerfusion.report.published import PublishedReport, published_report
from layerfusion.report.tables import Table, comparisons, finding_table, fusion_table, layer_table
from layerfusion.report.trials import trials
from layerfusion.report.words import Summary, summarise

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
        provenance_tables(groups),
        tuple(facts),
        published_report(published, groups),
        tuple(profiles),
        tuple(searches),
    )


# -- parts --------------------------------------------------------------------------------------


def _told(groups: Sequence[DataGroup]) -> str:
    names = {group.data.name for group in groups}
    samples = f"{len(groups)} samples of " if len(names) < len(groups) else ""
    return samples + plural(len(names), "data set")


def _intro(groups: Sequence[DataGroup]) -> tuple[str, ...]:
    jobs = [job for group in groups for job in group.jobs]
    if not jobs:
        return ("No job here followed the honest protocol: this page has no result.",)
    lexical = {name for job in jobs for name in job.record.lexical}
    models = sorted({x for job in jobs for x in job.record.backbone_names} - lexical)
    sources = []
    if models:
        sources.append(
            f"Each text was passed once through {'the' if len(models) == 1 else 'each of the'}"
            f" frozen language model{'s' if len(models) > 1 else ''} {listing(models)}; the vectors"
            " of every layer were pooled and kept."
        )
    if lexical:
        sources.append(f"TF-IDF of the texts was taken as well, as {listing(sorted(lexical))}.")
    return (
        f"{' '.join(sources)} "
        "On them small heads were trained, on one layer alone or on several fused. No language"
        " model was changed."
        f" This page reports {plural(len(jobs), 'job')} on {_told(groups)}.",
        "Every choice is made on validation, and test only says what the choice is worth. Square"
        " brackets are 95 % bootstrap intervals over test rows, drawn class by class; ± is the"
        " standard deviation over training seeds. A difference is called a gain or a loss only if"
        " its interval leaves zero out and the exact test of McNemar still shows it once adjusted"
        " for the number of comparisons (Holm), at 5 %; otherwise these rows show no difference,"
        " whatever the sign of the figure. Intervals themselves are not widened for the number of"
        " comparisons: of twenty, one may miss by chance. The baseline is a bag-of-words classifier"
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
        f"{curve.label}: {len(curve.points)} of {len(curve.layers)} layers"
        f" {'was' if len(curve.points) == 1 else 'were'} run alone."
        for curve in group.curves
        if len(curve.points) < len(curve.layers)
    ]
    return (
        f"Rows used: {rows}; {plural(len(data.label_names), 'class')}.".replace(
            "classs", "classes"
        ),
        "The rows are a seeded, stratified sample." if data.sampled else "All rows were used.",
        f"{plural(data.overlap, 'test row')} also {'occurs' if data.overlap == 1 else 'occur'} in"
        " train with the same text."
        if data.overlap
        else "No text of test occurs in train.",
        *data.notes,
        *missing,
        "Protocol honest: layer, operator and epoch are chosen on validation, test is evaluated"
        " once at the end.",
        f"Seeds: {written}.",
    )
