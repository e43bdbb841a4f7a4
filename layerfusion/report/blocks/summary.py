"""The answer on a data set: what to use, what it is worth, what it costs, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from layerfusion.config.job import ACCURACY
from layerfusion.findings.choice import close_words, metric_words
from layerfusion.findings.curves import answer_lines
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.learning import LearningCurve, LearningLine, over_draws
from layerfusion.findings.measures import F1_KINDS, SETS, measure_of
from layerfusion.findings.names import job_name, layer_name, single_name
from layerfusion.findings.tests import Finding, Findings, last_layer
from layerfusion.findings.usage import commands
from layerfusion.records.format import capital, every_layer, listing, plural
from layerfusion.report.blocks.learning_curves import curve_facts, curve_figure
from layerfusion.report.figures.axes import NARROW
from layerfusion.report.figures.canvas import Drawing, drawing
from layerfusion.report.figures.layers import plot_answer_curve
from layerfusion.report.format import COUNT, GFLOPS, PERCENT, POINTS, decimals
from layerfusion.report.metrics import set_columns, titled
from layerfusion.report.sentences import MARKS, bracket, percent, told
from layerfusion.report.table import Column, Table

Learned: TypeAlias = tuple[LearningCurve, LearningLine]
"""A curve over samples of a data set, and its line of what is chosen."""


@dataclass(frozen=True, eq=False)
class Card:
    """The answer on a data set; what is better or worse needs a test that shows it."""

    kind: ClassVar[str] = "summary"
    label: str
    """Name of the data set."""
    sample: str | None
    """Tells that the rows are a sample; None where all rows were used."""
    headline: str
    """What to use, without the marks that tell jobs apart: there is one answer."""
    accuracy: tuple[str, str]
    """That of what is used, and its interval with the rows that it is over."""
    facts: list[tuple[str, str]]
    """What it gains over the simpler choices, what it costs and how it was chosen."""
    parts: tuple[Drawing, ...]
    """A small curve by training rows or by layer; none where there is neither."""
    layers: str = ""
    """Every layer of what is used, where the headline has only their number."""
    usage: Sequence[tuple[str, str]] = ()
    """What to type: a heading, and a command or lines of Python."""


def group_card(group: DataGroup, findings: Findings, learned: Learned | None = None) -> Card:
    """Answer for a data set; `learned` is the curve over its samples, where there are some."""
    best = group.best
    words = f"{bracket(best.score)} on {plural(group.rows, 'test row')}"
    if group.judge.metric != ACCURACY:
        words = f"{group.measure} {words}"
    elif group.data.multilabel:
        words = f"of the texts have all their labels right (exact match) {words}"
    samples = curve_facts(*learned) if learned else []
    costs = [("Cost of a text", cost_words(best)), ("Chosen", choice_words(group))]
    return Card(
        group.label,
        sample_sentence(group),
        f"Use {_used(group)}",
        (percent(best.score.mean), words),
        [*_other_facts(best), *_gains(group, findings), *samples, *costs],
        (curve_figure(*learned),) if learned else _layer_figure(group),
        every_layer(best.record),
        commands(best),
    )


def curve_card(curve: LearningCurve, line: LearningLine) -> Card:
    """Answer for a data set of which only samples were learned from, by what the largest say."""
    size, rows = curve.sizes[-1], plural(curve.groups[0].rows, "test row")
    own, baseline = over_draws(line.sizes[size]), over_draws(curve.baseline[size])
    draws = f", in {curve.draws} draws" if curve.draws > 1 else ""
    sd = "" if own.sd is None else f"± {PERCENT(own.sd)} over the draws, "
    less = "" if own.mean > baseline.mean else ": no more than without a language model"
    gain = f"{POINTS(own.mean - baseline.mean)} points on average{less}"
    return Card(
        curve.label,
        f"Samples of each {curve.kind}{draws}, on the same {rows}.",
        f"Use {line.name}",
        (percent(own.mean), f"{sd}with {size} {curve.size_words}"),
        [(f"Against baseline, {percent(baseline.mean)}", gain), *curve_facts(curve, line)],
        (curve_figure(curve, line),),
    )


def _used(group: DataGroup) -> str:
    best = group.best
    return single_name(group, best) if best in group.singles else job_name(best.record)


def _layer_figure(group: DataGroup) -> tuple[Drawing, ...]:
    lines, judged, measure = answer_lines(group)
    if not lines:
        return ()
    figure = drawing(
        f"{group.key}-answer",
        lambda ax: plot_answer_curve(group, ax),
        alt=f"{group.label}: {measure} by depth of the layer ({judged}). Ringed: what is used.",
        wide=NARROW - 10,
    )
    return (figure,)


def _gains(group: DataGroup, findings: Findings) -> list[tuple[str, str]]:
    """Say what the answer is worth against the simpler choices."""
    best = group.best
    last, single, fused = last_layer(group), group.chosen, group.chosen_fusion
    found, compared = [], []
    if last is best:
        found.append(("Last layer", "it is the last layer of its model"))
    elif last is not None:
        of = f" of {last.layer.backbone}" if len(group.models) > 1 else ""
        also = " (best alone)" if last is single and len(group.singles) > 1 else ""
        compared.append((f"Against last layer{of}{also}", last.score.mean, best, last, ""))
    if single and single not in (best, last):
        compared.append(("Against best single layer", single.score.mean, best, single, ""))
    compared.append(("Against baseline", best.baseline_score.mean, best, None, ""))
    if single and fused and fused is not best:
        compared.append(("Fused", fused.score.mean, fused, single, "the layer alone"))
    for name, accuracy, job, against, than in compared:
        finding = findings.between(job, against)
        cheaper = _cheaper(job, against) if finding.verdict == "open" else ""
        found.append((f"{name}, {percent(accuracy)}", told(finding, than=than) + cheaper))
    return found


def _cheaper(job: FinishedJob, against: FinishedJob | None) -> str:
    """Say that what may be as good costs less; nothing where it does not."""
    if against is None:
        return "; the baseline needs no language model"
    dear, cheap = job.flops, against.flops
    if dear is None or cheap is None or cheap >= dear:
        return ""
    layer = f"{layer_name(against.layer.layer)} of {against.layer.backbone}"
    return f"; {layer} takes {GFLOPS(cheap)} GFLOPs, this {GFLOPS(dear)}"


def _other_facts(job: FinishedJob) -> list[tuple[str, str]]:
    """Give what the headline leaves out of accuracy and, of texts with several labels, both F1."""
    facts, data = [], job.record.dataset
    kinds = {ACCURACY: "", **(F1_KINDS if data.multilabel else {})}
    for name, what in kinds.items():
        one = job.record.test.get(name)
        if one is not None and name != job.metric:
            interval = "" if one.low is None else f" {bracket(one)}"
            title = capital(metric_words(name, data))
            facts.append((title, f"{percent(one.mean)}{interval}{what}"))
    return facts


def answer_table(groups: Sequence[DataGroup], findings: Mapping[DataGroup, Findings]) -> Table:
    """List the answers of several data sets, a row each."""
    of = {group.best: group for group in groups}

    def over(job: FinishedJob, other: FinishedJob | None) -> Finding:
        return findings[of[job]].between(job, other)

    def over_last(job: FinishedJob) -> Finding | None:
        last = last_layer(of[job])
        return None if last in (None, job) else over(job, last)

    return Table(
        "What to use on each data set",
        list(of),
        Column("Data set", lambda job: of[job].label),
        Column("Use", lambda job: _used(of[job])),
        Column(titled("Test", measure_of(groups)), lambda job: job.score, PERCENT),
        *set_columns(lambda job: job.record.test),
        Column("Over last layer, points", over_last, POINTS),
        Column("Over baseline, points", lambda job: over(job, None), POINTS, later=True),
        Column("ms a text", lambda job: job.record.milliseconds_one, decimals(1), later=True),
        Column("GFLOPs a text", lambda job: job.flops, GFLOPS, later=True),
        note=MARKS + f" {SETS}" * any(group.data.multilabel for group in groups),
    )


def sample_sentence(group: DataGroup) -> str | None:
    """Warn that the rows are a sample; None where all rows were used."""
    data = group.data
    if not data.sampled:
        return None
    learn = data.rows["train"] + data.rows["validation"]
    whole = data.available["train"] + data.available.get("validation", 0)
    test = _part(data.rows["test"], data.available["test"])
    return (
        f"A sample, for a first look: {test} test rows, {_part(learn, whole)} rows to learn and"
        " choose from."
    )


def _part(rows: int, of: int) -> str:
    return f"all {COUNT(of)}" if rows == of else f"{COUNT(rows)} of {COUNT(of)}"


def choice_words(group: DataGroup) -> str:
    """Say in a line by which rows the job was chosen, and whether they could choose at all."""
    if len(group.jobs) == 1:
        return "it is the only job here"
    judge, found = group.judge, group.choosing_scores
    words = f"on {judge.rows_words}, {percent(group.best.choosing_score.mean)}"
    few = ", too few to choose surely" if judge.few else ""
    if close := close_words(found, judge):
        return f"{words}{few}: {close}"
    # What is close is not known of an F1 on validation, but that so few rows say little is.
    return words if judge.metric == ACCURACY or not judge.doubt else f"{words}{few}"


def cost_words(job: FinishedJob) -> str:
    """Say what a text costs: time, operations, parameters and bytes."""
    record = job.record
    models = [record.backbones[name] for name in record.backbone_names]
    parts = []
    if record.milliseconds_one is not None:
        parts.append(f"{decimals(1)(record.milliseconds_one)} ms")
    elsewhere = [name for name in record.backbone_names if record.backbones[name].is_given]
    if record.flops_per_text is None:
        parts.append(
            f"GFLOPs not measured, as the vectors of {listing(elsewhere)} are computed elsewhere"
        )
        parts += [
            f"{decimals(1)(ms)} ms a text to ask {name} in requests of several"
            for name in elsewhere
            if (ms := record.backbones[name].milliseconds_per_text) is not None
        ]
    else:
        parts.append(f"{GFLOPS(record.flops_per_text)} GFLOPs")
        parameters = sum(model.parameters or 0 for model in models)
        parts.append(f"{decimals(1, 1e-6)(parameters)} M parameters")
    stored = sum(model.store_bytes / max(model.texts, 1) for model in models)
    parts.append(f"{decimals(1, 1e-3)(stored)} kB in the cache")
    return ", ".join(parts)
