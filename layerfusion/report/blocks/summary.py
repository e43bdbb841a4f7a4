"""The results on a data set in sentences, which claim no more than the tests show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from layerfusion.findings.compare import accuracy, best_on_test, best_on_validation
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import Curve, DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import baseline_name, job_names, layer_name, single_name
from layerfusion.findings.tests import Finding, Findings
from layerfusion.records.format import capital, listing, plural
from layerfusion.report.format import (
    REGRET,
    bracket,
    count,
    p_value,
    percent,
    point_interval,
    points,
)
from layerfusion.report.metrics import baseline_estimates
from layerfusion.statistics.intervals import Difference, Verdict


@dataclass(frozen=True)
class Tile:
    """A number that readers see first."""

    name: str
    value: str
    interval: str
    note: str


@dataclass(frozen=True)
class Summary:
    """The result on a data set in plain words."""

    kind: ClassVar[str] = "summary"
    label: str
    """Name of the data set."""
    headline: str
    sample: str | None
    """Tells that the rows are a sample; none where all rows were used."""
    tiles: tuple[Tile, ...]
    paragraphs: tuple[str, ...]


def summarise(group: DataGroup, findings: Findings) -> Summary:
    """Summarise the results on a data set; a gain or a loss is named only if its test shows one."""
    best = group.chosen
    fused = best_on_validation(group.fused) if group.fused else None
    layers = ["No layer was run alone, so there is no single layer to compare with."]
    if best is not None:
        others = [curve for curve in group.curves if best not in curve.points]
        layers = [
            _choice_sentence(group, best),
            _last_sentence(group, findings, best),
            _hindsight_sentence(group, best) if len(group.singles) > 1 else "",
            *(_other_model_sentence(curve, findings, best) for curve in others),
        ]
    return Summary(
        group.label,
        _headline(group, findings, fused, best),
        sample_sentence(group),
        _tiles(group, fused, best),
        (
            " ".join(filter(None, layers)),
            _baseline_sentence(findings, best, fused),
            _fusion_sentences(group, findings, fused, best),
        ),
    )


def no_difference(rows: int) -> str:
    """Word a difference that may be chance."""
    return f"no difference that the {plural(rows, 'test row')} can show"


def says(
    difference: Difference,
    *,
    gain: str,
    loss: str,
    verdict: Verdict | None = None,
    reason: str = "",
) -> str:
    """Word a difference: `gained 1.2 points [0.3, 2.0]`, `lost …`, or no difference at all.

    Args:
        difference: the difference with its interval.
        gain: verb for a gain.
        loss: verb for a loss.
        verdict: the verdict of a test; where None, the interval decides.
        reason: why there is no difference although the interval leaves zero out.
    """
    between = point_interval(difference)
    verdict = verdict or difference.verdict
    if verdict == "open":
        words = no_difference(difference.rows)
        against = f", {reason}" if reason and difference.verdict != "open" else ""
        return f"{words} ({points(difference.mean)} points {between}{against})"
    verb = gain if verdict == "gain" else loss
    return f"{verb} {REGRET(abs(difference.mean))} points {between}"


# -- headline and tiles -------------------------------------------------------------------------


def _headline(
    group: DataGroup, findings: Findings, fused: FinishedJob | None, best: FinishedJob | None
) -> str:
    parts = []
    if best is not None:
        name = single_name(group, best)
        alone = f"{capital(name)} was the only one run alone"
        parts.append(alone if len(group.singles) == 1 else f"Validation chooses {name}")
        parts.append(
            _fusion_clause(findings.between(fused, best)) if fused else "nothing was fused"
        )
    elif fused is not None:
        name = job_names(group)[fused]
        parts.append(f"Validation chooses {name}, with no single layer beside it")
    verdicts = {findings.between(job, None).verdict for job in (best, fused) if job is not None}
    if verdicts == {"loss"}:
        parts.append("the baseline does better")
    elif "gain" not in verdicts:
        parts.append("nothing clearly beats the baseline")
    return "; ".join(parts)


def _fusion_clause(finding: Finding) -> str:
    if finding.verdict == "open":
        return f"fusing made {no_difference(finding.difference.rows)}"
    verb = "gained" if finding.verdict == "gain" else "lost"
    return f"fusing {verb} {REGRET(abs(finding.difference.mean))} points"


def _tiles(
    group: DataGroup, fused: FinishedJob | None, best: FinishedJob | None
) -> tuple[Tile, ...]:
    baseline = group.jobs[0].record.baseline
    found = [("Baseline", baseline_estimates(baseline)["accuracy"], baseline_name(baseline))]
    last = group.curve_of(best).last if best is not None else None
    for name, job in (("Last layer", last if last is not best else None), ("Chosen layer", best)):
        if job is not None:
            found.append((name, job.accuracy, single_name(group, job)))
    if fused is not None:
        found.append(("Chosen fusion", fused.accuracy, job_names(group)[fused]))
    return tuple(
        Tile(name, percent(x.mean), bracket(x.low, x.high), note) for name, x, note in found
    )


# -- sentences ----------------------------------------------------------------------------------


def sample_sentence(group: DataGroup) -> str | None:
    """Warn that the rows are a sample; None where all rows were used."""
    data = group.data
    if not data.sampled:
        return None
    learn = data.rows["train"] + data.rows["validation"]
    whole = data.available["train"] + data.available.get("validation", 0)
    return (
        f"A sample, not the whole data set: {count(data.rows['test'])} of"
        f" {count(data.available['test'])} test rows, and {count(learn)} of {count(whole)} rows to"
        " learn and choose from. Read it as a first look."
    )


def _choice_sentence(group: DataGroup, best: FinishedJob) -> str:
    if len(group.singles) == 1:  # nothing was chosen
        return (
            f"One layer was run alone, {single_name(group, best)}: {_with_interval(best)} on test."
        )
    models = listing([curve.label for curve in group.curves])
    return (
        f"Validation ({plural(group.data.rows['validation'], 'row')}) chooses"
        f" {single_name(group, best)} among"
        f" {plural(len(group.singles), 'single layer')} of {models}; on test it reaches"
        f" {_with_interval(best)}."
    )


def _last_sentence(group: DataGroup, findings: Findings, best: FinishedJob) -> str:
    curve = group.curve_of(best)
    if curve.last is None:
        top = curve.layers[-1]
        return f"The last layer of {curve.label} ({layer_name(top)}) was not run alone."
    if curve.last is best:
        return "It is also the last layer of its model."
    words = _says(findings.between(best, curve.last), gain="choosing gained", loss="choosing lost")
    return (
        f"The last layer of the same model ({layer_name(curve.last.layer.layer)}) reaches"
        f" {_with_interval(curve.last)}: {words}."
    )


def _hindsight_sentence(group: DataGroup, best: FinishedJob) -> str:
    hindsight = best_on_test(group.singles)
    if hindsight.accuracy.mean <= best.accuracy.mean:
        return "Hindsight agrees: no single layer does better on test."
    return (
        f"In hindsight {single_name(group, hindsight)} has the highest test accuracy,"
        f" {percent(hindsight.accuracy.mean)}; a figure picked on test is too"
        " high, and nobody could have chosen it."
    )


def _other_model_sentence(curve: Curve, findings: Findings, best: FinishedJob) -> str:
    words = _says(findings.between(curve.best, best), gain="ahead by", loss="behind by")
    return (
        f"Of {curve.label} validation chooses {layer_name(curve.best.layer.layer)}, with"
        f" {_with_interval(curve.best)} on test: {words}."
    )


def _baseline_sentence(
    findings: Findings, best: FinishedJob | None, fused: FinishedJob | None
) -> str:
    jobs = [(what, job) for what, job in (("layer", best), ("fusion", fused)) if job is not None]
    baseline = jobs[0][1].record.baseline
    found = []
    for what, job in jobs:
        finding = findings.between(job, None)
        words = _says(finding, gain="beats it by", loss="falls behind it by")
        there = f"between it and the chosen {what} there is {words}"
        found.append(there if finding.verdict == "open" else f"the chosen {what} {words}")
    return (
        f"The baseline, {baseline_name(baseline)} on the whole text, reaches"
        f" {percent(baseline.test['accuracy'])} {bracket(baseline.low, baseline.high)}:"
        f" {'; '.join(found)}."
    )


def _fusion_sentences(
    group: DataGroup, findings: Findings, fused: FinishedJob | None, best: FinishedJob | None
) -> str:
    if fused is None:
        return "Nothing was fused."
    names = job_names(group)
    start = (
        f"Among {len(group.fused)} fusions validation chooses {names[fused]}"
        if len(group.fused) > 1
        else f"One fusion was run, {names[fused]}"
    )
    start += f"; on test it reaches {_with_interval(fused)}."
    if best is None:
        return start
    words = _says(findings.between(fused, best), gain="fusing gained", loss="fusing lost")
    against = f" Against {single_name(group, best)} alone: {words}."
    others = [(names[job], findings.between(job, best)) for job in group.fused if job is not fused]
    return start + against + (f" {_others_sentence(others)}" if others else "")


def _others_sentence(others: Sequence[tuple[str, Finding]], *, most: int = 2) -> str:
    """Report the fusions that were not chosen, by verdict: a few by name, many by number."""
    by_verdict = grouped(others, lambda other: other[1].verdict)
    if len(by_verdict.get("open", ())) == len(others):
        which = "other fusion" if len(others) == 1 else f"{count(len(others))} other fusions"
        return f"The {which} cannot be told from that layer."
    verbs = {"gain": "above it", "loss": "below it", "open": "not to be told from it"}
    parts = []
    for verdict in (verdict for verdict in verbs if verdict in by_verdict):
        found = [(name, finding.difference) for name, finding in by_verdict[verdict]]
        part = f"{len(found)} {'is' if len(found) == 1 else 'are'} {verbs[verdict]}"
        if verdict != "open" and len(found) <= most:
            named = [f"{name} ({points(d.mean)} points {point_interval(d)})" for name, d in found]
            part += f": {listing(named)}"
        parts.append(part)
    if len(others) == 1:
        return f"The other fusion, measured against that layer, {parts[0].removeprefix('1 ')}."
    start = f"Of the {count(len(others))} other fusions, measured against that layer,"
    return f"{start} {'; '.join(parts)}."


def _says(finding: Finding, *, gain: str, loss: str) -> str:
    reason = f"adjusted p {p_value(finding.adjusted, bound=not finding.exact)}"
    return says(finding.difference, gain=gain, loss=loss, verdict=finding.verdict, reason=reason)


def _with_interval(job: FinishedJob) -> str:
    mean, low, high = accuracy(job)
    return percent(mean) if low == high else f"{percent(mean)} {bracket(low, high)}"
