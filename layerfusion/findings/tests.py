"""The significance of differences on test, over all comparisons of a report.

Tables, figures and sentences all take their verdicts from here. A difference is called a gain or a
loss only if the exact test is significant after Holm's adjustment and the interval of the
difference lies on the same side of zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from layerfusion.findings.compare import best_on_validation, over, over_baseline
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.identities import best_part, without_lexical
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import shown_names
from layerfusion.statistics.intervals import Difference, Verdict
from layerfusion.statistics.significance import ALPHA, McNemar, holm, mcnemar, mcnemar_at_most

Kind = Literal["layer", "baseline", "concat", "part", "lexical"]
"""A kind of comparison. A job is compared with the single layer that validation chooses, with the
baseline, with `concat` on the same layers, with the best of its models alone, or with the same job
without its lexical sources. All comparisons of one kind in a report, over all data sets, are one
family for Holm's adjustment."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A job compared with another one, or with the baseline, on the same test rows."""

    kind: Kind
    what: FinishedJob | None
    against: FinishedJob | None
    """None is the baseline."""
    difference: Difference
    """Difference of the mean accuracies over seeds, with its interval."""
    mcnemar: McNemar
    """Test of the consensus over seeds."""
    exact: bool
    """False where the answers of one are not known row by row; p is then an upper bound."""
    adjusted: float
    """The p-value after Holm's adjustment over the comparisons of this kind in the report."""

    @property
    def verdict(self) -> Verdict:
        """`gain` or `loss` where both the adjusted test and the interval show it, else `open`.

        The two may disagree: the test is of the consensus, the interval of the mean over seeds.
        """
        a, b = self.mcnemar.only_a, self.mcnemar.only_b
        if self.adjusted >= ALPHA:
            return "open"
        verdict = "gain" if a > b else "loss"
        return verdict if verdict == self.difference.verdict else "open"

    @property
    def mark(self) -> str:
        """▲ for a gain, ▼ for a loss, else nothing."""
        return {"gain": "▲", "loss": "▼", "open": ""}[self.verdict]

    @property
    def flipped(self) -> Finding:
        """The same comparison from the other side."""
        d, m = self.difference, self.mcnemar
        return replace(
            self,
            what=self.against,
            against=self.what,
            difference=Difference(-d.mean, -d.high, -d.low, d.rows),
            mcnemar=McNemar(m.only_b, m.only_a, m.p),
        )


@dataclass(frozen=True)
class Findings:
    """The comparisons of one data set."""

    rows: tuple[Finding, ...]
    family: Mapping[Kind, int]
    """Number of different comparisons of each kind in the report, over all its data sets."""

    def between(self, what: FinishedJob | None, against: FinishedJob | None) -> Finding:
        """Find the comparison of two jobs, either way round; None is the baseline.

        Raises:
            KeyError: where the report does not compare the two.
        """
        for row in self.rows:
            if (row.what, row.against) == (what, against):
                return row
            if (row.what, row.against) == (against, what):
                return row.flipped
        raise KeyError("these two are not compared")

    def of(self, kind: Kind, what: FinishedJob) -> Finding | None:
        """Find the comparison of one kind that a job takes part in, if there is one."""
        return next((row for row in self.rows if row.kind == kind and row.what is what), None)


def find_all(groups: Sequence[DataGroup]) -> dict[DataGroup, Findings]:
    """Compare all that the report shows, and adjust for the number of comparisons.

    - The baseline, the last and the best layer of every model, and every fusion are compared with
      the single layer that validation chooses.
    - Every fusion is compared with the baseline.
    - Every other fusion is compared with `concat` on the same layers, where there is such a job.
    - Every job on several models is compared with the best of them alone (on validation), where
      each of them was run alone under the same settings.
    - Every job with lexical sources is compared with the same job without them, if there is one.
    """
    found = {group: _compare(group) for group in groups}
    adjusted: dict[object, float] = {}
    sizes: dict[Kind, int] = {}
    for kind in get_args(Kind):
        # Jobs that chose among different models may end in the same layers. They count as one
        # comparison; a job that ends in the layers it is compared with counts as none.
        asked = {
            _question(group, row): row.mcnemar.p
            for group, rows in found.items()
            for row in rows
            if row.kind == kind and _system(row.what) != _system(row.against)
        }
        adjusted |= zip(asked, holm(list(asked.values())), strict=True)
        sizes[kind] = len(asked)
    return {
        group: Findings(
            tuple(replace(x, adjusted=adjusted.get(_question(group, x), 1.0)) for x in rows), sizes
        )
        for group, rows in found.items()
    }


def _question(group: DataGroup, row: Finding) -> tuple[object, ...]:
    """Identify a comparison by its kind, its data and the systems that it compares."""
    return row.kind, group.key, _system(row.what), _system(row.against)


def _system(job: FinishedJob | None) -> tuple[object, ...]:
    """Identify what made the predictions of a job: its settings and its sources."""
    if job is None:
        return ("baseline",)
    return (job.record.recipe or job.record.job, job.record.fusion_label, *_sources(job))


def _compare(group: DataGroup) -> list[Finding]:
    rows = []
    if group.chosen is not None:
        shown = [job for job in shown_names(group) if job is not group.chosen]
        rows.append(replace(_with_baseline(group.chosen), kind="layer").flipped)
        rows += [_paired("layer", job, group.chosen) for job in shown]
    rows += [_with_baseline(job) for job in group.fused]
    for jobs in grouped(group.fused, layers_of).values():
        plain = [job for job in jobs if job.record.fusion_label == "concat"]
        others = [job for job in jobs if job not in plain] if plain else []
        rows += [_paired("concat", job, best_on_validation(plain)) for job in others]
    rows += [_paired("part", *pair) for pair in best_part(group.jobs).items()]
    rows += [_paired("lexical", *pair) for pair in without_lexical(group.jobs).items()]
    return rows


def layers_of(job: FinishedJob) -> frozenset[tuple[str, ...]]:
    """List the sources that a job fuses, whatever their order."""
    return frozenset(_sources(job))


def _sources(job: FinishedJob) -> list[tuple[str, ...]]:
    spec = {name: backbone.spec_hash for name, backbone in job.record.backbones.items()}
    return [(x.backbone, spec[x.backbone], x.layer, x.pooling) for x in job.record.layers]


def outcome_of(job: FinishedJob) -> tuple[object, ...]:
    """Identify jobs that fuse the same sources in the same way and gave the same predictions."""
    log_loss = job.record.test["log_loss"].mean
    return (job.record.fusion_label, *_sources(job), log_loss, job.correct.tobytes())


def _paired(kind: Kind, job: FinishedJob, reference: FinishedJob) -> Finding:
    test = mcnemar(job.consensus, reference.consensus)
    return Finding(kind, job, reference, over(job, reference), test, True, test.p)


def _with_baseline(job: FinishedJob) -> Finding:
    if job.baseline is not None:
        test = mcnemar(job.consensus, job.baseline)
    else:
        rows = len(job.consensus)
        right = round(job.record.baseline.test["accuracy"] * rows)
        test = mcnemar_at_most(int(job.consensus.sum()), right, rows)
    return Finding(
        "baseline", job, None, over_baseline(job), test, job.baseline is not None, test.p
    )
