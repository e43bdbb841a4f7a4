"""The contents of the report: which sections the page has, and which blocks a section has.

A block is one file in `blocks/` and one line in `SECTION_BLOCKS`: a function that takes the jobs on
one data set and the comparisons between them, and returns a `Block`, or None where it has nothing
to show. `layerfusion report DIR --block my_blocks:calibration` adds a function of that form from
anywhere:

    def calibration(group: DataGroup, findings: Findings) -> Block | None:
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layerfusion.errors import UserError
from layerfusion.findings.choice import rule_words
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.measures import SETS, drawn_words, measure_of, tests_words
from layerfusion.findings.renewed import older_words
from layerfusion.findings.results import Results
from layerfusion.findings.sweeps import SideBySide
from layerfusion.findings.tests import Findings
from layerfusion.records.format import listing, plural
from layerfusion.report.block import Block, Folded, Part, Text
from layerfusion.report.blocks.choices import choice_block
from layerfusion.report.blocks.costs import cost_block
from layerfusion.report.blocks.data import data_block
from layerfusion.report.blocks.errors import error_block
from layerfusion.report.blocks.fusion import fusion_block
from layerfusion.report.blocks.gates import gate_block
from layerfusion.report.blocks.layers import layer_block
from layerfusion.report.blocks.learning_curves import chosen_line, curve_sections
from layerfusion.report.blocks.model_counts import count_block
from layerfusion.report.blocks.operators import operator_block
from layerfusion.report.blocks.pareto import pareto_block
from layerfusion.report.blocks.parts import lexical_block, pair_block
from layerfusion.report.blocks.profiles import profile_sections
from layerfusion.report.blocks.provenance import provenance_sections
from layerfusion.report.blocks.searches import search_sections
from layerfusion.report.blocks.side_by_side import leader_sections, side_by_side_sections
from layerfusion.report.blocks.summary import (
    answer_table,
    curve_card,
    group_card,
    sample_sentence,
)
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
    error_block,
    pareto_block,
    choice_block,
    gate_block,
    cost_block,
    data_block,
)
"""Blocks of the section of a data set, in order."""
PAGE_SECTIONS: tuple[PageSections, ...] = (leader_sections, search_sections)
"""Sections after those of curves and data sets; profiles and the origin of the report come last."""
NAMED = 3
"""Most data sets that the title names."""
IN_SIGHT = 2
"""Most cards that are seen without scrolling; of more, a table comes first."""


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
    found = [
        Block("What to use", (*_answers(results), Folded(_method(results), METHOD)), "summary"),
        *curve_sections(results),
        *_data_sections(results, blocks),
    ]
    for make in (*PAGE_SECTIONS, *sections, profile_sections, provenance_sections):
        found += make(results)
    return Report(
        _title(title, results), (*_intro(results), *_left_out(results)), tuple(filter(None, found))
    )


def build_comparison(sweeps: Mapping[str, Results], *, title: str) -> Report:
    """Gather what the page on several sweeps shows."""
    counts = [f"{name}: {_jobs_on(results.groups)}" for name, results in sweeps.items()]
    left_out = [line for results in sweeps.values() for line in _left_out(results)]
    sections = side_by_side_sections(SideBySide(sweeps))
    intro = f"{'; '.join(counts)}. The page of each folder (layerfusion report DIR) has the rest."
    return Report(title, (intro, *left_out), tuple(sections))


def _title(title: str, results: Results) -> str:
    """Name the data sets after the title, unless it does so already."""
    names = list(dict.fromkeys(group.data.name for group in results.groups))
    new = [name for name in names if name not in title]
    if not new:
        return title
    return f"{title}: {listing(new) if len(new) <= NAMED else plural(len(new), 'data set')}"


def _answers(results: Results) -> list[Part]:
    """Make a card for each data set and, for many of them, a table before the cards.

    A data set with samples of several sizes has the curve over them in its card.
    """
    groups, findings = results.sections, results.findings
    learned = [(curve, line) for curve in results.curves if (line := chosen_line(curve))]
    of = {group: found for found in learned for group in found[0].groups}
    cards = [group_card(group, findings[group], of.get(group)) for group in groups]
    sampled = [curve_card(*x) for x in learned if not {*x[0].groups} & {*groups}]
    table = [answer_table(groups, findings)] if len(cards) > IN_SIGHT else []
    return [*table, *cards, *sampled]


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
    """Name what cannot be read, and count what newer code has run again."""
    lines = [older_words(len(results.older))] if results.older else []
    if names := [path.relative_to(results.folder).as_posix() for path in results.damaged]:
        named = names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]
        lines.append(
            f"Left out, as {plural(len(names), 'file')} cannot be read: {listing(named)}. The"
            " reasons stand at the end, among the jobs that are not in this report."
        )
    return lines


def _intro(results: Results) -> tuple[str, ...]:
    if not results.jobs:
        return (
            "Each text was passed once through frozen language models; the vectors of every layer"
            " were pooled, and each layer was judged by itself. Nothing was trained here but the"
            " probes.",
        )
    if not any(group.jobs for group in results.groups):
        return ("No job here followed the honest protocol: this page has no result.",)
    noun = "model" if len(results.models) == 1 else "models"
    made = f"; frozen language {noun}: {listing(results.models)}" if results.models else ""
    return (f"{_jobs_on(results.groups)}{made}.",)


def _jobs_on(groups: Sequence[DataGroup]) -> str:
    """Count jobs, samples and data sets; samples of one data set are groups of their own."""
    names = {group.data.name for group in groups}
    samples = f"{len(groups)} samples of " if len(names) < len(groups) else ""
    jobs = plural(sum(len(group.jobs) for group in groups), "job")
    return f"{jobs} on {samples}{plural(len(names), 'data set')}"


METHOD = "What the figures mean, and how sure they are"


def _method(results: Results) -> tuple[str, ...]:
    if not results.groups:
        return ()
    made = (
        "Each text was passed once through frozen language models; the vectors of every layer were"
        " pooled and kept."
    )
    if results.lexical:
        made += f" TF-IDF of the texts was taken as well, as {listing(results.lexical)}."
    if results.given:
        made += f" The vectors of {listing(results.given)} were computed elsewhere."
    data = [group.data for group in results.groups]
    several = [SETS] if any(one.multilabel for one in data) else []
    measure = measure_of(results.groups)
    return (
        f"{made} Small heads were trained on them, on one layer alone or on several fused. No"
        " language model was changed.",
        *several,
        f"One rule chooses everywhere on this page: {rule_words(measure)}. Where no layer was run"
        " alone, the single layer is chosen by its probe on held-out rows. Test only says what"
        " the choice is worth. The baseline is a bag-of-words classifier without any language"
        " model; a model that is not better earns nothing here.",
        f"Square brackets are 95 % intervals over test rows (bootstrap, {drawn_words(data)}, and"
        " nowhere narrower than unseen rows allow); ± is the standard deviation over training"
        f" seeds. A difference is that of the mean {measure} over seeds, and its p-value is that"
        f" of {tests_words(group.judge.metric for group in results.groups)}. Interval and test"
        " never contradict each other.",
        "Better or worse: the test shows it at 5 % after correction for the number of comparisons"
        " (Holm). Probably better or worse: it shows it, but not after the correction. Cannot be"
        " told: it does not; then the difference is named that as many rows would show four times"
        " out of five. The comparisons of the cards are corrected among themselves, a data set at a"
        " time, so that more jobs in the folder do not make their correction stricter; all others"
        " of one kind are corrected together. Intervals are not widened for the number of"
        " comparisons.",
    )
