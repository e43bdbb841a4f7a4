"""The significance of differences on test, over all comparisons of a report.

Tables, figures and sentences all take their verdicts from here. Test and interval are of the same
quantity, the difference of the mean accuracies, or F1, over seeds, and never contradict each other:
the interval leaves zero out if and only if the p-value is below 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from layerfusion.findings.compare import (
    best_chosen,
    over,
    over_baseline,
    tested,
    tested_over_baseline,
)
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.identities import JobIdentity, best_part, identity_of, without_lexical
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import shown_names
from layerfusion.statistics.intervals import Difference, Verdict, least_shown
from layerfusion.statistics.significance import ALPHA, PairedTest, holm

Kind = Literal["layer", "last", "baseline", "concat", "part", "lexical", "sweep", "price"]
"""A kind of comparison. A job is compared with the single layer that is chosen, with the last layer
of the same model, with the baseline, with `concat` on the same layers, with the best of its models
alone, with the same job without its lexical sources, with the choice of another sweep, or with a
cheaper job."""
PRIMARY = "primary"
"""Family of the few comparisons that answer the questions of the page: the chosen single layer
against the last layer and the baseline, the chosen fusion against all three, and the job that
is chosen among all.
Their number does not depend on how many jobs the folder holds. All others of one kind in a report,
over all data sets, are a family of their own."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A job compared with another one, or with the baseline, on the same test rows."""

    kind: Kind
    what: FinishedJob | None
    against: FinishedJob | None
    """None is the baseline."""
    difference: Difference
    """Difference of the mean accuracies, or F1, over seeds, with its interval."""
    test: PairedTest
    """Test of the same difference."""
    exact: bool
    """False where the answers of one of the two are not known row by row; p is then an upper
    bound."""
    adjusted: float
    """The p-value after Holm's adjustment over the family."""
    family: str = ""
    """`PRIMARY`, or the kind."""
    smallest_shown: float = 0.0
    """The smallest difference that these rows would show: see `Difference.smallest_shown`."""
    among: int = 1
    """Number of comparisons in the family."""

    @property
    def verdict(self) -> Verdict:
        """`gain` or `loss` where the test shows it after the adjustment, else `open`."""
        return self.difference.verdict if self.adjusted < ALPHA else "open"

    @property
    def lean(self) -> Verdict:
        """`gain` or `loss` where the test shows it if this were the only comparison."""
        return self.difference.verdict

    @property
    def mark(self) -> str:
        """▲ for a gain, ▼ for a loss, △ or ▽ where only the adjustment takes it away."""
        if self.verdict == "open":
            return {"gain": "△", "loss": "▽", "open": ""}[self.lean]
        return {"gain": "▲", "loss": "▼"}[self.verdict]

    @property
    def flipped(self) -> Finding:
        """The same comparison from the other side."""
        d, test = self.difference, self.test
        return replace(
            self,
            what=self.against,
            against=self.what,
            difference=Difference(-d.mean, -d.high, -d.low, d.rows),
            test=PairedTest(test.only_b, test.only_a, test.p),
        )


@dataclass(frozen=True)
class Findings:
    """The comparisons of one data set."""

    rows: tuple[Finding, ...]
    family: Mapping[str, int]
    """Number of different comparisons of each kind in the report, over all its data sets, and of
    the primary ones on this data set."""

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

    def among(self, kinds: Sequence[Kind], jobs: Sequence[FinishedJob | None]) -> list[Finding]:
        """Find the comparisons of some kinds for some jobs, ordered by kind and then by job."""
        found = [row for row in self.rows if row.kind in kinds and row.what in jobs]
        return sorted(found, key=lambda row: (kinds.index(row.kind), jobs.index(row.what)))

    def identified(self, kind: Kind, recipes: Mapping[str, str]) -> dict[Finding, JobIdentity]:
        """Map each comparison of a kind to the identity of its job, in the order of the tables.

        Args:
            kind: the kind.
            recipes: recipe to its name, by which comparisons are sorted first.
        """
        found = {
            row: identity
            for row in self.rows
            if row.kind == kind and row.what and (identity := identity_of(row.what))
        }

        def order(row: Finding) -> tuple[object, ...]:
            one = found[row]
            return recipes[one.recipe], sorted(one.lexical), len(one.models), one.model_names

        return {row: found[row] for row in sorted(found, key=order)}


