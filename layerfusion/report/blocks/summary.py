"""The answer on a data set: what to use, what it is worth, what it costs, how to use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from layerfusion.findings.choice import close_to, ties_words
from layerfusion.findings.curves import answer_lines
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.measures import SETS
from layerfusion.findings.names import all_names
from layerfusion.findings.tests import Findings, last_layer
from layerfusion.findings.usage import commands
from layerfusion.records.format import listing, plural
from layerfusion.records.job import FEW_ROWS, Estimate
from layerfusion.report.figures.axes import NARROW
from layerfusion.report.figures.canvas import Drawing, drawing
from layerfusion.report.figures.layers import plot_answer_curve
from layerfusion.report.format import COUNT, GFLOPS, PERCENT, POINTS, REGRET, decimals
from layerfusion.report.metrics import set_columns
from layerfusion.report.sentences import bracket, percent, told
from layerfusion.report.table import Column, Table

CLOSE = 5
"""With so many jobs within one standard error of the best, the card asks for more rows."""


@dataclass(frozen=True, eq=False)
class Summary:
    """The answer on a data set; what is better or worse needs a test that shows it."""

    kind: ClassVar[str] = "summary"
    group: DataGroup
    findings: Findings

    @property
    def label(self) -> str:
        """Name of the data set."""
        return self.group.label

    @property
    def sample(self) -> str | None:
        """Tells that the rows are a sample; none where all rows were used."""
        return sample_sentence(self.group)

    @property
    def parts(self) -> tuple[Drawing, ...]:
        """The figure."""
        return () if self.figure is None else (self.figure,)

    @cached_property
    def figure(self) -> Drawing | None:
        """A small curve of accuracy by layer; none where no layers can be compared."""
        group = self.group
        lines, judged = answer_lines(group)
        if not lines:
            return None
        return drawing(
            f"{group.key}-answer",
            lambda ax: plot_answer_curve(group, ax),
            alt=f"{group.label}: {group.data.measure} by depth of the layer ({judged}). Ringed:"
            " what is used.",
            caption="",
            wide=NARROW - 10,
        )

    @cached_property
    def _names(self) -> dict[FinishedJob, str]:
        return all_names(self.group)

    @property
    def headline(self) -> str:
        """What to use."""
        return f"Use {self._names[self.group.best]}"

    @property
    def accuracy(self) -> tuple[str, str]:
        """The accuracy of what is used, and its interval with the rows that it is over."""
        best = self.group.best
        words = f"{bracket(best.accuracy)} on {plural(self.group.rows, 'test row')}"
        if self.group.data.multilabel:
            words = f"of the texts have all their labels right (exact match) {words}"
        return percent(best.accuracy.mean), words

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What it gains over the simpler choices, what it costs and how it was chosen."""
        group, best = self.group, self.group.best
        baseline = group.jobs[0].record.baseline
        last, single = last_layer(group), group.chosen
        fused, found = group.chosen_fusion, _f1_facts(best)
        compared = []
        if last is best:
            found.append(("Last layer", "it is the last layer of its model"))
        elif last is not None:
            also = " (best alone)" if last is single else ""
            compared.append((f"Last layer{also}", last.accuracy.mean, best, last, ""))
        if single is not None and single not in (best, last):
            compared.append(("Best single layer", single.accuracy.mean, best, single, ""))
        compared.append(("Baseline", baseline.test["accuracy"], best, None, ""))
        if single is not None and fused is not None and fused is not best:
            compared.append(("Fused", fused.accuracy.mean, fused, single, "the layer alone"))
        for name, accuracy, job, against, than in compared:
            words = told(self.findings.between(job, against), than=than)
            found.append((f"{name}, {percent(accuracy)}", words))
        return [*found, ("Cost of a text", cost_words(best)), ("Chosen", choice_words(group))]

    @property
    def usage(self) -> list[tuple[str, str]]:
        """What to type: a heading, and a command or lines of Python."""
        return commands(self.group.best)


def _f1_facts(job: FinishedJob) -> list[tuple[str, str]]:
    """Give both F1 of a job on texts with several labels; nothing of others."""
    if not job.record.dataset.multilabel:
        return []
    of = {"Micro-F1": "over all labels of all texts", "Macro-F1": "mean over the labels"}
    test = job.record.test
    return [
        (name, f"{percent(one.mean)}{_interval(one)}, {what}")
        for name, what in of.items()
        if (one := test.get(name.lower().replace("-", "_")))
    ]


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None else f" {bracket(estimate)}"


def answer_table(cards: Sequence[Summary]) -> Table:
    """List the answers of several data sets, a row each."""

    def against(job: Callable[[DataGroup], FinishedJob | None]) -> Callable[[Summary], object]:
        def finding(card: Summary) -> object:
            best, other = card.group.best, job(card.group)
            same = other is best or (other is None and job is last_layer)
            return None if same else card.findings.between(best, other)

        return finding

    return Table(
        "What to use on each data set",
        cards,
        Column("Data set", lambda card: card.label),
        Column("Use", lambda card: card.headline.removeprefix("Use ")),
        Column("Test %", lambda card: card.group.best.accuracy, PERCENT),
        *set_columns(cards, lambda card: card.group.best.record.test),
        Column("Over last layer, points", against(last_layer), POINTS),
        Column("Over baseline, points", against(lambda _: None), POINTS),
        Column("ms a text", lambda c: c.group.best.record.milliseconds_one, decimals(1)),
        Column("GFLOPs a text", lambda c: c.group.best.flops, GFLOPS),
        note=(
            "▲ ▼ better or worse; △ ▽ probably, but not after correction; no mark: cannot be told."
            + (f" {SETS}" if any(card.group.data.multilabel for card in cards) else "")
        ),
    )


# -- facts --------------------------------------------------------------------------------------


def sample_sentence(group: DataGroup) -> str | None:
    """Warn that the rows are a sample; None where all rows were used."""
    data = group.data
    if not data.sampled:
        return None
    learn = data.rows["train"] + data.rows["validation"]
    whole = data.available["train"] + data.available.get("validation", 0)
    return (
        f"A sample, for a first look: {COUNT(data.rows['test'])} of"
        f" {COUNT(data.available['test'])} test rows, {COUNT(learn)} of {COUNT(whole)} rows to"
        " learn and choose from."
    )


def choice_words(group: DataGroup) -> str:
    """Say how the job was chosen, and whether its rows could choose at all."""
    judge, jobs = group.judge, group.jobs
    rows, best = judge.rows, group.best.choosing["accuracy"].mean
    if len(jobs) == 1:
        return "it is the only job here"
    found = [job.choosing["accuracy"].mean for job in jobs]
    ties = ties_words(found, rows)
    words = f"on {judge.rows_words}, {percent(best)}{judge.reason}"
    if ties:
        words += f"; {ties}, so the lower log-loss decided"
    (close, error), few = close_to(best, found, rows), rows < FEW_ROWS
    if close >= CLOSE or ties or (few and close > 1):
        words += (
            f"; {COUNT(close)} of {COUNT(len(jobs))} lie within one standard error"
            f" ({REGRET(error)} points): more rows would choose more surely"
        )
        if few and any(not job.record.chosen_by for job in jobs):
            train = plural(group.data.rows["train"], "row")
            words += f", and fusion=auto chooses layers and fusion on folds of train, {train}"
    return words


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
