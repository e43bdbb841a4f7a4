"""Which differences on test are more than chance, all comparisons of a report taken together.

What may be said of a pair of systems is settled here, once, for the tables, the figures and the
sentences: a gain or a loss needs the exact test to hold after Holm's adjustment, and the interval
of the difference to lie on the same side of zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from layerfusion.report.compare import best_on_validation, over, over_baseline
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import shown_names
from layerfusion.report.systems import best_part, without_lexical
from layerfusion.statistics.intervals import Difference, Verdict
from layerfusion.statistics.significance import ALPHA, McNemar, holm, mcnemar, mcnemar_at_most

Kind = Literal["layer", "baseline", "concat", "part", "lexical"]
"""What a system is compared with: the single layer that validation chooses, the baseline, `concat`
on the same layers, the best of its models alone, or the same without its lexical sources. The
comparisons of one kind, over all data sets of a report, are one family."""


@dataclass(frozen=True, eq=False)
class Finding:
    """One system against another on the same test rows."""

    kind: Kind
    what: Job | None
    against: Job | None
    """None is the baseline."""
    difference: Difference
    """Of the mean accuracies over seeds, with its interval."""
    mcnemar: McNemar
    """Of the consensus over seeds."""
    exact: bool
    """Whether both are known row by row; otherwise p is the largest that it can be."""
    adjusted: float
    """P after Holm's adjustment over the comparisons of this kind in the report."""

    @property
    def verdict(self) -> Verdict:
        """`gain` or `loss` where both the adjusted test and the interval show it, else `open`.

        The two may disagree, as the consensus is tested and the interval is of the mean over seeds.
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
        """The same, told from the other side."""
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
    """How many different comparisons of each kind the report makes, over all its data sets."""

    def between(self, what: Job | None, against: Job | None) -> Finding:
        """The comparison of two systems, either way round; None is the baseline.

        Raises:
            KeyError: where the report does not compare the two.
        """
        for row in self.rows:
            if (row.what, row.against) == (what, against):
                return row
            if (row.what, row.against) == (against, what):
                return row.flipped
        raise KeyError("these two are not compared")

    def of(self, kind: Kind, what: Job) -> Finding | None:
        """The comparison of one kind that a job takes part in; none where there is none."""
        return next((row for row in self.rows if row.kind == kind and row.what is what), None)


def find_all(groups: Sequence[DataGroup]) -> dict[DataGroup, Findings]:
    """Compare all that the report shows, and adjust for the number of comparisons.

    - With the single layer that validation chooses: the baseline, the last and the best layer of
      every model, and everything fused.
    - With the baseline: everything fused.
    - With `concat` on the same layers, where there is such a job: everything else that is fused.
    - With the best of its models alone (on validation): every job on several models, where each
      of them was run alone under the same settings.
    - With the same without lexical sources: every job that has them, where there is such a job.
    """
    found = [(group, row) for group in groups for row in _compare(group)]
    adjusted: list[tuple[DataGroup, Finding]] = []
    sizes: Counter[Kind] = Counter()
    for kind in get_args(Kind):
        family = [(group, row) for group, row in found if row.kind == kind]
        # Jobs given more models may settle on the same layers: that is one comparison, made twice;
        # and a job that settles on those it is compared with is no comparison at all.
        asked = {
            (group.key, *systems): row.mcnemar.p
            for group, row in family
            if len(set(systems := (_system(row.what), _system(row.against)))) == 2
        }
        p_values = dict(zip(asked, holm(list(asked.values())), strict=True))
        sizes[kind] = len(asked)
        for group, row in family:
            key = (group.key, _system(row.what), _system(row.against))
            adjusted.append((group, replace(row, adjusted=p_values.get(key, 1.0))))
    return {
        group: Findings(tuple(row for owner, row in adjusted if owner is group), sizes)
        for group in groups
    }


def _system(job: Job | None) -> tuple[object, ...]:
    """What makes the predictions of a job: settings and sources, chosen without a look at test."""
    if job is None:
        return ("baseline",)
    return (job.record.recipe or job.record.job, job.record.fusion, *_sources(job))


def _compare(group: DataGroup) -> list[Finding]:
    rows = []
    if group.chosen is not None:
        shown = [job for job in shown_names(group) if job is not group.chosen]
        rows.append(replace(_with_baseline(group.chosen), kind="layer").flipped)
        rows += [_paired("layer", job, group.chosen) for job in shown]
    rows += [_with_baseline(job) for job in group.fused]
    by_layers: dict[frozenset[tuple[str, ...]], list[Job]] = {}
    for job in group.fused:
        if job.record.fusion == "concat":
            by_layers.setdefault(layers_of(job), []).append(job)
    for job in group.fused:
        plain = by_layers.get(layers_of(job))
        if plain and job.record.fusion != "concat":
            rows.append(_paired("concat", job, best_on_validation(plain)))
    rows += [_paired("part", *pair) for pair in best_part(group.jobs).items()]
    rows += [_paired("lexical", *pair) for pair in without_lexical(group.jobs).items()]
    return rows


def layers_of(job: Job) -> frozenset[tuple[str, ...]]:
    """The sources that a job fuses, whatever their order."""
    return frozenset(_sources(job))


def _sources(job: Job) -> list[tuple[str, ...]]:
    spec = {name: backbone.spec_hash for name, backbone in job.record.backbones.items()}
    return [(x.backbone, spec[x.backbone], x.layer, x.pooling) for x in job.record.layers]


def outcome_of(job: Job) -> tuple[object, ...]:
    """What only jobs share that fuse the same sources alike and gave the same predictions."""
    log_loss = job.record.test["log_loss"].mean
    return (job.record.fusion, *_sources(job), log_loss, job.correct.tobytes())


def _paired(kind: Kind, job: Job, reference: Job) -> Finding:
    test = mcnemar(job.consensus, reference.consensus)
    return Finding(kind, job, reference, over(job, reference), test, True, test.p)


def _with_baseline(job: Job) -> Finding:
    if job.baseline is not None:
        test = mcnemar(job.consensus, job.baseline)
    else:
        rows = len(job.consensus)
        right = round(job.record.baseline.test["accuracy"] * rows)
        test = mcnemar_at_most(int(job.consensus.sum()), right, rows)
    return Finding(
        "baseline", job, None, over_baseline(job), test, job.baseline is not None, test.p
    )