def find_all(groups: Sequence[DataGroup]) -> dict[DataGroup, Findings]:
    """Compare all that the report shows, and adjust for the number of comparisons.

    - The baseline, the last and the best layer of every model, and every fusion are compared with
      the single layer that is chosen.
    - The chosen fusion, and the job that is chosen among all, are compared with the last layer of
      the model of that single layer.
    - Every fusion, and every single layer that a selection took, is compared with the baseline.
    - Every other fusion is compared with `concat` on the same layers, where there is such a job.
    - Every job on several models is compared with the one of them alone that is chosen, where each
      of them was run alone under the same settings.
    - Every job with lexical sources is compared with the same job without them, if there is one.
    """
    found = {group: _compare(group) for group in groups}
    # Jobs that chose among different models may end in the same layers. They count as one
    # comparison; a job that ends in the layers it is compared with counts as none.
    asked = grouped(
        (
            (_family(group, row), _question(group, row), row.test.p)
            for group, rows in found.items()
            for row in rows
            if _system(row.what) != _system(row.against)
        ),
        lambda one: one[0],
    )
    adjusted: dict[object, float] = {}
    sizes: dict[tuple[str, str], int] = {}
    for family, members in asked.items():
        p_values = {question: p for _, question, p in members}
        adjusted |= zip(p_values, holm(list(p_values.values())), strict=True)
        sizes[family] = len(p_values)

    def judged(group: DataGroup, row: Finding) -> Finding:
        family = _family(group, row)
        p = adjusted.get(_question(group, row), 1.0)
        return replace(row, adjusted=p, family=family[0], among=sizes.get(family, 0))

    return {
        group: Findings(
            tuple(judged(group, row) for row in rows),
            {name: size for (name, data), size in sizes.items() if data in ("", group.key)},
        )
        for group, rows in found.items()
    }


def between_sweeps(pairs: Sequence[tuple[FinishedJob, FinishedJob]]) -> list[Finding]:
    """Compare what one sweep chose with what another chose, on the same test rows.

    All pairs are one family. A pair of which both are the same system has a p-value of 1, and does
    not count.
    """
    found = [_paired("sweep", *pair) for pair in pairs]
    asked = [n for n, (a, b) in enumerate(pairs) if not same_system(a, b)]
    adjusted = dict(zip(asked, holm([found[n].test.p for n in asked]), strict=True))
    return [
        replace(one, adjusted=adjusted.get(n, 1.0), family="sweep", among=len(asked))
        for n, one in enumerate(found)
    ]


def worth_their_price(jobs: Sequence[FinishedJob]) -> dict[FinishedJob, Finding]:
    """Compare each of some jobs on test with the dearest cheaper one that is worth its price.

    The cheapest is worth its price; any other is where its comparison has the verdict `gain`. Each
    job but the cheapest is compared once, and p is corrected for that number (Bonferroni).

    Args:
        jobs: the cheapest first.

    Returns:
        Each job but the cheapest to its comparison.
    """
    found: dict[FinishedJob, Finding] = {}
    worth, number = jobs[0], len(jobs) - 1
    for job in jobs[1:]:
        one = _paired("price", job, worth)
        p = min(1.0, number * one.test.p)
        found[job] = replace(one, adjusted=p, family="price", among=number)
        worth = job if found[job].verdict == "gain" else worth
    return found


def same_system(a: FinishedJob, b: FinishedJob) -> bool:
    """Tell whether two jobs have the same settings and the same sources."""
    return _system(a) == _system(b)


def _family(group: DataGroup, row: Finding) -> tuple[str, str]:
    """Name the family of a comparison, and the data set if it has a family of its own there."""
    return (PRIMARY, group.key) if _is_primary(group, row) else (row.kind, "")


def _is_primary(group: DataGroup, row: Finding) -> bool:
    answers = (group.chosen_fusion, group.best)
    if row.kind == "layer":
        return row.what in (None, last_layer(group), *answers)
    return row.kind == "last" or (row.kind == "baseline" and row.what in answers)


def last_layer(group: DataGroup) -> FinishedJob | None:
    """The last layer of the model of the chosen single layer, if it was run alone."""
    return group.curve_of(group.chosen).last if group.chosen else None


def _question(group: DataGroup, row: Finding) -> tuple[object, ...]:
    """Identify a comparison by its kind, its data and the systems that it compares."""
    return _family(group, row), group.key, _system(row.what), _system(row.against)


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
    rows += [_with_baseline(job) for job in (*group.fused, *group.repeats)]
    last = last_layer(group)
    if last is not None and last is not group.chosen:
        answers = dict.fromkeys((group.chosen_fusion, group.best))
        found = [job for job in answers if job not in (None, last, group.chosen)]
        rows += [_paired("last", job, last) for job in found if job]
    for jobs in grouped(group.fused, layers_of).values():
        plain = [job for job in jobs if job.record.fusion_label == "concat"]
        others = [job for job in jobs if job not in plain] if plain else []
        rows += [_paired("concat", job, best_chosen(plain)) for job in others]
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
    return _finding(kind, job, reference, over(job, reference), tested(job, reference))


def _with_baseline(job: FinishedJob) -> Finding:
    test, exact = tested_over_baseline(job), job.baseline is not None
    return _finding("baseline", job, None, over_baseline(job), test, exact=exact)


def _finding(
    kind: Kind,
    what: FinishedJob,
    against: FinishedJob | None,
    difference: Difference,
    test: PairedTest,
    *,
    exact: bool = True,
) -> Finding:
    """Make test and interval agree, by the more cautious of the two."""
    smallest = difference.smallest_shown  # before the interval is stretched
    if test.p >= ALPHA:
        smallest = max(smallest, least_shown(abs(difference.mean)))  # it is itself not shown
        low, high = min(difference.low, 0.0), max(difference.high, 0.0)
        difference = replace(difference, low=low, high=high)
    elif difference.verdict == "open":
        test = replace(test, p=ALPHA if exact else 1.0)
    return Finding(kind, what, against, difference, test, exact, test.p, smallest_shown=smallest)
