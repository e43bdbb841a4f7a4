"""The contents of the report: which sections the page has, and which blocks a section has.

A block is one file in `blocks/` and one line in `SECTION_BLOCKS`: a function that takes the jobs on
one data set and the comparisons between them, and returns a `Block`, or None where it has nothing
to show. `layerfusion report DIR --block my_blocks:calibration` adds a function of that form from
anywhere:

    def calibration(group: DataGroup, findings: Findings) -> Block | None:
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerfusion.errors import UserError
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.results import Results
from layerfusion.findings.tests import Findings
from layerfusion.records.format import listing, plural
from layerfusion.report.block import Block, Part, Text
from layerfusion.report.blocks.choices import choice_block
from layerfusion.report.blocks.costs import cost_block
from layerfusion.report.blocks.data import data_block
from layerfusion.report.blocks.fusion import fusion_block
from layerfusion.report.blocks.gates import gate_block
from layerfusion.report.blocks.layers import layer_block
from layerfusion.report.blocks.learning_curves import curve_sections
from layerfusion.report.blocks.model_counts import count_block
from layerfusion.report.blocks.operators import operator_block
from layerfusion.report.blocks.pareto import pareto_block
from layerfusion.report.blocks.parts import lexical_block, pair_block
from layerfusion.report.blocks.profiles import profile_sections
from layerfusion.report.blocks.provenance import provenance_sections
from layerfusion.report.blocks.searches import search_sections
from layerfusion.report.blocks.summary import Summary, sample_sentence
from layerfusion.report.figures.canvas import Drawing
from layerfusion.report.render.files import named_tables
from layerfusion.report.table import Table

SectionBlock = Callable[[DataGroup, Findings], Block | None]
PageSections = Callable[[Results], list[Block]]

SECTION_BLOCKS: tuple[SectionBlock, ...] = (
    layer_block,
    fusion_block,
    operator_block,
    pair_block,
    count_block,
    lexical_block,
    pareto_block,
    choice_block,
    gate_block,
    cost_block,
    data_block,
)
"""Blocks of the section of a data set, in order."""
PAGE_SECTIONS: tuple[PageSections, ...] = (curve_sections, search_sections)
"""Sections after those of the data sets; profiles and the origin of the report come last."""


@dataclass(frozen=True)
class Report:
    """The contents of both pages."""

    title: str
    intro: tuple[str, ...]
    sections: tuple[Block, ...]

    @property
    def figures(self) -> tuple[Drawing, ...]:
        """Every figure of the report, in order."""
        return tuple(figure for section in self.sections for figure in section.figures)

    @property
    def tables(self) -> dict[str, Table]:
        """Every table of the report by the name of its file."""
        return named_tables(self.sections)


def build_report(
    results: Results,
    *,
    title: str,
    blocks: Sequence[SectionBlock] = (),
    sections: Sequence[PageSections] = (),
) -> Report:
    """Gather what the pages show; `blocks` and `sections` come on top, as in `write_report`."""
    cards = (Summary(group, results.findings[group]) for group in results.sections)
    found = [Block("Summary", cards, "summary"), *_data_sections(results, blocks)]
    for make in (*PAGE_SECTIONS, *sections, profile_sections, provenance_sections):
        found += make(results)
    return Report(title, (*_intro(results), *_left_out(results)), tuple(filter(None, found)))


def _data_sections(results: Results, blocks: Sequence[SectionBlock]) -> list[Block]:
    sections = []
    for group in results.sections:
        sample = sample_sentence(group)
        parts: list[Part | None] = [Text(sample, "sample") if sample else None]
        for make in (*SECTION_BLOCKS, *blocks):
            block = make(group, results.findings[group])
            if not isinstance(block, Block | None):
                name = getattr(make, "__name__", make)
                raise UserError(f"block {name}: returned {block!r}; it has to be a Block or None")
            parts.append(block)
        sections.append(Block(group.label, parts, f"data-{group.key}", group.key))
    return sections


def _left_out(results: Results, *, most: int = 5) -> list[str]:
    """Name what cannot be read."""
    names = [path.relative_to(results.folder).as_posix() for path in results.damaged]
    if not names:
        return []
    named = names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]
    return [
        f"Left out, as {plural(len(names), 'file')} cannot be read: {listing(named)}. The reasons"
        " stand at the end, among the jobs that are not in this report."
    ]


# -- introduction -------------------------------------------------------------------------------


def _intro(results: Results) -> tuple[str, ...]:
    if not results.jobs:
        return (
            "Each text was passed once through frozen language models; the vectors of every layer"
            " were pooled, and each layer was judged by itself. Nothing was trained here but the"
            " probes.",
        )
    groups = results.groups
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
    names = {group.data.name for group in groups}
    samples = f"{len(groups)} samples of " if len(names) < len(groups) else ""
    return (
        f"{' '.join(sources)} Small heads were trained on them, on one layer alone or on several"
        f" fused. No language model was changed. This page reports {plural(len(jobs), 'job')} on"
        f" {samples}{plural(len(names), 'data set')}.",
        "Every choice is made on validation, and test only says what the choice is worth. Square"
        " brackets are 95 % bootstrap intervals over test rows, drawn class by class; ± is the"
        " standard deviation over training seeds. A difference is called a gain or a loss only if"
        " its interval leaves zero out and the exact test of McNemar is still significant at 5 %"
        " after adjustment for the number of comparisons (Holm). Otherwise these rows show no"
        " difference, whatever the sign of the figure. The intervals themselves are not widened for"
        " the number of comparisons: of twenty, one may miss by chance. The baseline is a"
        " bag-of-words classifier without any language model; a model that does not beat it earns"
        " nothing here.",
    )
