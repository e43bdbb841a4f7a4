"""The results on a data set in sentences, which claim no more than the tests show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from layerfusion.findings.compare import best_on_test, best_on_validation
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import baseline_name, job_names, layer_name, single_name
from layerfusion.findings.tests import Finding, Findings
from layerfusion.records.format import capital, listing, plural
from layerfusion.report.format import COUNT, POINTS, REGRET, bracket, p_value, percent
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
    """The results on a data set in plain words; a gain or a loss needs a test that shows one."""

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

    @cached_property
    def _best(self) -> FinishedJob | None:
        return self.group.chosen

    @cached_property
    def _fused(self) -> FinishedJob | None:
        return best_on_validation(self.group.fused) if self.group.fused else None

    @cached_property
    def _names(self) -> dict[FinishedJob, str]:
        singles = {job: single_name(self.group, job) for job in self.group.singles}
        return singles | job_names(self.group)

    @property
    def headline(self) -> str:
        """What validation chooses, and whether fusing helps and anything beats the baseline."""
        best, fused, parts = self._best, self._fused, []
        if best is not None:
            name = self._names[best]
            alone = f"{capital(name)} was the only one run alone"
            single = len(self.group.singles) == 1
            parts.append(alone if single else f"Validation chooses {name}")
            parts.append(self._fusion_clause(best, fused) if fused else "nothing was fused")
        elif fused is not None:
            name = self._names[fused]
            parts.append(f"Validation chooses {name}, with no single layer beside it")
        verdicts = {self.findings.between(job, None).verdict for job in (best, fused) if job}
        if verdicts == {"loss"}:
            parts.append("the baseline does better")
        elif "gain" not in verdicts:
            parts.append("nothing clearly beats the baseline")
        return "; ".join(parts)

    def _fusion_clause(self, best: FinishedJob, fused: FinishedJob) -> str:
        finding = self.findings.between(fused, best)
        if finding.verdict == "open":
            return f"fusing made {no_difference(finding.difference.rows)}"
        verb = "gained" if finding.verdict == "gain" else "lost"
        return f"fusing {verb} {REGRET(abs(finding.difference.mean))} points"

    @property
    def tiles(self) -> list[Tile]:
        """The baseline, the last and the chosen layer, and the chosen fusion."""
        baseline, best = self.group.jobs[0].record.baseline, self._best
        found = [("Baseline", baseline_estimates(baseline)["accuracy"], baseline_name(baseline))]
        last = self.group.curve_of(best).last if best else None
        jobs = {"Last layer": None if last is best else last, "Chosen layer": best}
        for name, job in (jobs | {"Chosen fusion": self._fused}).items():
            if job is not None:
                found.append((name, job.accuracy, self._names[job]))
        return [Tile(name, percent(x.mean), bracket(x), of) for name, x, of in found]

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """Sentences on the layers, the baseline and the fusions."""
        return self._layer_sentences(), self._baseline_sentence(), self._fusion_sentences()

    def _layer_sentences(self) -> str:
        best, group = self._best, self.group
        if best is None:
            return "No layer was run alone, so there is no single layer to compare with."
        sentences = [self._choice_sentence(best), self._last_sentence(best)]
        if len(group.singles) > 1:
            sentences.append(self._hindsight_sentence(best))
        for curve in group.curves:
            if best not in curve.points:
                words = self._says(curve.best, best, gain="ahead by", loss="behind by")
                sentences.append(
                    f"Of {curve.label} validation chooses {layer_name(curve.best.layer.layer)},"
                    f" with {_with_interval(curve.best)} on test: {words}."
                )
        return " ".join(sentences)

    def _choice_sentence(self, best: FinishedJob) -> str:
        group, name = self.group, self._names[best]
        if len(group.singles) == 1:  # nothing was chosen
            return f"One layer was run alone, {name}: {_with_interval(best)} on test."
        models = listing([curve.label for curve in group.curves])
        return (
            f"Validation ({plural(group.data.rows['validation'], 'row')}) chooses {name} among"
            f" {plural(len(group.singles), 'single layer')} of {models}; on test it reaches"
            f" {_with_interval(best)}."
        )

    def _last_sentence(self, best: FinishedJob) -> str:
        curve = self.group.curve_of(best)
        top = layer_name(curve.layers[-1])
        if curve.last is None:
            return f"The last layer of {curve.label} ({top}) was not run alone."
        if curve.last is best:
            return "It is also the last layer of its model."
        words = self._says(best, curve.last, gain="choosing gained", loss="choosing lost")
        reaches = _with_interval(curve.last)
        return f"The last layer of the same model ({top}) reaches {reaches}: {words}."

    def _hindsight_sentence(self, best: FinishedJob) -> str:
        hindsight = best_on_test(self.group.singles)
        if hindsight.accuracy.mean <= best.accuracy.mean:
            return "Hindsight agrees: no single layer does better on test."
        return (
            f"In hindsight {self._names[hindsight]} has the highest test accuracy,"
            f" {percent(hindsight.accuracy.mean)}; a figure picked on test is too"
            " high, and nobody could have chosen it."
        )

    def _baseline_sentence(self) -> str:
        baseline, found = self.group.jobs[0].record.baseline, []
        for what, job in (("layer", self._best), ("fusion", self._fused)):
            if job is not None:
                words = self._says(job, None, gain="beats it by", loss="falls behind it by")
                there = f"between it and the chosen {what} there is {words}"
                shown = self.findings.between(job, None).verdict != "open"
                found.append(f"the chosen {what} {words}" if shown else there)
        return (
            f"The baseline, {baseline_name(baseline)} on the whole text, reaches"
            f" {percent(baseline.test['accuracy'])} {bracket(baseline)}:"
            f" {'; '.join(found)}."
        )

    def _fusion_sentences(self) -> str:
        best, fused, others = self._best, self._fused, self.group.fused
        if fused is None:
            return "Nothing was fused."
        several = f"Among {len(others)} fusions validation chooses"
        start = several if len(others) > 1 else "One fusion was run,"
        found = [f"{start} {self._names[fused]}; on test it reaches {_with_interval(fused)}."]
        if best is not None:
            words = self._says(fused, best, gain="fusing gained", loss="fusing lost")
            found.append(f"Against {self._names[best]} alone: {words}.")
            rest = [(self._names[x], self.findings.between(x, best)) for x in others if x != fused]
            found += [_others_sentence(rest)] if rest else []
        return " ".join(found)

    def _says(self, job: FinishedJob, against: FinishedJob | None, *, gain: str, loss: str) -> str:
        finding = self.findings.between(job, against)
        reason = f"adjusted p {p_value(finding.adjusted, bound=not finding.exact)}"
        verdict = finding.verdict
        return says(finding.difference, gain=gain, loss=loss, verdict=verdict, reason=reason)


def sample_sentence(group: DataGroup) -> str | None:
    """Warn that the rows are a sample; None where all rows were used."""
    data = group.data
    if not data.sampled:
        return None
    learn = data.rows["train"] + data.rows["validation"]
    whole = data.available["train"] + data.available.get("validation", 0)
    return (
        f"A sample, not the whole data set: {COUNT(data.rows['test'])} of"
        f" {COUNT(data.available['test'])} test rows, and {COUNT(learn)} of {COUNT(whole)} rows to"
        " learn and choose from. Read it as a first look."
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
    between = bracket(difference, POINTS)
    verdict = verdict or difference.verdict
    if verdict == "open":
        words = no_difference(difference.rows)
        against = f", {reason}" if reason and difference.verdict != "open" else ""
        return f"{words} ({POINTS(difference.mean)} points {between}{against})"
    verb = gain if verdict == "gain" else loss
    return f"{verb} {REGRET(abs(difference.mean))} points {between}"


def _others_sentence(others: Sequence[tuple[str, Finding]], *, most: int = 2) -> str:
    """Report the fusions that were not chosen, by verdict: a few by name, many by number."""
    by_verdict = grouped(others, lambda other: other[1].verdict)
    if len(by_verdict.get("open", ())) == len(others):
        which = "other fusion" if len(others) == 1 else f"{COUNT(len(others))} other fusions"
        return f"The {which} cannot be told from that layer."
    verbs = {"gain": "above it", "loss": "below it", "open": "not to be told from it"}
    parts = []
    for verdict in (verdict for verdict in verbs if verdict in by_verdict):
        found = [(name, finding.difference) for name, finding in by_verdict[verdict]]
        part = f"{len(found)} {'is' if len(found) == 1 else 'are'} {verbs[verdict]}"
        if verdict != "open" and len(found) <= most:
            named = [f"{name} ({POINTS(d.mean)} points {bracket(d, POINTS)})" for name, d in found]
            part += f": {listing(named)}"
        parts.append(part)
    if len(others) == 1:
        return f"The other fusion, measured against that layer, {parts[0].removeprefix('1 ')}."
    start = f"Of the {COUNT(len(others))} other fusions, measured against that layer,"
    return f"{start} {'; '.join(parts)}."


def _with_interval(job: FinishedJob) -> str:
    shown = percent(job.accuracy.mean)
    return shown if job.accuracy.low == job.accuracy.high else f"{shown} {bracket(job.accuracy)}"
