"""Block on the choice of layers: reasons, candidates of `fusion=auto`, savings of pilots."""

from __future__ import annotations

from collections.abc import Mapping

from layerfusion.config.job import STACKS
from layerfusion.findings.compare import over
from layerfusion.findings.costs import saved
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import job_mark, job_names, layer_name, selected_name
from layerfusion.findings.reasons import choice_reasons
from layerfusion.findings.tests import Findings
from layerfusion.records.format import LAYERS_NAMED, every_layer, plural
from layerfusion.records.job import CandidateRecord, PilotRecord
from layerfusion.report.block import Block
from layerfusion.report.format import COUNT, GFLOPS, PERCENT, POINTS, SHARE, Format, decimals
from layerfusion.report.table import Cell, Column, Table
from layerfusion.statistics.intervals import Difference

PASSED_OVER = "passed over"


def choice_block(group: DataGroup, findings: Findings) -> Block:
    """Show the reasons of every automatic choice, and the savings of every pilot."""
    # A job that is a point of a curve has no name of its own.
    points = {job: f"{job.record.selection} ({job_mark(job)})" for job in group.jobs}
    names = points | job_names(group)
    chosen = [job for job in group.jobs if job.record.scored]
    pilots = [job for job in chosen if job.record.pilot is not None]
    judged = [job for job in group.jobs if job.record.candidates]
    tables = [_reasons(chosen, names), *(_candidates(names[job], job) for job in judged)]
    parts = (choice_reasons(group), *tables, _savings(group, pilots, names))
    return Block("How it was chosen", parts, folded=True)


def _reasons(jobs: list[FinishedJob], names: Mapping[FinishedJob, str]) -> Table:
    rows: list[tuple[Cell | str, str, str, float | None]] = []
    for choice, (first, *others) in grouped(jobs, _choice).items():
        name = names[first]
        if others:
            name = f"{selected_name(first.record)}, {plural(1 + len(others), 'job')}"
        what = Cell(name, layers=every_layer(first.record))
        rows += [("" if x[0] == PASSED_OVER else what, *x) for x in choice]
    return Table(
        "Why these layers",
        rows,
        Column("What", lambda row: row[0]),
        Column("Layer", lambda row: row[1]),
        Column("Reason", lambda row: row[2]),
        Column("Weight %", lambda row: row[3], SHARE),
        note="Chosen without a look at test. The log-loss is in nats, of linear probes on rows that"
        " they were not fitted on. The weight is what the fusion starts from.",
    )


def _choice(job: FinishedJob) -> tuple[tuple[str, str, float | None], ...]:
    """Name the layers of a job with their reasons and weights, then what was passed over."""
    layers, notes = job.record.layers, job.record.selection_notes
    named = [(f"{x.backbone}, {layer_name(x.layer)}, {x.pooling}", x) for x in layers]
    last = [(PASSED_OVER, "; ".join(notes), None)] if notes else []
    return (*((name, x.reason, x.weight) for name, x in named), *last)


def _candidates(name: str, job: FinishedJob) -> Table:
    candidates = job.record.candidates

    def behind(x: CandidateRecord) -> Cell:
        return Cell() if x is candidates[0] else Cell(x.behind, x.behind_error)

    def layers(x: CandidateRecord) -> Cell:
        number, names = plural(len(x.layers), "source"), ", ".join(x.layers)
        few = len(x.layers) <= LAYERS_NAMED
        return Cell(f"{x.layer_set} ({names if few else number})", layers="" if few else names)

    reasons = " ".join(f"{line}." for line in job.record.decision)
    signed = Format(lambda value: f"{value:+.4f}")
    return Table(
        f"What auto judged: {name}",
        candidates,
        Column("Fusion", lambda x: x.fusion),
        Column("Width", lambda x: None if x.fusion in STACKS else x.width, COUNT),
        Column("Layers", layers),
        Column("Folds", lambda x: x.folds, COUNT),
        Column("Held-out log-loss", lambda x: x.log_loss, decimals(4)),
        Column("Held-out %", lambda x: x.accuracy, PERCENT),
        Column("Behind the chosen one", behind, signed),
        Column("Head parameters", lambda x: x.head_parameters, COUNT),
        Column("GFLOPs a text", lambda x: x.flops_per_text, GFLOPS),
        note="Chosen on train alone. The worse half of the trained heads is dropped after one fold,"
        " then after two and so on, so log-losses compare where the folds are the same. The"
        " difference is over the rows that both were judged on, ± its standard error. Parameters of"
        f" a stack are those of its members, without the weights of its pool. {reasons}",
        mark=lambda x: "chosen" if x is candidates[0] else "",
    )


def _savings(
    group: DataGroup, pilots: list[FinishedJob], names: Mapping[FinishedJob, str]
) -> Table:
    whole = {job.record.job: job for job in group.jobs}

    def difference(job: FinishedJob) -> Difference | None:
        full = job.record.pilot and whole.get(job.record.pilot.full_job)
        return over(job, full) if full else None

    def texts(pilot: PilotRecord) -> Cell:
        return Cell(pilot.texts_whole, note=f"of {COUNT(pilot.texts)}")

    return Table(
        "What the pilot saved",
        pilots,
        Column("What", names.get),
        Column("Rows tried", lambda x: " → ".join(map(COUNT, x.record.pilot.rows)), COUNT),
        Column("Texts extracted whole", lambda x: texts(x.record.pilot), COUNT),
        Column("FLOPs saved %", lambda x: saved(x.record.pilot, "flops"), SHARE),
        Column("Bytes saved %", lambda x: saved(x.record.pilot, "bytes"), SHARE),
        Column("Time saved %", lambda x: saved(x.record.pilot, "seconds"), SHARE),
        Column("Against the full way, points", difference, POINTS),
        note="Compared with extracting all layers of all models for all texts. Each text is assumed"
        " to cost the mean of the pilot's texts, and time to grow with the number of blocks. The"
        f" difference in test {group.measure} is paired, with its 95 % interval, against the"
        " same job without a pilot.",
    )
